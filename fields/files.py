"""Files that are written whole or not at all: JSON, and tensors with their checksum.

A writer makes a temporary file in the same folder, syncs it, renames it and syncs the folder, so that after a kill or a
power cut a reader finds the whole old file or the whole new one. Reading executes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scenes.errors import InputError

FORMAT = 1
"""Of runs. Raised when a program that knows only the older format would misread the newer one."""

TEMPORARY = (".*.tmp.*", ".tmp??????")
"""What the names of temporary files look like: ours, and those of safetensors."""


def version() -> str:
    """Of the installed fieldfit."""
    try:
        return metadata.version("fieldfit")
    except metadata.PackageNotFoundError:
        return "not installed"


def check_folder(path: Path) -> None:
    """Raise InputError, before work begins, where its result could not be written."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it or choose another")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written to; choose another")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file under a temporary name in the same folder, and rename it to `path` once it is on
    disk."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # some network file systems cannot sync a folder; the file itself is on disk
        os.fsync(folder)
    os.close(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`content` as indented JSON; a NaN is a ValueError."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path) -> Any:
    """Raises InputError when the file is no JSON."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); the file was cut or altered") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], step: int) -> None:
    """Tensors as safetensors with their checksum. Raises OSError when the disk does not take them."""
    header = {"format": str(FORMAT), "fieldfit": version(), "step": str(step), "sha256": checksum(tensors)}

    def write(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(dict(tensors), temporary, header)
        except SafetensorError as error:  # it has the number of the operating system's error in its text only
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        temporary.chmod(mode)  # the library makes files that only their owner can read

    write_whole(path, write)


def read_tensors(path: Path, *, check: bool = True) -> tuple[int, dict[str, Tensor]]:
    """The step and the tensors of a file of a run. Raises InputError when it is cut, altered or newer.

    Without `check` only the header is read, and there are no tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if int(header.get("format", "0")) > FORMAT:
                raise InputError(
                    f"{path}: was written by a newer fieldfit ({header.get('fieldfit')}): upgrade this one"
                )
            step, expected = int(header["step"]), header["sha256"]
            tensors = {name: file.get_tensor(name) for name in file.keys()} if check else {}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is cut or altered ({error}); copy it again, or fit anew") from None
    if check and checksum(tensors) != expected:
        raise InputError(f"{path}: was altered: its checksum does not match; copy it again, or fit anew")
    return step, tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
