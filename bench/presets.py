"""Are the presets the right ones? Several settings of one kind of signal, fitted to your data at equal time or steps.

    python bench/presets.py image PATH --minutes 0.25
    python bench/presets.py mesh PATH
    python bench/presets.py video PATH --minutes 0.5
    python bench/presets.py capture PATH --minutes 1.25 --downscale 2 --out bench/presets.md
    python bench/presets.py capture PATH --about heads          # small networks of learned functions behind the grid
    python bench/presets.py capture PATH --about heads --steps 1500
    python bench/presets.py capture PATH --about neurons        # Gaussian ones, with two kinds of colour
    python bench/presets.py capture PATH --about modulation --bits 8

The fits take turns of a second, so that noise of the machine hits all alike; each has its own clock and schedule. What
comes out is a table in Markdown, best first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from report import machine
from torch import nn
from turns import take_turns

from fields.encodings import Hash
from fields.field import Field, RadianceField, RadianceFieldConfig, build, initialise
from fields.fitting import Step, fit
from fields.networks import CAM, KAN, MLP, RBF, Harmonics, NetworkConfig, RationalKAN, SelectableKAN
from fields.networks.kan.selectable import SelectableNetwork
from fields.presets import NETWORK_RATE, Config, preset
from fields.rendering.render import predictor
from scenes import load
from scenes.errors import InputError
from scenes.scene import Kind, LoadOptions, Scene

Change = Callable[[Config], Config]


def grid(change: Callable[[Hash], Hash]) -> Change:
    """A change of the encoding."""

    def apply(config: Config) -> Config:
        encoding = config.field.encoding
        assert isinstance(encoding, Hash)
        return replace(config, field=replace(config.field, encoding=change(encoding)))

    return apply


def table_size(more: int) -> Change:
    """Tables 2^more times as large."""
    return grid(lambda e: replace(e, log2_table_size=e.log2_table_size + more))


def batch(factor: float) -> Change:
    """So many times as many samples in a step."""
    return lambda config: replace(config, fit=replace(config.fit, batch=int(config.fit.batch * factor)))


def rates(factor: float) -> Change:
    """Both learning rates, so many times as high."""

    def apply(config: Config) -> Config:
        o = config.fit.optimiser
        o = replace(o, table_rate=o.table_rate * factor, network_rate=o.network_rate * factor)
        return replace(config, fit=replace(config.fit, optimiser=o))

    return apply


def radiance(change: Callable[[RadianceFieldConfig], RadianceFieldConfig]) -> Change:
    """A change of a radiance field."""

    def apply(config: Config) -> Config:
        assert isinstance(config.field, RadianceFieldConfig)
        return replace(config, field=change(config.field))

    return apply


def quicker(factor: float, change: Change) -> Change:
    """That change, and a learning rate of the networks so many times as high."""

    def apply(config: Config) -> Config:
        config, o = change(config), config.fit.optimiser
        return replace(config, fit=replace(config.fit, optimiser=replace(o, network_rate=factor * o.network_rate)))

    return apply


def starting_at(rate: float, change: Change) -> Change:
    """That change, of the preset with this learning rate of the networks."""

    def apply(config: Config) -> Config:
        o = replace(config.fit.optimiser, network_rate=rate)
        return change(replace(config, fit=replace(config.fit, optimiser=o)))

    return apply


def networks(**changes: object) -> Change:
    """The same changes of both networks."""
    return radiance(lambda f: replace(f, density=replace(f.density, **changes), color=replace(f.color, **changes)))


SAME: dict[str, Change] = {
    "the preset": lambda config: config,
    "16 levels x 2": grid(lambda e: replace(e, levels=16, features_per_level=2)),
    "tables half as large": table_size(-1),
    "tables twice as large": table_size(1),
    "half the batch": batch(0.5),
    "twice the batch": batch(2),
    "half the rates": rates(0.5),
}
SETTINGS: dict[Kind, dict[str, Change]] = {
    "image": SAME,
    "mesh": SAME
    | {"finest level twice as fine": grid(lambda e: replace(e, finest_resolution=2 * e.finest_resolution))},
    "video": SAME
    | {
        "finest level half as fine": grid(lambda e: replace(e, finest_resolution=e.finest_resolution // 2)),
        "4 levels x 8": grid(lambda e: replace(e, levels=4, features_per_level=8)),
    },
    "capture": SAME
    | {
        "8 levels x 4": grid(lambda e: replace(e, levels=8)),
        "4 levels x 8": grid(lambda e: replace(e, levels=4, features_per_level=8)),
        "16 levels x 2, 2^19": grid(lambda e: replace(e, levels=16, features_per_level=2, log2_table_size=19)),
        "networks in float32": networks(precision="float32"),
        "colour network of 2 hidden layers": radiance(lambda f: replace(f, color=replace(f.color, hidden_layers=2))),
        "networks twice as wide": networks(hidden_dim=64),
        "the networks' rate half as high": quicker(0.5, lambda config: config),
        "the networks' rate twice as high": quicker(2, lambda config: config),
    },
}
"""By kind of signal; each is a change of the preset."""


def heads(density: NetworkConfig, color: NetworkConfig, latent_dim: int = RadianceFieldConfig.latent_dim) -> Change:
    """These two networks behind the preset's grid, and how many values the first hands on to the second."""
    return radiance(lambda f: replace(f, density=density, color=color, latent_dim=latent_dim))


