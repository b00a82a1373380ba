"""fields.progress: what is said of steps and frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from tolerances import VALUES

from fields import progress
from fields.fitting import Step
from fields.progress import AVERAGED_STEPS, Averages, FitProgress, clock, counted, describe, remaining, with_prefix


def step(index: int, **changes: float) -> Step:
    """The index-th of 100 steps, each of 50 ms and 1000 samples."""
    values = {"loss": 0.01, "psnr": 20.0, "seconds": 0.05 * index, "skipped": 0} | changes
    skipped = int(values.pop("skipped"))
    return Step(index=index, progress=index / 100, n_samples=1000, skipped=skipped, stages={}, state=dict, **values)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as file:
        yield file


def text_of(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read()


def test_averages_are_of_the_last_steps_only():
    averages = Averages()
    for index in range(1, 5):
        averages.add(step(index, loss=1e6, psnr=-60.0))
    for index in range(5, 5 + AVERAGED_STEPS):
        averages.add(step(index))
    assert VALUES.allows(averages.loss, 0.01)
    assert VALUES.allows(averages.psnr, 20.0)
    assert VALUES.allows(averages.samples_per_second, 20_000)


def test_psnr_is_averaged_as_squared_error():
    averages = Averages()
    averages.add(step(1, psnr=10.0))
    averages.add(step(2, psnr=20.0))
    assert VALUES.allows(averages.psnr, -10 * math.log10((0.1 + 0.01) / 2))


def test_what_is_not_finite_is_left_out_and_skipped_steps_are_shown():
    averages = Averages()
    averages.add(step(1, loss=math.nan, psnr=math.nan, skipped=1))
    assert describe(step(1, skipped=1), averages) == "step 1  ETA 0:05  loss nan  1 step skipped (not finite)"
    averages.add(step(2))
    assert VALUES.allows(averages.loss, 0.01)
    text = describe(step(2, skipped=2), averages)
    assert text == "step 2  ETA 0:05  loss 0.01  20.00 dB  20 k samples/s  2 steps skipped (not finite)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (3599.0, "59:59"), (3723.0, "1:02:03"), (math.inf, "-:--")],
)
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (950.0, "950"), (12_345.0, "12.3 k"), (1.5e6, "1.5 M"), (2e9, "2 G")]
)
def test_three_digits_and_a_prefix(value: float, text: str):
    assert with_prefix(value) == text


def test_remaining_is_unknown_at_the_start():
    assert remaining(step(0)) == math.inf
    assert VALUES.allows(remaining(step(25)), 3.75)


def test_plain_lines_come_at_intervals_and_at_the_end(monkeypatch: pytest.MonkeyPatch, stream: TextIO):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with FitProgress(stream) as shown:
        for index in range(1, 101):
            now[0] = 0.1 * index
            shown.show(step(index))
        shown.show(step(100), last=True)
        shown.show(step(100), last=True)
        shown.print("done")
    lines = text_of(stream).splitlines()
    assert [line.split()[:3] for line in lines[:-1]] == [
        ["1%", "step", "1"],
        ["51%", "step", "51"],
        ["100%", "step", "100"],
    ]
    assert lines[-1] == "done"


def test_a_bar_on_a_terminal_shows_the_cursor_again(monkeypatch: pytest.MonkeyPatch, stream: TextIO):
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with FitProgress(stream) as shown:
        shown.show(step(1))
        shown.print("saved [a] to b/c")
        shown.show(step(100), last=True)
    text = text_of(stream)
    assert "saved [a] to b/c" in text
    assert "step 100" in text
    assert text.endswith("\x1b[?25h")


def test_counted_passes_everything_on(monkeypatch: pytest.MonkeyPatch, stream: TextIO):
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    assert list(counted(iter("abcd"), 4, stream)) == list("abcd")
    assert text_of(stream).splitlines() == ["frame 2 of 4  ETA 0:06  ", "frame 4 of 4  ETA 0:00  "]
