"""Fits a film, group by group, and makes the file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fields.codec.film_file import GROUP, FilmHeader, planes_of
from fields.codec.film_group import GroupFit, Networks, PredictedFit
from fields.codec.fitting import ERROR_EXPONENT, RATE_EXPONENT, Step, Target, schedule, weight_for
from fields.codec.grouped_film import GroupedFilm

STEPS = 400
"""Of each predicted frame."""
USUAL_PIXELS = 640 * 360
LEAST_STEPS = 40
REHEARSED_FRAMES, REHEARSED_EFFORT, REHEARSALS = 17, 0.3, 3
"""Of a group, and with what part of the steps, to learn what a target needs."""
MOST_OFF = 3.0
"""The largest correction of the logarithm of a weight."""
AROUND = 8
"""Bytes around a section."""
TRIAL_STEPS = 12
"""From which the time of a step is known."""


@dataclass
class FilmFit(GroupedFilm[GroupFit]):
    """A film as grids. `steps` fits all of it; `pack` makes the file."""

    def __post_init__(self) -> None:
        n, height, width, _ = self.frames.shape
        self.header = FilmHeader(width, height, n, self.rate)
        self.weight = weight_for(self.target.quality)
        if self.bits is not None:
            self.weight = 1e-3 * (0.1 * n * height * width / self.bits) ** RATE_EXPONENT
        elif self.target.psnr is not None:
            self.weight = 1e-3 * (5e2 * 10 ** (-self.target.psnr / 10)) ** ERROR_EXPONENT

    def n_steps(self) -> int:
        """Of each frame: fewer for large ones, whose steps take longer."""
        usual = STEPS * min(1.0, math.sqrt(USUAL_PIXELS / (self.header.width * self.header.height)))
        return self.effort.steps or max(LEAST_STEPS, round(usual))

    def steps(self) -> Iterator[Step]:
        """Fit all groups, after short fits of the beginning where a target asks for them."""
        wants = self.bits is not None or self.target.psnr is not None
        n_steps = self.n_steps() if self.effort.minutes is None else self._affordable(60 * self.effort.minutes)
        rehearsals = self._rehearsals(n_steps)
        done, total = 0, self._work(n_steps)
        for group in rehearsals:
            group.weight = self.weight
            yield from self._followed(group, done, total)
            done += group.work()
            others = (len(group.payload) - group.first_bytes) / max(len(group.frames) - 1, 1)
            n_first = self.header.n_groups()
            expected = group.first_bytes * n_first + others * (self.header.frames - n_first)
            self._correct(8 * expected, group.psnr)
        for i in range(self.header.n_groups()):
            group = self._group(i, n_steps)
            group.goal = self._goal(group) if wants else None
            yield from self._followed(group, done, total)
            done += group.work()
            self.groups.append(group)
            self.weight = group.weight

    def _group(self, index: int, n_steps: int, most: int = GROUP) -> GroupFit:
        frames = self.frames[index * GROUP :][: min(most, GROUP)]
        return GroupFit(frames, self.header, self.weight, n_steps, self.seed)

    def _goal(self, group: GroupFit) -> Target:
        """What is left of the target for a group."""
        if self.bits is None:
            return self.target
        left = self.bits - 8.0 * sum(len(g.payload) + AROUND for g in self.groups) - 8 * AROUND
        return Target(bits=max(left, 1.0) * len(group.frames) / (self.header.frames - self._n_done()))

    def _n_done(self) -> int:
        return sum(len(g.frames) for g in self.groups)

    def _affordable(self, seconds: float) -> int:
        """Steps a frame that fit into a time, from what some take."""
        first = self.frames[0]
        fit = PredictedFit(Networks(self.header.shape), first, planes_of(first), self.weight, self.seed)
        started = time.monotonic()
        for i in range(TRIAL_STEPS):
            fit.step(schedule(i / TRIAL_STEPS), 1.0)
        each = (time.monotonic() - started) / TRIAL_STEPS
        return max(10, round(0.95 * seconds / (each * self._work(1000) / 1000)))

    def _rehearsals(self, n_steps: int) -> list[GroupFit]:
        if self.bits is None and self.target.psnr is None:
            return []
        short = max(round(REHEARSED_EFFORT * n_steps), min(2 * LEAST_STEPS, n_steps))
        return [self._group(0, short, REHEARSED_FRAMES) for _ in range(REHEARSALS)]

    def _work(self, n_steps: int) -> int:
        """Steps of everything."""
        groups = [self._group(i, n_steps) for i in range(self.header.n_groups())]
        return sum(group.work() for group in [*self._rehearsals(n_steps), *groups])

    def _followed(self, group: GroupFit, done: int, total: int) -> Iterator[Step]:
        pixels = self.header.frames * self.header.width * self.header.height
        before = self._n_done()
        for n, finished in enumerate(group.steps(), start=1):
            bits = 8 * (sum(len(g.payload) for g in self.groups) + group.estimated)
            seen = (before + max(finished, 1)) * self.header.width * self.header.height
            yield Step(n, (done + n) / total, bits * pixels / seen, group.psnr)

    def _correct(self, bits: float, psnr: float) -> None:
        """Moves the weight of the rate towards what the target needs."""
        if self.bits is not None:
            off = RATE_EXPONENT * math.log(bits / self.bits)
        elif self.target.psnr is not None:
            off = ERROR_EXPONENT * (psnr - self.target.psnr) * math.log(10) / 10
        else:
            return
        self.weight *= math.exp(max(-MOST_OFF, min(MOST_OFF, off)))
