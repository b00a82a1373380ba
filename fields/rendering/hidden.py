"""Leaving out what lies behind opaque surfaces: of any field's samples, those that a ray still sees.

Rays are followed front to back, some samples at a time, by density alone; a ray that has become opaque is not followed
further. What is left out has a weight of less than the least transmittance that is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.kernels import ops
from fields.kernels.ops import Samples

AT_ONCE = 4
"""First samples of a ray that are evaluated together. Later there are more of them: half as many as before, so that the
few long rays take few rounds."""


@runtime_checkable
class Front(Protocol):
    """How far rays have been followed."""

    def next(self) -> Int[Tensor, " N"]:
        """The samples to evaluate now; none where no ray goes on."""
        ...

    def absorb(self, sigma: Float[Tensor, " N"]) -> None:
        """Their densities."""
        ...

    def seen(self) -> tuple[Int[Tensor, " R1"], Int[Tensor, " M"], Int[Tensor, " M"]]:
        """(offsets, indices) of the samples that are seen, and their places among all that were evaluated."""
        ...


@torch.no_grad()
def without_hidden(
    s: Samples, sigma: Callable[[Int[Tensor, " N"]], Float[Tensor, " N"]], min_transmittance: float
) -> tuple[Samples, Int[Tensor, " M"]]:
    """The samples in front of which a ray's transmittance is at least `min_transmittance`, and their places among those
    that `sigma` was asked of.

    `sigma` gives the density of N samples by their indices, per unit of t; it is asked once for a sample at most.
    """
    front = front_of(s, min_transmittance)
    while len(index := front.next()) > 0:
        front.absorb(sigma(index))
    offsets, index, row = front.seen()
    t0, t1, x, ray = (value.index_select(0, index) for value in (s.t0, s.t1, s.x, s.ray))
    return Samples(offsets, t0, t1, x, ray), row


def front_of(s: Samples, min_transmittance: float) -> Front:
    """Where rays begin."""
    if s.t0.device.type == "cpu" and ops.is_native(s.t0, s.t1):
        return ops.core_for(s.t0).Front(s.offsets, s.t0, s.t1, -math.log(min_transmittance), AT_ONCE)
    return TorchFront(s, min_transmittance)


class TorchFront:
    """The front on any device, and in any precision."""

    def __init__(self, s: Samples, min_transmittance: float) -> None:
        self.offsets, self.length = s.offsets, s.t1 - s.t0
        self.begin, self.count = s.offsets[:-1], s.offsets.diff()
        self.passed = torch.zeros_like(self.count, dtype=s.t0.dtype)  # optical depth so far
        self.kept = torch.zeros_like(self.count)
        self.limit = -math.log(min_transmittance)
        self.ray = (self.count > 0).nonzero()[:, 0]
        self.row, self.n = torch.zeros_like(s.ray, dtype=torch.int64), 0
        self.first = 0

    def next(self) -> Int[Tensor, " N"]:
        """The samples to evaluate now."""
        step = torch.arange(max(AT_ONCE, self.first // 2), device=self.ray.device)
        place = self.begin[self.ray, None] + self.first + step  # [rays, samples of this round]
        self.there = self.first + step < self.count[self.ray, None]
        self.found = place[self.there]
        self.row[self.found] = torch.arange(self.n, self.n + len(self.found), device=self.row.device)
        self.n += len(self.found)
        return self.found

    def absorb(self, sigma: Float[Tensor, " N"]) -> None:
        """Their densities."""
        ray, there = self.ray, self.there
        thickness = self.length.new_zeros(there.shape)
        thickness[there] = sigma * self.length[self.found]
        behind = self.passed[ray, None] + thickness.cumsum(1)
        in_front = torch.cat([self.passed[ray, None], behind[:, :-1]], dim=1)
        self.kept[ray] += (there & (in_front <= self.limit)).sum(1)
        self.passed[ray] = behind[:, -1]
        self.first += there.shape[1]
        self.ray = ray[(behind[:, -1] <= self.limit) & (self.count[ray] > self.first)]

    def seen(self) -> tuple[Int[Tensor, " R1"], Int[Tensor, " M"], Int[Tensor, " M"]]:
        """What is seen."""
        offsets = torch.cat([self.kept.new_zeros(1), self.kept.cumsum(0)])
        place = torch.arange(int(offsets[-1]), device=offsets.device)
        ray = torch.repeat_interleave(self.kept)
        index = self.begin[ray] + place - offsets[ray]
        return offsets, index, self.row[index]
