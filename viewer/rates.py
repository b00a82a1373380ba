"""Rates and distortions of several codecs: a plot, a page that needs no other file, and BD-rates."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from fields.codec.rivals import OURS, Point
from viewer.comparisons import STYLE
from viewer.curves import line_colour

TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)


def bd_rate(anchor: Sequence[Point], tested: Sequence[Point]) -> float | None:
    """Per cent that `tested` needs more than `anchor` for the same PSNR (Bjontegaard 2001, Akima interpolation); None
    where they hardly overlap."""
    import bjontegaard

    def curve(points: Sequence[Point]) -> tuple[list[float], list[float]]:
        ordered = sorted(points, key=lambda p: p.bpp)
        rising = [p for i, p in enumerate(ordered) if all(p.psnr > q.psnr for q in ordered[:i])]
        return [p.bpp for p in rising], [p.psnr for p in rising]

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of little overlap, which the result tells too
            found = bjontegaard.bd_rate(
                *curve(anchor), *curve(tested), method="akima", require_matching_points=False, min_overlap=0.3
            )
    except (ValueError, AssertionError):
        return None
    number = float(np.asarray(found))
    return number if np.isfinite(number) else None


def _of(measured: Sequence[Point], picture: str, codec: str) -> list[Point]:
    return [p for p in measured if p.picture == picture and p.codec == codec]


def rates_against(measured: Sequence[Point]) -> dict[str, dict[str, float | None]]:
    """For every other codec: the BD-rate of fieldfit against it, item by item."""
    pictures = list(dict.fromkeys(p.picture for p in measured))
    others = [c for c in dict.fromkeys(p.codec for p in measured) if c != OURS]
    return {c: {n: bd_rate(_of(measured, n, c), _of(measured, n, OURS)) for n in pictures} for c in others}


def counted(n: int, item: str) -> str:
    """Such as 1 film, or 2 films."""
    return f"{n} {item}{'' if n == 1 else 's'}"


def summary(measured: Sequence[Point], item: str = "picture") -> str:
    """What a terminal shows: mean BD-rates over the items, seconds."""
    lines = []
    for codec, rates in rates_against(measured).items():
        known = [rate for rate in rates.values() if rate is not None]
        mean = f"{np.mean(known):+.1f} %" if known else "no overlap"
        lines.append(f"BD-rate of fieldfit against {codec + ':':<9} {mean} (mean of {counted(len(known), item)})")
    ours = [p for p in measured if p.codec == OURS]
    if ours:
        encode, decode = (np.median([getattr(p, f"{what}_seconds") for p in ours]) for what in ("encode", "decode"))
        worst = max((abs(p.estimated / p.bytes - 1) for p in ours if p.estimated is not None), default=0.0)
        lines.append(f"fieldfit encodes in {encode:.1f} s and decodes in {decode:.2f} s (medians)")
        lines.append(f"estimated bytes are off by {100 * worst:.2f} % at most")
    return "\n".join(lines)


def plot(measured: Sequence[Point]) -> bytes:
    """PNG: PSNR over bits a pixel, each codec's mean over all pictures, or films, at each of its settings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.4), dpi=120)
    axes = figure.add_subplot(xscale="log", xlabel="bits a pixel", ylabel="PSNR of RGB, dB")
    codecs = sorted(dict.fromkeys(p.codec for p in measured), key=lambda c: c != OURS)
    for i, codec in enumerate(codecs):
        settings = dict.fromkeys(p.quality for p in measured if p.codec == codec)
        means = []
        for quality in settings:
            at = [p for p in measured if p.codec == codec and p.quality == quality]
            means.append((float(np.mean([p.bpp for p in at])), float(np.mean([p.psnr for p in at]))))
        x, y = zip(*sorted(means), strict=True)
        axes.plot(x, y, "o-", color=line_colour(i), label=codec, linewidth=2.4 if codec == OURS else 1.4, markersize=4)
    low, high = axes.get_xlim()
    ticks = [t for t in TICKS if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.grid(True, color="#e4e6ea")
    axes.legend(frameon=False)
    figure.tight_layout()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def page(facts: Mapping[str, str], measured: Sequence[Point], item: str = "picture") -> str:
    """HTML that needs no other file."""
    picture = base64.b64encode(plot(measured)).decode("ascii")
    told = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in facts.items())
    against = rates_against(measured)
    names = list(dict.fromkeys(p.picture for p in measured))
    rows = []
    for name in names:
        rows.append([name, *(_percent(rates[name]) for rates in against.values())])
    means = [[r for r in rates.values() if r is not None] for rates in against.values()]
    rows.append(["mean", *(_percent(float(np.mean(m)) if m else None) for m in means)])
    every = [
        [
            p.picture,
            p.codec,
            f"{p.quality:g}",
            f"{p.bytes:,}",
            f"{p.bpp:.4f}",
            f"{p.psnr:.2f}",
            f"{p.encode_seconds:.2f}",
            f"{p.decode_seconds:.3f}",
        ]
        for p in sorted(measured, key=lambda p: (p.picture, p.codec, p.bpp))
    ]
    columns = [item, "codec", "setting", "bytes", "bits a pixel", "dB", "encode s", "decode s"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Codecs compared</title><style>{STYLE}</style>
<h1>Codecs compared</h1><dl>{told}</dl>
<img alt="PSNR over bits a pixel of each codec" src="data:image/png;base64,{picture}">
<p>Bits a pixel are those of whole files. Means over the {item}s at each setting.</p>
<h2>BD-rate of fieldfit</h2>
<p>How many bits fieldfit needs more (or, with a minus, less) than each for the same PSNR.</p>
{_table([item, *against], rows)}
<h2>All files</h2>
{_table(columns, every)}
</html>
"""


def _percent(rate: float | None) -> str:
    return "no overlap" if rate is None else f"{rate:+.1f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
