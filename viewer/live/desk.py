"""Work that is done bit by bit on one thread, the most urgent first.

A job is a generator: between two of its steps something more urgent may go first, or it may be dropped; it yields None,
or the seconds that it pauses for. All evaluation of fields in the viewer is such a job, and whoever owns the desk (the
viewer's loop, or fitting between two steps) decides when and for how long it is done. Jobs come from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum


class Urgency(IntEnum):
    """What goes first."""

    MOVING = 0
    """A coarse picture for somebody who moves."""
    RESTING = 1
    """The picture for somebody who looks."""
    ASKED = 2
    """Results that somebody waits for: a film, a mesh."""
    SPARE = 3
    """What nobody waits for."""


@dataclass(eq=False)
class Job:
    """Something to do."""

    key: object
    steps: Iterator[float | None]
    urgency: Urgency
    begin: float
    """Not before this, as `time.monotonic`."""
    order: int
    failed: Callable[[Exception], None] | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    dropped: bool = False


class Desk:
    """Jobs by key: handing in another one under the same key drops the one before."""

    def __init__(self) -> None:
        self._jobs: dict[object, Job] = {}
        self._changed = threading.Condition()
        self._order = 0

    def submit(
        self,
        key: object,
        steps: Iterator[float | None],
        urgency: Urgency,
        *,
        after: float = 0.0,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Hand in a job, to be begun `after` seconds from now or later; `failed` hears of what it raises."""
        with self._changed:
            self._drop(key)
            self._order += 1
            self._jobs[key] = Job(key, steps, urgency, time.monotonic() + after, self._order, failed)
            self._changed.notify_all()

    def drop(self, *keys: object) -> None:
        """Do no more of these."""
        with self._changed:
            for key in keys:
                self._drop(key)

    def has(self, key: object) -> bool:
        """Whether a job of this key is waiting or under way."""
        with self._changed:
            return key in self._jobs

    def urgent(self) -> Urgency | None:
        """The most urgent job that can be done now."""
        with self._changed:
            job = self._next()
            return None if job is None else job.urgency

    def advance(self) -> bool:
        """Do one step of the most urgent job; False where there is none to do now."""
        with self._changed:
            job = self._next()
        if job is None:
            return False
        try:
            pause = next(job.steps)
            if pause is not None:
                job.begin = time.monotonic() + pause
        except StopIteration:
            self._finish(job)
        except Exception as error:  # noqa: BLE001  one picture that fails must not end the viewer
            self._finish(job)
            if job.failed is not None and not job.dropped:
                job.failed(error)
        if job.dropped:
            close(job.steps)
        return True

    def wait(self, seconds: float) -> None:
        """Return as soon as there may be something to do, or after so many seconds."""
        with self._changed:
            if self._next() is None:
                now = time.monotonic()
                begins = [job.begin - now for job in self._jobs.values()]
                self._changed.wait(max(min([seconds, *begins]), 0.0))

    def wake(self) -> None:
        """End a wait."""
        with self._changed:
            self._changed.notify_all()

    def _next(self) -> Job | None:
        now = time.monotonic()
        ready = [job for job in self._jobs.values() if job.begin <= now]
        return min(ready, key=lambda job: (job.urgency, job.order), default=None)

    def _drop(self, key: object) -> None:
        job = self._jobs.pop(key, None)
        if job is not None:
            job.dropped = True

    def _finish(self, job: Job) -> None:
        with self._changed:
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]


def close(steps: Iterator[float | None]) -> None:
    """Let a generator clean up."""
    end = getattr(steps, "close", None)
    if end is not None:
        end()
