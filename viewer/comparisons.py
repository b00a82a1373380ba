"""The page of a comparison: a table, a plot and pictures in one HTML file that refers to nothing outside of it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fields.field import Field, RadianceField
from scenes.capture import Capture
from scenes.image import Image
from scenes.mesh import Mesh
from scenes.scene import Scene
from scenes.video import Video
from viewer.curves import curve_plot, line_colour
from viewer.pictures import Picture
from viewer.views import capture_pictures, image_pictures, mesh_pictures, video_pictures

UNITS = {"psnr": "PSNR, dB", "iou": "IoU"}
NOTES = {
    "parameters": "all that is fitted, tables included",
    "file": "of field.safetensors, float32",
    "dB / s": "PSNR over seconds of fitting",
    "caught up": "when it first was as good as the least of all is at the end",
    "memory": "most that the process held while it fitted, the data included; on a GPU what torch allocated there",
}
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #282c34; background: #fff; margin: 0 auto; max-width: 1200px;
  padding: 24px; }
h1 { font-size: 26px; margin: 0 0 12px; } h2 { font-size: 19px; margin: 36px 0 10px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: #6e747e; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid #e2e5ea; }
th { color: #6e747e; font-weight: 500; } th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 8px; }
.notes { color: #6e747e; font-size: 14px; } .notes p { margin: 2px 0; }
svg { width: 100%; max-width: 900px; height: auto; } svg text { font: 13px system-ui, sans-serif; }
svg .end { text-anchor: end; fill: #6e747e; } svg .middle { text-anchor: middle; fill: #6e747e; }
svg .unit { fill: #6e747e; } svg .grid { stroke: #e2e5ea; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 14px; margin-bottom: 20px; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; background: #f2f3f5; }
.pixels img { image-rendering: pixelated; }
figcaption { font-size: 14px; color: #6e747e; padding-top: 3px; }
"""


@dataclass(frozen=True)
class Shown:
    """Pictures that belong side by side."""

    title: str
    pictures: Mapping[str, Picture]
    """By what stands under each."""
    enlarged: bool = False
    """Whether its pixels are to be seen."""


def show(scene: Scene, fields: Mapping[str, Field | RadianceField]) -> list[Shown]:
    """What each field shows, beside the truth where there is one."""
    if isinstance(scene, Image):
        return [Shown(*row) for row in image_pictures(scene, fields)]
    if isinstance(scene, Mesh):
        return [Shown(*row) for row in mesh_pictures(scene, fields)]
    if isinstance(scene, Capture):
        return [Shown(*row) for row in capture_pictures(scene, fields)]
    if isinstance(scene, Video):
        return [Shown(*row) for row in video_pictures(scene, fields)]
    return []


def page(facts: Mapping[str, str], found: Sequence[Mapping[str, Any]], metric: str, shown: Sequence[Shown]) -> str:
    """The HTML text; `found` are the entries of comparison.json."""
    described = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items())
    notes = "".join(f"<p><b>{html.escape(key)}</b>: {html.escape(text)}.</p>" for key, text in NOTES.items())
    plot = curve_plot({one["name"]: one["curve"] for one in found}, UNITS.get(metric, metric))
    pictures = "".join(_row(row) for row in shown)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>fieldfit: a comparison of fields</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>A comparison of fields</h1>\n<dl>{described}</dl>\n"
        f'<h2>In numbers</h2>\n<div class="wide">{_table(found, metric)}</div>\n<div class="notes">{notes}</div>\n'
        f"<h2>Quality over time</h2>\n{plot}\n{pictures}</body>\n</html>\n"
    )


def _table(found: Sequence[Mapping[str, Any]], metric: str) -> str:
    metrics = list(dict.fromkeys(name for one in found for name in one["results"]))
    head = ["field", "encoding", "network", "parameters", "file", "steps", "seconds", *metrics]
    head += ["dB / s"] if metric == "psnr" else []
    head += ["caught up", "memory"]
    best = {name: max(one["results"].get(name, float("-inf")) for one in found) for name in ("psnr", "ssim", "iou")}
    least = min((one["curve"][-1][1] for one in found if one["curve"]), default=0.0)
    rows = []
    for i, one in sorted(enumerate(found), key=lambda item: -item[1]["results"].get(metric, 0.0)):
        cells = [
            f'<td><span class="key" style="background:{line_colour(i)}"></span>{html.escape(one["name"])}</td>',
            *(f"<td>{html.escape(str(one[key]))}</td>" for key in ("encoding", "network")),
            f"<td>{one['parameters']:,}</td><td>{_size(one['bytes'])}</td>",
            f"<td>{one['steps']:,}</td><td>{one['seconds']:.1f}</td>",
        ]
        for name in metrics:
            value = one["results"].get(name)
            text = "" if value is None else (f"{value:.2f} dB" if name == "psnr" else f"{value:.4g}")
            cells.append(f'<td class="best">{text}</td>' if value == best.get(name) else f"<td>{text}</td>")
        if metric == "psnr":
            rate = one["psnr_per_second"]
            cells.append("<td></td>" if rate is None else f"<td>{rate:.3g}</td>")
        reached = next((seconds for seconds, quality in one["curve"] if quality >= least), None)
        cells.append("<td></td>" if reached is None else f"<td>{reached:.3g} s</td>")
        cells.append("<td>?</td>" if one["peak_memory"] is None else f"<td>{_size(one['peak_memory'])}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    header = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _row(row: Shown) -> str:
    figures = "".join(
        f'<figure><img src="{_data(picture)}" alt="{html.escape(name)}" width="{picture.shape[1]}" '
        f'height="{picture.shape[0]}"><figcaption>{html.escape(name)}</figcaption></figure>'
        for name, picture in row.pictures.items()
    )
    if "truth" not in row.pictures:  # so that a field's pictures are below each other
        figures = f"<figure></figure>{figures}"
    kind = "row pixels" if row.enlarged else "row"
    return f'<h2>{html.escape(row.title)}</h2>\n<div class="{kind}">{figures}</div>\n'


def _data(picture: Picture) -> str:
    """A PNG inside of the page."""
    from PIL import Image as Pillow

    memory = io.BytesIO()
    Pillow.fromarray(picture).save(memory, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"


def _size(n: int) -> str:
    return f"{n / 1e6:,.2f} MB" if n < 1e8 else f"{n / 1e6:,.0f} MB"
