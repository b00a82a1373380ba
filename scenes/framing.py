"""Where the world is, from the cameras alone: what they look at, and which way is up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from scenes.box import Box
from scenes.cameras import Cameras

PARALLEL = 3e-4  # mean squared sine between optical axes; below, where they meet says nothing about the distance
FAR = 30.0  # in median distances between cameras; axes that meet farther away than this count as parallel
PARALLEL_DEPTH = 10.0  # what cameras in one direction look at, in median distances between them: LLFF fern has 10
INNER = 0.5  # half an edge of the box around a scene in photographs, in distances of the cameras from its middle
OUTWARD = 3.0  # the same for cameras that look outward, in distances of the cameras from each other


@dataclass(frozen=True)
class Focus:
    """What a set of cameras looks at."""

    point: Float[Tensor, "3"]
    """World units."""
    distance: float
    """Of the cameras from it, the median, in world units; above zero."""
    radius: float
    """Half an edge of a box that should hold what matters, in world units; above zero."""


def find_focus(cameras: Cameras) -> Focus:
    """The point nearest to all optical axes, robust against cameras that look elsewhere.

    Cameras that all look in one direction give a point in front of them, as far as such captures usually are compared
    with the distances between the cameras. Cameras that look outward give a point amidst them.
    """
    position, forward = cameras.position.double(), cameras.forward.double()
    middle = position.quantile(0.5, dim=0)
    spread = _spread(position, middle)
    point, divergence = _nearest_point_to_axes(position, forward, spread)
    depth = ((point - position) * forward).sum(-1)
    distance = float((point - position).norm(dim=-1).median())
    mean_forward = forward.mean(0)
    if divergence > PARALLEL and depth.median() > 0 and 0 < distance < FAR * spread:
        radius = INNER * distance
    elif mean_forward.norm() > 0.8:
        distance = PARALLEL_DEPTH * spread
        point, radius = middle + distance * mean_forward / mean_forward.norm(), INNER * distance
    else:
        point, distance, radius = middle, spread, OUTWARD * spread
    return Focus(point.float(), distance, radius)


def _spread(position: Float[Tensor, "V 3"], middle: Float[Tensor, "3"]) -> float:
    """A length, in world units and above zero, that says how far apart cameras are."""
    distance = (position - middle).norm(dim=-1)
    for length in (distance.quantile(0.5), distance.max(), middle.norm()):
        if length > 1e-6 * position.abs().max():
            return float(length)
    return 1.0


def find_up(cameras: Cameras) -> Float[Tensor, "3"]:
    """Upward in the world, unit length: the direction that the cameras' horizontal axes avoid, if photographers held
    them level, otherwise the mean of the pictures' upward directions."""
    mean = cameras.up.double().mean(0)
    if mean.norm() < 1e-3:
        return torch.tensor([0.0, 0.0, 1.0])
    mean = mean / mean.norm()
    right = cameras.T_world_camera[:, :, 0].double()
    spread, axes = torch.linalg.eigh(right.T @ right / len(right))
    level = axes[:, 0] * torch.sign(axes[:, 0] @ mean)
    is_level = spread[0] < 0.02 and spread[1] > 0.1 and level @ mean > 0.8
    return (level if is_level else mean).float()


def box_around(focus: Focus) -> Box:
    """A cube that holds what cameras look at."""
    lo, hi = (focus.point - focus.radius).tolist(), (focus.point + focus.radius).tolist()
    return Box(tuple(lo), tuple(hi))


def _nearest_point_to_axes(
    position: Float[Tensor, "V 3"], forward: Float[Tensor, "V 3"], spread: float
) -> tuple[Float[Tensor, "3"], float]:
    """Minimise the sum of distances to the axes (reweighted least squares), and how much the axes diverge: the mean
    squared sine of their angles with their common direction."""
    off_axis = torch.eye(3, dtype=position.dtype) - forward[:, :, None] * forward[:, None, :]  # [V, 3, 3]
    weight = torch.ones(len(position), dtype=position.dtype)
    point = position.mean(0)
    normal = off_axis.mean(0)
    for _ in range(20):
        normal = (weight[:, None, None] * off_axis).sum(0) / weight.sum()
        target = (weight[:, None] * (off_axis @ position[:, :, None])[:, :, 0]).sum(0) / weight.sum()
        point = torch.linalg.lstsq(normal + 1e-12 * torch.eye(3, dtype=normal.dtype), target[:, None]).solution[:, 0]
        miss = (off_axis @ (point - position)[:, :, None])[:, :, 0].norm(dim=-1)
        weight = 1 / miss.clamp(min=1e-3 * spread)
    return point, float(torch.linalg.eigvalsh(normal)[0])
