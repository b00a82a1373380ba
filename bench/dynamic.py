"""How should a field change with time? Several ways, fitted to one capture at equal wall time or for equal steps.

    python bench/dynamic.py --minutes 2                   # the built-in moving toy, at times and views not trained on
    python bench/dynamic.py --steps 2000 --only T-NeRF "T-NeRF, deeper"
    python bench/dynamic.py PATH --downscale 2 --hold-out-every 4 --json FILE

Fits at equal wall time take turns of a second, as in presets.py. What comes out is a table in Markdown, best first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from presets import Change, Trial, number, radiance
from report import machine
from turns import take_turns

from fields.dynamics import Deformation, SpaceTime, TimeFeatures
from fields.encodings import Frequency
from fields.field import RadianceFieldConfig
from fields.networks import CAM, MLP, NetworkConfig
from fields.presets import Config, DynamicsName, preset, with_dynamics
from fields.rendering.render import predictor
from scenes import load
from scenes.demo import write_dynamic_demo
from scenes.errors import InputError
from scenes.scene import LoadOptions, Scene

Row: TypeAlias = dict[str, str | int | float]

TRUNK = MLP(hidden_dim=64, hidden_layers=4, bias=True)
"""Of T-NeRF here: a perceptron of all it knows, without a grid."""

CAM_TRUNK = CAM(hidden_dim=64, hidden_layers=4, over=("time",), resolution=(10,))
"""The same with its layers normalised and modulated over time: ten vertices, a scale and a shift of each layer."""


def way(name: DynamicsName) -> Change:
    """The preset's field with dynamics of this name."""
    return lambda config: with_dynamics(config, name)


def time_features(n: int) -> Change:
    """So many octaves of time as features."""
    return radiance(lambda f: replace(f, dynamics=TimeFeatures(n)))


def deformation(**changes: object) -> Change:
    """A deformation with other settings."""
    return radiance(lambda f: replace(f, dynamics=replace(Deformation(), **changes)))


def space_time(**changes: object) -> Change:
    """A grid over space and time with other settings."""
    return radiance(lambda f: replace(f, dynamics=replace(SpaceTime(), **changes)))


def t_nerf(trunk: NetworkConfig, time_octaves: int = 6) -> Change:
    """Sines and cosines of position and time, and a perceptron (T-NeRF of Pumarola et al. 2021), at its usual rate."""

    def change(config: Config) -> Config:
        assert isinstance(config.field, RadianceFieldConfig)
        color = MLP(hidden_dim=64, hidden_layers=1, bias=True)
        field = replace(config.field, encoding=Frequency(8), density=trunk, color=color)
        field = replace(field, dynamics=TimeFeatures(time_octaves))
        optimiser = replace(config.fit.optimiser, network_rate=2e-3)
        return replace(config, field=field, fit=replace(config.fit, optimiser=optimiser, batch=2**14))

    return change


SETTINGS: dict[str, Change] = {
    "static": way("static"),
    "time features": way("time-features"),
    "time features, 8 octaves": time_features(8),
    "deformation": way("deformation"),
    "deformation alone": deformation(time_features=0),
    "deformation, 8 octaves": deformation(position_frequencies=6, time_frequencies=8),
    "deformation, wider reach": deformation(reach=0.3),
    "space-time": way("space-time"),
    "space-time, 6 cells of time": space_time(time_resolution=6),
    "space-time, 12 cells of time": space_time(time_resolution=12),
    "space-time, 48 cells of time": space_time(time_resolution=48),
    "space-time, 6 levels": space_time(levels=6, finest_resolution=512, time_resolution=48),
    "space-time, tables twice as large": space_time(log2_table_size=18),
    "space-time, 64 cells of space at most": space_time(finest_resolution=64, levels=3),
    "T-NeRF": t_nerf(TRUNK),
    "T-NeRF, deeper": t_nerf(replace(TRUNK, hidden_layers=6)),
    "T-NeRF, normalised": t_nerf(replace(CAM_TRUNK, modulated=False)),
    "T-NeRF, CAM over time": t_nerf(CAM_TRUNK),
    "T-NeRF, CAM over time, each channel": t_nerf(replace(CAM_TRUNK, channels="each")),
}
"""Each is a change of the preset."""


def compare(scene: Scene, settings: dict[str, Change], given: argparse.Namespace) -> list[Row]:
    """Fit all settings; a row for each, best first."""
    base = preset(scene)
    base = replace(base, fit=replace(base.fit, minutes=given.minutes, steps=given.steps, seed=given.seed))
    trials = {name: Trial(scene, change(base)) for name, change in settings.items()}
    n_steps = take_turns({name: trial.steps() for name, trial in trials.items()})
    rows: list[Row] = []
    for name, trial in trials.items():
        results = scene.evaluate(predictor(trial.field.eval())).results
        n_parameters = sum(parameter.numel() for parameter in trial.field.parameters())
        work = {"parameters": n_parameters, "steps": n_steps[name], "seconds": trial.seconds}
        rows.append({"setting": name, **results, **work, "million samples": trial.n_samples / 1e6})
    return sorted(rows, key=lambda row: -float(row["psnr"]))


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [number(k, v) if k in ("psnr", "ssim") and isinstance(v, float) else shown(v) for k, v in row.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def shown(value: str | int | float) -> str:
    """A cell."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, help="a capture with times; by default the moving toy")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=None, help="of fitting, for each setting; by default 0.5")
    length.add_argument("--steps", type=int, default=None, help="for each setting, instead of a time")
    parser.add_argument("--downscale", type=int, default=1, help="of photographs, as `fieldfit fit` has it")
    parser.add_argument("--hold-out-every", type=int, default=8, help="as `fieldfit fit` has it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="some of the settings, by name")
    parser.add_argument("--json", type=Path, help="a file that the rows are written to too")
    given = parser.parse_args(argv)
    if given.minutes is None and given.steps is None:
        given.minutes = 0.5
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0."""
    given = options(argv)
    unknown = set(given.only or ()) - set(SETTINGS)
    if unknown:
        sys.exit(f"--only: no setting {', '.join(sorted(unknown))}; there are: {', '.join(SETTINGS)}")
    chosen = {name: change for name, change in SETTINGS.items() if not given.only or name in given.only}
    with tempfile.TemporaryDirectory() as folder:
        path = given.path or Path(folder)
        if given.path is None:
            write_dynamic_demo(path)
        try:
            scene = load(path, options=LoadOptions(downscale=given.downscale, hold_out_every=given.hold_out_every))
        except InputError as error:
            sys.exit(str(error))
    if scene.kind != "capture" or not scene.describe()["dynamic"]:
        sys.exit(f"{path}: is no capture whose photographs have several times")
    rows = compare(scene, chosen, given)
    each = f"{given.steps:,} steps" if given.steps else f"{60 * given.minutes:g} s"
    print(f"## {'the moving toy' if given.path is None else given.path.name}, {each} each\n")
    print("\n".join([machine(torch.get_num_threads()), "", *table(rows)]))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
