"""`fieldfit eval`: standard metrics of a run on held-out data."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro

from fields.commands.arguments import parse
from fields.commands.device import DeviceName, choose_device
from fields.export import surface_mesh
from fields.rendering.render import predictor
from fields.run import Run
from fields.surface import SurfaceConfig
from scenes import load
from scenes.errors import InputError
from scenes.scene import Evaluation, Scene

if TYPE_CHECKING:
    from fields.field import Field, RadianceField

EVALUATION_RESOLUTION = 128
"""Cells along the box of the surface whose chamfer distance is measured; its vertices lie on the field's zero."""

DESCRIPTION = "Measure a run on held-out data: its own, or that of --data in the same coordinates."


@dataclass(frozen=True)
class EvalOptions:
    """Options of `fieldfit eval`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that `fieldfit fit` wrote."""
    data: Path | None = None
    """Other data to measure on, for example another transforms.json of the same capture."""
    split: Literal["test", "val", "train"] = "test"
    """Which views of a capture."""
    json: bool = False
    """Print JSON."""
    device: DeviceName = "auto"
    """Where it runs."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(EvalOptions, argv, prog="fieldfit eval", description=DESCRIPTION)
    device = choose_device(options.device)
    opened = Run.open(options.run)
    field = opened.field(device)
    scene = load_for(opened, options.data)
    report = measure(field, scene, opened.scene, options.split, device)
    report |= {"run": str(options.run), "step": opened.step()}
    print(json.dumps(report, indent=1) if options.json else table(report))
    return 0


def load_for(opened: Run, data: Path | None = None) -> Scene:
    """The scene of a run, or other data that are evaluated in its stead. Raises InputError when they do not fit the
    run."""
    if data is None:
        if not Path(opened.data.path).exists():
            raise InputError(
                f"{opened.data.path}: the data of {opened.path} are no longer there; say with --data where they are now"
            )
        return load(opened.data.path, options=opened.data.options)
    scene = load(data, options=dataclasses.replace(opened.data.options, evaluation_only=True))
    described = scene.describe()
    for key in ("kind", "channels"):
        if described.get(key) != opened.scene.get(key):
            raise InputError(
                f"{data}: {key} {described.get(key)} cannot be compared with {opened.path}, whose {key} is "
                f"{opened.scene.get(key)}"
            )
    if opened.scene.get("dynamic") and described.get("time_span") != opened.scene.get("time_span"):
        ours, theirs = (_span(told.get("time_span")) for told in (opened.scene, described))
        raise InputError(f"{data}: times: expected those of {opened.path}, {ours}, got {theirs}")
    return scene


def _span(times: object) -> str:
    return f"{times[0]:g} to {times[1]:g}" if isinstance(times, list) else "none"


def measure(
    field: Field | RadianceField, scene: Scene, describe: Mapping[str, Any], split: str, device: torch.device
) -> dict[str, Any]:
    """The evaluation of a field as `eval.json` and `--json` hold it. `describe` is what the fitted scene said of
    itself."""
    started = time.perf_counter()
    with torch.no_grad():
        evaluation = _evaluate(field.eval(), scene, describe, split, device)
    seconds = time.perf_counter() - started
    return {**dataclasses.asdict(evaluation), "split": split, "seconds": round(seconds, 3)}


def _evaluate(
    field: Field | RadianceField, scene: Scene, describe: Mapping[str, Any], split: str, device: torch.device
) -> Evaluation:
    from scenes.mesh import Mesh

    predict = predictor(field)
    if not isinstance(scene, Mesh):
        return scene.evaluate(predict, split)
    surface = surface_mesh(field, describe, EVALUATION_RESOLUTION, SurfaceConfig(device=str(device)))
    return scene.evaluate(predict, split, surface=surface)


def table(report: Mapping[str, Any]) -> str:
    """What a person reads: each metric, and how its definition begins; `--json` has all of it."""
    names = report["names"]
    items = "frames" if report["items"] == "frames" else f"{report['split']} views"
    over = f" over {len(names)} {items}" if len(names) > 1 else ""
    background = f", on {report['background']}" if report["background"] else ""
    lines = [f"evaluated{over}{background}, in {report['seconds']:.1f} s:"]
    for metric, value in report["results"].items():
        definition = re.split("[,;]", report["definitions"].get(metric, ""))[0]
        lines.append(f"  {metric:<18} {number(metric, value):<10} {definition}".rstrip())
    return "\n".join(lines)


def number(metric: str, value: float) -> str:
    """A metric's value with its unit."""
    return f"{value:.2f} dB" if metric.startswith("psnr") else f"{value:.5g}"
