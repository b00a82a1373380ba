"""Where a radiance field is not empty: a grid of bits that marching reads, refreshed from the field's density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fields.kernels.bits import pack_bits, set_bits, unpack_bits, visit_cells
from scenes.capture import Capture
from scenes.visibility import may_be_solid

CHUNK = 2**18


def ball_radius(x: Float[Tensor, "N 3"], half: float, to_world: Callable[[Tensor], Tensor]) -> Float[Tensor, " N"]:
    """Radius in world units of balls around cells with these middles and this half edge, in field coordinates."""
    middle = to_world(x)
    far, near = (to_world(x + torch.full((1, 3), h)) for h in (half, -half))
    return torch.maximum((far - middle).norm(dim=-1), (near - middle).norm(dim=-1))


@dataclass(frozen=True)
class OccupancyConfig:
    """The occupancy grid."""

    resolution: int = 128
    """Cells per axis."""
    update_every: int = 16
    """Steps of fitting between refreshes."""
    update_cells: int = 2**16
    """Cells visited by a refresh: half drawn from all that are allowed, half from the occupied."""
    warmup_updates: int = 8
    """First refreshes, which visit four times as many cells."""
    decay: float = 0.8
    """What a visit leaves of a cell's largest density so far."""
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
        self.register_buffer("bits", pack_bits(torch.ones(r, r, r, dtype=torch.bool)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("allowed", pack_bits(torch.ones(r, r, r, dtype=torch.bool)))

    @property
    def occupied(self) -> Bool[Tensor, "R R R"]:
        """Cells [z, y, x] that rays stop in."""
        return unpack_bits(self.bits, self.config.resolution)

    def restrict(self, allowed: Bool[Tensor, "R R R"]) -> None:
        """Never stop in cells outside of `allowed` [z, y, x], for example those that no camera sees."""
        self.allowed.copy_(pack_bits(allowed))
        self.bits.copy_(self.bits & self.allowed)

    @torch.no_grad()
    def carve(self, capture: Capture, to_world: Callable[[Tensor], Tensor]) -> None:
        """Leave out what the photographs show as empty or do not show, from coarse cells to fine ones."""
        r, coarse = self.config.resolution, max(self.config.resolution // 2, 1)
        middles = self.middles(coarse)
        kept = may_be_solid(capture, to_world(middles), ball_radius(middles, 0.5 / coarse, to_world))
        grid = kept.view(1, 1, coarse, coarse, coarse).float()
        allowed = nn.functional.interpolate(grid, size=(r, r, r))[0, 0].bool()
        index = allowed.view(-1).nonzero()[:, 0]
        middles = self.cells(index, torch.full((len(index), 3), 0.5))
        allowed.view(-1)[index] = may_be_solid(capture, to_world(middles), ball_radius(middles, 0.5 / r, to_world))
        self.restrict(allowed)

    @staticmethod
    def middles(resolution: int) -> Float[Tensor, "N 3"]:
        """Field coordinates of the middles of all cells of a grid, x fastest."""
        axis = (torch.arange(resolution) + 0.5) / resolution
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        return torch.stack([x, y, z], dim=-1).view(-1, 3)

    def cells(self, index: Int[Tensor, " N"], offset: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Field coordinates of points in cells, `offset` in [0, 1) of a cell."""
        r = self.config.resolution
        corner = torch.stack([index % r, index // r % r, index // (r * r)], dim=1)
        return (corner + offset) / r

    @torch.no_grad()
    def refresh(self, sigma: Callable[[Tensor], Tensor], step: float, generator: torch.Generator) -> None:
        """Visit some cells at random points; `step` is the smallest step of a ray."""
        c = self.config
        warm = int(self.updates) < c.warmup_updates
        count = c.update_cells * (4 if warm else 1)
        cells = [set_bits(words, c.resolution) for words in (self.allowed, self.bits)]
        index = torch.cat([_some(of, count // 2, generator) for of in cells])
        offset = torch.rand(len(index), 3, generator=generator, device=generator.device).to(index.device)
        x = self.cells(index, offset)
        found = torch.cat([sigma(part) for part in x.split(CHUNK)])
        visit_cells(index, found, c.decay, c.threshold / step, self.allowed, self.density, self.bits)
        self.updates += 1


def _some(cells: Int[Tensor, " N"], count: int, generator: torch.Generator) -> Int[Tensor, " M"]:
    """All cells, or one at random of each of `count` equal shares, in order: neighbours are evaluated together."""
    if len(cells) <= count:
        return cells
    place = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64).to(cells.device)
    share = (torch.arange(count, device=cells.device) + place) * (len(cells) / count)
    return cells[share.long().clamp(max=len(cells) - 1)]
