"""Fitting: it converges, is repeatable, resumes bit-exactly, and steps over what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_captures import ball, ring, write_blender
from tolerances import EXACT
from torch import Tensor

import scenes
from fields.encodings import Coordinates, Dense, EncodingConfig, Frequency, Hash
from fields.field import Field, RadianceField, SignalFieldConfig, build, initialise
from fields.fitting import FitConfig, Step, fit
from fields.networks import MLP
from fields.optim import Adam, OptimiserConfig
from fields.presets import Config, preset
from scenes.box import Box
from scenes.errors import InputError
from scenes.scene import Evaluation

GRID = Hash(levels=4, log2_table_size=12, base_resolution=4, finest_resolution=32)
QUICK = FitConfig(steps=60, batch=1024)


class Waves:
    """A smooth coloured pattern, known everywhere: the simplest scene there is."""

    kind = "image"
    box = Box((0.0, 0.0), (1.0, 1.0))

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        self.spoil = spoil

    def at(self, x: Tensor) -> Tensor:
        return 0.5 + 0.5 * torch.sin(x @ torch.tensor([[9.0, -5.0, 3.0], [4.0, 7.0, -8.0]]))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.rand(n, 2, generator=generator)
        return x, self.spoil(self.at(x))

    def loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).square().mean()

    def evaluate(self, predict: Callable[[Tensor], Tensor], split: str = "test") -> Evaluation:
        x = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
        return Evaluation({"psnr": -10 * math.log10(float(self.loss(predict(x), self.at(x))))})

    def describe(self) -> dict[str, object]:
        return {"kind": "image", "channels": 3}

    def fingerprint(self) -> str:
        return "waves"


def small_field(encoding: EncodingConfig = GRID, network: MLP | None = None) -> Field:
    field = build(SignalFieldConfig(encoding, network or MLP(hidden_dim=16)), Waves().describe())
    assert isinstance(field, Field)
    return field


def run(field: Field | RadianceField, scene: object, config: FitConfig, state: dict[str, Tensor] | None = None) -> Step:
    *_, last = fit(field, scene, config, state=state)  # pyright: ignore[reportArgumentType]
    return last


@pytest.mark.parametrize(
    ("encoding", "network", "rate"),
    [
        (GRID, MLP(hidden_dim=16), 5e-3),
        (Dense(levels=2, base_resolution=8, finest_resolution=32), MLP(hidden_dim=16, activation="silu"), 5e-3),
        (Frequency(4), MLP(hidden_dim=64, bias=True), 5e-3),
        (Coordinates(),
         MLP(hidden_dim=32, activation="sine", bias=True, omega=10.0), 3e-3),
    ],
    ids=["hash", "dense-silu", "frequency", "siren"],
)  # fmt: skip
def test_every_architecture_converges(encoding: EncodingConfig, network: MLP, rate: float) -> None:
    field, scene = small_field(encoding, network), Waves()
    run(field, scene, replace(QUICK, steps=250, optimiser=OptimiserConfig(network_rate=rate)))
    assert scene.evaluate(lambda x: field(x).detach()).results["psnr"] > 25


def test_same_seed_gives_the_same_bits() -> None:
    results = []
    for _ in range(2):
        field = small_field()
        run(field, Waves(), QUICK)
        results.append(field.state_dict())
    for key, value in results[0].items():
        EXACT.check(results[1][key], value)


def test_another_seed_gives_other_values() -> None:
    fields = [small_field(), small_field()]
    run(fields[0], Waves(), QUICK)
    run(fields[1], Waves(), replace(QUICK, seed=1))
    assert not torch.equal(*(field.network.get_parameter("params") for field in fields))


def test_resumed_fit_is_the_uninterrupted_one() -> None:
    whole = small_field()
    run(whole, Waves(), QUICK)
    halves = small_field()
    state: dict[str, Tensor] = {}
    for step in fit(halves, Waves(), QUICK):  # pyright: ignore[reportArgumentType]
        if step.index == 25:
            state = step.state()
            break
    again = small_field()
    again.load_state_dict(halves.state_dict())
    last = run(again, Waves(), QUICK, state)
    assert last.index == QUICK.steps
    for key, value in whole.state_dict().items():
        EXACT.check(again.state_dict()[key], value)


def test_resumed_capture_is_the_uninterrupted_one(tmp_path: Path) -> None:
    write_blender(
        tmp_path,
        {"train": ring(6), "test": ring(2, height=1.0)},
        lambda m, w, h: ball(m, w, h, (0, 0, 0), 0.6),
        (24, 24),
    )
    scene = scenes.load(tmp_path)
    config = preset(scene)
    config = Config(config.field, replace(config.fit, steps=40, minutes=None, batch=2048))

    def fresh() -> RadianceField:
        field = build(config.field, scene.describe())
        assert isinstance(field, RadianceField)
        return field

    whole, halves, again = fresh(), fresh(), fresh()
    run(whole, scene, config.fit)
    state: dict[str, Tensor] = {}
    for step in fit(halves, scene, config.fit):
        if step.index == 21:
            state = step.state()
            break
    again.load_state_dict(halves.state_dict())
    run(again, scene, config.fit, state)
    for key, value in whole.state_dict().items():
        EXACT.check(again.state_dict()[key], value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_steps_that_are_not_finite_change_nothing(bad: float) -> None:
    count = 0

    def spoil(y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return y * bad if count % 3 == 0 else y

    field = small_field()
    last = run(field, Waves(spoil), QUICK)
    assert last.skipped == QUICK.steps // 3 if QUICK.steps else False
    assert all(bool(torch.isfinite(v).all()) for v in field.state_dict().values())


def test_penalty_is_added() -> None:
    free, held = small_field(), small_field()
    config = replace(QUICK, optimiser=OptimiserConfig(network_rate=3e-2))
    run(free, Waves(), config)
    penalties = [lambda field: 1e3 * field.network.get_parameter("params").square().sum()]
    for _ in fit(held, Waves(), config, penalties):  # pyright: ignore[reportArgumentType]
        pass
    assert held.network.get_parameter("params").norm() < 0.5 * free.network.get_parameter("params").norm()


def test_no_duration_is_refused() -> None:
    with pytest.raises(InputError, match="steps or of minutes"):
        next(fit(small_field(), Waves(), FitConfig(steps=None, minutes=None)))  # pyright: ignore[reportArgumentType]


def test_state_of_another_field_is_refused() -> None:
    state = run(small_field(), Waves(), replace(QUICK, steps=1)).state()
    other = small_field(replace(GRID, levels=3))
    with pytest.raises(InputError, match="another field"):
        run(other, Waves(), QUICK, state)
    with pytest.raises(InputError, match="lacks generator"):
        run(other, Waves(), QUICK, {k: v for k, v in state.items() if k != "generator"})


def test_untouched_entries_stay() -> None:
    """A step moves only the table entries that its samples saw."""
    field = small_field()
    before = field.encoding.get_parameter("table").clone()
    optimiser = Adam(field, OptimiserConfig())
    field(torch.full((1, 2), 0.5)).sum().backward()
    optimiser.step(1.0)
    moved = (field.encoding.get_parameter("table") != before).any(1)
    assert 1 <= int(moved.sum()) <= 4 * 4


def test_initialisation_depends_on_the_seed_alone() -> None:
    fields = [small_field() for _ in range(2)]
    for field in fields:
        initialise(field, 3)
    assert torch.equal(*(field.network.get_parameter("params") for field in fields))
    initialise(fields[1], 4)
    assert not torch.equal(*(field.network.get_parameter("params") for field in fields))
