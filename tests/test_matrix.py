"""Every encoding with every network on every kind of signal: it learns, its gradients are those of float64, it is saved
and read back to the bit, and half precision agrees; or it is refused in one line that says what would work."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import shapes
import torch
from moving import moving_capture
from tiny_clips import disc, write_lossless
from tiny_runs import write_ball, write_image
from tolerances import DERIVED, EXACT, HALF_DEEP, HALF_STORAGE, WAVES_OF_WAVES, Tolerance
from torch import Tensor
from waves import Sphere

import scenes
from fields.configuration import from_json, to_json
from fields.dynamics import SpaceTime
from fields.field import Field, RadianceField, RadianceFieldConfig, build
from fields.fitting import FitConfig, fit
from fields.kernels import native
from fields.networks import MLP
from fields.networks.mlp import Perceptron
from fields.optim import OptimiserConfig
from fields.presets import Config, EncodingName, NetworkName, preset
from fields.rendering.render import render_rays
from fields.run import Data, Run
from scenes.errors import InputError
from scenes.rays import Rays
from scenes.scene import Scene

pytestmark = pytest.mark.usefixtures("one_thread")

SIGNALS = ("image", "mesh", "video", "capture", "moving")
ENCODINGS: list[EncodingName] = [name for name in get_args(EncodingName) if name != "tcnn-hash"]
NETWORKS: list[NetworkName] = [
    *(name for part in get_args(NetworkName) for name in (get_args(part) or (part,)) if name != "tcnn-mlp")
]
SMALL: dict[str, Any] = {
    "hidden_dim": 16,
    "bottleneck_dim": 8,
    "n_neurons": 16,
    "levels": 2,
    "log2_table_size": 10,
    "base_resolution": 8,
    "finest_resolution": 16,
    "n_frequencies": 3,
    "sigma": 1.0,
    "stages": 2,
    "rank": 8,
    "neighbours": 3,
    "update_every": 8,
    "time_resolution": 4,
    "steps": 32,
    "pool": ("rbf", "fourier", "rational"),
    "n_basis": 6,
}

RATES = OptimiserConfig(table_rate=2e-2, network_rate=5e-3, warmup_steps=1)
"""High, so that a few steps show whether a field learns."""


def small(value: Any) -> Any:
    """A configuration with all sizes small, so that hundreds of fields can be fitted."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changed: dict[str, Any] = {}
    for one in dataclasses.fields(value):
        old = getattr(value, one.name)
        if one.name == "resolution" and isinstance(old, int):
            changed[one.name] = min(old, 16)
        elif one.name == "resolutions":
            changed[one.name] = tuple(min(r, 8) for r in old)
        else:
            changed[one.name] = SMALL.get(one.name, small(old))
    return dataclasses.replace(value, **changed)


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    folder = tmp_path_factory.mktemp("signals")
    return {
        "image": scenes.load(write_image(folder / "a.png")),
        "mesh": Sphere(),
        "video": scenes.load(write_lossless(folder / "a.mkv", disc(4, 12, 16))),
        "capture": scenes.load(write_ball(folder / "ball")),
        "moving": moving_capture(folder / "moving"),
    }


def refused(signal: str, encoding: EncodingName, network: NetworkName) -> bool:
    """What cannot work: a picture in a volume's factors, and networks that make no waves out of plain coordinates."""
    blind = network in ("mlp", "silu", "bottleneck", "glu", "rbf")
    return (encoding == "tensorf" and signal == "image") or (encoding == "coordinates" and blind)


def asked(field: Field | RadianceField, n: int) -> tuple[Tensor, ...]:
    """Points, and directions and times where the field wants them."""
    g = torch.Generator().manual_seed(3)
    if isinstance(field, Field):
        return (torch.rand(n, field.dim, generator=g),)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    times = () if field.dynamics is None else (torch.rand(n, 1, generator=g),)
    return (torch.rand(n, 3, generator=g), directions, *times)


def values(field: Field | RadianceField, n: int = 64) -> list[Tensor]:
    dtype = next(field.parameters()).dtype
    out = field(*(t.to(dtype) for t in asked(field, n)))
    return [out] if isinstance(out, Tensor) else list(out)


