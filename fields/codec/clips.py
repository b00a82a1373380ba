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


def is_film(path: Path) -> bool:
    """Whether its name says that it is a film."""
    return path.suffix.lower() in VIDEO_SUFFIXES


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
    return film.frames, rate, read_sound(path, first / rate, (first + len(film.frames)) / rate)
