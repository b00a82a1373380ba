"""Layers of learned functions: bases against closed forms, scales, splines' grids, kernels, gradients, fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from kernel_table import COUNTS, Case, run_both, run_table_forced
from scipy.interpolate import BSpline
from scipy.special import eval_chebyt
from test_fitting import GRID, Waves, run
from tolerances import DERIVED, EXACT, GRADIENTS, PADE, SECOND_GRADIENTS, UNIT_VARIANCE, VALUES
from torch import Tensor

from fields.configuration import from_json, to_json
from fields.contracts import Initialised
from fields.field import SignalFieldConfig, build, initialise
from fields.fitting import FitConfig
from fields.kernels import kan, native, reference_kan
from fields.kernels import reference_bases as bases
from fields.kernels.shapes import KAN_BASES as KINDS
from fields.kernels.shapes import KanBasis
from fields.networks import KAN, MLP, NetworkConfig, RationalKAN, SelectableKAN, build_network
from fields.networks.kan.basis import Basis
from fields.networks.kan.layer import KanLayer
from fields.networks.kan.rational import RationalActivation, RationalLayer
from fields.presets import KanName, kan_trunk, preset
from scenes.errors import InputError

NETWORKS: dict[str, NetworkConfig] = {
    **{kind: KAN(kind, hidden_dim=8, hidden_layers=1) for kind in KINDS},
    "rational": RationalKAN(hidden_dim=16, hidden_layers=1),
    "rational-even": RationalKAN(hidden_dim=16, hidden_layers=1, denominator="even"),
    "s-kan": SelectableKAN(hidden_dim=8, hidden_layers=1),
}


def points(n: int, n_in: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, n_in, generator=generator, dtype=torch.float64)


def test_splines_are_scipys_and_go_on_straight(generator: torch.Generator) -> None:
    knots = bases.extended(torch.tensor([[-1.0, -0.3, 0.1, 0.2, 0.9]], dtype=torch.float64))
    x = points(200, 1, generator) * 2
    got = bases.spline(x, knots)
    for g in range(7):
        c = torch.zeros(7)
        c[g] = 1
        truth = BSpline(knots[0].numpy(), c.numpy(), 3)
        inside = x[:, 0].clamp(-1, 0.9)
        straight = torch.from_numpy(truth(inside)) + torch.from_numpy(truth(inside, 1)) * (x[:, 0] - inside)
        VALUES.check(got[:, 0, g], straight)
    VALUES.check(got.sum(2), torch.ones(200, 1))


def test_polynomials_are_scipys_up_to_the_border(generator: torch.Generator) -> None:
    x = torch.cat([points(50, 2, generator), torch.tensor([[0.0, 30.0], [-30.0, 1e6]])])
    got = bases.chebyshev(x, 6)
    for degree in range(6):
        VALUES.check(got[:, :, degree], torch.from_numpy(eval_chebyt(degree, x.tanh().numpy())))
    EXACT.check(bases.chebyshev(x, 1), torch.ones(52, 2, 1))


def test_waves_have_the_period_of_the_grid(generator: torch.Generator) -> None:
    x = points(50, 3, generator)
    got = bases.fourier(x, 6)
    VALUES.check(got, bases.fourier(x + 2 * bases.EXTENT, 6))
    VALUES.check(got[:, :, 0], (math.pi / 2 * x).sin())
    VALUES.check(got[:, :, 5], (3 * math.pi / 2 * x).cos())


def test_wavelets_are_derivatives_of_gaussians(generator: torch.Generator) -> None:
    x = points(50, 3, generator).requires_grad_()
    first, spacing = bases.grid_of(5)
    for g in range(5):
        value = (-((x - first) / spacing - g).square() / 2).exp().sum()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x, retain_graph=True)
        VALUES.check(bases.dog(x, 5)[:, :, g], slope * spacing)
        norm = 2 / (math.sqrt(3) * math.pi**0.25)
        VALUES.check(bases.mexican_hat(x, 5)[:, :, g], -norm * curvature * spacing**2)


def test_bumps_peak_at_their_centres() -> None:
    centres = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None]
    got = bases.rbf(centres, 8)[:, 0]
    away = torch.arange(8)[:, None] - torch.arange(8)
    VALUES.check(got, (-(away.double() ** 2)).exp())


@pytest.mark.parametrize("kind", KINDS)
def test_layers_start_with_unit_variance(kind: KanBasis, generator: torch.Generator) -> None:
    layer = KanLayer(kind, 32, 256, 8)
    variances = []
    for _ in range(4):
        layer.initialise(generator)
        out = layer(torch.randn(2048, 32, generator=generator)).detach()
        variances.append(out.var(dim=0).mean() + out.mean(0).var())
    UNIT_VARIANCE.check(torch.stack(variances).mean(), torch.ones(()))


@pytest.mark.parametrize("config", [*(KAN(kind, 6, 1) for kind in KINDS), RationalKAN(8, 1)], ids=str)
def test_networks_start_at_zero_where_features_do(config: NetworkConfig) -> None:
    """A constant that the first weights bring is a fog of random density, from which narrow networks recover late."""
    network = build_network(config, 24, 4, "identity")
    initialise(network, 0)
    VALUES.check(network(torch.zeros(2, 24)).detach(), torch.zeros(2, 4))


@pytest.mark.parametrize("start", ["identity", "swish"])
@pytest.mark.parametrize("form", ["absolute", "even"])
def test_rational_layers_start_as_known_functions_of_unit_variance(start, form, generator: torch.Generator) -> None:
    activation = RationalActivation(start, 32, 4, form)
    x = torch.linspace(-3, 3, 301)[:, None].expand(-1, 32)
    PADE.check(activation(x).detach(), x if start == "identity" else torch.nn.functional.silu(x))
    layer = RationalLayer(activation, 32, 512)
    layer.initialise(generator)
    out = layer(torch.randn(2048, 32, generator=generator)).detach()
    UNIT_VARIANCE.check(out.square().mean(), torch.ones(()))


def test_denominators_are_trained_from_the_start(generator: torch.Generator) -> None:
    for form in ("absolute", "even"):
        activation = RationalActivation("identity", 16, 8, form)
        (activation(torch.randn(100, 16, generator=generator)) ** 2).sum().backward()
        assert activation.denominator.grad is not None
        assert bool((activation.denominator.grad != 0).all())


def test_even_denominators_have_no_kink_at_zero() -> None:
    """The slopes from both sides: of the absolute form they differ by 2 a0 |b1|."""
    jumps = {}
    for form in ("absolute", "even"):
        activation = RationalActivation("swish", 1, 1, form)
        with torch.no_grad():
            activation.numerator[0] = 1.0
            activation.denominator[0, 0] = 0.7
        sides = torch.tensor([[-1e-6], [1e-6]], requires_grad=True)
        (slopes,) = torch.autograd.grad(activation(sides).sum(), sides)
        jumps[form] = (slopes[0] - slopes[1]).abs()
    GRADIENTS.check(jumps["absolute"], torch.tensor([2 * 0.7 / 3]))
    GRADIENTS.check(jumps["even"], torch.zeros(1))


def test_a_moved_grid_keeps_a_function_that_it_can_hold(generator: torch.Generator) -> None:
    """A cubic is in every space of cubic splines, wherever their knots are."""
    basis, x = Basis("spline", 2, 9).double(), points(500, 2, generator) * 0.3 + 0.2
    even = torch.linspace(-2, 2, 100, dtype=torch.float64)[:, None].expand(-1, 2)
    cubic = even**3 - 2 * even + 0.5
    terms = basis(even).transpose(0, 1)
    weight = torch.linalg.lstsq(terms, cubic.T[:, :, None]).solution[None, :, :, 0]
    before = torch.einsum("nib,oib->no", basis(x), weight)
    knots = basis.knots.clone()
    moved = basis.update_grid(x, weight)
    assert bool((basis.knots.diff(dim=1) > 0).all())
    assert not torch.equal(basis.knots, knots)
    GRADIENTS.check(torch.einsum("nib,oib->no", basis(x), moved), before)


@pytest.mark.parametrize("x", [torch.zeros(40, 2), torch.zeros(0, 2), torch.full((3, 2), torch.nan)])
def test_grids_of_degenerate_inputs_stay_in_order(x: Tensor) -> None:
    """Tables of features start at zero: all samples may be one point."""
    basis = Basis("spline", 2, 6)
    basis.update_grid(x, torch.zeros(1, 2, 6))
    assert bool((basis.knots.diff(dim=1) > 0).all())
    assert bool((basis.knots[:, 3] <= -1).all() and (basis.knots[:, -4] >= 1).all())


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_finite_far_out_and_at_corners(name: str, generator: torch.Generator) -> None:
    network = built(NETWORKS[name], 3, 2, generator)
    values = torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0, 1e6, -1e6])
    x = torch.cartesian_prod(values, values, values).requires_grad_()
    out = network(x)
    (out / out.detach().abs().clamp(min=1)).sum().backward()
    for tensor in (out, x.grad, *(p.grad for p in network.parameters())):
        assert tensor is not None
        assert bool(torch.isfinite(tensor).all())


def built(config: NetworkConfig, n_in: int, n_out: int, generator: torch.Generator):
    network = build_network(config, n_in, n_out)
    for module in network.modules():
        if isinstance(module, Initialised):
            module.initialise(generator)
    return network


def rational_case(width: int, groups: int) -> Case:
    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        x = torch.randn(n, width, generator=g) * 2
        if n > 2:
            x[0], x[1], x[2] = 0.0, 1.0, -1.0
        denominator = torch.randn(groups, 4, generator=g)
        denominator[0, 1] = 0.0
        return [x, torch.randn(6, generator=g), denominator]

    return Case(f"rational-{width}-{groups}", inputs, kan.rational, reference_kan.rational, GRADIENTS)


def rational_layer_case(n_in: int, groups: int, n_out: int, scale: float = 1.0) -> Case:
    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        x, *coefficients = rational_case(n_in, groups).inputs(n, g)
        weight = torch.randn(n_out, n_in, generator=g) / math.sqrt(n_in)
        return [x, *coefficients, weight, torch.randn(n_out, generator=g)]

    name = f"rational-layer-{n_in}-{groups}-{n_out}" + (f"-times-{scale}" if scale != 1 else "")
    native_op = partial(kan.rational_layer, scale=scale)
    return Case(name, inputs, native_op, partial(reference_kan.rational_layer, scale=scale), GRADIENTS)


def basis_case(kind: KanBasis, n_in: int, n_out: int, count: int, base: bool) -> Case:
    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        x = torch.randn(n, n_in, generator=g) * 3
        if n > 2:
            x[0], x[1], x[2] = 0.0, 50.0, -1e6
        terms = n_in * (count + base)
        weight = torch.randn(n_out, terms, generator=g)
        if kind in ("chebyshev", "fourier"):  # all terms are of size one, everywhere: a sum of that size
            weight = weight / math.sqrt(terms)
        return [x, weight, torch.randn(n_out, generator=g)]

    far = 8 if kind == "spline" else 60  # splines go on straight, so that differences of large terms lose digits

    def call(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            knots = uneven_knots(n_in, count).to(x) if kind == "spline" else None
            return op(x.clamp(-far, far), weight, bias, kind, count, knots)

        return layer

    name = f"{kind}-{n_in}-{n_out}-{count}-{'silu' if base else 'alone'}"
    return Case(name, inputs, call(kan.basis_layer), call(reference_kan.basis_layer), GRADIENTS)


def uneven_knots(n_in: int, count: int) -> Tensor:
    """[n_in, count + 4], of grids that differ, in float64 that float32 holds."""
    steps = 0.2 + torch.rand(n_in, count - 2, generator=torch.Generator().manual_seed(count))
    return bases.extended(-bases.EXTENT + steps.cumsum(1)).double()


CASES = [
    *(rational_case(width, groups) for width, groups in ((1, 1), (8, 8), (24, 3), (33, 11), (64, 8))),
    *(rational_layer_case(*sizes) for sizes in ((1, 1, 1), (24, 8, 32), (33, 11, 5), (130, 2, 66))),
    rational_layer_case(24, 8, 32, scale=0.25),
    *(basis_case("rbf", *sizes, base=True) for sizes in ((1, 1, 8), (3, 5, 2), (32, 16, 8), (13, 66, 11), (40, 3, 16))),
    *(basis_case(kind, *sizes, base=True) for kind in KINDS[:1] for sizes in ((1, 1, 4), (32, 16, 8), (13, 66, 11))),
    *(basis_case(kind, *sizes, base=True) for kind in KINDS[2:] for sizes in ((1, 1, 2), (32, 16, 8), (13, 66, 12))),
    *(basis_case(kind, 24, 16, 8, base=False) for kind in KINDS),
    basis_case("chebyshev", 3, 2, 1, base=True),
]


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernels_agree_with_references(case: Case, n: int) -> None:
    run_both(case, n)


@pytest.mark.parametrize("isa", native.available()[1:])
def test_every_instruction_set_agrees(isa: str) -> None:
    """The whole table again in a process that is forced to another instruction set."""
    run_table_forced(isa, "test_kan")


def test_kernels_are_deterministic(generator: torch.Generator) -> None:
    for case in (rational_case(64, 8), rational_layer_case(32, 8, 16), basis_case("rbf", 32, 16, 8, base=True)):
        drawn = case.inputs(5000, generator)
        runs = []
        for _ in range(2):
            leaves = [t.clone().requires_grad_() for t in drawn]
            case.native(*leaves).square().sum().backward()
            runs.append([t.grad for t in leaves])
        for a, b in zip(*runs, strict=True):
            assert a is not None and b is not None
            EXACT.check(a, b)


def test_second_derivatives_of_the_references(generator: torch.Generator) -> None:
    x = points(7, 4, generator).requires_grad_()
    numerator = torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_()
    denominator = torch.randn(2, 4, dtype=torch.float64, generator=generator).requires_grad_()
    inputs = x, numerator, denominator
    assert torch.autograd.gradcheck(reference_kan.rational, inputs)
    assert torch.autograd.gradgradcheck(reference_kan.rational, inputs)


@pytest.mark.parametrize(
    "case",
    [rational_case(8, 4), rational_layer_case(8, 4, 3), *(basis_case(kind, 5, 3, 8, base=True) for kind in KINDS)],
    ids=lambda case: case.name,
)
def test_kernels_give_the_references_second_derivatives(case: Case, generator: torch.Generator) -> None:
    """As an eikonal loss needs them: gradients of the squared slope."""
    drawn, found = case.inputs(20, generator), []
    drawn[0] = torch.randn(drawn[0].shape, generator=generator)
    for op, dtype in ((case.native, torch.float32), (case.reference, torch.float64)):
        leaves = [t.clone().to(dtype).requires_grad_() for t in drawn]
        (slope,) = torch.autograd.grad(op(*leaves).sum(), leaves[0], create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), leaves, allow_unused=True))
    for got, want in zip(*found, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            scale = want.abs().amax().clamp(min=1)
            SECOND_GRADIENTS.check(got.double() / scale, want / scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_differentiate_as_in_float64(name: str, generator: torch.Generator) -> None:
    single = built(NETWORKS[name], 5, 3, generator)
    double = build_network(NETWORKS[name], 5, 3).double()
    double.load_state_dict(single.state_dict())
    x = torch.randn(50, 5, generator=generator)
    slopes = []
    for network, inputs in ((single, x.requires_grad_()), (double, x.detach().double().requires_grad_())):
        network(inputs).sin().sum().backward()
        slopes.append([inputs.grad, *(p.grad for p in network.parameters())])
    for got, want in zip(*slopes, strict=True):
        assert got is not None and want is not None
        scale = want.abs().amax().clamp(min=1)
        DERIVED.check(got.double() / scale, want / scale)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_kind_fits_an_image_on_hash_features(name: str) -> None:
    scene = Waves()
    field = build(SignalFieldConfig(GRID, NETWORKS[name]), scene.describe())
    run(field, scene, FitConfig(steps=150, batch=256))
    assert scene.evaluate(torch.no_grad()(field)).results["psnr"] > 20  # a constant has 9


@pytest.mark.parametrize("name", get_args(KanName))
def test_names_of_the_command_line_build(name: KanName) -> None:
    config = preset(Waves(), network=name)  # pyright: ignore[reportArgumentType]
    assert isinstance(config.field, SignalFieldConfig)
    assert config.field.network == kan_trunk(name, has_grid=True)
    assert not isinstance(config.field.network, MLP)
    assert from_json(SignalFieldConfig, to_json(config.field), "here") == config.field
    coordinates = preset(Waves(), network=name, encoding="coordinates")  # pyright: ignore[reportArgumentType]
    assert isinstance(coordinates.field, SignalFieldConfig)
    assert build_network(coordinates.field.network, 2, 3)(torch.rand(4, 2)).shape == (4, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RationalKAN(hidden_dim=20, groups=8), "8 do not divide hidden_dim 20; take one of 1, 2, 4, 5, 10, 20"),
        (RationalKAN(groups=0), "groups >= 1"),
        (KAN("spline", n_basis=3), "expected 4 or more for spline, got 3"),
        (KAN("fourier", n_basis=5), "an even number for fourier, got 5"),
        (KAN("rbf", n_basis=1), "expected 2 or more"),
        (KAN(hidden_dim=0), "hidden_dim >= 1"),
        (SelectableKAN(pool=()), "pool of different families, got none"),
        (SelectableKAN(pool=("rbf", "rbf")), "pool of different families"),
        (SelectableKAN(keep=7), "keep from 1 to the pool's 6, got 7"),
        (SelectableKAN(select_at=0.5, prune_at=0.5), "select_at < prune_at"),
    ],
)
def test_what_cannot_be_built_says_why(config: NetworkConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network(config, 4, 1)
