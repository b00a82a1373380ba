"""Samples that a ray never sees, since what is in front of them is opaque: they have no weight and get no gradient."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels.ops import Samples


def without_hidden(s: Samples, sigma: Float[Tensor, " S"], min_transmittance: float) -> Samples:
    """The samples of each ray in front of which it keeps at least `min_transmittance`; `sigma` is their density."""
    thickness = torch.cat([sigma.new_zeros(1, dtype=torch.float64), (sigma * (s.t1 - s.t0)).double().cumsum(0)])
    start = thickness[s.offsets[:-1].long()]
    keep = thickness[:-1] - start[s.ray.long()] <= -math.log(min_transmittance)
    kept = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
    offsets = kept[s.offsets.long()].to(s.offsets.dtype)
    return Samples(offsets, s.t0[keep], s.t1[keep], s.x[keep], s.ray[keep])
