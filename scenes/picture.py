"""Picture files as arrays [H, W, C], at the depth that they have: grey, grey and alpha, RGB or RGBA.

uint8 and uint16 values are encoded for a display (sRGB) with straight alpha; float32 values are linear light. Turned as
the file's EXIF orientation says. Of an animation the first frame is read. Embedded colour profiles are ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from scenes.errors import InputError
from scenes.high_range import PictureError, check_size, decode, read_exr, read_hdr

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Pixels = Shaped[np.ndarray, "H W C"]

BAND_BYTES = 1 << 22
"""Pillow's pictures are copied in bands of about this size, so that a large one is not held three times."""


def read_picture(path: Path, max_pixels: int) -> Pixels:
    """Read PNG, JPEG, WebP, AVIF, TIFF, BMP, PPM, EXR or HDR.

    A picture of more than `max_pixels` is refused before it is decoded. An alpha channel that is opaque everywhere is
    left out. Raises InputError when the file cannot be read whole, and for floats that are not finite.
    """
    try:
        match path.suffix.lower():
            case ".exr":
                pixels = read_exr(path.read_bytes(), max_pixels)
            case ".hdr":
                pixels = read_hdr(path.read_bytes(), max_pixels)
            case _:
                pixels = _read_with_pillow(path, max_pixels)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except PictureError as error:
        raise InputError(f"{path}: {error}") from error
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        bad = int((~np.isfinite(pixels)).any(-1).sum())
        raise InputError(f"{path}: {bad} of {pixels[..., 0].size} pixels are not finite; replace NaN and infinity")
    opaque = 1.0 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    if pixels.shape[2] in (2, 4) and (pixels[..., -1] == opaque).all():
        pixels = np.ascontiguousarray(pixels[..., :-1])
    return pixels


def _read_with_pillow(path: Path, max_pixels: int) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings(), _unlimited_pillow():
        warnings.simplefilter("ignore")  # of metadata, which do not matter here
        try:
            picture = Image.open(path)
        except UnidentifiedImageError:
            return _read_float_tiff(path, max_pixels)
        except SyntaxError as error:  # Pillow's word for damage
            raise PictureError("is damaged; copy or download it again") from error
        with picture:
            check_size(*picture.size, max_pixels)
            deep = _deep_codec(path, picture)
            orientation = picture.getexif().get(0x0112, 1)
            if deep:
                return _turned(decode(deep, path.read_bytes(), max_pixels), orientation)
            try:
                picture.load()
            except (OSError, SyntaxError, ValueError, EOFError) as error:
                raise PictureError("is truncated or damaged; copy or download it again") from error
            # Pillow turns a TIFF by itself while loading, and then says so.
            return _turned(_to_array(picture), picture.getexif().get(0x0112, 1))


@contextmanager
def _unlimited_pillow() -> Iterator[None]:
    """Without Pillow's own limit on pixels, which only the caller's `max_pixels` should set."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _deep_codec(path: Path, picture: PillowImage) -> str | None:
    """FFmpeg's decoder for a picture of 16-bit samples that Pillow would cut to 8 bits."""
    if picture.mode.startswith(("I", "F")):
        return None
    if picture.format == "PNG":
        with path.open("rb") as file:
            return "png" if file.read(25)[24] == 16 else None
    if picture.format == "TIFF":
        depth = getattr(picture, "tag_v2", {}).get(258, (8,))
        return "tiff" if max(depth) > 8 else None
    return None


def _read_float_tiff(path: Path, max_pixels: int) -> Pixels:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise PictureError("holds no picture of a known kind, or is truncated; copy or download it again")
    pixels = decode("tiff", path.read_bytes(), max_pixels)
    if pixels.dtype != np.float32:  # FFmpeg takes half floats for whole numbers
        raise PictureError("is a TIFF of an unknown kind of sample; save it with 8 or 16 bits or 32-bit floats")
    return pixels


def _to_array(picture: PillowImage) -> Pixels:
    mode = picture.mode
    if mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)[..., None]
    if mode == "F":
        return np.asarray(picture, np.float32)[..., None].copy()
    if mode == "I":
        raise PictureError("has 32-bit whole numbers; save it with 8 or 16 bits or 32-bit floats")
    grey = mode in ("1", "L", "LA", "La")
    target = ("LA" if grey else "RGBA") if picture.has_transparency_data else ("L" if grey else "RGB")
    if mode != target:
        picture = picture.convert(target)
    width, height = picture.size
    pixels = np.empty((height, width, len(target)), np.uint8)
    rows = max(1, BAND_BYTES // (width * len(target)))
    for y in range(0, height, rows):
        band = np.asarray(picture.crop((0, y, width, min(y + rows, height))))
        pixels[y : y + rows] = band.reshape(-1, width, len(target))
    return pixels


def _turned(pixels: Pixels, orientation: int) -> Shaped[np.ndarray, "_ _ C"]:
    """Upright, by the EXIF tag Orientation: 1 is upright, 2 to 8 are the other symmetries of a rectangle."""
    match orientation:
        case 2:
            pixels = pixels[:, ::-1]
        case 3:
            pixels = pixels[::-1, ::-1]
        case 4:
            pixels = pixels[::-1]
        case 5:
            pixels = pixels.swapaxes(0, 1)
        case 6:
            pixels = np.rot90(pixels, -1)
        case 7:
            pixels = pixels[::-1, ::-1].swapaxes(0, 1)
        case 8:
            pixels = np.rot90(pixels)
        case _:
            return pixels
    return np.ascontiguousarray(pixels)
