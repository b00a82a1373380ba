"""Multiplicative filters, bottleneck trunks, gated perceptrons and SIREN: their formulas in float64, gradients, what
their first values are like, and that they fit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_captures import ball, ring, write_blender
from tolerances import EXACT, GRADIENTS, INITIAL_VALUES, MONTE_CARLO, VALUES
from torch import Tensor, nn
from waves import Sphere, Waves

import scenes
from fields.contracts import Initialised
from fields.encodings import Coordinates, EncodingConfig, Frequency, Hash
from fields.field import RadianceField, RadianceFieldConfig, SignalFieldConfig, build, initialise
from fields.fitting import FitConfig, fit
from fields.kernels import reference
from fields.kernels.shapes import Activation
from fields.networks import GLU, MFN, MLP, Bottleneck, NetworkConfig, build_network
from fields.networks.bottleneck import root_mean_square_norm
from fields.networks.glu import GATE, GatedPerceptron
from fields.networks.mfn import ALPHA, FilterNetwork, gamma
from fields.networks.mlp import Perceptron
from fields.optim import OptimiserConfig
from scenes.capture import Capture
from scenes.errors import InputError

CASES: list[tuple[NetworkConfig, Activation]] = [
    (MFN(hidden_dim=24, hidden_layers=2, omega=0.3), "identity"),
    (MFN(hidden_dim=17, hidden_layers=0, omega=0.5), "sigmoid"),
    (Bottleneck(hidden_dim=33, bottleneck_dim=7, blocks=2), "identity"),
    (Bottleneck(hidden_dim=16, bottleneck_dim=16, blocks=1, activation="silu", norm=True), "sigmoid"),
    (Bottleneck(hidden_dim=8, blocks=0), "exp"),
    (GLU(hidden_dim=19, hidden_layers=2), "identity"),
    (GLU(hidden_dim=16, hidden_layers=1), "relu"),
]


def drawn(config: NetworkConfig, n_in: int, n_out: int, output: Activation = "identity", seed: int = 0) -> nn.Module:
    """A network as fitting begins with it."""
    network = build_network(config, n_in, n_out, output)
    if isinstance(network, Initialised):
        network.initialise(torch.Generator().manual_seed(seed))
    return network


def shaken(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """No parameter is zero any more."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def layer(params: Tensor, n_in: int, bias: bool) -> tuple[Tensor, Tensor]:
    """(weight, bias) of a layer's flat parameters: rows of weights, then the bias."""
    n_out = len(params) // (n_in + bias)
    weight = params[: n_in * n_out].view(n_out, n_in)
    return weight, params[n_in * n_out :] if bias else torch.zeros(n_out, dtype=params.dtype)


def by_formula(network: Any, config: NetworkConfig, x: Tensor) -> Tensor:
    """What the docstrings of the modules say, line by line."""
    n_in = x.shape[1]
    match config:
        case MFN():
            pairs = [layer(p, n_in, bias=True) for p in network.filters]
            sines = [(x @ w.T + b).sin() for w, b in pairs]
            h = sines[0]
            for params, g in zip(network.linear, sines[1:], strict=True):
                w, b = layer(params, config.hidden_dim, bias=True)
                h = (h @ w.T + b) * g
            z = h
        case Bottleneck():
            wide, narrow = config.hidden_dim, config.bottleneck_dim
            z = x @ layer(network.input, n_in, bias=False)[0].T
            act = torch.relu if config.activation == "relu" else nn.functional.silu
            for params in network.blocks:
                first, second = params.split([(wide + 1) * narrow, (narrow + 1) * wide])
                (w1, b1), (w2, b2) = layer(first, wide, bias=True), layer(second, narrow, bias=True)
                read = z / (z.square().mean(1, keepdim=True) + 1e-6).sqrt() if config.norm else z
                z = z + act(read @ w1.T + b1) @ w2.T + b2
        case GLU():
            z = x
            for value, gate in zip(network.values, network.gates, strict=True):
                (w, _), (v, c) = layer(value, z.shape[1], bias=False), layer(gate, z.shape[1], bias=True)
                u = z @ v.T + c
                z = (z @ w.T) * u / (1 + (-u).exp())
        case _:
            raise AssertionError(config)
    w, b = layer(network.output, z.shape[1], bias=True)
    return reference.activate(network.output_shape.output_activation, z @ w.T + b)


