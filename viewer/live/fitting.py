"""A fit that is looked at: what browsers plot of it, and what they may ask of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from fields.fitting import Step

MOST_POINTS = 512
"""Of a plot: when there are more, every other one goes."""


@dataclass
class Fitting:
    """Written by the fit, read by panels."""

    running: bool = True
    paused: bool = False
    save_asked: bool = False
    index: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    rate: float = 0.0
    """Samples a second, of wall time, lately."""
    points: list[tuple[float, float, float]] = field(default_factory=list)
    """(seconds, loss, PSNR) at even distances, each the mean of what lies between."""
    _every: int = 1
    _open: list[tuple[float, float, float]] = field(default_factory=list)
    _counted: int = 0
    _since: float = field(default_factory=time.perf_counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, step: Step) -> None:
        """Take in a step."""
        with self._lock:
            self.index, self.progress, self.seconds = step.index, step.progress, step.seconds
            self._counted += step.n_samples
            now = time.perf_counter()
            if now - self._since > 1:
                self.rate, self._counted, self._since = self._counted / (now - self._since), 0, now
            if not np.isfinite([step.loss, step.psnr]).all():
                return
            self._open.append((step.seconds, step.loss, step.psnr))
            if len(self._open) >= self._every:
                self.points.append(_mean(self._open))
                self._open.clear()
            if len(self.points) > MOST_POINTS:
                self.points = [_mean(self.points[i : i + 2]) for i in range(0, len(self.points) - 1, 2)]
                self._every *= 2

    def curves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Seconds, the common logarithm of the loss, and PSNR in dB."""
        with self._lock:
            points = np.array(self.points or [(0.0, 1.0, 0.0)])
        return points[:, 0], np.log10(np.maximum(points[:, 1], 1e-12)), points[:, 2]

    def take_save(self) -> bool:
        """Whether somebody asked for a save since the last call."""
        with self._lock:
            asked, self.save_asked = self.save_asked, False
        return asked


def _mean(points: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    a, b, c = np.mean(points, axis=0).tolist()
    return a, b, c
