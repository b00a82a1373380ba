"""Films on their way into the codec."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

from fields.codec.film_file import MAX_RATE, MAX_SIDE, Frames
from scenes import VIDEO_SUFFIXES
from scenes.errors import InputError, InputWarning
from scenes.film import read_film, read_sound
from scenes.scene import LoadOptions

MOST_RATE_DENOMINATOR = 1001
MATROSKA = b"\x1a\x45\xdf\xa3"
MOVIE_ATOMS = (b"moov", b"mdat", b"wide")
STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
"""Of pictures in the container of mp4."""


def is_film(path: Path) -> bool:
    """Whether its name says that it is a film, or its first bytes where it has no ending."""
    if path.suffix:
        return path.suffix.lower() in VIDEO_SUFFIXES
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(12)
    kind, brand = head[4:8], head[8:12]
    is_avi, is_mp4 = head[:4] == b"RIFF" and brand == b"AVI ", kind == b"ftyp" and brand not in STILL_BRANDS
    return is_avi or is_mp4 or kind in MOVIE_ATOMS or head[:4] == MATROSKA or head[:9] == b"YUV4MPEG2"


def read_clip(path: Path, options: LoadOptions) -> tuple[Frames, Fraction, bytes | None]:
    """Frames in RGB of 8 bits, frames a second, and the sound of that time as a Matroska file. Raises InputError."""
    film = read_film(path, options)
    if max(film.frames.shape[1:3]) > MAX_SIDE:
        raise InputError(f"{path}: has more than {MAX_SIDE:,} rows or columns; cut it into parts")
    if (film.times != np.arange(len(film.times)) + 0.5).any():
        warnings.warn(f"{path}: its frames are not evenly spaced; they will be", InputWarning, stacklevel=2)
    rate = Fraction(film.fps).limit_denominator(MOST_RATE_DENOMINATOR)
    if not 0 < rate.numerator <= MAX_RATE:
        raise InputError(f"{path}: has {film.fps:g} frames a second; expected 0.001 to 1,000,000,000")
    first = (options.frames or (0, None))[0]
    begin = first / rate if film.start is None else Fraction(film.start).limit_denominator(10**6)
    return film.frames, rate, read_sound(path, begin, begin + len(film.frames) / rate)
