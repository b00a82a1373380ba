"""A table of features at the vertices of grids, read by multilinear interpolation: what gridded encodings are of."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.kernels import ops
from fields.kernels.shapes import GridShape
from fields.kernels.table_gradient import TableGradient


class GridTable(nn.Module):
    """Features interpolated from every level's vertices, one level after another. Points are clamped to the cube."""

    def __init__(self, shape: GridShape) -> None:
        super().__init__()
        self.shape = shape
        self.width = shape.width
        self.table = nn.Parameter(torch.empty(shape.entries, shape.features))
        self.gathered: TableGradient | None = None
        """Set by an optimiser that takes the table's gradient from there."""
        self.resampled = False
        """Set where values moved to other entries, to whom the optimiser's moments do not belong."""

    def grid_parameters(self) -> list[nn.Parameter]:
        """The table."""
        return [self.table]

    def grids(self) -> list[Tensor]:
        """The dense levels, each run of equal resolution as one view [G, R, .., R, F]; the first coordinate is the last
        of the axes."""
        return views(self.table, self.shape)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N LF"]:
        """Features of all levels at points of the unit cube."""
        return ops.grid_encode(x, self.table, self.shape, self.gathered)


def views(table: Float[Tensor, "E F"], shape: GridShape) -> list[Tensor]:
    """The dense levels of a table; see `GridTable.grids`."""
    found = []
    dense = [level for level in shape.levels if not level.hashed]
    for (resolution, entries), run in itertools.groupby(dense, lambda level: (level.resolution, level.entries)):
        levels = list(run)
        part = table[levels[0].offset : levels[0].offset + len(levels) * entries].view(len(levels), entries, -1)
        axes = (resolution,) * shape.dim
        found.append(part[:, : resolution**shape.dim].view(len(levels), *axes, shape.features))
    return found
