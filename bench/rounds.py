"""Measuring several contenders side by side: in every round each one has its turn, so that noise hits all alike.

A contender is timed (its value is the seconds of one call) or tells its value itself (a rate of the machine). Ratios
are taken within a round; what is reported is their median over the rounds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

SLICE = 0.03
"""Seconds of a turn at least, for contenders that are quicker than that."""
SLOW = 0.25
"""Seconds of a call from which a contender takes part in the first few rounds only, without a call to warm up."""


@dataclass(frozen=True)
class Contender:
    """What has a turn in every round."""

    call: Callable[[], object]
    threads: int
    """Of torch, which rules ours too."""
    timed: bool
    """Otherwise the call returns the value."""
    within: Callable[[], AbstractContextManager[None]] = nullcontext
    """What all calls of a turn run in."""


@dataclass
class Rounds:
    """Contenders by name, and their values by round (NaN where they had no turn)."""

    n_rounds: int
    n_slow: int
    """Rounds that slow contenders take part in."""
    contenders: dict[str, Contender] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)

    def time(
        self,
        name: str,
        call: Callable[[], object],
        threads: int,
        within: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Add a contender whose calls are timed; its turns run in the context that `within` makes."""
        self.contenders[name] = Contender(call, threads, timed=True, within=within)

    def ask(self, name: str, call: Callable[[], float], threads: int) -> None:
        """Add a contender that tells its value."""
        self.contenders[name] = Contender(call, threads, timed=False)

    def run(self) -> None:
        """Give everyone a turn, `n_rounds` times; each round begins with another one."""
        n_threads = torch.get_num_threads()
        self.values = {name: [math.nan] * self.n_rounds for name in self.contenders}
        slow = {name: _first_call(c) > SLOW for name, c in self.contenders.items()}
        names = list(self.contenders)
        for i in range(self.n_rounds):
            shift = i % len(names)
            for name in names[shift:] + names[:shift]:
                if not slow[name] or i < self.n_slow:
                    contender = self.contenders[name]
                    with contender.within():
                        self.values[name][i] = _turn(contender, warm=not slow[name])
        torch.set_num_threads(n_threads)

    def __contains__(self, name: str) -> bool:
        return name in self.contenders

    def median(self, name: str) -> float:
        """Over the rounds."""
        return statistics.median(value for value in self.values[name] if math.isfinite(value))

    def ratio(self, over: str, under: str) -> float:
        """Median of the quotient within a round."""
        pairs = zip(self.values[over], self.values[under], strict=True)
        return statistics.median(a / b for a, b in pairs if math.isfinite(a) and math.isfinite(b))


def _first_call(contender: Contender) -> float:
    """Seconds of a call, after one that may compile."""
    torch.set_num_threads(contender.threads)
    with contender.within():
        contender.call()
        started = time.perf_counter()
        if contender.timed:
            contender.call()
        return time.perf_counter() - started


def _turn(contender: Contender, warm: bool) -> float:
    torch.set_num_threads(contender.threads)
    if not contender.timed:
        value = contender.call()
        assert isinstance(value, float)
        return value
    if warm:  # the caches hold what the one before left there, and threads may have to start
        contender.call()
    seconds: list[float] = []
    while sum(seconds) < SLICE:
        started = time.perf_counter()
        contender.call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
