"""The layer of Gaussian neurons: its kernel against float64, its start on every kind of features, and what it fits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kernel_table import COUNTS, Case, run_both, run_table_forced
from tiny_captures import ball, ring, write_blender
from tolerances import EXACT, GRADIENTS, VALUES
from torch import Tensor
from waves import DESCRIBED, Waves

import scenes
from fields.contracts import with_aux
from fields.encodings import Coordinates, Dense, DiF, EncodingConfig, Frequency, Hash, NeuRBF
from fields.field import Field, RadianceField, RadianceFieldConfig, SignalFieldConfig, build, initialise
from fields.fitting import FitConfig, fit
from fields.kernels import native, ops, rbf, reference_rbf
from fields.kernels.reference_rbf import RbfWeights
from fields.networks import MLP, RBF, Harmonics
from fields.networks.harmonics import HarmonicsHead
from fields.networks.rbf import GaussianLayer
from fields.presets import Config, preset
from fields.run import Data, Run
from scenes.box import Box
from scenes.errors import InputError

MESH = {"kind": "mesh"}


def direct(x: Tensor, c: Tensor, b: Tensor, w: Tensor, w0: Tensor) -> Tensor:
    """The formula itself, with a tensor [N, K, X] of differences."""
    q = (b.exp() * (x[:, None, :] - c).square()).mean(-1)
    return torch.exp(-0.5 * q) @ w.T + w0


def rbf_case(features: int, neurons: int, outputs: int) -> Case:
    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        c, b = (torch.randn(neurons, features, generator=g) for _ in range(2))
        w, w0 = torch.randn(outputs, neurons, generator=g), torch.randn(outputs, generator=g)
        return [torch.randn(n, features, generator=g), c, b, w, w0]

    return Case(
        f"rbf-{features}-{neurons}-{outputs}",
        inputs,
        lambda x, *weights: rbf.rbf(x, RbfWeights(*weights)),
        direct,
        GRADIENTS,
    )


CASES = [
    rbf_case(features, neurons, outputs)
    for features, neurons, outputs in [
        (1, 1, 1), (18, 64, 3), (24, 64, 1), (32, 32, 4), (7, 5, 2), (3, 1, 5), (19, 33, 17), (32, 64, 49), (130, 99, 3)
    ]
]  # fmt: skip


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layer_agrees_with_the_formula(case: Case, n: int) -> None:
    run_both(case, n)


@pytest.mark.parametrize("isa", native.available()[1:])
def test_every_instruction_set_agrees(isa: str) -> None:
    """The whole table again in a process that is forced to another instruction set."""
    run_table_forced(isa, "test_rbf")


def test_without_a_tape_values_are_the_same(generator: torch.Generator) -> None:
    x, *weights = CASES[1].inputs(300, generator)
    kept = rbf.rbf(x, RbfWeights(*(w.requires_grad_() for w in weights)))
    with torch.no_grad():
        EXACT.check(rbf.rbf(x, RbfWeights(*weights)), kept.detach())


def test_gradients_without_a_tape(generator: torch.Generator) -> None:
    """What a batch too large for the tape takes: neurons are computed again."""
    x, *weights = CASES[1].inputs(300, generator)
    d_out = torch.randn(300, 3, generator=generator)
    core, results = native.core(), []
    for tape in (core.Tape(), None):
        out, d_x = torch.empty(300, 3), torch.empty_like(x)
        gradients = tuple(torch.empty_like(w) for w in weights)
        core.rbf_forward(x, *weights, out, tape)
        core.rbf_backward(x, *weights, d_out, gradients, d_x, tape)
        results.append((d_x, *gradients))
    for got, want in zip(*results, strict=True):
        EXACT.check(got, want)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_are_the_same_every_time(threads: int, generator: torch.Generator) -> None:
    torch.set_num_threads(threads)
    leaves = [t.requires_grad_() for t in CASES[2].inputs(5000, generator)]
    runs = []
    for _ in range(3):
        out = rbf.rbf(leaves[0], RbfWeights(*leaves[1:]))
        runs.append(torch.autograd.grad(out.square().sum(), leaves))
    for again in runs[1:]:
        for got, want in zip(again, runs[0], strict=True):
            EXACT.check(got, want)


def test_wrong_shapes_are_refused() -> None:
    weights = RbfWeights(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(2, 4), torch.zeros(2))
    core = native.core()
    with pytest.raises(ValueError, match=r"x must be \[5, 3\]"):
        core.rbf_forward(torch.zeros(5, 2), *weights, torch.zeros(5, 2), None)
    with pytest.raises(ValueError, match=r"weight must be \[3, 4\]"):
        core.rbf_forward(torch.zeros(5, 3), *weights._replace(weight=torch.zeros(3, 5)), torch.zeros(5, 3), None)


def test_one_neuron_of_one_feature_in_closed_form() -> None:
    """At its centre a neuron gives one; sqrt(2 log 2) standard deviations away, one half; far away, nothing."""
    precision = 25.0
    weights = RbfWeights(
        torch.tensor([[0.3]]), torch.tensor([[math.log(precision)]]), torch.tensor([[2.0]]), torch.tensor([-0.5])
    )
    half = math.sqrt(2 * math.log(2) / precision)
    x = torch.tensor([[0.3], [0.3 + half], [0.3 - half], [9.0]], requires_grad=True)
    y = rbf.rbf(x, weights)
    VALUES.check(y.detach(), torch.tensor([[1.5], [0.5], [0.5], [-0.5]]))
    (slope,) = torch.autograd.grad(y.sum(), x)
    GRADIENTS.check(slope, torch.tensor([[0.0], [-precision * half], [precision * half], [0.0]]))


def test_gradients_of_gradients_through_the_reference(generator: torch.Generator) -> None:
    leaves = [t.double().requires_grad_() for t in rbf_case(3, 4, 2).inputs(6, generator)]
    assert torch.autograd.gradgradcheck(lambda x, *w: rbf.rbf(x, RbfWeights(*w)), leaves)


@pytest.mark.parametrize("size", [1e4, 1e12, 1e25, 3e38])
@pytest.mark.parametrize("layer", [rbf.rbf, reference_rbf.rbf], ids=["kernel", "reference"])
def test_huge_features_do_not_overflow(layer, size: float, generator: torch.Generator) -> None:
    leaves = [t.requires_grad_() for t in rbf_case(20, 64, 3).inputs(40, generator)]
    x = (leaves[0].detach().sign() * size).requires_grad_()
    y = layer(x, RbfWeights(*leaves[1:]))
    VALUES.check(y.detach(), leaves[4].detach().expand_as(y))
    for d in torch.autograd.grad(y.sum(), [x, *leaves[1:]]):
        assert bool(torch.isfinite(d).all())


@pytest.mark.parametrize("log_precision", [-300.0, 90.0])
def test_extreme_precisions_do_not_overflow(log_precision: float, generator: torch.Generator) -> None:
    x, c, b, *rest = rbf_case(8, 5, 2).inputs(9, generator)
    leaves = [t.requires_grad_() for t in (x, c, torch.full_like(b, log_precision), *rest)]
    y = rbf.rbf(leaves[0], RbfWeights(*leaves[1:]))
    for d in (y, *torch.autograd.grad(y.sum(), leaves)):
        assert bool(torch.isfinite(d).all())


ENCODINGS: dict[str, EncodingConfig] = {
    "hash": Hash(levels=6, log2_table_size=12, finest_resolution=128),
    "dense": Dense(levels=3, base_resolution=4, finest_resolution=16),
    "dif": DiF(features=(4, 2), resolutions=(8, 13), frequencies=(2.0, 3.3)),
    "dif-wide": DiF(features=(4, 2), resolutions=(8, 13), frequencies=(2.0, 3.3), scale=30.0),
    "neurbf": NeuRBF(resolution=6),
    "frequency": Frequency(4),
    "coordinates": Coordinates(),
}


@pytest.mark.parametrize("neurons", [32, 64])
@pytest.mark.parametrize("name", ENCODINGS)
def test_the_median_neuron_gives_one_half(name: str, neurons: int) -> None:
    field = build(SignalFieldConfig(ENCODINGS[name], RBF(neurons)), MESH)
    assert isinstance(field, Field)
    assert isinstance(field.network, GaussianLayer)
    x = field.encoding(torch.rand(4000, 3, generator=torch.Generator().manual_seed(5)))
    phi = torch.exp(-reference_rbf.half_distances(x, field.network.weights))
    assert 0.4 < float(phi.detach().median()) < 0.6
    assert float(field(torch.rand(200, 3)).detach().abs().mean()) < 1


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1.0, 1e5])
def test_calibration_does_not_depend_on_the_scale(factor: float, generator: torch.Generator) -> None:
    layer = GaussianLayer(RBF(n_neurons=32, least_scale=1e-9), 9, 2, "identity")
    layer.initialise(generator)
    x = (torch.randn(3000, 9, generator=generator) * torch.logspace(-2, 1, 9) + 3) * factor
    layer.calibrate(x, generator)
    phi = torch.exp(-reference_rbf.half_distances(x, layer.weights).detach())
    assert 0.45 < float(phi.median()) < 0.55
    # Centres are features: each of the neurons is at the top of its bell at one of the points.
    assert float(phi.amax(0).min()) > 0.99


def test_features_without_any_spread_are_survived(generator: torch.Generator) -> None:
    layer = GaussianLayer(RBF(), 4, 1, "identity")
    layer.initialise(generator)
    layer.calibrate(torch.zeros(10, 4), generator)
    assert all(bool(torch.isfinite(p).all()) for p in layer.parameters())


def test_features_that_grow_from_almost_zero_keep_neurons_alive(generator: torch.Generator) -> None:
    """A hash grid starts at 1e-4 and comes to a thousand times that: neurons must neither be all one nor all zero."""
    layer = GaussianLayer(RBF(), 16, 1, "identity")
    layer.initialise(generator)
    x = torch.randn(2000, 16, generator=generator)
    layer.calibrate(x * 1e-4, generator)
    for size in (1e-4, 1e-2, 0.1):
        phi = torch.exp(-reference_rbf.half_distances(x * size, layer.weights).detach())
        assert 0.1 < float(phi.median()) < 0.9


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="n_neurons >= 1"):
        GaussianLayer(RBF(n_neurons=0), 3, 1, "identity")


def test_a_second_input_is_appended(generator: torch.Generator) -> None:
    layer = GaussianLayer(RBF(n_neurons=8), 7, 3, "sigmoid")
    layer.initialise(generator)
    x, aux = torch.randn(20, 4, generator=generator), torch.randn(5, 3, generator=generator)
    index = torch.randint(5, (20,), generator=generator, dtype=torch.int32)
    got = layer(x, aux, index).detach()
    want = torch.sigmoid(direct(with_aux(x, aux, index).double(), *(w.double() for w in layer.weights)))
    VALUES.check(got, want.detach())


FIT = FitConfig(steps=200, batch=1024)


def test_an_image_converges() -> None:
    field = build(SignalFieldConfig(Hash(4, 4, 12, 4, 32), RBF(32)), DESCRIBED)
    *_, last = fit(field, Waves(), FIT)
    assert last.psnr > 38
    assert last.skipped == 0


class Ball(Waves):
    """The signed distance of a ball, exactly."""

    kind = "mesh"
    box = Box((0.0,) * 3, (1.0,) * 3)

    def at(self, x: Tensor) -> Tensor:
        return (x - 0.5).norm(dim=1, keepdim=True) - 0.3

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.rand(n, 3, generator=generator)
        return x, self.at(x)


@pytest.mark.parametrize(("name", "most"), [("hash", 0.035), ("dense", 0.01), ("dif", 0.02), ("neurbf", 0.02)])
def test_a_signed_distance_converges(name: str, most: float) -> None:
    """200 steps bring the mean error below this; of one value for all points it is 0.1."""
    encoding = {**ENCODINGS, "dif": DiF((4, 4), (8, 13), (1.0, 1.3), "triangle")}[name]
    field = build(SignalFieldConfig(encoding, RBF(32)), MESH)
    for _ in fit(field, Ball(), FIT):  # pyright: ignore[reportArgumentType]  all that fitting asks of a scene
        pass
    x = torch.rand(2000, 3, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        error = (field(x) - Ball().at(x)).abs().mean()
    assert float(error) < most


@pytest.mark.parametrize("color", [RBF(32), Harmonics(), MLP(hidden_layers=1)], ids=["rbf", "harmonics", "mlp"])
def test_a_radiance_field_converges(color: RBF | Harmonics | MLP, tmp_path: Path) -> None:
    views = {"train": ring(6), "test": ring(2, height=1.0)}
    write_blender(tmp_path, views, lambda m, w, h: ball(m, w, h, (0, 0, 0), 0.6), (24, 24))
    scene = scenes.load(tmp_path)
    latent = 1 + 3 * 4 if isinstance(color, Harmonics) else 8
    grid = Hash(levels=3, log2_table_size=12, base_resolution=8, finest_resolution=32)
    config = RadianceFieldConfig(grid, RBF(32), color, latent_dim=latent, harmonics_degree=2)
    field = build(config, scene.describe())
    steps = list(fit(field, scene, FitConfig(steps=40, batch=2**11)))
    assert steps[-1].psnr > steps[0].psnr + 3
    assert steps[-1].skipped == 0
    assert isinstance(field, RadianceField)
    sigma = field.density(torch.rand(50, 3))
    assert bool(torch.isfinite(sigma).all())


def test_a_run_is_saved_and_loaded_exactly(tmp_path: Path) -> None:
    config = Config(
        SignalFieldConfig(DiF((2, 2), (6, 9), (1.0, 2.5)), RBF(8, least_scale=0.2)), FitConfig(steps=5, batch=64)
    )
    run = Run.create(tmp_path / "run", config, DESCRIBED, Data("/somewhere/waves.png", "waves"))
    field = build(config.field, DESCRIBED)
    *_, last = fit(field, Waves(), config.fit)
    run.save(field, last)
    opened = Run.open(tmp_path / "run")
    assert opened.config == config
    loaded = opened.field()
    x = torch.rand(100, 2)
    EXACT.check(loaded(x).detach(), field(x).detach())


def test_the_same_seed_gives_the_same_layer() -> None:
    fields = [build(SignalFieldConfig(ENCODINGS["hash"], RBF()), MESH) for _ in range(2)]
    initialise(fields[1], 3)
    assert not torch.equal(*(field.get_parameter("network.centers") for field in fields))
    initialise(fields[0], 3)
    EXACT.check(*(field.get_parameter("network.centers") for field in fields))


def test_harmonics_in_closed_form(generator: torch.Generator) -> None:
    """With coefficients of the first band alone, colour is the same from everywhere: sigmoid(a Y_0)."""
    head = HarmonicsHead(1 + 3 * 4 + 4, 3, "sigmoid")
    latent = torch.zeros(5, 13)
    a = torch.randn(5, 3, generator=generator)
    latent[:, 1::4] = a
    d = torch.nn.functional.normalize(torch.randn(5, 3, generator=generator), dim=1)
    VALUES.check(head(latent, ops.harmonics(d, 2)), torch.sigmoid(a * math.sqrt(1 / (4 * math.pi))))
    # The second band of red alone turns with the direction: Y_{1,0} grows with z.
    latent = torch.zeros(5, 13)
    latent[:, 3] = 2.0
    red = head(latent, ops.harmonics(d, 2))[:, 0]
    VALUES.check(red, torch.sigmoid(2 * math.sqrt(3 / (4 * math.pi)) * d[:, 2]))


def test_a_latent_that_holds_no_coefficients_is_refused() -> None:
    with pytest.raises(InputError, match="49 with 4"):
        HarmonicsHead(16 + 16, 3, "sigmoid")


def test_presets_by_name(tmp_path: Path) -> None:
    write_blender(tmp_path, {"train": ring(3)}, lambda m, w, h: ball(m, w, h, (0, 0, 0), 0.6), (8, 8))
    for scene in (Waves(), scenes.load(tmp_path)):
        for encoding in (None, "hash", "dense", "dif", "neurbf", "frequency"):
            config = preset(scene, encoding=encoding, network="rbf")
            build(replace(config.field), scene.describe())
        with pytest.raises(InputError, match="plain coordinates"):
            preset(scene, encoding="coordinates", network="rbf")
