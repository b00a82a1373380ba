"""Fits at equal wall time: each goes on for a second or so in turn, so that noise of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from fields.fitting import Step

SLICE = 1.0
"""Seconds of a turn."""


def take_turns(fits: Mapping[str, Iterator[object]]) -> dict[str, int]:
    """Run fits to their ends, which their own clocks tell them, a slice at a time; how many steps each one took."""
    steps = dict.fromkeys(fits, 0)
    running = dict(fits)
    while running:
        for name, fit in list(running.items()):
            end = time.perf_counter() + SLICE
            while time.perf_counter() < end:
                if next(fit, None) is None:
                    del running[name]
                    break
                steps[name] += 1
    return steps


def each_step_within(context: Callable[[], AbstractContextManager[None]], fit: Iterator[Step]) -> Iterator[Step]:
    """A fit whose steps run in a context that is left between them."""
    while True:
        with context():
            step = next(fit, None)
        if step is None:
            return
        yield step
