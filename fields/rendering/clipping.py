"""A radiance field of which only a part is shown: the same weights, fewer cells that rays stop in."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.field import RadianceField
from fields.kernels.bits import pack_bits
from scenes.box import Box


@dataclass(frozen=True)
class Clip:
    """What is shown. Lengths are world units."""

    crop: Box | None = None
    """Nothing outside; to the cells of the occupancy grid that the box touches."""
    near: float = 0.0
    """Nothing nearer to the eye."""
    far: float = math.inf
    """Nothing farther from it."""


def clipped(field: RadianceField, clip: Clip, mask: Tensor | None = None) -> RadianceField:
    """The field, showing only a part. It shares everything with `field` but its occupied cells, which are those of now.

    `mask` is the crop's `crop_mask`, for those who ask often.
    """
    shown = copy.copy(field)
    shown.__dict__ = dict(field.__dict__)
    march, side = field.march, field.box.side
    shown.march = replace(march, near=max(march.near, clip.near / side), far=min(march.far, clip.far / side))
    if clip.crop is not None:
        mask = crop_mask(field, clip.crop) if mask is None else mask
        occupancy = copy.copy(field.occupancy)
        occupancy.__dict__ = dict(field.occupancy.__dict__)
        occupancy._buffers = {**field.occupancy._buffers, "bits": field.occupancy.bits & mask}
        shown._modules = {**field._modules, "occupancy": occupancy}
    return shown


@torch.no_grad()
def crop_mask(field: RadianceField, crop: Box) -> Tensor:
    """Bits of the occupancy grid's cells that touch a box of the world, as far as their corners tell."""
    r = field.occupancy.config.resolution
    axis = torch.linspace(0, 1, r + 1, device=field.occupancy.bits.device)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    nodes = field.to_world(torch.stack([x, y, z], -1).view(-1, 3)).nan_to_num()
    grid = nodes.T.reshape(1, 3, r + 1, r + 1, r + 1)
    highest = torch.nn.functional.max_pool3d(grid, 2, stride=1)[0]
    lowest = -torch.nn.functional.max_pool3d(-grid, 2, stride=1)[0]
    lo, hi = (nodes.new_tensor(side).view(3, 1, 1, 1) for side in (crop.lo, crop.hi))
    return pack_bits(((highest >= lo) & (lowest <= hi)).all(0))
