"""Lines and planes of features: grids over some of the coordinates, whose resolution may grow while a field is fitted.

A factor's table has room for its finest resolution from the start. At an earlier stage the vertices of a coarser grid
fill the beginning of each level; growing interpolates them onto the next grid, which leaves the field as it was up to
that interpolation (TensoRF, Chen et al. 2022, section 4). So a parameter stays the same tensor, and a table together
with its stage is all that going on with a fit needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fields.encodings.table import GridTable, views
from fields.kernels import ops
from fields.kernels.shapes import ALIGNMENT, GridLevelShape, GridShape
from scenes.errors import InputError

MAX_GRIDS = 32


@dataclass(frozen=True)
class Growth:
    """Resolutions from coarse to fine, and when each of them is reached."""

    resolutions: tuple[int, ...]
    """Cells along an edge of the unit cube, stage by stage."""
    grown_by: float = 0.0
    """The share of the fit that is done when the last of them is reached; the stages before it last equally long."""

    @staticmethod
    def geometric(base: int, finest: int, stages: int, grown_by: float) -> Growth:
        """From `base` to `finest` cells in geometric progression.

        Raises:
            InputError: numbers that are no such progression.
        """
        if not 2 <= base <= finest or stages < 1 or not 0 <= grown_by <= 1:
            raise InputError(
                f"grid: expected 2 <= base_resolution <= resolution, stages >= 1 and 0 <= grown_by <= 1, "
                f"got {base}, {finest}, {stages}, {grown_by:g}"
            )
        if stages == 1:
            return Growth((finest,))
        return Growth(tuple(round(base * (finest / base) ** (s / (stages - 1))) for s in range(stages)), grown_by)

    def stage(self, progress: float) -> int:
        """The stage that a fit is in."""
        last = len(self.resolutions) - 1
        return last if progress >= self.grown_by else int(last * progress / self.grown_by)


def dense_grids(dim: int, channels: int, resolutions: Sequence[int], room: Sequence[int] | None = None) -> GridShape:
    """Dense grids of `channels` features at each of the resolutions, as levels of a table.

    A level has at most eight features, so several levels of the same resolution make up the channels. `room` is the
    resolution that each grid's part of the table is made for, by default its own.

    Raises:
        InputError: a table beyond any memory, or channels that no kernel computes.
    """
    features = next(f for f in (8, 4, 2, 1) if channels % f == 0)
    if channels < 1 or channels // features * len(resolutions) > MAX_GRIDS:
        most = MAX_GRIDS // len(resolutions) * features
        raise InputError(f"grid: expected 1 to {most} features (multiples of 8 for the most), got {channels}")
    levels, offset = [], 0
    for cells, made_for in zip(resolutions, room or resolutions, strict=True):
        entries = -(-((made_for + 1) ** dim) // ALIGNMENT) * ALIGNMENT
        for _ in range(channels // features):
            levels.append(GridLevelShape(offset, entries, cells + 1, hashed=False, scale=cells - 1.0))
            offset += entries
    if offset * features > 2**31:
        raise InputError(f"grid: {offset * features:,} parameters are too many; lower the resolution or the features")
    return GridShape(dim, features, tuple(levels))


def interpolation(coarse: GridLevelShape, fine: GridLevelShape) -> Float[Tensor, "R Q"]:
    """Weights of the Q vertices of a coarser axis in each of the R vertices of a finer one; a row sums to one."""
    place = torch.arange(fine.resolution, dtype=torch.float64) - 0.5
    place = (place * (coarse.scale / fine.scale) + 0.5).clamp(0, coarse.resolution - 1)
    return (1 - (place[:, None] - torch.arange(coarse.resolution)).abs()).clamp(min=0)


class Factor(GridTable):
    """Features over some of the coordinates."""

    stage: Tensor

    def __init__(self, axes: tuple[int, ...], channels: int, growth: Growth) -> None:
        finest = growth.resolutions[-1:]
        stages = tuple(dense_grids(len(axes), channels, [r], finest) for r in growth.resolutions)
        super().__init__(stages[-1])
        self.axes, self.growth, self.stages = axes, growth, stages
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def draw(self, mean: float, deviation: float, generator: torch.Generator) -> None:
        """Normal values at the first stage's resolution."""
        self.stage.zero_()
        self.table.normal_(mean, deviation, generator=generator)

    def grids(self) -> list[Tensor]:
        """All features at the stage's resolution, as one view."""
        return views(self.table, self.stages[int(self.stage)])

    @torch.no_grad()
    def advance(self, progress: float) -> None:
        """Grow to the resolution that is due; a fit that goes on for longer than was planned does not shrink it."""
        due = self.growth.stage(progress)
        if due <= int(self.stage):
            return
        (values,) = self.grids()
        weights = interpolation(self.stages[int(self.stage)].levels[0], self.stages[due].levels[0]).to(values)
        for axis in range(1, values.ndim - 1):
            values = torch.movedim(torch.tensordot(weights, values.movedim(axis, 0), dims=1), 0, axis)
        self.stage.fill_(due)
        self.grids()[0].copy_(values)
        self.resampled = True

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """Features at points of the unit cube, of all its coordinates."""
        mine = x if len(self.axes) == x.shape[1] else x[:, self.axes]
        return ops.grid_encode(mine, self.table, self.stages[int(self.stage)], self.gathered)


def product(values: Sequence[Tensor]) -> Tensor:
    """Of all of them, entry by entry."""
    result = values[0]
    for value in values[1:]:
        result = result * value
    return result


def check_room(name: str, dim: int, allowed: Sequence[int], instead: str) -> None:
    """Raise InputError unless an encoding has a form in this many dimensions."""
    if dim not in allowed:
        raise InputError(
            f"{name}: works in {' or '.join(map(str, allowed))} dimensions, got {dim}; take --encoding {instead}"
        )
