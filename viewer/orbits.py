"""Camera paths that suit a scene: around a mesh or an object, or through where photographs were taken.

A path around something is thought of on a sphere about the point that the cameras look at: azimuth and elevation about
an axis, and the logarithm of the distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scenes.box import Box
from scenes.cameras import Cameras
from scenes.errors import InputError
from scenes.framing import find_focus
from viewer.paths import CameraPath, pinholes

SURFACE_FOV = math.radians(30)
SURFACE_ELEVATION = math.radians(15)
SURFACE_SIZE = 800
PLEASANT_ELEVATION = math.radians(30)  # around an object, if cameras were there
MARGIN = 1.08  # of a picture around what it shows
CLOSED_GAP = math.radians(100)  # cameras that leave no larger gap in azimuth go all around
BANDWIDTH = math.radians(25)  # of azimuth, over which neighbouring cameras are averaged


def orbit(describe: Mapping[str, Any], n_frames: int = 120, fps: float = 30.0) -> CameraPath:
    """A path that suits the scene: around a mesh or an object, or through where the photographs were taken.

    `describe` is what the scene said of itself. The path of a capture has its training cameras' lens, without
    distortion. Of a capture that moves, time runs from 0 to 1 along the path.
    """
    box = Box.from_json(describe["box"])
    if describe["kind"] == "mesh":
        bounds = Box.from_json(describe["bounds"]) if "bounds" in describe else box
        up = describe.get("up", (0.0, 1.0, 0.0))
        return CameraPath(_around_box(bounds, torch.tensor(up, dtype=torch.float32), n_frames), fps, loop=True)
    if describe["kind"] != "capture":
        raise InputError(
            f"there is no path around a scene of the kind {describe['kind']!r}, only around meshes and captures"
        )
    splits = [Cameras.from_json(data) for data in describe["cameras"].values() if len(data["T_world_camera"])]
    if not splits:
        raise InputError("the capture has no cameras to take a path from; give a camera path")
    cameras, up = splits[0], torch.tensor(describe["up"], dtype=torch.float32)
    centre = find_focus(cameras).point if describe["unbounded"] else torch.tensor(box.centre)
    looks_inward = (cameras.forward * (centre - cameras.position)).sum(-1).median() > 0
    if looks_inward:
        path = _through(cameras, centre, up, n_frames, steady=not describe["unbounded"])
    else:
        path = _turning(cameras, up, n_frames)
    time = None if cameras.time is None else torch.linspace(0, 1, n_frames)
    return CameraPath(replace(path, time=time), fps, loop=True)


def look_at(
    position: Float[Tensor, "T 3"], target: Float[Tensor, "T 3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "T 3 4"]:
    """Cameras at `position` that have `target` in the middle of the picture and `up` upward in it."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    spare = torch.linalg.cross(forward, up.roll(1).expand_as(forward))
    right = torch.where(right.norm(dim=-1, keepdim=True) > 1e-4, right, spare)  # straight up or down
    right = torch.nn.functional.normalize(right, dim=-1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward, position], -1)


def _around_box(box: Box, up: Float[Tensor, "3"], n_frames: int) -> Cameras:
    """A circle from which the whole box is always in the picture, and no farther away than that."""
    basis = _basis(up, torch.zeros(3))
    azimuth = math.radians(30) + torch.arange(n_frames) * (2 * math.pi / n_frames)
    outward = _directions(azimuth, torch.full_like(azimuth, SURFACE_ELEVATION), basis)
    centre = torch.tensor(box.centre)
    T = look_at(centre + outward, centre.expand_as(outward), basis[2])
    corners = torch.cartesian_prod(*[torch.tensor(side) for side in zip(box.lo, box.hi, strict=True)]) - centre
    local = corners @ T[:, :, :3]  # [T, 8, 3]
    slope = math.tan(SURFACE_FOV / 2) / MARGIN
    distance = (local[..., :2].abs().amax(-1) / slope - local[..., 2]).max()
    T[:, :, 3] = centre + distance * outward
    size = torch.tensor([SURFACE_SIZE, SURFACE_SIZE])
    return pinholes(T, torch.full((2,), 0.5 * SURFACE_SIZE / math.tan(SURFACE_FOV / 2)), size)


