"""Feature grids on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fields.kernels.cuda_arguments import MAX_LEVELS, GridLevel, GridLevels, MachineOf, blocks, expect, expect_tensor
from fields.kernels.nvrtc import Program
from fields.kernels.shapes import ALIGNMENT

SHARED_RESOLUTION = 128
"""Up to this many vertices per axis, neighbouring samples meet in a level's vertices and a warp sums before it adds."""


class GridSpec:
    """A grid's levels, ready for kernels."""

    def __init__(
        self, machine_of: MachineOf, dim: int, features: int, levels: Sequence[tuple[int, int, int, int | float]]
    ) -> None:
        expect(dim in (1, 2, 3, 4), f"a grid has 1 to 4 dimensions, got {dim}")
        expect(features in (1, 2, 4, 8), f"a grid has 1, 2, 4 or 8 features per level, got {features}")
        expect(1 <= len(levels) <= MAX_LEVELS, f"a grid has 1 to {MAX_LEVELS} levels, got {len(levels)}")
        self.machine_of, self.dim, self.features = machine_of, dim, features
        self.width, self.entries = len(levels) * features, 0
        self.levels = GridLevels(len(levels))
        for i, (entries, resolution, hashed, scale) in enumerate(levels):
            expect(0 <= scale <= resolution - 1.5, "a level needs scale + 1.5 vertices per axis at least")
            enough = entries > 0 and entries & (entries - 1) == 0 if hashed else entries >= resolution**dim
            expect(enough, "a level's table is too small")
            expect(entries % ALIGNMENT == 0, f"a level's table is a multiple of {ALIGNMENT} entries")
            self.levels.level[i] = GridLevel(self.entries, entries, resolution, int(hashed), scale)
            self.entries += entries
        expect(self.entries < 2**32, "a grid has fewer than 2^32 entries")
        self.shared_resolution = SHARED_RESOLUTION
        self.program = Program("grid.cu", (("FF_DIM", dim), ("FF_FEATURES", features)))

    def check(self, x: Tensor, table: Tensor) -> int:
        """The number of points."""
        expect_tensor("x", x, (x.shape[0], self.dim))
        expect_tensor("table", table, (self.entries, self.features))
        return len(x)

    def forward(self, x: Tensor, table: Tensor, out: Tensor) -> None:
        """Write features [n, width] into `out`."""
        n = self.check(x, table)
        expect_tensor("out", out, (n, self.width))
        if n > 0:
            shape = blocks(n, 256), self.levels.n
            arguments = n, self.levels, x, table, out
            self.machine_of(x).launch(self.program, "grid_forward", shape, 256, 0, arguments)

    def backward(
        self,
        x: Tensor,
        table: Tensor,
        d_out: Tensor,
        d_table: Tensor | None,
        touched: Tensor | None,
        d_x: Tensor | None,
    ) -> None:
        """Add to `d_table` and mark in `touched` what was added to, write `d_x`."""
        n = self.check(x, table)
        expect_tensor("d_out", d_out, (n, self.width))
        if d_table is not None:
            expect_tensor("d_table", d_table, (self.entries, self.features))
        if touched is not None:
            expect_tensor("touched", touched, (self.entries // ALIGNMENT,), torch.uint8)
        if d_x is not None:
            expect_tensor("d_x", d_x, (n, self.dim))
        if n == 0:
            return
        machine = self.machine_of(x)
        if d_table is not None:
            shape = blocks(n, 256), self.levels.n
            arguments = n, self.levels, x, d_out, d_table, touched, self.shared_resolution
            machine.launch(self.program, "grid_backward_table", shape, 256, 0, arguments)
        if d_x is not None:
            arguments = n, self.levels, x, table, d_out, d_x
            machine.launch(self.program, "grid_backward_position", (blocks(n, 256), 1), 256, 0, arguments)
