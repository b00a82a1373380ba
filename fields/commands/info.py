"""`fieldfit info`: what a run, or data that could be fitted, consists of."""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import UInt8

from fields.codec.description import described_file, is_compressed
from fields.commands.arguments import parse
from fields.commands.evaluate import number
from fields.commands.job import is_run
from fields.configuration import to_json
from fields.playback import playback
from fields.run import Run
from scenes import load
from scenes.scene import LoadOptions, Scene
from scenes.video import Video

DESCRIPTION = (
    "What a run, or data that could be fitted, consists of; of a capture also a picture of its cameras and box, of a "
    "video a sheet of its frames."
)


@dataclass(frozen=True)
class InfoOptions:
    """Options of `fieldfit info`."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PATH")]
    """A run, an image, a mesh, a video, a folder or JSON of posed photographs, or a file of `fieldfit compress`."""
    picture: Path | None = None
    """Where the picture of a capture's cameras or a video's frames goes. By default cameras.png or frames.png in
    RUN/renders, or NAME-cameras.png or NAME-frames.png here."""
    load: tyro.conf.OmitArgPrefixes[LoadOptions] = field(default_factory=LoadOptions)
    """How data are loaded."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(InfoOptions, argv, prog="fieldfit info", description=DESCRIPTION)
    if is_compressed(options.path):
        for name, value in described_file(options.path, options.load.max_pixels):
            print(f"{name + ':':<18} {value}")
        return 0
    if is_run(str(options.path)):
        opened, scene = Run.open(options.path), None
        described, lines = opened.scene, _of_run(opened)
        beside = f"{options.path / 'renders'}/"
    else:
        opened, scene = None, load(options.path, options=options.load)
        described, lines = scene.describe(), [("bytes", f"{_bytes(options.path):,}")]
        beside = f"{options.path.resolve().stem}-"
    for name, value in [*summary(described), *lines]:
        print(textwrap.fill(f"{name + ':':<18} {value}", 118, subsequent_indent=" " * 19, break_on_hyphens=False))
    picture = _picture(opened, scene, described)
    if picture is not None:
        name, pixels = picture
        print(f"{'picture:':<18} {_write_picture(pixels, options.picture, Path(f'{beside}{name}.png'))}")
    return 0


def summary(described: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a scene says of itself, one line for each thing, cameras counted rather than listed."""
    lines = []
    for name, value in described.items():
        if name == "names" or value is None:
            continue
        if name == "box":
            lo, hi = value
            text = f"{_numbers(lo)} to {_numbers(hi)}"
        elif name == "cameras":
            text = ", ".join(f"{len(split['size'])} {key}" for key, split in value.items() if split["size"])
            sizes = {tuple(size) for split in value.values() for size in split["size"]}
            text += "; " + ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:4])
            text += f" and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
        elif isinstance(value, Mapping):
            text = ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item is not None)
        else:
            text = _text(value)
        lines.append((name.replace("_", " "), text))
    return lines


def _of_run(opened: Run) -> list[tuple[str, str]]:
    files = sorted(path for path in opened.path.iterdir() if path.is_file())
    lines = [
        ("data", opened.data.path),
        ("config", json.dumps(to_json(opened.config.field))),
        ("bytes", ", ".join(f"{path.name} {path.stat().st_size:,}" for path in files)),
    ]
    if opened.checkpoint_exists():
        n_parameters = sum(parameter.numel() for parameter in opened.field().parameters())
        lines += [("parameters", f"{n_parameters:,}"), ("steps", f"{opened.step():,}")]
    else:
        lines.append(("steps", "none saved yet"))
    evaluation = opened.evaluation()
    results = "not evaluated" if evaluation is None else _results(evaluation)
    return [*lines, ("held-out", results)]


def _results(evaluation: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {number(name, value)}" for name, value in evaluation["results"].items())
    return f"{values} at step {evaluation.get('step')}"


def _picture(
    opened: Run | None, scene: Scene | None, described: Mapping[str, Any]
) -> tuple[str, UInt8[np.ndarray, "H W 3"]] | None:
    """What it shows and a picture of that: a capture's cameras, a video's frames; of a run as its field has them."""
    from viewer import contact_sheet, frusta
    from viewer.sheets import SHEET_FRAMES, SHEET_WIDTH, spread

    if "cameras" in described:
        return "cameras", frusta(described)
    if isinstance(scene, Video):
        chosen = spread(len(scene.frames), SHEET_FRAMES)
        return "frames", contact_sheet([scene.frames[i].numpy() for i in chosen], [f"frame {i}" for i in chosen])
    if opened is not None and described["kind"] == "video" and opened.checkpoint_exists():
        play = playback(described, min(described["size"][0], SHEET_WIDTH))
        chosen = spread(len(play.times), SHEET_FRAMES)
        frames = list(replace(play, times=[play.times[i] for i in chosen]).frames(opened.field()))
        return "frames", contact_sheet(frames, [f"frame {i}" for i in chosen])
    return None


def _write_picture(picture: UInt8[np.ndarray, "H W 3"], asked: Path | None, default: Path) -> Path:
    """Where it was written: where it was asked for, or else to the default, or else to a temporary folder."""
    from viewer import save_png

    if asked is not None:
        save_png(asked, picture)
        return asked
    if not os.access(default.parent, os.W_OK):
        default = Path(tempfile.mkdtemp(prefix="fieldfit-")) / default.name
    save_png(default, picture)
    return default


def _bytes(path: Path) -> int:
    """On disk: of a file, or of all files of a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, list | tuple):
        return _numbers(value) if all(isinstance(v, int | float) for v in value) else json.dumps(value)
    return str(value)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in values) + ")"
