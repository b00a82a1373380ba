"""Leaving out what lies behind opaque surfaces: of any field's samples, those that a ray still sees.

Rays are followed front to back, some samples at a time, by density alone; a ray that has become opaque is not followed
further. What is left out has a weight of less than the least transmittance that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.kernels.ops import Samples

AT_ONCE = 4
"""First samples of a ray that are evaluated together. Later there are more of them: half as many as before, so that the
few long rays take few rounds."""


@torch.no_grad()
def without_hidden(
    s: Samples, sigma: Callable[[Int[Tensor, " N"]], Float[Tensor, " N"]], min_transmittance: float
) -> tuple[Samples, Int[Tensor, " M"]]:
    """The samples in front of which a ray's transmittance is at least `min_transmittance`, and their indices.

    `sigma` gives the density of N samples by their indices, per unit of t; it is asked once for a sample at most.
    """
    begin, count = s.offsets[:-1].long(), s.offsets.diff().long()
    passed = torch.zeros(len(count), dtype=s.t0.dtype, device=s.t0.device)  # optical depth so far
    kept = torch.zeros_like(count)
    limit = -torch.log(torch.tensor(min_transmittance, dtype=s.t0.dtype, device=s.t0.device))
    ray = (count > 0).nonzero()[:, 0]
    length = s.t1 - s.t0
    first = 0
    while len(ray) > 0:
        step = torch.arange(max(AT_ONCE, first // 2), device=count.device)
        place = begin[ray, None] + first + step  # [rays, samples of this round]
        there = first + step < count[ray, None]
        found = place[there]
        thickness = s.t0.new_zeros(place.shape)
        thickness[there] = sigma(found) * length[found]
        behind = passed[ray, None] + thickness.cumsum(1)
        in_front = torch.cat([passed[ray, None], behind[:, :-1]], dim=1)
        kept[ray] += (there & (in_front <= limit)).sum(1)
        passed[ray] = behind[:, -1]
        first += len(step)
        ray = ray[(behind[:, -1] <= limit) & (count[ray] > first)]
    offsets = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
    index = s.ray.long()
    seen = (torch.arange(len(index), device=index.device) - begin[index] < kept[index]).nonzero()[:, 0]
    return Samples(offsets.to(s.offsets.dtype), s.t0[seen], s.t1[seen], s.x[seen], s.ray[seen]), seen
