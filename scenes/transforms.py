"""`transforms.json`: posed photographs as instant-ngp, nerfstudio and the NeRF authors' Blender script write them.

Poses are OpenGL camera-to-world matrices (x right, y up, z backward); they become OpenCV's here. Intrinsics stand in
the file or in a frame, and a frame's win. World coordinates stay those of the JSON's matrices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from scenes.box import Box
from scenes.cameras import Cameras
from scenes.errors import InputError
from scenes.json_fields import (
    FARTHEST,
    read_matrix,
    read_number,
    read_object,
    read_pose,
    read_positive,
    read_string,
    read_vector,
    shown,
)
from scenes.lens import Lens, read_lens
from scenes.paths import Folder

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Frame:
    """One posed photograph."""

    where: str
    """File and field, for messages."""
    name: str
    picture: Path
    T_world_camera: np.ndarray
    """[3, 4] float64, OpenCV axes, rotation made orthonormal."""
    lens: Lens
    time: float | None
    """As the file has it."""
    mask: Path | None
    """Black pixels are left out (nerfstudio's `mask_path`)."""
    dynamic_mask: Path | None
    """Pixels that are not black are left out (instant-ngp's `dynamic_mask_NAME.png` beside a picture)."""


@dataclass(frozen=True)
class Transforms:
    """What one JSON says."""

    path: Path
    frames: list[Frame]
    splits: dict[str, list[int]] = field(default_factory=dict)
    """Split to indices of frames; empty when the file names no splits."""
    box: Box | None = None
    """Where the file places instant-ngp's unit cube, if it says so."""
    aabb_scale: float = 1.0
    """How many times larger than that cube the scene is."""
    applied_transform: list[list[float]] | None = None
    """[3][4], what nerfstudio did to the coordinates of the reconstruction; only kept, so that it can be undone."""


def read_transforms(path: Path, *, allow_outside: bool = False) -> Transforms:
    """Read and check a JSON; pictures are looked up, not opened. Raises InputError."""
    data = read_object(path)
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames:
        what = "is missing" if frames is None else f"is {shown(frames)}"
        raise InputError(f"{path}: frames {what}; expected a list of at least one frame with file_path")
    folder = Folder(path.parent, allow_outside=allow_outside)
    read = [_read_frame(frame, data, folder, path, i) for i, frame in enumerate(frames)]
    _refuse_duplicates(read)
    applied = data.get("applied_transform")
    aabb_scale = data.get("aabb_scale")
    return Transforms(
        path=path,
        frames=read,
        splits=_read_splits(data, read, folder, path),
        box=_read_box(data, path),
        aabb_scale=1.0 if aabb_scale is None else read_positive(aabb_scale, f"{path}: aabb_scale"),
        applied_transform=None if applied is None else read_matrix(applied, f"{path}: applied_transform").tolist(),
    )


def _read_frame(frame: object, data: Mapping[str, Any], folder: Folder, path: Path, index: int) -> Frame:
    where = f"{path}: frames[{index}]"
    if not isinstance(frame, dict):
        raise InputError(f"{where}: expected an object with file_path and transform_matrix, got {shown(frame)}")
    picture = folder.find(read_string(frame.get("file_path"), f"{where}.file_path"), f"{where}.file_path")
    mask = None
    if frame.get("mask_path") is not None:
        mask = folder.find(read_string(frame["mask_path"], f"{where}.mask_path"), f"{where}.mask_path")
    beside = picture.with_name(f"dynamic_mask_{picture.stem}.png")
    time = frame.get("time")
    if time is not None:
        time = read_number(time, f"{where}.time")
    return Frame(
        where=where,
        name=folder.name_of(picture),
        picture=picture,
        T_world_camera=read_pose(frame.get("transform_matrix"), f"{where}.transform_matrix"),
        lens=read_lens(frame, data, path, where),
        time=time,
        mask=mask,
        dynamic_mask=folder.look_for(folder.name_of(beside), where) if beside.exists() else None,
    )


def _read_splits(data: Mapping[str, Any], frames: list[Frame], folder: Folder, path: Path) -> dict[str, list[int]]:
    """nerfstudio's `train_filenames`, `val_filenames` and `test_filenames`; without the first, the rest trains."""
    index = {frame.picture: i for i, frame in enumerate(frames)}
    splits: dict[str, list[int]] = {}
    for split in SPLITS:
        names = data.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list):
            raise InputError(f"{path}: {split}_filenames: expected a list of names, got {shown(names)}")
        splits[split] = []
        for i, name in enumerate(names):
            where = f"{path}: {split}_filenames[{i}]"
            picture = folder.find(read_string(name, where), where)
            if picture not in index:
                raise InputError(
                    f"{where}: {name!r} is not the file_path of any frame; add the frame, or remove the name"
                )
            splits[split].append(index[picture])
    if splits and "train" not in splits:
        held_out = {i for indices in splits.values() for i in indices}
        splits["train"] = [i for i in range(len(frames)) if i not in held_out]
    return splits


