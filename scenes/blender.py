"""Captures whose splits are files of their own: `transforms_train.json`, `transforms_val.json`, `transforms_test.json`,
as the NeRF authors' Blender script writes them (NeRF-Synthetic, D-NeRF)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from scenes.errors import InputError, InputWarning
from scenes.transforms import SPLITS, Transforms, read_transforms


def split_file(folder: Path, split: str) -> Path:
    """Where a split's cameras are."""
    return folder / f"transforms_{split}.json"


def read_blender(folder: Path, *, allow_outside: bool = False) -> Transforms:
    """All splits that the folder has, as one list of frames; what else a file may say is the training file's."""
    parts = {
        split: read_transforms(path, allow_outside=allow_outside)
        for split in SPLITS
        if (path := split_file(folder, split)).exists()
    }
    if "train" not in parts:
        raise InputError(f"{folder}: has no transforms_train.json; name a JSON of cameras, or add it")
    frames, splits = [], {}
    for split, part in parts.items():
        splits[split] = list(range(len(frames), len(frames) + len(part.frames)))
        frames += part.frames
    training = {frame.picture for frame in parts["train"].frames}
    for split, part in parts.items():
        shared = [frame.name for frame in part.frames if split != "train" and frame.picture in training]
        if shared:
            message = f"{part.path}: {len(shared)} of its views train too, such as {shared[0]}; they are no test"
            warnings.warn(message, InputWarning, stacklevel=2)
    return replace(parts["train"], path=folder, frames=frames, splits=splits)
