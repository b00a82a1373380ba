"""Built-in examples, made on the spot from formulas: posed photographs of a toy, still or moving, a picture, a mesh.

The same call always writes the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from scenes.demo_motion import moving_toy
from scenes.demo_render import Solid, photograph
from scenes.demo_toy import toy

CAMERA_ANGLE_X = 0.6911112
"""Field of view of all photographs, in radians; that of the NeRF-Synthetic scenes."""
LOOK_AT = (0.0, 0.0, 0.26)
DISTANCE = 3.6
"""From the cameras to the point that they look at, in world units."""
GOLDEN_ANGLE = np.pi * (3 - 5**0.5)


def write_demo(folder: Path, size: int = 200, n_train: int = 60) -> None:
    """Photograph the toy from the upper half of a sphere: RGBA PNGs and `transforms_*.json` in Blender's format.

    `n_train` views for training, 2 for validation and 4 for testing, `size` x `size` pixels. Takes about 3 s on two
    cores at the default size.
    """
    poses = {"train": _around(n_train, 0.0), "val": _around(2, 0.35), "test": _around(4, 0.8)}
    solids = toy()
    _write(folder, size, {split: [_View(pose) for pose in of] for split, of in poses.items()}, lambda view: solids)


def write_dynamic_demo(folder: Path, size: int = 200, n_train: int = 80) -> None:
    """Photograph the moving toy, every view at a time of its own: the same with a `time` in every frame, as in D-NeRF.

    `n_train` views for training, 2 for validation and 6 for testing, at poses and times that no other view has. Takes
    about 5 s on two cores at the default size.
    """
    draw = np.random.default_rng(0)
    order = draw.permutation(n_train)
    times = {
        "train": (order + draw.random(n_train)) / n_train,  # each in a share of its own, in an order that poses ignore
        "val": np.array([0.3, 0.7]),
        "test": (np.array([0, 3, 1, 5, 2, 4]) + 0.55) / 6,
    }
    poses = {"train": _around(n_train, 0.0), "val": _around(2, 0.35), "test": _around(6, 0.8)}
    views = {
        split: [_View(pose, round(float(t), 6)) for pose, t in zip(poses[split], times[split], strict=True)]
        for split in times
    }
    _write(folder, size, views, lambda view: moving_toy(view.time or 0.0))


@dataclass(frozen=True, eq=False)
class _View:
    pose: Float[np.ndarray, "4 4"]
    time: float | None = None


def _write(folder: Path, size: int, views: dict[str, list[_View]], subject: Callable[[_View], list[Solid]]) -> None:
    """Photographs of a subject, and the JSON of each split."""
    jobs = [(folder / split / f"r_{i}.png", view) for split, of in views.items() for i, view in enumerate(of)]
    for split, of in views.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames = [
            {"file_path": f"./{split}/r_{i}"}
            | ({} if view.time is None else {"time": view.time})
            | {"transform_matrix": np.round(view.pose, 9).tolist()}
            for i, view in enumerate(of)
        ]
        text = json.dumps({"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}, indent=1)
        (folder / f"transforms_{split}.json").write_text(text)
    focal = size / (2 * np.tan(CAMERA_ANGLE_X / 2))

    def shoot(job: tuple[Path, _View]) -> None:
        path, view = job
        _save(path, photograph(subject(view), view.pose, focal, size))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(shoot, jobs))


def write_demo_image(path: Path) -> None:
    """A detailed colour picture of 512 x 384 pixels, in the format that the name of the file says."""
    width, height = 512, 384
    shot = photograph(toy(), _pose(-0.75, 0.42, 2.6), 780.0, width)[(width - height) // 2 :][:height] / 255
    y, x = np.mgrid[0:height, 0:width] / height
    warp = x + 0.12 * np.sin(5 * y + 2 * np.sin(3 * x)) + 0.05 * np.sin(17 * y - 4 * x)
    vein = np.abs(np.sin(9 * warp + 3 * np.sin(4 * y + x)))[..., None] ** 0.5
    grain = 0.03 * np.sin(190 * x + 5 * np.sin(11 * y)) * np.sin(170 * y + 4 * np.sin(13 * x))
    backdrop = np.array([0.16, 0.25, 0.33]) + np.array([0.42, 0.38, 0.3]) * vein * (0.35 + 0.65 * y[..., None])
    picture = shot[..., :3] * shot[..., 3:] + (backdrop + grain[..., None]) * (1 - shot[..., 3:])
    _save(path, np.round(picture.clip(0, 1) * 255).astype(np.uint8))


def write_demo_mesh(path: Path) -> None:
    """A watertight mesh of 20,000 faces, in the format that the name of the file says: a torus knot with bumps."""
    import trimesh

    vertices, faces = knot()
    trimesh.Trimesh(vertices, faces, process=False).export(path)


def knot(n_along: int = 400, n_around: int = 25) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """A tube around the torus knot (2, 3), its radius waving along and around it; faces point outward."""
    t = np.arange(n_along) * 2 * np.pi / n_along

    def curve(t: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 3"]:
        reach = 1 + 0.42 * np.cos(3 * t)
        return np.stack((reach * np.cos(2 * t), reach * np.sin(2 * t), 0.42 * np.sin(3 * t)), axis=1)

    step = 1e-3
    tangent = curve(t + step) - curve(t - step)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    bend = curve(t + step) - 2 * curve(t) + curve(t - step)
    side = np.cross(tangent, bend)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    inward = np.cross(side, tangent)
    angle = np.arange(n_around) * 2 * np.pi / n_around
    radius = 0.19 * (1 + 0.16 * np.sin(24 * t)[:, None] * np.cos(5 * angle))
    ring = np.cos(angle)[:, None] * inward[:, None] + np.sin(angle)[:, None] * side[:, None]
    vertices = (curve(t)[:, None] + radius[..., None] * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n_along), np.arange(n_around), indexing="ij")
    a, b = i * n_around + j, i * n_around + (j + 1) % n_around
    c, d = ((i + 1) % n_along) * n_around + j, ((i + 1) % n_along) * n_around + (j + 1) % n_around
    faces = np.stack((a, b, c, b, d, c), axis=-1).reshape(-1, 3)
    return vertices, faces


def _around(n: int, phase: float) -> list[Float[np.ndarray, "4 4"]]:
    """Cameras spread evenly over the sphere between 4 and 74 degrees above the horizon, along a golden spiral."""
    sine = np.sin(np.radians(4)) + (np.arange(n) + 0.5) / n * (np.sin(np.radians(74)) - np.sin(np.radians(4)))
    return [_pose(GOLDEN_ANGLE * i + phase, float(np.arcsin(s)), DISTANCE) for i, s in enumerate(sine)]


def _pose(azimuth: float, elevation: float, distance: float) -> Float[np.ndarray, "4 4"]:
    """`T_world_camera` in Blender's axes (x right, y up, z backward), looking at the toy."""
    back = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    T_world_camera = np.eye(4)
    T_world_camera[:3] = np.stack((right, np.cross(back, right), back, LOOK_AT + distance * back), axis=1)
    return T_world_camera


def _save(path: Path, pixels: UInt8[np.ndarray, "H W C"]) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)