def _through(
    cameras: Cameras, centre: Float[Tensor, "3"], up: Float[Tensor, "3"], n_frames: int, *, steady: bool
) -> Cameras:
    """All around at the height and distance of the cameras nearby (steady: of all), or else an ellipse among them."""
    offset = cameras.position - centre
    basis = _basis(up, torch.zeros(3))
    azimuth, elevation, log_radius = _spherical(offset, basis)
    angles = azimuth.sort().values
    gap = torch.cat([angles[1:] - angles[:-1], angles[:1] + 2 * math.pi - angles[-1:]]).max()
    if gap < CLOSED_GAP:
        along = angles[0] + torch.arange(n_frames) * (2 * math.pi / n_frames)
        if steady:
            low, high = elevation.quantile(0.25), elevation.quantile(0.75)
            level = torch.tensor(PLEASANT_ELEVATION).clamp(low, high)
            path = along, level.expand_as(along), log_radius.median().expand_as(along)
        else:
            weight = ((along[:, None] - azimuth).cos() / BANDWIDTH**2).softmax(1)
            path = along, weight @ elevation, weight @ log_radius
    else:
        basis = _basis(up, torch.nn.functional.normalize(offset, dim=-1).mean(0))
        azimuth, elevation, log_radius = _spherical(offset, basis)
        path = _ellipse(azimuth, elevation, log_radius, n_frames)
    position = centre + _directions(path[0], path[1], basis) * path[2].exp()[:, None]
    return _like(cameras, look_at(position, centre.expand_as(position), basis[2]))


def _ellipse(
    azimuth: Float[Tensor, " V"], elevation: Float[Tensor, " V"], log_radius: Float[Tensor, " V"], n_frames: int
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Around the middle of the cameras along their two main directions on the sphere, as large as fits among them."""
    points = torch.stack([azimuth, elevation], -1)
    middle = 0.5 * (points.amin(0) + points.amax(0)) if len(points) < 3 else points.mean(0)
    axes = torch.linalg.svd(points - middle, full_matrices=True).Vh
    reach = ((points - middle) @ axes.T).abs().quantile(0.9, dim=0)
    turn = torch.arange(n_frames) * (2 * math.pi / n_frames)
    circle = torch.stack([turn.cos(), turn.sin()], -1) * reach
    shrink = next(s for s in np.linspace(1, 0, 41) if s == 0 or _within(middle + s * circle @ axes, points))
    path = middle + float(shrink) * circle @ axes
    width = 0.5 * float(reach.max()) + 1e-6
    weight = (-0.5 * (torch.cdist(path, points) / width).square()).softmax(1)
    return path[:, 0], path[:, 1], weight @ log_radius


def _within(path: Float[Tensor, "T 2"], points: Float[Tensor, "V 2"]) -> bool:
    """Whether the convex hull of the points holds the path."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        half_planes = ConvexHull(points.double().numpy()).equations
    except (QhullError, ValueError):
        return True  # on a line, or a single point: the path then stays on it
    return bool((path.double().numpy() @ half_planes[:, :2].T + half_planes[:, 2] <= 1e-6).all())


def _turning(cameras: Cameras, up: Float[Tensor, "3"], n_frames: int) -> Cameras:
    """For cameras that look outward: a full turn amidst them."""
    basis = _basis(up, torch.zeros(3))
    tilt = _spherical(cameras.forward, basis)[1].median()
    azimuth = torch.arange(n_frames) * (2 * math.pi / n_frames)
    outward = _directions(azimuth, tilt.expand_as(azimuth), basis)
    position = cameras.position.median(0).values.expand_as(outward)
    return _like(cameras, look_at(position, position + outward, basis[2]))


def _basis(up: Float[Tensor, "3"], ahead: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Rows: azimuth 0, azimuth 90 degrees, the axis.

    The axis is `up`, and azimuth 0 what most meshes have in front: z if they stand along y, else -y. With a direction
    `ahead`, azimuth and elevation are 0 there, and the axis is what is upward at right angles to it.
    """
    axis = torch.nn.functional.normalize(up, dim=0)
    if ahead.norm() > 1e-3:
        ahead = torch.nn.functional.normalize(ahead, dim=0)
        across = axis - (axis @ ahead) * ahead
        axis = torch.nn.functional.normalize(across if across.norm() > 0.05 else axis.roll(1), dim=0)
    else:
        ahead = axis.new_tensor([0.0, 0.0, 1.0] if abs(axis[1]) > 0.7 else [0.0, -1.0, 0.0])
    first = torch.nn.functional.normalize(ahead - (ahead @ axis) * axis, dim=0)
    return torch.stack([first, torch.linalg.cross(axis, first), axis])


def _spherical(
    offset: Float[Tensor, "V 3"], basis: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, " V"], Float[Tensor, " V"], Float[Tensor, " V"]]:
    x, y, z = (offset @ basis.T).unbind(-1)
    return torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y)), offset.norm(dim=-1).clamp(min=1e-9).log()


def _directions(
    azimuth: Float[Tensor, " T"], elevation: Float[Tensor, " T"], basis: Float[Tensor, "3 3"]
) -> Float[Tensor, "T 3"]:
    flat = elevation.cos()
    return torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()], -1) @ basis


def _like(cameras: Cameras, T_world_camera: Float[Tensor, "T 3 4"]) -> Cameras:
    """With the usual size and focal length of `cameras`, which differ only by accident."""
    size = cameras.size[0]
    focal = (cameras.focal * (size[0] / cameras.size[:, :1])).median(0).values
    return pinholes(T_world_camera, focal, size)
