"""Profiles: nothing is lost when spans become one, and the picture shows every stage where and as high as it was."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import PLOTTED, VALUES

from fields.fitting import Step
from fields.profile import MOST_SPANS, Profile, medians
from viewer.stages import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, stage_colour, stage_picture, ticks


def profile(n_steps: int, stages: dict[str, float], every_16th: dict[str, float] | None = None) -> Profile:
    made, seconds = Profile(), 0.0
    for i in range(n_steps):
        own = stages | (every_16th or {} if i % 16 == 15 else {})
        seconds += sum(own.values()) / 1e3
        made.add(Step(i + 1, 0.0, seconds, 0.0, 0.0, 1, 0, own, dict))
    return made


@pytest.mark.parametrize("n_steps", [1, 2, 31, MOST_SPANS, 5 * MOST_SPANS + 3])
def test_nothing_is_lost(n_steps):
    made = profile(n_steps, {"a": 2.0, "b": 1.0})
    assert len(made.spans) <= MOST_SPANS
    assert made.total.n_steps == n_steps
    assert made.total.milliseconds["a"] == 2.0 * n_steps
    assert VALUES.allows(made.total.end - made.total.begin, 3e-3 * n_steps)
    for most in (1, 10, 240):
        columns = made.columns(most, 32)
        assert len(columns) <= most + 1
        assert sum(span.n_steps for span in columns) == n_steps
        assert [b.begin for b in columns[1:]] == [a.end for a in columns[:-1]]


def test_what_runs_in_some_steps_counts_by_its_share_in_each():
    made = profile(3200, {"a": 2.0}, {"rare": 16.0})
    assert medians(made.columns(100, 32)) == {"a": 2.0, "rare": 1.0}
    lines = [line.split() for line in made.table().splitlines()]
    assert lines[1:] == [["a", "2.000", "66.7%"], ["rare", "1.000", "33.3%"], ["all", "of", "them", "3.000"]]


def column_of(picture: np.ndarray, share: float) -> np.ndarray:
    """The pixels of the plot at this share of its width, from the bottom to the top, as the stages' numbers or -1."""
    x = round(LEFT + share * (WIDTH - LEFT - RIGHT))
    colours = picture[TOP + 2 : HEIGHT - BOTTOM - 2, x][::-1]
    found = np.full(len(colours), -1)
    for i in range(6):
        found[(colours == stage_colour(i)).all(-1)] = i
    return found


def test_the_picture_stacks_stages_in_their_order():
    picture = stage_picture(profile(3200, {"first": 3.0, "second": 1.0, "third": 2.0}), "a run")
    assert picture.shape == (HEIGHT, WIDTH, 3)
    for share in (0.05, 0.5, 0.95):
        pixels = column_of(picture, share)
        heights = [int((pixels == i).sum()) for i in range(3)]
        assert PLOTTED.allows(heights[0] / sum(heights), 1 / 2)
        assert PLOTTED.allows(heights[2] / sum(heights), 1 / 3)
        seen = [int(i) for i in pixels if i >= 0]
        assert seen == sorted(seen)


def test_one_slow_step_does_not_hide_the_others():
    made = profile(100, {"a": 2.0})
    made.add(Step(101, 0.0, 1000.0, 0.0, 0.0, 1, 0, {"a": 1e5}, dict))
    assert (column_of(stage_picture(made, "a run"), 1e-3) == 0).mean() > 0.2


@pytest.mark.parametrize("n_stages", [1, 30])
def test_any_number_of_stages_and_no_step_at_all(n_stages):
    stage_picture(profile(3, {f"stage {i}": 1.0 for i in range(n_stages)}), "a run")
    stage_picture(Profile(), "a run")


def test_ticks_are_round():
    assert ticks(0.0, 10.0, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.0, 0.07, 6) == [0, 0.02, 0.04, 0.06]
    assert ticks(3.2, 3.2, 6) == [3.2]
