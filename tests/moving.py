"""A ball that moves along x, photographed at many times: small data for tests of what changes with time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_captures import ball, load, ring, write_dynamic

from scenes import Capture


def where(time: float) -> tuple[float, float, float]:
    """The middle of the moving ball."""
    return (2.4 * time - 1.2, 0.0, 0.0)


def moving_ball(matrix: np.ndarray, width: int, height: int, time: float) -> np.ndarray:
    return ball(matrix, width, height, where(time), 0.5)


def views(n: int, phase: float = 0.0) -> list[tuple[np.ndarray, float]]:
    """Cameras around, in an order that has nothing to do with their times."""
    poses = ring(n, 4.0, 2.0) if n > 1 else ring(3)[1:2]
    return [(poses[(5 * i) % n], (i + 0.5 + phase) / n) for i in range(n)]


def moving_capture(folder: Path) -> Capture:
    """24 photographs to train on, and 6 at other times."""
    return load(write_dynamic(folder, {"train": views(24), "test": views(6)}, moving_ball, (16, 16)))
