"""A radiance field of which only a part is shown: the same weights, fewer cells that rays stop in."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.field import RadianceField
from fields.kernels.bits import pack_bits
from fields.rendering.occupancy import ball_radius
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


def crop_mask(field: RadianceField, crop: Box) -> Tensor:
    """Bits of the occupancy grid's cells that touch a box of the world."""
    r = field.occupancy.config.resolution
    middles = field.occupancy.middles(r).to(field.occupancy.bits.device)
    world = field.to_world(middles)
    if field.unbounded:
        reach = ball_radius(middles, 0.5 / r, field.to_world)[:, None]
    else:
        reach = torch.full_like(world[:1], 0.5 * field.box.side / r)
    lo, hi = world.new_tensor(crop.lo), world.new_tensor(crop.hi)
    touched = ((world + reach >= lo) & (world - reach <= hi)).all(-1)
    return pack_bits(touched.view(r, r, r))
