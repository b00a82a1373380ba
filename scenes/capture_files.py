"""From a folder or a JSON of posed photographs to a `Capture`: which files, which views train, and where the box is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from scenes.blender import read_blender, split_file
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.capture import Capture
from scenes.errors import InputError
from scenes.framing import box_around, find_focus, find_up
from scenes.hull import box_of_object, cube_of_moving_object
from scenes.photographs import Photograph, decode, read_header
from scenes.scene import LoadOptions
from scenes.times import held_out, in_unit
from scenes.transforms import Transforms, read_transforms, to_cameras

NEAR = 0.05  # in distances of the cameras from what they look at: nothing is photographed from closer by


def load_capture(path: Path, options: LoadOptions) -> Capture:
    """Read cameras and decode all photographs. Raises InputError."""
    if options.downscale < 1:
        raise InputError(f"{path}: --downscale is {options.downscale}; give a whole factor of 1 or more")
    transforms = _read(path, options)
    timed, time_span = in_unit(transforms.frames)
    transforms = replace(transforms, frames=timed)
    splits = _splits(transforms, options)
    if not splits["train"] and not options.evaluation_only:
        raise InputError(f"{path}: has no training views; add frames, or hold out fewer with --hold-out-every")
    order = list(dict.fromkeys(i for split in ("train", "val", "test") for i in splits[split]))
    place = {i: at for at, i in enumerate(order)}
    frames = [transforms.frames[i] for i in order]

    photographs = [Photograph(frame.where, frame.picture, frame.mask, frame.dynamic_mask) for frame in frames]
    headers = [read_header(photograph, options.max_pixels) for photograph in photographs]
    cameras = to_cameras(frames, [(header.width, header.height) for header in headers])
    pixels, keep = decode(photographs, headers, options.downscale, options.max_ram_gb)
    cameras = cameras.scaled(1 / options.downscale) if options.downscale > 1 else cameras
    framing = cameras[: len(splits["train"])] if splits["train"] else cameras
    focus = find_focus(framing)
    x, y, z = find_up(framing).tolist()
    capture = Capture(
        pixels=pixels,
        keep=keep,
        cameras=cameras,
        names=[frame.name for frame in frames],
        views={split: [place[i] for i in indices] for split, indices in splits.items()},
        box=box_around(focus),
        unbounded=True,
        background=options.background,
        near=NEAR * focus.distance,
        up=(x, y, z),
        applied_transform=transforms.applied_transform,
        time_span=time_span,
    )
    box = _bounds(path, transforms, options, framing, capture)
    if box is not None:
        return replace(capture, box=box, unbounded=False, near=max(capture.near, 0.9 * _distance(framing, box)))
    return capture if transforms.box is None else replace(capture, box=transforms.box)


def _read(path: Path, options: LoadOptions) -> Transforms:
    """The JSON that `path` is or holds; for a training file of Blender also the other splits beside it."""
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    has_splits = split_file(folder, "val").exists() or split_file(folder, "test").exists()
    is_train = name == split_file(folder, "train").name
    if (not name and split_file(folder, "train").exists()) or (is_train and has_splits and not options.evaluation_only):
        return read_blender(folder, allow_outside=options.allow_outside)
    if name:
        return read_transforms(path, allow_outside=options.allow_outside)
    if (folder / "transforms.json").exists():
        return read_transforms(folder / "transforms.json", allow_outside=options.allow_outside)
    entries = {entry.name.lower() for entry in folder.iterdir()}
    if has_splits:
        found = "has test views, but no transforms_train.json; name the JSON that is meant"
    elif entries & {"sparse", "colmap", "colmap_sparse", "cameras.bin", "cameras.txt"}:
        found = (
            "holds a COLMAP model, which is not read yet; convert it to transforms.json, for example by ns-process-data"
        )
    elif "poses_bounds.npy" in entries:
        found = "holds LLFF poses, which are not read yet; convert them to transforms.json"
    elif any(entry.endswith((".png", ".jpg", ".jpeg")) for entry in entries):
        found = "holds photographs without cameras; find their poses first (ns-process-data does)"
    else:
        found = "holds no transforms.json or transforms_train.json; give a folder of posed photographs"
    raise InputError(f"{path}: {found}")


def _splits(transforms: Transforms, options: LoadOptions) -> dict[str, list[int]]:
    """train, val and test, as the files say, or else every n-th view held out. Without test views, val's are those."""
    every = list(range(len(transforms.frames)))
    if transforms.splits:
        given = {"train": [], "val": [], "test": []} | transforms.splits
        return given | {"test": given["test"] or given["val"]}
    if options.evaluation_only and transforms.path.name != "transforms.json":
        return {"train": [], "val": [], "test": every}
    train, test = held_out(transforms.frames, options.hold_out_every)
    return {"train": train, "val": [], "test": test}


def _bounds(path: Path, transforms: Transforms, options: LoadOptions, cameras: Cameras, capture: Capture) -> Box | None:
    """The box, if there is nothing to see beyond it; `cameras` are the first ones of the capture."""
    if options.box is not None:
        try:
            return Box(options.box[:3], options.box[3:])
        except ValueError as error:
            raise InputError(f"{path}: --box cannot be used: {error}; give x0 y0 z0 x1 y1 z1") from error
    placed, scale = transforms.box, transforms.aabb_scale
    if capture.has_alpha and capture.is_dynamic:
        return placed.padded(max(0.0, 0.5 * (scale - 1))) if placed else cube_of_moving_object(cameras, capture.alpha)
    if capture.has_alpha:
        return box_of_object(cameras, capture.alpha, placed and placed.padded(max(0.0, 0.5 * (scale - 1))))
    return placed if scale == 1 else None


def _distance(cameras: Cameras, box: Box) -> float:
    """Of the nearest camera from the box; 0 inside."""
    lo, hi = torch.tensor(box.lo), torch.tensor(box.hi)
    outside = (lo - cameras.position).clamp(min=0) + (cameras.position - hi).clamp(min=0)
    return float(outside.norm(dim=-1).min())
