"""What is drawn around a field in the browser: cameras with their photographs, the box, the crop, occupied cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from scenes.box import Box
from scenes.cameras import Cameras
from scenes.capture import Capture
from viewer.live.space import Space
from viewer.pictures import SPLIT_COLOURS, Picture, to_bytes

if TYPE_CHECKING:
    from viser import SceneApi, SceneNodeHandle

THUMBNAIL = 96
"""Pixels along the longer edge of a photograph at its camera."""
MOST_CAMERAS = 200
"""Of a split that are drawn, evenly chosen."""
BOX_COLOUR, CROP_COLOUR, CELL_COLOUR, PATH_COLOUR = (90, 96, 108), (222, 110, 20), (110, 150, 205), (190, 40, 110)


def thumbnail(scene: Capture, view: int) -> Picture:
    """A small picture of a photograph."""
    width, height = scene.cameras.size[view].tolist()
    rgb = scene.image(view)[0].view(height, width, 3)
    step = max(max(width, height) // THUMBNAIL, 1)
    return to_bytes(rgb[step // 2 :: step, step // 2 :: step])


def draw_cameras(
    api: SceneApi, space: Space, split: str, cameras: Cameras, photographs: list[Picture] | None
) -> list[SceneNodeHandle]:
    """Frusta of a split, in its colour, with photographs where there are any."""
    handles: list[SceneNodeHandle] = []
    chosen = range(0, len(cameras), max(-(-len(cameras) // MOST_CAMERAS), 1))
    size = frustum_size(cameras) * space.scale
    for i in chosen:
        pose = space.pose(cameras[[i]])
        width, height = cameras.size[i].tolist()
        handle = api.add_camera_frustum(
            f"/cameras/{split}/{i}",
            fov=pose.fov,
            aspect=width / height,
            scale=size,
            thickness=1.5,
            thickness_units="screen",
            color=SPLIT_COLOURS.get(split, BOX_COLOUR),
            image=None if photographs is None else photographs[i],
            format="jpeg",
            wxyz=pose.wxyz,
            position=pose.position,
            cast_shadow=False,
            receive_shadow=False,
        )
        handles.append(handle)
    return handles


def frustum_size(cameras: Cameras) -> float:
    """So long, in world units, that frusta of neighbours hardly overlap."""
    position = cameras.position.double()
    spread = float((position - position.mean(0)).norm(dim=-1).median())
    if len(cameras) < 2:
        return max(spread, 1e-3)
    between = torch.cdist(position, position).fill_diagonal_(torch.inf).amin(1)
    return min(max(0.5 * float(between.median()), 0.03 * spread), 0.12 * spread) or 1e-3


def draw_box(
    api: SceneApi, name: str, space: Space, box: Box, colour: tuple[int, int, int], width: float = 1.5
) -> SceneNodeHandle:
    """The edges of a box of the world."""
    corners = np.array(np.meshgrid(*zip(box.lo, box.hi, strict=True), indexing="ij")).reshape(3, 8).T
    pairs = [(i, i | 1 << bit) for i in range(8) for bit in range(3) if not i >> bit & 1]
    points = space.to_browser(corners)[np.array(pairs)].astype(np.float32)
    return api.add_line_segments(
        name, points, colors=np.array(colour, np.uint8), thickness=width, thickness_units="screen"
    )


def draw_cells(api: SceneApi, space: Space, middles: torch.Tensor, cell: float) -> SceneNodeHandle:
    """Occupied cells of an edge `cell` in world units, as points."""
    points = space.to_browser(middles.double().numpy()).astype(np.float32)
    return api.add_point_cloud(
        "/occupancy", points, np.array(CELL_COLOUR, np.uint8), point_size=0.5 * cell * space.scale, point_shape="square"
    )


def draw_path(api: SceneApi, space: Space, cameras: Cameras) -> SceneNodeHandle:
    """A line through the positions of cameras."""
    points = space.to_browser(cameras.position.double().numpy()).astype(np.float32)
    pairs = np.stack([points[:-1], points[1:]], 1)
    return api.add_line_segments(
        "/path", pairs, colors=np.array(PATH_COLOUR, np.uint8), thickness=3.0, thickness_units="screen"
    )
