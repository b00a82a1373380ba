"""Other codecs for pictures of 8 bits, as libraries have them: their bytes at each of a few settings, and what comes
back.

JPEG is Pillow's with optimised tables, WebP Pillow's at its slowest method, AVIF Pillow's at speed 6; JPEG XL is
libjxl's by imagecodecs at effort 7.
"""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from fields.codec.fitting import Effort, Fit, Target, psnr_of
from fields.codec.image_file import read_image

Picture = UInt8[np.ndarray, "H W 3"]
OURS = "fieldfit"
QUALITIES: Mapping[str, tuple[float, ...]] = {
    "jpeg": (5.0, 10.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0),
    "webp": (1.0, 5.0, 15.0, 30.0, 50.0, 70.0, 82.0, 90.0),
    "avif": (12.0, 22.0, 32.0, 42.0, 52.0, 62.0, 72.0, 82.0),
    "jpeg-xl": (6.0, 4.5, 3.2, 2.4, 1.8, 1.3, 0.9, 0.6),  # distances
}
OUR_QUALITIES = (13.0, 27.0, 42.0, 58.0)


@dataclass(frozen=True)
class Point:
    """One picture or film by one codec at one setting."""

    picture: str
    codec: str
    quality: float
    bytes: int
    """Of the whole file."""
    bpp: float
    psnr: float
    """dB, of RGB samples; of a film the mean over frames."""
    encode_seconds: float
    decode_seconds: float
    estimated: float | None = None
    """Bytes by the model that was fitted."""


def codecs() -> list[str]:
    """Those that this installation has."""
    return [name for name in QUALITIES if name != "jpeg-xl" or importlib.util.find_spec("imagecodecs")]


def points(name: str, codec: str, picture: Picture) -> Iterator[Point]:
    """A picture by another codec, from small to large."""
    encode, decode = _functions(codec)
    for quality in QUALITIES[codec]:
        started = time.perf_counter()
        data = encode(picture, quality)
        middle = time.perf_counter()
        again = decode(data)
        ended = time.perf_counter()
        yield point(name, codec, quality, data, picture[None], again[None], (middle - started, ended - middle))


def our_point(name: str, picture: Picture, quality: float, effort: Effort) -> Point:
    """A picture by fieldfit."""
    started = time.perf_counter()
    fit = Fit(picture, 8, Target(quality), effort)
    for _ in fit.steps():
        pass
    packed = fit.pack()
    middle = time.perf_counter()
    _, again = read_image(packed.data, picture.shape[0] * picture.shape[1])
    ended = time.perf_counter()
    seconds = middle - started, ended - middle
    return point(name, OURS, quality, packed.data, picture[None], again[None], seconds, packed.estimated)


def point(
    name: str,
    codec: str,
    quality: float,
    data: bytes,
    frames: UInt8[np.ndarray, "T H W 3"],
    again: UInt8[np.ndarray, "T H W 3"],
    seconds: tuple[float, float],
    estimated: float | None = None,
) -> Point:
    """From what was compressed, one frame for a picture, and what came back."""
    pairs = zip(frames, again, strict=True)
    psnrs = [psnr_of(float(np.mean(((a.astype(np.float64) - b) / 255) ** 2))) for a, b in pairs]
    bpp = 8 * len(data) / (frames.size // 3)
    return Point(name, codec, quality, len(data), bpp, float(np.mean(psnrs)), *seconds, estimated)


def _functions(codec: str) -> tuple[Callable[[Picture, float], bytes], Callable[[bytes], Picture]]:
    from PIL import Image

    if codec == "jpeg-xl":
        import imagecodecs

        return (
            lambda picture, distance: bytes(imagecodecs.jpegxl_encode(picture, distance=distance, effort=7)),
            lambda data: np.asarray(imagecodecs.jpegxl_decode(data)),
        )
    options = {"jpeg": {"optimize": True}, "webp": {"method": 6}, "avif": {"speed": 6}}[codec]

    def encode(picture: Picture, quality: float) -> bytes:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, codec.upper(), quality=int(quality), **options)
        return out.getvalue()

    def decode(data: bytes) -> Picture:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))

    return encode, decode
