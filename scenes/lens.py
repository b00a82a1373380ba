"""Intrinsics as JSON files give them, and what they mean for a picture of a given size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenes.errors import InputError, InputWarning
from scenes.json_fields import read_number, read_positive, read_string, shown

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
CAMERA_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL", "PERSPECTIVE", "OPENCV_FISHEYE")


@dataclass(frozen=True)
class Lens:
    """Intrinsics as a file gives them: what is None follows from the size of the picture."""

    focal: tuple[float | None, float | None]
    angle: tuple[float | None, float | None]
    """Fields of view in radians, used where a focal length is missing."""
    centre: tuple[float | None, float | None]
    size: tuple[float | None, float | None]
    distortion: tuple[float, ...]
    fisheye: bool

    def in_pixels(self, width: int, height: int, where: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """(fx, fy) and (cx, cy) for a picture of this size. Raises InputError if they cannot be meant for it."""
        size = (width, height)
        if any(given is not None and abs(given - n) >= 1 for given, n in zip(self.size, size, strict=True)):
            given = " x ".join("?" if v is None else f"{v:g}" for v in self.size)
            advice = "scale the intrinsics, or use the pictures that they were made for"
            raise InputError(f"{where}: w and h say {given}, but the picture is {width} x {height}; {advice}")
        fx, fy = self.focal
        if fx is None:
            fx, fy = (_focal(angle, n) for angle, n in zip(self.angle, size, strict=True))
        assert fx is not None, "read_lens makes sure of it"
        fy = fx if fy is None else fy
        cx, cy = (0.5 * n if c is None else c for c, n in zip(self.centre, size, strict=True))
        possible = 1e-2 < fx / width < 1e5 and 1e-2 < fy / height < 1e5
        if not possible or abs(cx) > 10 * width or abs(cy) > 10 * height:
            got = f"focal length {fx:g}, {fy:g} and centre {cx:g}, {cy:g}"
            raise InputError(f"{where}: {got} are not those of a picture of {width} x {height}; give them in pixels")
        return (fx, fy), (cx, cy)

    def check_inverse(self, error: float, where: str) -> None:
        """Warn when rays through the edge of a picture come back `error` pixels from where they began."""
        if error < 0.5:
            return
        terms = " ".join(f"{name} {k:g}" for name, k in zip(DISTORTION, self.distortion, strict=True) if k)
        if not math.isfinite(error):
            raise InputError(f"{where}: the lens {terms} has no inverse; undistort the pictures first")
        message = f"{where}: the lens {terms} is {error:.2g} pixels off at the edge, where it has no inverse; crop that"
        warnings.warn(message, InputWarning, stacklevel=2)


def _focal(angle: float | None, n: int) -> float | None:
    return None if angle is None else 0.5 * n / max(math.tan(0.5 * angle), 1e-9)


def read_lens(frame: Mapping[str, Any], data: Mapping[str, Any], path: Path, where: str) -> Lens:
    """Of each key the frame's value, or else the file's."""

    def found(key: str) -> tuple[Any, str]:
        if (value := frame.get(key)) is not None:
            return value, f"{where}.{key}"
        return data.get(key), f"{path}: {key}"

    def number(key: str) -> float | None:
        value, place = found(key)
        return None if value is None else read_number(value, place)

    def positive(key: str, below: float = math.inf) -> float | None:
        value, place = found(key)
        if value is None:
            return None
        if (number := read_positive(value, place)) >= below:
            raise InputError(f"{place}: expected a value below {below:.4g}, got {number:g}")
        return number

    for key in ("k5", "k6", "ftheta_p0"):
        if number(key):
            raise InputError(f"{found(key)[1]}: this lens model is not supported; undistort the pictures first")
    value, place = found("camera_model")
    model = "OPENCV" if value is None else read_string(value, place).upper()
    if model not in CAMERA_MODELS:
        known = ", ".join(CAMERA_MODELS)
        raise InputError(f"{place}: expected one of {known}, got {model[:40]!r}; undistort the pictures first")
    flag, place = found("is_fisheye")
    if flag not in (None, True, False):
        raise InputError(f"{place}: expected true or false, got {shown(flag)}")
    fisheye = bool(flag) or model == "OPENCV_FISHEYE"
    angle_wins = frame.get("camera_angle_x") is not None and frame.get("fl_x") is None
    lens = Lens(
        focal=(None, None) if angle_wins and not fisheye else (positive("fl_x"), positive("fl_y")),
        angle=(positive("camera_angle_x", math.pi), positive("camera_angle_y", math.pi)),
        centre=(number("cx"), number("cy")),
        size=(positive("w"), positive("h")),
        distortion=tuple(number(key) or 0.0 for key in DISTORTION),
        fisheye=fisheye,
    )
    if lens.focal[0] is None and (fisheye or lens.angle[0] is None):
        wanted = "fl_x" if fisheye else "fl_x or camera_angle_x"
        raise InputError(f"{where}: neither the frame nor the file has {wanted}; add the focal length in pixels")
    return lens
