"""Sphere tracing (Hart 1996): where rays first meet the zero of a distance field.

A ray advances by the distance to the nearest surface, which cannot carry it through one. Fitted fields are not quite
distances: steps are shortened by a factor, a change of sign is bracketed and bisected, and a ray always moves on by at
least the tolerance. Lengths inside are edges of the unit cube; what comes out is in world units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scenes.box import Box
from scenes.rays import Rays

Distance = Callable[[Tensor], Tensor]
"""[N, 3] of the unit cube -> signed distance [N, 1] or [N], negative inside, in edges of the cube."""


@dataclass(frozen=True)
class TraceConfig:
    """How rays find a surface."""

    max_steps: int = 128
    """Steps after which a ray that is still on its way counts as a miss."""
    tolerance: float = 2e-4
    """A ray this close to the surface has met it; also the shortest step. Edges of the unit cube."""
    step_factor: float = 0.9
    """How much of the distance a step takes: less for fields that overstate it."""
    bisections: int = 10
    """Halvings of the interval in which the sign changed."""
    normals: Literal["differences", "autograd"] = "differences"
    """Central differences, or the field's own derivative."""
    normal_step: float = 1e-3
    """Of the central differences, in edges of the unit cube."""
    chunk: int = 1 << 16
    """Points given to the field at once."""


@dataclass
class Hits:
    """What N rays meet."""

    hit: Bool[Tensor, " N"]
    depth: Float[Tensor, " N"]
    """Along the ray, world units; infinity for a miss."""
    normal: Float[Tensor, "N 3"]
    """Outward, unit length; zero for a miss."""
    position: Float[Tensor, "N 3"]
    """In the unit cube; for a miss, where the ray leaves the box."""


@torch.no_grad()
def trace(distance: Distance, rays: Rays, box: Box, config: TraceConfig | None = None, crop: Box | None = None) -> Hits:
    """The first point of each ray inside the box, and inside the crop of the world, where `distance` is not positive.

    A ray that begins inside of the surface, or enters the box there, meets it at once.
    """
    config = config or TraceConfig()
    origins, directions = box.to_unit(rays.origins), rays.directions
    t, t_end = _inside(origins, directions, box, box)
    if crop is not None:
        begin, end = _inside(origins, directions, box, crop)
        t, t_end = torch.maximum(t, begin), torch.minimum(t_end, end)
    met, brackets = _march(distance, origins, directions, t, t_end, config)
    t = t_end.clamp(min=0)
    t[met] = _refined(distance, origins[met], directions[met], brackets, config)
    t = torch.minimum(t, t_end.clamp(min=0))
    hit = torch.zeros_like(t, dtype=torch.bool)
    hit[met] = True
    position = origins + t[:, None] * directions
    normal = torch.zeros_like(position)
    normal[hit] = normals(distance, position[hit], config)
    return Hits(hit, torch.where(hit, t * box.side, math.inf), normal, position)


def _march(
    distance: Distance,
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    t: Float[Tensor, " N"],
    t_end: Float[Tensor, " N"],
    config: TraceConfig,
) -> tuple[Int[Tensor, " M"], Float[Tensor, "M 4"]]:
    """Which rays meet something, and between which two samples: (t0, t1, d0, d1) of each, nothing known of d0 where it
    is infinite."""
    index = (t <= t_end).nonzero()[:, 0]
    state = torch.stack([t, t, torch.full_like(t, math.inf), t_end], 1)
    # Of a ray that goes on: origin (0 to 2), direction (3 to 5), t (6), the t before (7), d there (8), the end (9).
    going = torch.cat([origins, directions, state], 1)[index]
    met, brackets = [index[:0]], [state[:0]]
    for _ in range(config.max_steps):
        if len(index) == 0:
            break
        t = going[:, 6]
        d = evaluate(distance, torch.addcmul(going[:, :3], going[:, 6:7], going[:, 3:6]), config.chunk)
        found = d <= config.tolerance
        at = found.nonzero()[:, 0]
        if len(at):
            met.append(index[at])
            brackets.append(torch.stack([going[at, 7], t[at], going[at, 8], d[at]], 1))
        after = t + (config.step_factor * d).clamp(min=config.tolerance)
        going[:, 7], going[:, 8] = t, d
        going[:, 6] = after
        on = (~found & (after <= going[:, 9])).nonzero()[:, 0]
        if len(on) < len(index):
            index, going = index[on], going[on]
    return torch.cat(met), torch.cat(brackets)


def evaluate(distance: Distance, x: Float[Tensor, "N 3"], chunk: int) -> Float[Tensor, " N"]:
    """Distances at any number of points; what is not a number counts as far outside."""
    parts = [distance(part).reshape(-1) for part in x.split(chunk)] if len(x) else [x[:, 0]]
    return torch.nan_to_num(torch.cat(parts), nan=1.0)


def normals(distance: Distance, x: Float[Tensor, "N 3"], config: TraceConfig) -> Float[Tensor, "N 3"]:
    """Unit gradients of the distance; where it has none, the direction is up to rounding."""
    if config.normals == "autograd":
        gradient = torch.cat([_gradient(distance, part) for part in x.split(config.chunk)]) if len(x) else x
    else:
        offsets = config.normal_step * torch.eye(3, dtype=x.dtype, device=x.device)
        sides = [evaluate(distance, (x[:, None] + s * offsets).reshape(-1, 3), config.chunk) for s in (1, -1)]
        gradient = (sides[0] - sides[1]).view(-1, 3)
    return torch.nn.functional.normalize(gradient, dim=-1, eps=1e-20)


def _gradient(distance: Distance, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(distance(x).sum(), x)[0]


def _inside(
    origins: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], box: Box, part: Box
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Where rays in the unit cube of `box` enter and leave `part` of the world, behind the origin excluded; a ray that
    misses leaves before it enters."""
    lo, hi = box.to_unit(origins.new_tensor([part.lo, part.hi]))
    d = torch.where(directions.abs() < 1e-12, 1e-12, directions)
    a, b = (lo - origins) / d, (hi - origins) / d
    return torch.minimum(a, b).amax(-1).clamp(min=0), torch.maximum(a, b).amin(-1)


def _refined(
    distance: Distance,
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    brackets: Float[Tensor, "N 4"],
    config: TraceConfig,
) -> Float[Tensor, " N"]:
    """The zero between two samples (t0, t1, d0, d1): bisected where the sign changed, else extrapolated a little."""
    t0, t1, d0, d1 = brackets.unbind(1)
    slope = ((d0 - d1) / (t1 - t0)).clamp(min=0.25)  # of a grazing ray next to nothing: do not run far
    result = torch.where(torch.isfinite(d0), t1 + d1.clamp(min=0) / slope.clamp(max=1e6), t1)
    crossed = ((d1 < 0) & torch.isfinite(d0)).nonzero()[:, 0]
    low, high = t0[crossed], t1[crossed]
    for _ in range(config.bisections if len(crossed) else 0):
        middle = 0.5 * (low + high)
        d = evaluate(distance, origins[crossed] + middle[:, None] * directions[crossed], config.chunk)
        low, high = torch.where(d > 0, middle, low), torch.where(d > 0, high, middle)
    result[crossed] = 0.5 * (low + high)
    return result