@pytest.mark.parametrize("n", [0, 1, 2, 17, 501])
@pytest.mark.parametrize(("config", "output"), CASES, ids=str)
def test_values_and_gradients_are_those_of_the_formula(config: NetworkConfig, output: Activation, n: int) -> None:
    """In float32 by the kernels, with a second input, against the formula in float64."""
    generator = torch.Generator().manual_seed(n)
    network = shaken(drawn(config, 5, 4, output), generator)
    wide = copy.deepcopy(network).double()
    x, aux = torch.randn(n, 3, generator=generator), torch.randn(6, 2, generator=generator)
    index = torch.randint(6, (n,), generator=generator, dtype=torch.int32)
    leaf, leaf64 = x.clone().requires_grad_(), x.double().requires_grad_()
    value = network(leaf, aux, index)
    expected = by_formula(wide, config, torch.cat([leaf64, aux.double()[index.long()]], 1))
    VALUES.check(value.detach(), expected.detach())
    cotangent = torch.randn(n, 4, generator=generator)
    value.backward(cotangent)
    expected.backward(cotangent.double())
    pairs = [(leaf.grad, leaf64.grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(network.parameters(), wide.parameters(), strict=True)]
    for got, want in pairs:
        assert got is not None and want is not None
        scale = want.abs().amax().clamp(min=1) if want.numel() else torch.ones(())
        GRADIENTS.check(got / scale, want / scale)


@pytest.mark.parametrize(("config", "output"), CASES, ids=str)
def test_rows_of_a_second_input_may_be_those_of_samples(config: NetworkConfig, output: Activation) -> None:
    network, generator = drawn(config, 5, 2, output), torch.Generator().manual_seed(1)
    x, aux = torch.randn(9, 3, generator=generator), torch.randn(9, 2, generator=generator)
    EXACT.check(network(x, aux).detach(), network(torch.cat([x, aux], 1)).detach())


@pytest.mark.parametrize(("config", "output"), [case for case in CASES if case[1] != "relu"], ids=str)
def test_gradients_of_gradients_work_in_float64(config: NetworkConfig, output: Activation) -> None:
    if isinstance(config, Bottleneck) and config.activation == "relu" and config.blocks:
        config = replace(config, activation="silu")  # a kink has no second derivative
    network = shaken(drawn(config, 2, 1, output), torch.Generator().manual_seed(2)).double()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(network, (x,))


def mean_square(x: Tensor) -> Tensor:
    return x.detach().double().square().mean()


def test_filters_neither_vanish_nor_grow_with_depth() -> None:
    """E h_l^2 = 1 - 2^-(l+1), at every depth, wherever the points are."""
    n_layers = 5
    for x in (torch.zeros(1, 2), torch.rand(128, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1):
        sums = torch.zeros(n_layers + 1, dtype=torch.float64)
        for seed in range(12):
            network = drawn(MFN(hidden_dim=128, hidden_layers=n_layers), 2, 1, seed=seed)
            assert isinstance(network, FilterNetwork)
            h = reference.mlp(x, network.filters[0], network.filter_shape)
            sums[0] += mean_square(h)
            for i, (params, filters) in enumerate(zip(network.linear, list(network.filters)[1:], strict=True)):
                h = reference.mlp(h, params, network.linear_shape) * reference.mlp(x, filters, network.filter_shape)
                sums[i + 1] += mean_square(h)
        INITIAL_VALUES.check(sums / 12, 1 - 0.5 ** (torch.arange(n_layers + 1) + 1.0))


def test_frequencies_are_spread_by_gamma_distributions() -> None:
    """Standard deviation of a frequency: 2 pi omega / sqrt(3 D) times the root of E gamma^2 = a (a + 1)."""
    network = drawn(MFN(hidden_dim=20_000, hidden_layers=0, omega=0.7), 2, 1)
    assert isinstance(network, FilterNetwork)
    ((omega, _),) = reference.mlp_layers(network.filters[0].detach(), network.filter_shape)
    expected = 2 * math.pi * 0.7 / math.sqrt(3 * 2) * math.sqrt(ALPHA * (ALPHA + 1))
    assert INITIAL_VALUES.allows(float(omega.std()), expected)


@pytest.mark.parametrize("alpha", [6.0, 1.2])
def test_gamma_draws_have_that_distribution(alpha: float, generator: torch.Generator) -> None:
    scipy_special = pytest.importorskip("scipy.special")
    draws = gamma(alpha, 200_000, generator)
    for at in (0.3, 1.0, 3.0, 6.0, 9.0):
        assert MONTE_CARLO.allows(float((draws < at).double().mean()), float(scipy_special.gammainc(alpha, at)))


def test_a_trunk_begins_as_a_linear_map_and_every_block_learns() -> None:
    deep = drawn(Bottleneck(hidden_dim=64, bottleneck_dim=8, blocks=6), 10, 3)
    shallow = drawn(Bottleneck(hidden_dim=64, bottleneck_dim=8, blocks=0), 10, 3)
    shallow.load_state_dict({k: v for k, v in deep.state_dict().items() if not k.startswith("blocks")})
    x = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    value = deep(x)
    EXACT.check(value.detach(), shallow(x).detach())
    value.square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in deep.parameters())  # pyright: ignore[reportOptionalMemberAccess]
    assert isinstance(deep.input_shape, object)
    wide = reference.mlp(x, deep.input, deep.input_shape)  # pyright: ignore[reportArgumentType]
    INITIAL_VALUES.check(mean_square(wide), torch.tensor(1.0))


def test_norm_is_of_rows_and_leaves_what_is_nearly_zero_small() -> None:
    z = torch.tensor([[3.0, 4.0], [-30.0, 40.0], [1e-5, 1e-5]])
    got = root_mean_square_norm(z)
    VALUES.check(got[:2], torch.tensor([[3.0, 4.0], [-3.0, 4.0]]) / math.sqrt(12.5))
    assert float(got[2].max()) < 0.1


def test_gates_keep_the_mean_square_of_what_they_read() -> None:
    """To the extent that samples are alike in theirs, which those of wide layers are."""
    x, sums = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.float64)
    for seed in range(4):
        network = drawn(GLU(hidden_dim=1024, hidden_layers=2), 1024, 1, seed=seed)
        assert isinstance(network, GatedPerceptron)
        a = x
        for i, (value, gate) in enumerate(zip(network.values, network.gates, strict=True)):
            a = reference.mlp(a, value, network.value_shapes[i]) * reference.mlp(a, gate, network.gate_shapes[i])
            sums[i] += mean_square(a)
    INITIAL_VALUES.check(sums / 4, torch.ones(2))