def _read_box(data: Mapping[str, Any], path: Path) -> Box | None:
    """instant-ngp maps the world to its unit cube by `x * scale + offset`, or so that `aabb` just fits."""
    if data.get("aabb") is not None:
        corners = data["aabb"]
        if not isinstance(corners, list) or len(corners) != 2:
            raise InputError(f"{path}: aabb: expected [[x, y, z], [x, y, z]], got {shown(corners)}")
        lo, hi = (read_vector(corner, f"{path}: aabb[{i}]") for i, corner in enumerate(corners))
    elif data.get("scale") is not None or data.get("offset") is not None:
        scale = read_positive(data.get("scale", 0.33), f"{path}: scale")
        offset = data.get("offset", 0.5)
        offset = read_vector(offset if isinstance(offset, list) else [offset] * 3, f"{path}: offset")
        lo, hi = ([(edge - v) / scale for v in offset] for edge in (0.0, 1.0))
    else:
        return None
    if not all(a < b and max(abs(a), abs(b)) < FARTHEST for a, b in zip(lo, hi, strict=True)):
        raise InputError(
            f"{path}: aabb, scale or offset: expected a box with lo < hi near the cameras, got {lo} to {hi}"
        )
    return Box(tuple(lo), tuple(hi))


def _refuse_duplicates(frames: list[Frame]) -> None:
    first: dict[Path, Frame] = {}
    for frame in frames:
        if (other := first.setdefault(frame.picture, frame)) is not frame:
            raise InputError(f"{frame.where}.file_path: {frame.name!r} is also the picture of {other.where}; keep one")


def to_cameras(frames: list[Frame], sizes: list[tuple[int, int]]) -> Cameras:
    """The cameras of frames whose pictures are `sizes` (width, height) large. Raises InputError."""
    focal, centre = [], []
    for frame, (width, height) in zip(frames, sizes, strict=True):
        f, c = frame.lens.in_pixels(width, height, frame.where)
        focal.append(f)
        centre.append(c)
    timed = _one([frame.time is not None for frame in frames], frames, "whether there is a time")
    cameras = Cameras(
        T_world_camera=torch.tensor(np.stack([frame.T_world_camera for frame in frames]), dtype=torch.float32),
        focal=torch.tensor(focal),
        centre=torch.tensor(centre),
        size=torch.tensor(sizes),
        distortion=torch.tensor([frame.lens.distortion for frame in frames]),
        fisheye=_one([frame.lens.fisheye for frame in frames], frames, "the lens model"),
        time=torch.tensor([frame.time for frame in frames]) if timed else None,
    )
    if cameras.distorted:
        first = {frame.lens.distortion: i for i, frame in reversed(list(enumerate(frames)))}
        for i in first.values():
            frames[i].lens.check_inverse(cameras.inverse_error(i), frames[i].where)
    return cameras


def _one(values: list[bool], frames: list[Frame], what: str) -> bool:
    for value, frame in zip(values, frames, strict=True):
        if value != values[0]:
            raise InputError(f"{frame.where}: {what} differs from {frames[0].where}; all frames have to agree")
    return values[0]
