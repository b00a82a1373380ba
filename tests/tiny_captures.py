"""Captures of a few pixels, written to files as other programs would, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

import scenes
from scenes import Cameras, Capture, LoadOptions
from scenes.photographs import Photograph, read_header
from scenes.transforms import read_transforms, to_cameras

ANGLE = 0.8  # radians, the horizontal field of view of every camera here


def load(path: Path, options: LoadOptions | None = None) -> Capture:
    """What `scenes.load` makes of posed photographs."""
    scene = scenes.load(path, options=options)
    assert isinstance(scene, Capture)
    return scene


def names_of(capture: Capture) -> dict[str, list[str]]:
    """The pictures of each split."""
    return {split: [capture.names[view] for view in views] for split, views in capture.views.items()}


def look_at(position: ArrayLike, target: ArrayLike, up: ArrayLike = (0, 0, 1)) -> np.ndarray:
    """[4, 4] OpenGL camera-to-world: x right, y up, z backward."""
    backward = np.subtract(position, target) / np.linalg.norm(np.subtract(position, target))
    right = np.cross(np.asarray(up, float), backward)
    right = right / np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack((right, np.cross(backward, right), backward, np.asarray(position, float)), 1)
    return matrix


def ring(n: int, radius: float = 4.0, height: float = 2.0, target: ArrayLike = (0, 0, 0)) -> list[np.ndarray]:
    """Cameras in a circle that look at its middle."""
    angles = np.arange(n) * 2 * np.pi / n
    centre = np.asarray(target, float)
    return [look_at(centre + (radius * np.cos(a), radius * np.sin(a), height), centre) for a in angles]


def pixel_rays(matrix: np.ndarray, width: int, height: int, angle: float = ANGLE) -> tuple[np.ndarray, np.ndarray]:
    """Origin [3] and unit directions [H, W, 3] of a pinhole camera, from the definition."""
    focal = 0.5 * width / np.tan(0.5 * angle)
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    local = np.stack((x / focal, -y / focal, -np.ones_like(x)), -1)
    directions = local @ matrix[:3, :3].T
    return matrix[:3, 3], directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def sky(matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """[H, W, 3] bytes: a picture of a world so large that colour depends on direction alone, 0.5 + 0.5 d."""
    return np.round(255 * (0.5 + 0.5 * pixel_rays(matrix, width, height)[1])).astype(np.uint8)


def ball(matrix: np.ndarray, width: int, height: int, centre: ArrayLike, radius: float) -> np.ndarray:
    """[H, W, 4] bytes: a red ball cut out."""
    origin, directions = pixel_rays(matrix, width, height)
    to_centre = np.subtract(centre, origin)
    along = directions @ to_centre
    hit = (to_centre @ to_centre - along**2 < radius**2) & (along > 0)
    return np.where(hit[..., None], (255, 0, 0, 255), (0, 0, 0, 0)).astype(np.uint8)


def frame(name: str, matrix: np.ndarray, **fields: Any) -> dict[str, Any]:
    return {"file_path": name, "transform_matrix": matrix.tolist(), **fields}


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def write_transforms(
    folder: Path,
    matrices: Sequence[np.ndarray],
    paint: Callable[[np.ndarray, int, int], np.ndarray] = sky,
    size: tuple[int, int] = (8, 8),
    **fields: Any,
) -> Path:
    """`transforms.json` with pictures `images/000.png` ..., painted from each camera."""
    frames = [frame(f"images/{i:03}.png", matrix) for i, matrix in enumerate(matrices)]
    for entry, matrix in zip(frames, matrices, strict=True):
        write_picture(folder / entry["file_path"], paint(matrix, *size))
    return write_json(folder / "transforms.json", {"camera_angle_x": ANGLE, **fields, "frames": frames})


def write_blender(
    folder: Path,
    splits: Mapping[str, Sequence[np.ndarray]],
    paint: Callable[[np.ndarray, int, int], np.ndarray],
    size: tuple[int, int] = (8, 8),
) -> Path:
    """`transforms_train.json` and others beside it, with pictures named without their extension."""
    for split, matrices in splits.items():
        frames = [frame(f"./{split}/r_{i}", matrix) for i, matrix in enumerate(matrices)]
        for i, matrix in enumerate(matrices):
            write_picture(folder / split / f"r_{i}.png", paint(matrix, *size))
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": ANGLE, "frames": frames})
    return folder


def write_dynamic(
    folder: Path,
    splits: dict[str, Sequence[tuple[np.ndarray, Any]]],
    paint: Callable[[np.ndarray, int, int, float], np.ndarray],
    size: tuple[int, int] = (8, 8),
) -> Path:
    """The same with a `time` in every frame, as D-NeRF's captures have; each view is a pose and a time."""
    for split, views in splits.items():
        frames = [frame(f"./{split}/r_{i}", m, **({} if t is None else {"time": t})) for i, (m, t) in enumerate(views)]
        for i, (matrix, time) in enumerate(views):
            write_picture(folder / split / f"r_{i}.png", paint(matrix, *size, time if isinstance(time, float) else 0.0))
        write_json(folder / f"transforms_{split}.json", {"camera_angle_x": ANGLE, "frames": frames})
    return folder


def write_solid(
    folder: Path, colours: Sequence[tuple[int, ...]], size: tuple[int, int] = (8, 8), **fields: Any
) -> Path:
    """One picture of one colour for each of these, from cameras in a circle."""
    todo = iter(colours)
    return write_transforms(
        folder,
        ring(len(colours)),
        lambda m, w, h: np.full((h, w, len(colours[0])), next(todo), np.uint8),
        size,
        **fields,
    )


def rig(matrices: Sequence[np.ndarray], focal: float = 100.0, size: int = 80) -> Cameras:
    """Cameras with these OpenGL poses."""
    n = len(matrices)
    return Cameras(
        T_world_camera=torch.tensor(np.stack(matrices)[:, :3] * (1, -1, -1, 1), dtype=torch.float32),
        focal=torch.full((n, 2), focal),
        centre=torch.full((n, 2), size / 2),
        size=torch.full((n, 2), size),
        distortion=torch.zeros(n, 6),
    )


def cameras_of(path: Path) -> Cameras:
    """The cameras of a JSON, by the sizes of its pictures."""
    frames = read_transforms(path).frames
    headers = [read_header(Photograph(f.where, f.picture), 10**6) for f in frames]
    return to_cameras(frames, [(h.width, h.height) for h in headers])


def single(
    folder: Path,
    matrix: np.ndarray | None = None,
    size: tuple[int, int] = (8, 8),
    in_frame: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """One photograph with these fields in the file and in its frame."""
    write_picture(folder / "a.png", np.zeros((size[1], size[0], 3), np.uint8))
    matrix = look_at((0, -4, 0), (0, 0, 0)) if matrix is None else matrix
    return write_json(folder / "transforms.json", {**fields, "frames": [frame("a.png", matrix, **(in_frame or {}))]})
