"""A picture of a subject in the window's size: coarse at once, then finer and finer, and never longer than wanted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from scenes.cameras import Cameras
from viewer.live.subject import Look, Seen, Subject

SLICE_SECONDS = 0.02
"""What is computed before somebody else may have a turn."""
LONG_SECONDS, ENOUGH = 0.2, 1 << 14
"""What a part of fewer rays than that may take: where a call costs much however few they are, small parts take ages."""
COARSE_SECONDS = 0.05
"""What the first picture of a series may take."""
STEP = 3
"""How many times finer than a picture the next one is along each edge, at most."""
FEWEST, MOST = 512, 1 << 20
"""Rays that are computed at once, at least and at most."""
COARSEST = 16
"""Pixels of the window that become one, along each edge, at most."""


@dataclass(frozen=True)
class Frame:
    """A picture of a series."""

    camera: Cameras
    """Of the window, whatever the picture's own size."""
    look: Look
    seen: Seen
    coarseness: int
    """Pixels of the window that one of the picture covers along each edge."""
    seconds: float
    """What the series has taken so far, the waiting left out."""
    done: bool
    """Whether nothing finer follows."""


class Pace:
    """How long a ray takes, as measured lately."""

    def __init__(self) -> None:
        self.seconds_per_ray = 0.0
        """0 until one was measured."""

    def took(self, n: int, seconds: float) -> None:
        """Take in a measurement."""
        if self.seconds_per_ray == 0:
            self.seconds_per_ray = seconds / n
        elif n >= FEWEST // 2:
            self.seconds_per_ray += 0.3 * (seconds / n - self.seconds_per_ray)

    def rays(self, seconds: float) -> int:
        """As many as take about so long."""
        if self.seconds_per_ray == 0:
            return FEWEST
        return min(max(int(seconds / max(self.seconds_per_ray, 1e-9)), FEWEST), MOST)

    def part(self) -> int:
        """As many as are computed before somebody else may have a turn."""
        return max(self.rays(SLICE_SECONDS), min(self.rays(LONG_SECONDS), ENOUGH))


def coarseness_of(camera: Cameras, rays: int) -> int:
    """So coarse that a picture has about so many rays."""
    width, height = camera.size[0].tolist()
    return min(max(math.ceil(math.sqrt(width * height / rays)), 1), COARSEST)


@torch.no_grad()
def refine(
    subject: Subject,
    camera: Cameras,
    look: Look,
    pace: Pace,
    show: Callable[[Frame], None],
    finest: int = 1,
    coarsest: int = COARSEST,
) -> Iterator[None]:
    """Show one camera's pictures of a subject, from one that is quickly made to one as fine as the window, or to one
    `finest` times coarser than that: a job for the desk."""
    coarseness, spent = max(min(coarseness_of(camera, pace.rays(COARSE_SECONDS)), coarsest), finest), 0.0
    while True:
        small = camera.scaled(1 / coarseness)
        width, height = small.size[0].tolist()
        rays, parts, begin = small.image_rays(0), [], 0
        while begin < len(rays):
            started = time.perf_counter()
            part = rays[begin : begin + pace.part()]
            parts.append(subject.see(small, part, look))
            begin += len(part)
            spent += time.perf_counter() - started
            pace.took(len(part), time.perf_counter() - started)
            if begin < len(rays):
                yield
        seen = Seen.joined(parts, height, width)
        polishing = subject.polish(camera, seen, look) if coarseness == 1 else iter(())
        better = next(polishing, None)
        show(Frame(camera, look, seen, coarseness, spent, coarseness <= finest and better is None))
        yield
        for step in polishing:
            better = step
            yield
        if better is not None:
            show(Frame(camera, look, better, 1, spent, True))
        if coarseness <= finest:
            return
        coarseness = max(math.ceil(coarseness / STEP), finest)


def whole(subject: Subject, camera: Cameras, look: Look, pace: Pace, done: Callable[[Seen], None]) -> Iterator[None]:
    """One picture in full size, bit by bit."""
    found: list[Seen] = []
    series = refine(subject, camera, look, pace, lambda frame: found.append(frame.seen), coarsest=1)
    yield from series
    done(found[-1])
