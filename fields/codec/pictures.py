"""Pictures in and out of the codec: files or pipes, 8 or 16 bits a sample, grey or RGB, with or without alpha."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from fields.codec.image_file import MAX_SIDE, Samples
from fields.files import check_folder, write_whole
from scenes.errors import InputError
from scenes.picture import read_picture

PIPE = "-"
SUFFIXES = (".png", ".tif", ".tiff", ".ppm", ".pgm", ".bmp", ".webp", ".jpg", ".jpeg")
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
DEEP_FORMATS = {1: "gray16be", 2: "ya16be", 3: "rgb48be", 4: "rgba64be"}


@contextmanager
def as_file(name: str) -> Iterator[Path]:
    """The file of that name; for `-` what comes in by the pipe, in a temporary file. Raises InputError."""
    if name != PIPE:
        if not Path(name).is_file():
            raise InputError(f"{name}: there is no such file")
        yield Path(name)
        return
    with tempfile.NamedTemporaryFile(prefix="fieldfit-") as file:
        file.write(sys.stdin.buffer.read())
        file.flush()
        try:
            yield Path(file.name)
        except InputError as error:
            raise InputError(str(error).replace(file.name, "the pipe")) from error


def read_samples(path: Path, max_pixels: int) -> tuple[Samples, int]:
    """A picture's samples and their bits. Raises InputError."""
    pixels = read_picture(path, max_pixels)
    if pixels.dtype == np.float32:
        raise InputError(
            f"{path}: has floating-point samples, which the codec does not take; save it with 8 or 16 bits, or fit it "
            f"with `fieldfit fit`"
        )
    if max(pixels.shape[:2]) > MAX_SIDE:
        raise InputError(f"{path}: has more than {MAX_SIDE:,} rows or columns; cut it into parts")
    return pixels, 8 * pixels.dtype.itemsize


def write_bytes(name: str, data: bytes) -> None:
    """To a file, whole or not at all, or for `-` into the pipe."""
    if name == PIPE:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_whole(Path(name), lambda temporary: temporary.write_bytes(data))


def check_writable(name: str, suffixes: tuple[str, ...]) -> None:
    """Raises InputError before work begins whose result could not be written."""
    if name == PIPE:
        return
    path = Path(name)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{name}: expected a name that ends in {', '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"{name}: is a folder; give the name of a file")
    check_folder(path)


def picture_bytes(name: str, samples: Samples) -> bytes:
    """A picture file of samples, in the format that the name says; PNG for a pipe. Raises InputError."""
    from PIL import Image

    suffix = ".png" if name == PIPE else Path(name).suffix.lower()
    channels = samples.shape[2]
    if samples.dtype == np.uint16:
        if suffix != ".png":
            raise InputError(f"{name}: samples of 16 bits are written as .png only")
        return _deep_png(samples)
    out = io.BytesIO()
    plain = samples[..., 0] if channels == 1 else samples
    format_of = {".jpg": "JPEG", ".tif": "TIFF", ".pgm": "PPM"}
    options = {"quality": 95} if suffix in (".jpg", ".jpeg") else {"lossless": True} if suffix == ".webp" else {}
    try:
        Image.fromarray(plain, MODES[channels]).save(out, format_of.get(suffix, suffix[1:].upper()), **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot hold {MODES[channels]} samples ({error}); write a .png") from None
    return out.getvalue()


def _deep_png(samples: Samples) -> bytes:
    import av

    height, width, channels = samples.shape
    frame = av.VideoFrame(width, height, DEEP_FORMATS[channels])
    (plane,) = frame.planes
    rows = np.zeros((height, plane.line_size), np.uint8)
    rows[:, : 2 * channels * width] = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    plane.update(rows.tobytes())
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = width, height, DEEP_FORMATS[channels]
    codec.time_base = Fraction(1)
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
