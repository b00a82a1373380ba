"""What a person sees while a field is fitted: a bar on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column

from fields.fitting import Step

T = TypeVar("T")

AVERAGED_STEPS = 32
PLAIN_SECONDS = 5.0
REDRAW_SECONDS = 0.1


class Averages:
    """Means over the last few steps. PSNR is averaged as the squared error that it stands for."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=AVERAGED_STEPS)

    def add(self, step: Step) -> None:
        """Take in a step."""
        self._steps.append(step)

    @property
    def loss(self) -> float:
        """NaN when none of them was finite."""
        return _mean([step.loss for step in self._steps])

    @property
    def psnr(self) -> float:
        """dB, or NaN."""
        return -10 * math.log10(_mean([10 ** (-step.psnr / 10) for step in self._steps]))

    @property
    def samples_per_second(self) -> float:
        """NaN for a single step, which began at an unknown time."""
        seconds = self._steps[-1].seconds - self._steps[0].seconds
        return sum(step.n_samples for step in list(self._steps)[1:]) / seconds if seconds > 0 else math.nan


class FitProgress:
    """Shows steps on `stream` while used as a context manager."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.averages = Averages()
        self._last_shown = -math.inf
        self._last_index = self._taken = -1
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._interval = PLAIN_SECONDS

    def __enter__(self) -> FitProgress:
        if self.stream.isatty():
            whole = Column(no_wrap=True, min_width=4)
            columns = (BarColumn(24), TaskProgressColumn(table_column=whole), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(file=self.stream), auto_refresh=False, transient=False)
            self._task = self._bar.add_task("starting", total=1.0)
            self._bar.start()
            self._interval = REDRAW_SECONDS
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: Step, *, last: bool = False) -> None:
        """Take in a step, and show it if the last one shown is long enough ago, or if it is the last of all, which
        may have been taken in before."""
        if step.index != self._taken:
            self.averages.add(step)
            self._taken = step.index
        now = time.monotonic()
        due = now - self._last_shown >= self._interval or last
        if not due or step.index == self._last_index:
            return
        self._last_shown, self._last_index = now, step.index
        text = describe(step, self.averages)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step.progress, description=text, refresh=True)
        else:
            self.stream.write(f"{step.progress:4.0%}  {text}\n")
            self.stream.flush()

    def print(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()


def describe(step: Step, averages: Averages) -> str:
    """One line: steps done, ETA, loss, PSNR where there is one, samples a second, skipped steps where there are any."""
    parts = [f"step {step.index}", f"ETA {clock(remaining(step))}", f"loss {averages.loss:.3g}"]
    if math.isfinite(averages.psnr):
        parts.append(f"{averages.psnr:.2f} dB")
    if math.isfinite(averages.samples_per_second):
        parts.append(f"{with_prefix(averages.samples_per_second)} samples/s")
    if step.skipped:
        parts.append(f"{step.skipped} step{'s' * (step.skipped > 1)} skipped (not finite)")
    return "  ".join(parts)


def remaining(step: Step) -> float:
    """Seconds until progress reaches 1, if it goes on as until now; infinite at the start."""
    return step.seconds * (1 - step.progress) / step.progress if step.progress > 1e-4 else math.inf


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def with_prefix(value: float) -> str:
    """`950`, `12.3 k`, `1.50 M`: three digits."""
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def counted(frames: Iterable[T], n_frames: int, stream: TextIO) -> Iterator[T]:
    """`frames` as they come, and on `stream` how far it is: one line rewritten on a terminal, some lines elsewhere."""
    started = shown = time.monotonic()
    interval, end = (REDRAW_SECONDS, "\r") if stream.isatty() else (PLAIN_SECONDS, "\n")
    for done, frame in enumerate(frames, start=1):
        yield frame
        now = time.monotonic()
        if now - shown >= interval:
            shown = now
            left = (now - started) / done * (n_frames - done)
            stream.write(f"frame {done} of {n_frames}  ETA {clock(left)}  {end}")
            stream.flush()
    if end == "\r":
        stream.write("\x1b[2K\r")