def harmonic(degree: int) -> Change:
    """Gaussian neurons, and colours as harmonics of the direction, whose coefficients the neurons give."""
    return radiance(
        lambda f: replace(
            f, density=RBF(), color=Harmonics(), harmonics_degree=degree, latent_dim=1 + 3 * degree * degree
        )
    )


def small_grid(color: NetworkConfig) -> Change:
    """At most 600,000 parameters in all, and this network for the colour."""
    return radiance(
        lambda f: replace(
            f,
            encoding=Hash(levels=5, log2_table_size=15, finest_resolution=512),
            density=MLP(hidden_dim=64, hidden_layers=1),
            color=color,
        )
    )


PERCEPTRONS = heads(MLP(32, 2), MLP(32, 1))
BUMPS = heads(KAN("rbf", 8, 1, 6), KAN("rbf", 8, 1, 6), latent_dim=8)
MODULATED = CAM(hidden_dim=64, hidden_layers=2, over=("direction",), resolution=(10, 5))
ABOUT: dict[str, dict[Kind, dict[str, Change]]] = {
    "presets": SETTINGS,
    "heads": {
        "capture": {
            "perceptrons 32 wide, 2 and 1 hidden layers": PERCEPTRONS,
            "perceptrons, twice the rate": quicker(2, PERCEPTRONS),
            "RBF-KAN, 6 and 5 wide": heads(KAN("rbf", 6, 1), KAN("rbf", 5, 1)),
            "RBF-KAN, 10 and 9 wide, 4 functions": heads(KAN("rbf", 10, 1, 4), KAN("rbf", 9, 1, 4)),
            "RBF-KAN, 8 wide, 6 functions, 8 values between": BUMPS,
            "RBF-KAN, 8 wide, 6 functions, 8 values between, twice the rate": quicker(2, BUMPS),
            "GR-KAN, 32 wide": heads(RationalKAN(32, 1), RationalKAN(32, 1)),
            "S-KAN, 9 and 8 wide": heads(SelectableKAN(9, 1), SelectableKAN(8, 1)),
            "S-KAN that chooses by layer": heads(
                SelectableKAN(9, 1, gates="layer"), SelectableKAN(8, 1, gates="layer")
            ),
        }
    },
    "neurons": {
        "capture": {
            "the preset's perceptrons": lambda config: config,
            "Gaussian neurons, twice": heads(RBF(), RBF()),
            "Gaussian neurons, then harmonics of degree 2": harmonic(2),
            "Gaussian neurons, then harmonics of degree 3": harmonic(3),
        }
    },
    "modulation": {
        "capture": {
            "the network alone": small_grid(replace(MODULATED, norm="none", modulated=False)),
            "normalised": small_grid(replace(MODULATED, modulated=False)),
            "CAM over direction": small_grid(MODULATED),
            "CAM over direction, each channel": small_grid(replace(MODULATED, channels="each")),
        }
    },
}
"""What can be compared: the presets' own settings; heads of at most 4,000 parameters; Gaussian neurons; modulation by
direction."""


def quantise(field: nn.Module, bits: int) -> None:
    """Round every parameter to 2^bits values between its tensor's extremes."""
    with torch.no_grad():
        for parameter in field.parameters():
            lo, hi = parameter.min(), parameter.max()
            step = ((hi - lo) / (2**bits - 1)).clamp(min=1e-12)
            parameter.copy_(lo + ((parameter - lo) / step).round() * step)


def network_parameters(field: nn.Module) -> int:
    """Of its networks alone; where one has chosen, what its values depend on."""
    networks = [child for name, child in field.named_children() if name.endswith("network")]
    return sum(
        one.active_parameters() if isinstance(one, SelectableNetwork) else sum(p.numel() for p in one.parameters())
        for one in networks
    )


