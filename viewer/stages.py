"""The picture of a profile: milliseconds per step by stage, stacked, over the time of a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fields.profile import Profile, Span, medians
from viewer.pictures import INK, PALE, PAPER, Colour, Picture, font

if TYPE_CHECKING:
    from PIL import ImageDraw

Point = tuple[float | int, float | int]

WIDTH, HEIGHT = 1280, 640
SCALE = 3
"""Drawn so many times too large: Pillow's lines are jagged."""
LEFT, RIGHT, TOP, BOTTOM = 76, 316, 84, 56
"""Pixels around the plot; the legend is on the right."""
GREY = (110, 116, 126)
COLOURS = (  # light areas that people who see fewer colours can tell apart too (P. Tol, "light"), and some more
    (119, 170, 221), (68, 187, 153), (238, 221, 136), (238, 136, 102), (170, 153, 204), (153, 221, 255),
    (187, 204, 51), (255, 170, 187), (170, 170, 0), (90, 120, 160), (205, 133, 63), (150, 150, 150),
)  # fmt: skip
MOST_COLUMNS = 240
LEAST_STEPS = 32
"""Of a column, so that what runs in every 16th step only shows as its share of each."""
TALLEST = 3.0
"""Times the median: columns that are taller, such as a first step that warms up, are cut off at the upper edge."""


def stage_colour(index: int) -> Colour:
    """Of the stage that appeared as number `index`."""
    return COLOURS[index % len(COLOURS)]


def stage_picture(profile: Profile, title: str) -> Picture:
    """Stacked areas, the first stage at the bottom, and a legend with medians. A profile of no steps is an empty
    plot."""
    from PIL import Image, ImageDraw

    spans = profile.columns(MOST_COLUMNS, LEAST_STEPS) if profile.spans else []
    canvas = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    draw = ImageDraw.Draw(canvas)
    typical = medians(spans)
    totals = [sum(span.milliseconds.values()) / span.n_steps for span in spans]
    middle = float(np.median(totals)) if totals else 0.0
    top = min(max(totals), TALLEST * middle) * 1.12 if totals else 1.0
    plot = _Plot(spans[0].begin if spans else 0.0, spans[-1].end if spans else 1.0, top)
    for value in plot.lines():
        _line(draw, (LEFT, plot.y(value)), (WIDTH - RIGHT, plot.y(value)), PALE)
    _areas(draw, plot, spans, list(typical))
    _axes(draw, plot)
    n_steps = sum(span.n_steps for span in spans)
    _text(draw, (LEFT, 30.0), title, 21.0, INK, "lm")
    note = f"{n_steps:,} steps, {plot.end - plot.begin:.3g} s"
    _text(draw, (WIDTH - 24, 30.0), note, 16.0, GREY, "rm")
    _legend(draw, typical, middle)
    return np.asarray(canvas.reduce(SCALE))


class _Plot:
    """From seconds and milliseconds to pixels."""

    def __init__(self, begin: float, end: float, top: float) -> None:
        self.begin, self.end, self.top = begin, max(end, begin + 1e-9), max(top, 1e-9)

    def x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (seconds - self.begin) / (self.end - self.begin)

    def y(self, milliseconds: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(milliseconds / self.top, 1.0)

    def lines(self) -> list[float]:
        """Milliseconds that lines across the plot mark."""
        return [value for value in ticks(0.0, self.top, 6) if value > 0]


def _areas(draw: ImageDraw.ImageDraw, plot: _Plot, spans: Sequence[Span], stages: Sequence[str]) -> None:
    heights = np.array([[span.per_step(stage) for stage in stages] for span in spans]).reshape(len(spans), len(stages))
    edges = np.concatenate([np.zeros((len(spans), 1)), heights.cumsum(1)], axis=1)
    for column, span in enumerate(spans):
        left, right = round(plot.x(span.begin) * SCALE), round(plot.x(span.end) * SCALE)
        for i in range(len(stages)):
            low, high = (round(plot.y(float(edges[column, k])) * SCALE) for k in (i, i + 1))
            if low > high and right > left:
                draw.rectangle([left, high, right - 1, low - 1], stage_colour(i))
        for value in plot.lines():
            if value < edges[column, -1]:  # on colours the lines of the plot are white
                y = round(plot.y(value) * SCALE)
                draw.line([left, y, right - 1, y], PAPER, SCALE // 2)


def _axes(draw: ImageDraw.ImageDraw, plot: _Plot) -> None:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in (0.0, *plot.lines()):
        y = plot.y(value)
        _line(draw, (LEFT - 5, y), (LEFT, y), GREY)
        _text(draw, (LEFT - 9, y), f"{value:g}", 15.0, GREY, "rm")
    for value in ticks(plot.begin, plot.end, 8):
        x = plot.x(value)
        _line(draw, (x, bottom), (x, bottom + 5), GREY)
        _text(draw, (x, bottom + 9), f"{value:g}", 15.0, GREY, "ma")
    _line(draw, (LEFT, TOP), (LEFT, bottom), GREY)
    _line(draw, (LEFT, bottom), (right, bottom), GREY)
    _text(draw, (LEFT, TOP - 10), "ms per step", 15.0, GREY, "ls")
    _text(draw, (right, bottom + 30), "seconds of fitting", 15.0, GREY, "ra")


def _legend(draw: ImageDraw.ImageDraw, typical: Mapping[str, float], total: float) -> None:
    """The stages as they are stacked, the last on top; as many as there is room for."""
    x, right, y = WIDTH - RIGHT + 28, WIDTH - 24, TOP + 14
    step = min(30.0, (HEIGHT - TOP - BOTTOM - 60) / max(len(typical), 1))
    size = min(16.0, 0.62 * step)
    _text(draw, (right, y), "median, ms per step", 14.0, GREY, "rm")
    for i, (stage, value) in reversed(list(enumerate(typical.items()))):
        y += step
        box = [x, y - 0.3 * step, x + 0.6 * step, y + 0.3 * step]
        draw.rectangle([round(v * SCALE) for v in box], stage_colour(i))
        _text(draw, (x + 0.6 * step + 10, y), stage, size, INK, "lm")
        _text(draw, (right, y), f"{value:.2f}", size, INK, "rm")
    y += 0.75 * step
    _line(draw, (x, y), (right, y), PALE)
    _text(draw, (x + 0.6 * step + 10, y + 0.7 * step), "a step", size, INK, "lm")
    _text(draw, (right, y + 0.7 * step), f"{total:.2f}", size, INK, "rm")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from `low` to `high`, about so many: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(about, 1)
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    pitch = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.ceil(low / pitch - 1e-9), math.floor(high / pitch + 1e-9)
    return [round(i * pitch, 12) for i in range(first, last + 1)]


def _line(draw: ImageDraw.ImageDraw, a: Point, b: Point, colour: Colour) -> None:
    draw.line([a[0] * SCALE, a[1] * SCALE, b[0] * SCALE, b[1] * SCALE], colour, SCALE)


def _text(draw: ImageDraw.ImageDraw, at: Point, text: str, size: float, colour: Colour, anchor: str) -> None:
    draw.text((at[0] * SCALE, at[1] * SCALE), text, colour, font=font(size * SCALE), anchor=anchor)
