"""Which parts of space photographs allow to be anything but empty: what to leave out before a single ray is marched."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from scenes.capture import Capture
from scenes.hull import tiled_mask

MOST_VIEWS = 100  # more hardly leave out more
LEAST_VIEWS = 2  # of a scene in photographs: what fewer cameras see cannot be placed in depth


def may_be_solid(
    capture: Capture, points: Float[Tensor, "N 3"], radius: float | Float[Tensor, " N"]
) -> Bool[Tensor, " N"]:
    """Whether balls of `radius` around points, both in world units, may hold something.

    Where photographs have transparency: no training view shows the whole ball as transparent (the visual hull), and one
    sees it; where things move, a training view shows something there, since others show other times. Otherwise: at
    least two training views see its centre.
    """
    views = capture.views["train"]
    chosen = torch.linspace(0, len(views) - 1, min(len(views), MOST_VIEWS)).round().long().tolist()
    radius = torch.as_tensor(radius).expand(len(points))
    index = torch.arange(len(points))
    seen, solid = torch.zeros(len(points), dtype=torch.int32), torch.zeros(len(points), dtype=torch.bool)
    for view in (views[i] for i in chosen):
        if len(index) == 0:
            break
        xy, in_view = capture.cameras.project(view, points[index])
        seen[index] += in_view
        if capture.has_alpha and capture.is_dynamic:
            shown = in_view & _any_opaque(capture, view, points[index], radius[index], xy)
            solid[index[shown]] = True
            index = index[~shown]
        elif capture.has_alpha:
            empty = in_view & ~_any_opaque(capture, view, points[index], radius[index], xy)
            index = index[~empty]
    if capture.has_alpha and capture.is_dynamic:
        return solid
    solid[index] = seen[index] >= (1 if capture.has_alpha else min(LEAST_VIEWS, len(chosen)))
    return solid


def _any_opaque(
    capture: Capture, view: int, points: Float[Tensor, "M 3"], radius: Float[Tensor, " M"], xy: Float[Tensor, "M 2"]
) -> Bool[Tensor, " M"]:
    """Whether the picture shows anything within each ball's outline; errs towards yes by a tile of the mask."""
    width, height = (int(v) for v in capture.cameras.size[view])
    mask, tile = tiled_mask(capture.alpha(view))
    distance = (points - capture.cameras.position[view]).norm(dim=-1)
    reach = capture.cameras.focal[view].max() * radius / distance.clamp(min=1e-9)  # pixels
    grown = [mask]
    while (len(grown) - 1) * tile < float(reach.max()) and len(grown) < max(mask.shape):
        grown.append(F.max_pool2d(grown[-1][None], 3, 1, 1)[0])
    stack = torch.stack(grown)  # one tile more with each
    level = (reach / tile).ceil().long().clamp(max=len(grown) - 1)
    column = (xy[:, 0].clamp(0, width - 1) / tile).long()
    row = (xy[:, 1].clamp(0, height - 1) / tile).long()
    return stack[level, row, column] > 0
