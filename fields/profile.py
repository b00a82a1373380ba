"""Where the time of a fit goes: milliseconds by stage over the steps, in bounded memory however long it is.

Stages are whatever `Step.stages` names; they may come and go from step to step.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fields.fitting import Step

MOST_SPANS = 1024


@dataclass
class Span:
    """Some steps one after another."""

    begin: float
    """Seconds of fitting before the first of them."""
    end: float
    """The same after the last."""
    n_steps: int = 0
    milliseconds: Counter[str] = field(default_factory=Counter)
    """By stage, of all of them together."""

    def per_step(self, stage: str) -> float:
        """Mean milliseconds of a stage."""
        return self.milliseconds[stage] / self.n_steps


class Profile:
    """Spans of equal numbers of steps; when they become too many, pairs of them become one."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._steps_per_span = 1
        self._end = 0.0

    def add(self, step: Step) -> None:
        """Take in a step."""
        if not self.spans or self.spans[-1].n_steps == self._steps_per_span:
            if len(self.spans) == MOST_SPANS:
                self.spans = merged(self.spans, 2)
                self._steps_per_span *= 2
            begin = self.spans[-1].end if self.spans else max(step.seconds - sum(step.stages.values()) / 1e3, 0.0)
            self.spans.append(Span(begin, begin))
        span = self.spans[-1]
        span.end = step.seconds
        span.n_steps += 1
        span.milliseconds.update(step.stages)

    @property
    def total(self) -> Span:
        """All steps."""
        return merged(self.spans, max(len(self.spans), 1))[0]

    def table(self) -> str:
        """Milliseconds per step by stage, and the share of each, largest first."""
        total = self.total
        of_all = sum(total.milliseconds.values())
        lines = [f"{'stage':<20} {'ms / step':>10} {'share':>7}"]
        for name, milliseconds in total.milliseconds.most_common():
            lines.append(f"{name:<20} {total.per_step(name):>10.3f} {milliseconds / of_all:>7.1%}")
        return "\n".join([*lines, f"{'all of them':<20} {of_all / total.n_steps:>10.3f}"])

    def columns(self, most: int, least_steps: int) -> list[Span]:
        """At most `most` spans, of at least `least_steps` steps where there are enough for a few."""
        n_steps = sum(span.n_steps for span in self.spans)
        wanted = max(n_steps / most, min(least_steps, n_steps / 8), 1)
        found = merged(self.spans, max(1, -(-int(wanted) // self._steps_per_span)))
        if len(found) > 1 and found[-1].n_steps * 2 < found[0].n_steps:  # too few to say what a step takes
            found[-2:] = merged(found[-2:], 2)
        return found


def merged(spans: Sequence[Span], n: int) -> list[Span]:
    """Every `n` of them as one."""
    found = []
    for i in range(0, len(spans), n):
        part = spans[i : i + n]
        whole = Span(part[0].begin, part[-1].end)
        for span in part:
            whole.n_steps += span.n_steps
            whole.milliseconds.update(span.milliseconds)
        found.append(whole)
    return found


def medians(spans: Sequence[Span]) -> dict[str, float]:
    """Of milliseconds per step over spans of equal length, by stage, in the order in which stages appeared."""
    stages = dict.fromkeys(stage for span in spans for stage in span.milliseconds)
    return {stage: statistics.median(span.per_step(stage) for span in spans) for stage in stages}
