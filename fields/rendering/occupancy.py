"""Where a radiance field is not empty: a grid of bits that marching reads, refreshed from the field's density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fields.kernels import ops

CHUNK = 2**18


@dataclass(frozen=True)
class OccupancyConfig:
    """The occupancy grid."""

    resolution: int = 128
    """Cells per axis."""
    update_every: int = 16
    """Steps of fitting between refreshes."""
    update_cells: int = 2**16
    """Cells visited by a refresh: half drawn from all, half from the occupied."""
    warmup_updates: int = 8
    """First refreshes, which visit four times as many cells."""
    decay: float = 0.95
    """What a refresh leaves of a cell's largest density so far."""
    threshold: float = 0.01
    """A cell is occupied where one smallest step through it has at least this optical thickness."""


class Occupancy(nn.Module):
    """Largest recent density of each cell, and the bits of those that count."""

    density: Tensor
    bits: Tensor
    allowed: Tensor

    def __init__(self, config: OccupancyConfig) -> None:
        super().__init__()
        self.config = config
        r = config.resolution
        self.register_buffer("density", torch.full((r**3,), math.inf))  # inf: never visited, so occupied
        self.register_buffer("bits", ops.pack_bits(torch.ones(r, r, r, dtype=torch.bool)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("allowed", ops.pack_bits(torch.ones(r, r, r, dtype=torch.bool)))

    @property
    def occupied(self) -> Bool[Tensor, "R R R"]:
        """Cells [z, y, x] that rays stop in."""
        return ops.unpack_bits(self.bits, self.config.resolution)

    def restrict(self, allowed: Bool[Tensor, "R R R"]) -> None:
        """Never stop in cells outside of `allowed` [z, y, x], for example those that no camera sees."""
        self.allowed.copy_(ops.pack_bits(allowed))
        self.bits.copy_(self.bits & self.allowed)

    def cells(self, index: Int[Tensor, " N"], offset: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Field coordinates of points in cells, `offset` in [0, 1) of a cell."""
        r = self.config.resolution
        corner = torch.stack([index % r, index // r % r, index // (r * r)], dim=1)
        return (corner + offset) / r

    @torch.no_grad()
    def refresh(self, sigma: Callable[[Tensor], Tensor], step: float, generator: torch.Generator) -> None:
        """Visit some cells at random points; `step` is the smallest step of a ray."""
        c, n_cells = self.config, self.config.resolution**3
        warm = int(self.updates) < c.warmup_updates
        count = c.update_cells * (4 if warm else 1)
        index = torch.randint(n_cells, (min(count, n_cells) // 2,), generator=generator)
        occupied = self.occupied.view(-1).nonzero()[:, 0]
        if len(occupied) > 0:
            pick = torch.randint(len(occupied), (len(index),), generator=generator)
            index = torch.cat([index, occupied[pick]])
        offset = torch.rand(len(index), 3, generator=generator)
        visited = torch.cat([sigma(self.cells(i, o)) for i, o in zip(index.split(CHUNK), offset.split(CHUNK), strict=True)])
        fresh = torch.isinf(self.density[index])
        self.density.mul_(c.decay)
        self.density[index[fresh]] = 0.0
        self.density.scatter_reduce_(0, index, visited, "amax")
        threshold = c.threshold / step
        finite = self.density[torch.isfinite(self.density)]
        if len(finite):
            threshold = min(threshold, float(finite.mean()))
        r = c.resolution
        self.bits.copy_(ops.pack_bits((self.density > threshold).view(r, r, r)) & self.allowed)
        self.updates += 1