@dataclass
class Trial:
    """One setting and its fit."""

    scene: Scene
    config: Config
    n_samples: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.field: Field | RadianceField = build(self.config.field, self.scene.describe())
        initialise(self.field, self.config.fit.seed)

    def steps(self) -> Iterator[Step]:
        """The fit."""
        for step in fit(self.field, self.scene, self.config.fit):
            self.n_samples += step.n_samples
            self.seconds = step.seconds
            yield step


@dataclass(frozen=True)
class Effort:
    """Of every fit."""

    minutes: float | None
    steps: int | None
    """In place of minutes."""
    seed: int

    def __str__(self) -> str:
        return f"{self.steps:,} steps" if self.minutes is None else f"{self.minutes * 60:g} s"


def compare(scene: Scene, settings: dict[str, Change], effort: Effort, bits: int | None = None) -> list[str]:
    """Fit all settings in turns, and round them to `bits` if that is given; the lines of a table."""
    base = preset(scene)
    base = replace(base, fit=replace(base.fit, minutes=effort.minutes, steps=effort.steps, seed=effort.seed))
    trials = {name: Trial(scene, change(base)) for name, change in settings.items()}
    n_steps = take_turns({name: trial.steps() for name, trial in trials.items()})
    if bits is not None:
        for trial in trials.values():
            quantise(trial.field, bits)
    scores = {name: scene.evaluate(predictor(trial.field.eval())).results for name, trial in trials.items()}
    metrics = list(next(iter(scores.values())))
    head = ["setting", *metrics, "parameters", "of networks", "steps", "million samples", "ms a step"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name in sorted(scores, key=lambda name: -scores[name][metrics[0]]):
        field = trials[name].field
        n_parameters = sum(parameter.numel() for parameter in field.parameters())
        numbers = [number(metric, scores[name][metric]) for metric in metrics]
        work = [
            f"{n_parameters:,}",
            f"{network_parameters(field):,}",
            str(n_steps[name]),
            f"{trials[name].n_samples / 1e6:.3g}",
            f"{1e3 * trials[name].seconds / max(n_steps[name], 1):.1f}",
        ]
        lines.append("| " + " | ".join([name, *numbers, *work]) + " |")
    return lines


def number(metric: str, value: float) -> str:
    """As many digits as can be told apart."""
    return f"{value:.2f}" if metric == "psnr" else f"{value:.4f}"


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(SETTINGS))
    parser.add_argument("path", type=Path)
    parser.add_argument("--about", choices=list(ABOUT), default="presets", help="what is compared")
    parser.add_argument("--bits", type=int, help="round all weights before they are measured")
    long = parser.add_mutually_exclusive_group()
    long.add_argument("--minutes", type=float, default=0.25, help="of fitting, for each setting")
    long.add_argument("--steps", type=int, help="of fitting, for each setting, however long they take")
    parser.add_argument("--downscale", type=int, default=1, help="of photographs, as `fieldfit fit` has it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="some of the settings, by name")
    parser.add_argument("--out", type=Path, help="a file that the table is added to, instead of printing it")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0."""
    given = options(argv)
    settings = ABOUT[given.about].get(given.kind)
    if settings is None:
        sys.exit(f"--about {given.about}: goes with {', '.join(ABOUT[given.about])}")
    unknown = set(given.only or ()) - set(settings)
    if unknown:
        sys.exit(f"--only: no setting {', '.join(sorted(unknown))}; there are: {', '.join(settings)}")
    try:
        scene = load(given.path, options=LoadOptions(downscale=given.downscale))
    except InputError as error:
        sys.exit(str(error))
    if scene.kind != given.kind:
        sys.exit(f"{given.path}: holds no {given.kind} but a signal of the kind {scene.kind}")
    chosen = {name: change for name, change in settings.items() if not given.only or name in given.only}
    if given.about != "presets":  # networks of all kinds side by side: the preset's own rate suits its perceptrons
        chosen = {name: starting_at(NETWORK_RATE, change) for name, change in chosen.items()}
    effort = Effort(None if given.steps else given.minutes, given.steps, given.seed)
    lines = compare(scene, chosen, effort, given.bits)
    shrunk = f", downscaled by {given.downscale}" if given.downscale > 1 else ""
    rounded = "" if given.bits is None else f", weights in {given.bits} bits"
    title = f"## {given.kind}: {given.path.name}{shrunk}, {effort} each{rounded}"
    text = "\n".join([title, "", machine(torch.get_num_threads()), "", *lines, ""])
    if given.out is None:
        print(text)
        return 0
    before = given.out.read_text() + "\n" if given.out.exists() else ""
    given.out.write_text(before + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