def test_gates_are_linear_in_features_that_are_nearly_zero() -> None:
    """As those of a grid are at first; a product of two such values would have no gradient to speak of."""
    network = drawn(GLU(hidden_dim=32), 8, 1)
    x = 1e-4 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        origin = network(torch.zeros(1, 8))
        once, twice = network(x) - origin, network(2 * x) - origin
    assert float(once.abs()) > 1e-6
    assert abs(float(twice / once) - 2) < GATE / 10


def test_siren_begins_as_its_paper_says() -> None:
    """Sitzmann et al. 2020, section 3.2: first weights U(-1/n, 1/n) times omega, others U(-sqrt(6/n), sqrt(6/n)) with
    omega folded in. Then inputs of all sines but the first are normal. The first one's outputs have a mean square of
    1/2; a sine of normal values of variance v has one of (1 - exp(-2 v)) / 2, and the next layer twice that for v."""
    config = MLP(hidden_dim=256, hidden_layers=4, activation="sine", bias=True, omega=30.0)
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    squares, sines = torch.zeros(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for seed in range(8):
        network = drawn(config, 2, 3, seed=seed)
        assert isinstance(network, Perceptron)
        layers = reference.mlp_layers(network.params.detach(), network.shape)
        for i, bound in enumerate([30 / 2, *[math.sqrt(6 / 256)] * 3]):
            weight = layers[i][0]
            assert float(weight.abs().max()) <= bound
            INITIAL_VALUES.check(mean_square(weight).sqrt(), torch.tensor(bound / math.sqrt(3)))
        h = x
        for i, (weight, bias) in enumerate(layers[:-1]):
            z = nn.functional.linear(h, weight, bias)
            h = z.sin()
            sines[i] += mean_square(h)
            if i > 0:
                squares[i - 1] += mean_square(z)
    expected, variances = [0.5], []
    for _ in range(3):
        variances.append(2 * expected[-1] + 1 / (3 * 256))
        expected.append(0.5 * (1 - math.exp(-2 * variances[-1])))
    INITIAL_VALUES.check(squares / 8, torch.tensor(variances))
    INITIAL_VALUES.check(sines / 8, torch.tensor(expected))


GRID = Hash(levels=4, log2_table_size=12, base_resolution=4, finest_resolution=32)


@pytest.mark.parametrize(
    ("encoding", "network", "rate"),
    [
        (Coordinates(), MFN(hidden_dim=48, hidden_layers=2, omega=0.3), 3e-3),
        (GRID, MFN(hidden_dim=16, hidden_layers=1, omega=0.1), 5e-3),
        (GRID, Bottleneck(hidden_dim=32, bottleneck_dim=8), 5e-3),
        (Frequency(4), Bottleneck(hidden_dim=48, bottleneck_dim=16, blocks=2, norm=True), 3e-3),
        (GRID, GLU(hidden_dim=16), 5e-3),
        (Frequency(4), GLU(hidden_dim=32), 3e-3),
    ],
    ids=["mfn", "hash-mfn", "hash-bottleneck", "frequency-bottleneck", "hash-glu", "frequency-glu"],
)
def test_images_are_fitted(encoding: EncodingConfig, network: NetworkConfig, rate: float, one_thread: None) -> None:
    field = build(SignalFieldConfig(encoding, network), Waves().describe())
    config = FitConfig(steps=300, batch=512, optimiser=OptimiserConfig(network_rate=rate))
    *_, last = fit(field, Waves(), config)
    assert last.psnr > 25


@pytest.mark.parametrize(
    ("encoding", "network"),
    [(Coordinates(), MFN(hidden_dim=32, hidden_layers=1, omega=0.1)), (GRID, Bottleneck()), (GRID, GLU(hidden_dim=16))],
    ids=["mfn", "bottleneck", "glu"],
)
def test_distances_are_fitted(encoding: EncodingConfig, network: NetworkConfig, one_thread: None) -> None:
    field = build(SignalFieldConfig(encoding, network), {"kind": "mesh"})
    *_, last = fit(field, Sphere(), FitConfig(steps=100, batch=512))  # pyright: ignore[reportArgumentType]
    assert last.loss < 0.02


@pytest.fixture(scope="module")
def red_ball(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    folder: Path = tmp_path_factory.mktemp("ball")
    views = {"train": ring(6), "test": ring(2, height=1.0)}
    scene = scenes.load(write_blender(folder, views, lambda m, w, h: ball(m, w, h, (0, 0, 0), 1.0), (12, 12)))
    assert isinstance(scene, Capture)
    return scene


@pytest.mark.parametrize(
    ("encoding", "network", "gain"),
    [
        (Coordinates(), lambda: MFN(hidden_dim=48, hidden_layers=2, omega=0.3), 8),
        (GRID, lambda: Bottleneck(hidden_dim=24, bottleneck_dim=8, blocks=1), 15),
        (GRID, lambda: GLU(hidden_dim=16, hidden_layers=1), 15),
    ],
    ids=["mfn", "bottleneck", "glu"],
)
def test_captures_are_fitted_with_both_networks(
    encoding: EncodingConfig, network: Callable[[], NetworkConfig], gain: float, red_ball: Capture, one_thread: None
) -> None:
    config = RadianceFieldConfig(encoding, density=network(), color=network(), latent_dim=8, harmonics_degree=2)
    field = build(config, red_ball.describe())
    assert isinstance(field, RadianceField)
    initialise(field, 1)
    seen = [step.psnr for step in fit(field, red_ball, FitConfig(steps=200, batch=1024))]
    assert sum(seen[-10:]) / 10 > sum(seen[:10]) / 10 + gain


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MFN(hidden_dim=0), "hidden_dim >= 1"),
        (MFN(omega=0.0), "omega > 0"),
        (Bottleneck(bottleneck_dim=0), "bottleneck_dim >= 1"),
        (Bottleneck(blocks=-1), "blocks >= 0"),
        (GLU(hidden_layers=0), "hidden_layers >= 1"),
    ],
    ids=str,
)
def test_impossible_sizes_are_one_line(config: NetworkConfig, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_network(config, 3, 3)