def known_loss(field: Field | RadianceField, scene: Scene) -> float:
    """Of the same points or rays whenever it is asked."""
    asked, target = scene.sample(2048 if isinstance(field, Field) else 400, torch.Generator().manual_seed(5))
    with torch.no_grad():
        if isinstance(field, Field):
            assert isinstance(asked, Tensor)
            return float(scene.loss(field(asked), target))
        assert isinstance(asked, Rays)
        return float(scene.loss(render_rays(field, asked, torch.Generator().manual_seed(6)).rgb, target))


def in_float64(field: Field | RadianceField) -> Field | RadianceField:
    """A copy that torch computes, with factors of bfloat16 where this processor's kernels have them too."""
    exact = copy.deepcopy(field).double()
    if not native.core().has_bfloat16:
        for module in exact.modules():
            if isinstance(module, Perceptron):
                module.shape = dataclasses.replace(module.shape, precision="float32")
    return exact


def check_gradients(field: Field | RadianceField, tolerance: Tolerance) -> None:
    """Of values that all lie on the order of one, in float32 by kernels and in float64 by torch."""
    exact = in_float64(field)
    for one in (field, exact):
        one.zero_grad()
        sum((v / (1 + v.detach().abs())).sum() for v in values(one)).backward()  # pyright: ignore[reportAttributeAccessIssue]
    wanted = dict(exact.named_parameters())
    for name, parameter in field.named_parameters():
        got, want = parameter.grad, wanted[name].grad
        assert (got is None) == (want is None), name
        if got is not None and want is not None:
            scale = want.abs().amax().clamp(min=1)
            tolerance.check(got.double() / scale, want / scale)
    field.zero_grad()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("signal", SIGNALS)
def test_every_pair_on_every_signal(
    signal: str, encoding: EncodingName, network: NetworkName, signals: dict[str, Scene]
) -> None:
    scene = signals[signal]
    if refused(signal, encoding, network):
        with pytest.raises(InputError, match=r"take |only|needs") as told:
            build(preset(scene, encoding=encoding, network=network).field, scene.describe())
        assert "\n" not in str(told.value)
        return
    config = small(preset(scene, encoding=encoding, network=network))
    assert isinstance(config, Config)
    if isinstance(config.field, RadianceFieldConfig):
        assert isinstance(config.field.dynamics, SpaceTime) == (signal == "moving")
    n = 40 if network == "s-kan" else 20  # which chooses on the way
    steps = FitConfig(steps=n, batch=128 if scene.kind == "capture" else 256, optimiser=RATES)
    field = build(config.field, scene.describe())
    check_gradients(field, WAVES_OF_WAVES if network == "kan-fourier" else DERIVED)
    before = known_loss(field, scene)
    fitting = fit(field, scene, steps)
    next(fitting)
    with shapes.unchecked():  # they are those of the first step
        for _ in fitting:
            pass
    assert known_loss(field, scene) < 0.95 * before
    read = from_json(Config, json.loads(json.dumps(to_json(Config(config.field, steps)))), "config")
    weights = safetensors.torch.load(safetensors.torch.save(field.state_dict()))
    again = Run(Path("none"), read, scene.describe(), Data("/a", "a")).load(weights)
    for got, want in zip(values(again), values(field), strict=True):
        EXACT.check(got, want)


@pytest.mark.parametrize(
    ("signal", "encoding"), [(s, e) for s in SIGNALS for e in ENCODINGS if not refused(s, e, "mlp")]
)
def test_half_precision_agrees(signal: str, encoding: EncodingName, signals: dict[str, Scene]) -> None:
    scene = signals[signal]
    outs: list[list[Tensor]] = []
    for precision in ("float32", "bfloat16"):
        found = small(preset(scene, encoding=encoding, network="mlp")).field

        def chosen(network: Any, precision: str = precision) -> MLP:
            assert isinstance(network, MLP)
            return dataclasses.replace(network, precision=precision)  # pyright: ignore[reportArgumentType]

        names = ("density", "color") if isinstance(found, RadianceFieldConfig) else ("network",)
        found = dataclasses.replace(found, **{name: chosen(getattr(found, name)) for name in names})
        outs.append(values(build(found, scene.describe())))
    for half, single in zip(outs[1], outs[0], strict=True):
        (HALF_DEEP if encoding in ("frequency", "rff") else HALF_STORAGE).check(half, single)
