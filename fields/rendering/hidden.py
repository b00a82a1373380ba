"""Leaving out what lies behind opaque surfaces: of any field's samples, those that a ray still sees.

Rays are followed front to back, some samples at a time, by density alone; a ray that has become opaque is not followed
further, and on a CPU not marched further. What is left out has a weight of less than the least transmittance that is
looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.kernels import ops
from fields.kernels.ops import RayBatch, Samples
from fields.kernels.shapes import MarchShape

AT_ONCE = 16
"""First samples of a ray that are evaluated together. Later there are more of them: as many as before, so that the few
long rays take few rounds."""


@runtime_checkable
class Front(Protocol):
    """How far rays have been followed."""

    def next(self) -> tuple[Float[Tensor, "N 3"], Int[Tensor, " N"]]:
        """Where to look now, in field coordinates, and on which rays; nowhere where no ray goes on."""
        ...

    def absorb(self, sigma: Float[Tensor, " N"]) -> None:
        """The densities there, per unit of t."""
        ...

    def seen(self) -> tuple[tuple[Tensor, ...], Int[Tensor, " M"]]:
        """The samples that are seen, as `Samples` has them, and their places among all that were looked at."""
        ...


@torch.no_grad()
def follow(
    front: Front, sigma: Callable[[Float[Tensor, "N 3"], Int[Tensor, " N"]], Float[Tensor, " N"]]
) -> tuple[Samples, Int[Tensor, " M"]]:
    """The samples that are seen, and their places among all that `sigma` was asked for; once for a sample at most."""
    while len((places := front.next())[0]) > 0:
        front.absorb(sigma(*places))
    samples, row = front.seen()
    return Samples(*samples), row


def front_of(rays: RayBatch, shape: MarchShape, min_transmittance: float) -> Front:
    """Where rays begin that are followed while their transmittance is at least `min_transmittance`."""
    if rays.origins.device.type == "cpu" and ops.is_native(rays.origins, rays.directions):
        batch = rays.origins.contiguous(), rays.directions.contiguous(), rays.jitter, rays.occupancy
        how = *ops.march_arguments(shape), shape.max_samples, -math.log(min_transmittance), AT_ONCE
        return ops.core_for(rays.origins).Front(*batch, *how)
    return TorchFront(ops.march(*rays, shape), min_transmittance)


class TorchFront:
    """The front on any device and in any precision, for rays that have been marched to their ends."""

    def __init__(self, s: Samples, min_transmittance: float) -> None:
        self.samples, self.offsets, self.length = s, s.offsets, s.t1 - s.t0
        self.begin, self.count = s.offsets[:-1], s.offsets.diff()
        self.passed = torch.zeros_like(self.count, dtype=s.t0.dtype)  # optical depth so far
        self.kept = torch.zeros_like(self.count)
        self.limit = -math.log(min_transmittance)
        self.ray = (self.count > 0).nonzero()[:, 0]
        self.row, self.n = torch.zeros_like(s.ray, dtype=torch.int64), 0
        self.first = 0

    def next(self) -> tuple[Float[Tensor, "N 3"], Int[Tensor, " N"]]:
        """Where to look now."""
        step = torch.arange(max(AT_ONCE, self.first), device=self.ray.device)
        place = self.begin[self.ray, None] + self.first + step  # [rays, samples of this round]
        self.there = self.first + step < self.count[self.ray, None]
        self.found = place[self.there]
        self.row[self.found] = torch.arange(self.n, self.n + len(self.found), device=self.row.device)
        self.n += len(self.found)
        return self.samples.x[self.found], self.samples.ray[self.found]

    def absorb(self, sigma: Float[Tensor, " N"]) -> None:
        """The densities there."""
        ray, there = self.ray, self.there
        thickness = self.length.new_zeros(there.shape)
        thickness[there] = sigma * self.length[self.found]
        behind = self.passed[ray, None] + thickness.cumsum(1)
        in_front = torch.cat([self.passed[ray, None], behind[:, :-1]], dim=1)
        self.kept[ray] += (there & (in_front <= self.limit)).sum(1)
        self.passed[ray] = behind[:, -1]
        self.first += there.shape[1]
        self.ray = ray[(behind[:, -1] <= self.limit) & (self.count[ray] > self.first)]

    def seen(self) -> tuple[tuple[Tensor, ...], Int[Tensor, " M"]]:
        """What is seen."""
        offsets = torch.cat([self.kept.new_zeros(1), self.kept.cumsum(0)])
        place = torch.arange(int(offsets[-1]), device=offsets.device)
        ray = torch.repeat_interleave(self.kept)
        index, s = self.begin[ray] + place - offsets[ray], self.samples
        return (offsets, s.t0[index], s.t1[index], s.x[index], s.ray[index]), self.row[index]
