"""A plot of curves over time on a logarithmic axis, as SVG: one line for each name, which stands at its end."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

from viewer.stages import ticks

Curve = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 900, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 170, 34, 50
LINE_COLOURS = ("#2669be", "#de6e14", "#329650", "#be286e", "#7a52a8", "#8c6414", "#1a9aa8", "#6e747e")
"""Dark enough for lines and text on white."""
APART = 17.0
"""Pixels between two names at least."""


def line_colour(index: int) -> str:
    """Of the curve that is number `index`."""
    return LINE_COLOURS[index % len(LINE_COLOURS)]


def curve_plot(curves: Mapping[str, Curve], unit: str) -> str:
    """An `<svg>` element. Curves of (seconds, quality); those without a point appear as a name only."""
    points = [p for curve in curves.values() for p in curve if p[0] > 0 and math.isfinite(p[1])]
    first, last = (min(p[0] for p in points), max(p[0] for p in points)) if points else (0.1, 1.0)
    low, high = (min(p[1] for p in points), max(p[1] for p in points)) if points else (0.0, 1.0)
    first, pad = min(first, last / 2), 0.06 * max(high - low, 1e-3)
    low, high = low - pad, high + pad

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(seconds / first) / math.log(last / first)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="quality over seconds of fitting">',
        *_axes(x, y, (first, last), (low, high), unit),
    ]
    ends: list[tuple[float, int, str]] = []
    for i, (name, curve) in enumerate(curves.items()):
        seen = [(x(s), y(q)) for s, q in curve if s > 0 and math.isfinite(q)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in seen)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line_colour(i)}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" fill="{line_colour(i)}"/>' for px, py in seen]
        ends.append((seen[-1][1] if seen else float(HEIGHT - BOTTOM), i, name))
    for at, (_, i, name) in zip(_spread([end[0] for end in sorted(ends)]), sorted(ends), strict=True):
        text = html.escape(name)
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{at + 4.5:.1f}" fill="{line_colour(i)}">{text}</text>')
    return "\n".join([*parts, "</svg>"])


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    times: tuple[float, float],
    values: tuple[float, float],
    unit: str,
) -> list[str]:
    parts = []
    for value in ticks(*values, 6):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4.5:.1f}" class="end">{value:g}</text>')
    for power in range(math.floor(math.log10(times[0])), math.ceil(math.log10(times[1])) + 1):
        for digit in (1, 2, 5):
            seconds = digit * 10.0**power
            if times[0] <= seconds <= times[1] * 1.0001:
                at = x(seconds)
                parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
                parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}" class="middle">{seconds:g}</text>')
    parts.append(f'<text x="8" y="{TOP - 14}" class="unit">{html.escape(unit)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" class="end">seconds of fitting</text>')
    return parts


def _spread(heights: Sequence[float]) -> list[float]:
    """Ascending heights moved apart so that none hides another, and back up where they would leave the plot."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + APART) if placed else height)
    over = placed[-1] - (HEIGHT - BOTTOM) if placed else 0.0
    for i in range(len(placed) - 1, -1, -1):
        limit = placed[i + 1] - APART if i + 1 < len(placed) else placed[i] - max(over, 0.0)
        placed[i] = min(placed[i], limit)
    return placed
