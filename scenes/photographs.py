"""The pixels of many photographs: sizes first, then all of them decoded in parallel into one flat array of bytes."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from scenes.errors import InputError

ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Photograph:
    """A file to decode."""

    where: str
    """Which field of which file names it, for messages."""
    picture: Path
    mask: Path | None = None
    """Black pixels are left out."""
    dynamic_mask: Path | None = None
    """Pixels that are not black are left out."""


@dataclass(frozen=True)
class Header:
    """What a picture's file says before it is decoded."""

    width: int
    height: int
    has_alpha: bool


def read_header(photograph: Photograph, max_pixels: int) -> Header:
    """Raises InputError when the file is no picture, or one with more than `max_pixels`."""
    with _large_pictures(), _opened(photograph.picture, photograph.where) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{photograph.picture}: {width} x {height} is more than {max_pixels:,} pixels; raise --max-pixels"
            )
        return Header(width, height, image.mode in ALPHA_MODES or "transparency" in image.info)


def decode(
    photographs: Sequence[Photograph], headers: Sequence[Header], downscale: int, max_ram_gb: float | None
) -> tuple[UInt8[Tensor, "P C"], Bool[Tensor, " P"] | None]:
    """All pixels, photograph after photograph and row by row, and which of them no mask leaves out (None: all).

    C is 4 (straight alpha) if any photograph is transparent anywhere, otherwise 3. `downscale` averages over squares
    of that many pixels; a rest at the right and lower edge is cut off. Raises InputError.
    """
    channels = 4 if any(header.has_alpha for header in headers) else 3
    masked = any(photo.mask or photo.dynamic_mask for photo in photographs)
    sizes = [(h.width // downscale, h.height // downscale) for h in headers]
    for photo, size in zip(photographs, sizes, strict=True):
        if not all(size):
            raise InputError(f"{photo.picture}: is too small to be shrunk {downscale} times")
    counts = [width * height for width, height in sizes]
    workers = min(len(photographs), len(os.sched_getaffinity(0)))
    largest = max(header.width * header.height for header in headers)
    _check_memory(sum(counts) * (channels + masked) + 8 * workers * largest, max_ram_gb, photographs[0].where)

    ends = np.cumsum(counts)
    pixels = np.empty((int(ends[-1]), channels), np.uint8)
    keep = np.ones(len(pixels), bool) if masked else None

    def fill(i: int) -> bool:
        """Write one photograph into its place; returns whether it is transparent anywhere."""
        part = slice(ends[i] - counts[i], ends[i])
        pixels[part] = _decode(photographs[i], headers[i], channels, downscale)
        if keep is not None:
            keep[part] = _decode_masks(photographs[i], headers[i], downscale)
        return channels == 4 and bool(pixels[part, 3].min() < 255)

    with _large_pictures(), ThreadPoolExecutor(workers) as pool:
        transparent = list(pool.map(fill, range(len(photographs))))
    if channels == 4 and not any(transparent):
        pixels = np.ascontiguousarray(pixels[:, :3])
    return torch.from_numpy(pixels), None if keep is None else torch.from_numpy(keep)


def available_memory() -> int:
    """Bytes that can be used without swapping: of the machine, and of the control group that limits this process."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text().strip()).isdigit():
        usage = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(usage["file"])  # cached files give way
        free = min(free, int(limit) - used)
    return max(free, 0)


def _check_memory(needed: int, max_ram_gb: float | None, where: str) -> None:
    allowed = available_memory() / 2 if max_ram_gb is None else max_ram_gb * 1e9
    if needed > allowed:
        raise InputError(
            f"{where.partition(': ')[0]}: the photographs need {needed / 1e9:.2f} GB of memory, more than the "
            f"{allowed / 1e9:.2f} GB allowed; shrink them with --downscale, or raise --max-ram-gb"
        )


@contextmanager
def _large_pictures() -> Iterator[None]:
    """Silence Pillow's warning of large pictures: `max_pixels` decides. Filters belong to the process, not a thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except BROKEN as error:
        raise InputError(f"{path}: is damaged or not a picture ({_reason(error)}); replace it, see {where}") from error


def _decode(photo: Photograph, header: Header, channels: int, downscale: int) -> UInt8[np.ndarray, "P C"]:
    with _opened(photo.picture, photo.where) as image:
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise InputError(f"{photo.picture}: has {image.mode} pixels; captures need 8 or 16 bit colour")
        image = image.convert("RGBA" if channels == 4 else "RGB")
        return _shrunk(image, header, downscale).reshape(-1, channels)


def _decode_masks(photo: Photograph, header: Header, downscale: int) -> Bool[np.ndarray, " P"]:
    width, height = header.width // downscale, header.height // downscale
    keep = np.ones((height, width), bool)
    for path, leaves_out_black in ((photo.mask, True), (photo.dynamic_mask, False)):
        if path is None:
            continue
        with _opened(path, photo.where) as image:
            if image.size != (header.width, header.height):
                size, wanted = "{} x {}".format(*image.size), f"{header.width} x {header.height}"
                raise InputError(f"{path}: the mask is {size}, but its picture is {wanted}; make them equal")
            white = np.asarray(image.convert("L")) > 0
        kept = white if leaves_out_black else ~white
        kept = kept[: height * downscale, : width * downscale]
        keep &= kept.reshape(height, downscale, width, downscale).all((1, 3))
    return keep.reshape(-1)


def _shrunk(image: Image.Image, header: Header, factor: int) -> UInt8[np.ndarray, "H W C"]:
    """Average over squares, colours weighed by alpha."""
    if factor == 1:
        return np.asarray(image)
    width, height = header.width // factor, header.height // factor
    if image.mode == "RGB":
        return np.asarray(image.reduce(factor, (0, 0, width * factor, height * factor)))
    pixels = np.asarray(image)[: height * factor, : width * factor]
    sums = np.zeros((height, width, 4), np.uint32)
    for place in np.ndindex(factor, factor):
        part = pixels[place[0] :: factor, place[1] :: factor].astype(np.uint32)
        sums[..., :3] += part[..., :3] * part[..., 3:]
        sums[..., 3] += part[..., 3]
    alpha = sums[..., 3:]
    colour = sums[..., :3] / np.maximum(alpha, 1)
    return np.rint(np.concatenate((colour, alpha / factor**2), -1)).astype(np.uint8)


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0][:100] or type(error).__name__
