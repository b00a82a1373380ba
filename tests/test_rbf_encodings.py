"""The encodings that go with Gaussian neurons: tiled grids, and kernels in coordinate space."""

from __future__ import annotations

import pytest
import torch
from tolerances import EXACT, FINITE_DIFFERENCES, GRADIENTS, VALUES
from torch import Tensor

from fields.encodings import Dense, DiF, NeuRBF, build_encoding
from fields.encodings.dif import DiFEncoding, TiledGrid
from fields.encodings.neurbf import NeuRBFEncoding
from scenes.errors import InputError


def dif(config: DiF, dim: int) -> DiFEncoding:
    encoding = build_encoding(config, dim)
    assert isinstance(encoding, DiFEncoding)
    for level in encoding.levels:
        assert isinstance(level, TiledGrid)
        level.initialise(torch.Generator().manual_seed(1))
    return encoding


def neurbf(config: NeuRBF, dim: int) -> NeuRBFEncoding:
    encoding = build_encoding(config, dim)
    assert isinstance(encoding, NeuRBFEncoding)
    encoding.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        g = torch.Generator().manual_seed(2)
        for parameter in encoding.parameters():
            parameter.normal_(0, 0.5, generator=g)
    return encoding


@pytest.mark.parametrize("wrap", ["sawtooth", "triangle"])
@pytest.mark.parametrize("dim", [2, 3, 4])
def test_one_tile_is_a_dense_grid(dim: int, wrap, generator: torch.Generator) -> None:
    tiled = dif(DiF((4,), (6,), (1.0,), wrap, 1.0), dim)
    dense = build_encoding(Dense(1, 4, 6, 6), dim)
    dense.load_state_dict(tiled.levels[0].state_dict())
    x = torch.rand(50, dim, generator=generator)
    x[:2] = torch.tensor([[0.0], [1.0]])
    if wrap == "triangle":
        VALUES.check(tiled(x).detach(), dense(x).detach())
    else:
        EXACT.check(tiled(x).detach(), dense(x).detach())


def test_tiles_repeat_or_are_mirrored(generator: torch.Generator) -> None:
    x = torch.rand(50, 3, generator=generator) * 0.25
    saw = dif(DiF((2,), (5,), (4.0,), "sawtooth"), 3)
    GRADIENTS.check(saw(x + 0.25).detach(), saw(x).detach())
    triangle = dif(DiF((2,), (5,), (4.0,), "triangle"), 3)
    GRADIENTS.check(triangle(0.5 - x).detach(), triangle(x).detach())
    GRADIENTS.check(triangle(x + 0.5).detach(), triangle(x).detach())


def test_mirrored_tiles_leave_no_jump() -> None:
    either_side = torch.tensor([[0.25 - 1e-7, 0.3], [0.25 + 1e-7, 0.3]])
    triangle = dif(DiF((8,), (5,), (4.0,), "triangle", 1.0), 2)(either_side).detach()
    GRADIENTS.check(triangle[0], triangle[1])
    saw = dif(DiF((8,), (5,), (4.0,), "sawtooth", 1.0), 2)(either_side).detach()
    assert float((saw[0] - saw[1]).abs().max()) > 0.1


@pytest.mark.parametrize("wrap", ["sawtooth", "triangle"])
def test_gradients_of_tiles_are_slopes(wrap, generator: torch.Generator) -> None:
    encoding = dif(DiF((4, 2), (5, 7), (2.0, 3.3), wrap, 1.0), 2).double()
    x = torch.rand(20, 2, generator=generator, dtype=torch.float64).requires_grad_()
    d_out = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    (slope,) = torch.autograd.grad((encoding(x) * d_out).sum(), x)
    h = 1e-7  # of piecewise bilinear functions, whose second derivative along an axis is zero
    for axis in range(2):
        step = h * torch.eye(2, dtype=torch.float64)[axis]
        with torch.no_grad():
            difference = ((encoding(x + step) - encoding(x - step)) * d_out).sum(1) / (2 * h)
        FINITE_DIFFERENCES.check(slope[:, axis], difference)


def test_native_tiles_have_the_reference_s_gradients(generator: torch.Generator) -> None:
    encoding = dif(DiF((4, 2), (5, 7), (2.0, 3.3), "sawtooth", 1.0), 3)
    x = torch.rand(60, 3, generator=generator)
    d_out = torch.randn(60, 6, generator=generator)
    results = []
    for module, points in ((encoding, x), (dif(DiF((4, 2), (5, 7), (2.0, 3.3), "sawtooth", 1.0), 3).double(), x)):
        points = points.to(next(module.parameters()).dtype).requires_grad_()
        values = module(points)
        grads = torch.autograd.grad(values, [points, *module.parameters()], d_out.to(values.dtype))
        results.append((values.detach(), *grads))
    for got, want in zip(*results, strict=True):
        GRADIENTS.check(got, want)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DiF((4,), (8, 9), (1.0, 2.0)), "as many features, resolutions and frequencies"),
        (DiF((), (), ()), "as many features, resolutions and frequencies"),
        (DiF((4,), (8,), (0.0,)), "frequencies and scale > 0"),
        (DiF((3,), (8,), (1.0,)), "expected 1, 2, 4 or 8"),
        (DiF((8,), (4000,), (1.0,)), "too many"),
    ],
)
def test_impossible_tiles_are_refused(config: DiF, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_encoding(config, 3)


@pytest.mark.parametrize(("dim", "neighbours"), [(2, 1), (2, 4), (3, 1), (3, 5), (3, 8)])
@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_neighbours_are_those_of_brute_force(
    dim: int, neighbours: int, jitter: float, generator: torch.Generator
) -> None:
    encoding = neurbf(NeuRBF(5, neighbours=neighbours, jitter=jitter), dim)
    x = torch.rand(400, dim, generator=generator)
    x[:2] = torch.tensor([[0.0], [1.0]])
    p = encoding.lattice(x)
    found = encoding.neighbours(p)
    distance = torch.cdist(p, encoding.centers, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.topk(neighbours, largest=False, sorted=True)
    got = distance.gather(1, found).sort(dim=1).values
    EXACT.check(got, nearest.values)  # indices may differ where distances tie
    assert all(len(set(row)) == neighbours for row in found.tolist())


@pytest.mark.parametrize("kernel", ["inverse-quadratic", "gaussian"])
@pytest.mark.parametrize("shape", ["diagonal", "full"])
@pytest.mark.parametrize("dim", [2, 3])
def test_features_are_the_formula(dim: int, kernel, shape, generator: torch.Generator) -> None:
    """Against brute force over all kernels in float64, with L as a matrix."""
    encoding = neurbf(NeuRBF(4, 3, 4, kernel, shape), dim)
    x = torch.rand(30, dim, generator=generator)
    p = encoding.lattice(x).double()
    delta = p[:, None, :] - encoding.centers.double()
    factor = torch.diag_embed(encoding.log_scale.detach().double().exp())
    if encoding.shear is not None:
        rows, columns = torch.tril_indices(dim, dim, offset=-1)
        factor[:, rows, columns] = encoding.shear.detach().double()
    q = torch.einsum("kij,nkj->nki", factor, delta).square().sum(-1)
    weight = 1 / (1 + q) if kernel == "inverse-quadratic" else torch.exp(-0.5 * q.clamp(max=100))
    nearest = delta.square().sum(-1).topk(4, largest=False).indices
    chosen = torch.zeros_like(weight).scatter(1, nearest, weight.gather(1, nearest))
    want = (chosen / chosen.sum(1, keepdim=True)) @ encoding.features.detach().double()
    GRADIENTS.check(encoding(x).detach(), want)


def test_weights_sum_to_one(generator: torch.Generator) -> None:
    encoding = neurbf(NeuRBF(6, 2, 4), 2)
    with torch.no_grad():
        encoding.features.copy_(torch.tensor([3.0, -2.0]))
    values = encoding(torch.rand(100, 2, generator=generator)).detach()
    VALUES.check(values, torch.tensor([[3.0, -2.0]]).expand(100, 2))


def test_gradients_of_features_and_shapes(generator: torch.Generator) -> None:
    encoding = neurbf(NeuRBF(3, 2, 3), 2).double()
    x = (torch.rand(5, 2, generator=generator, dtype=torch.float64) * 0.9 + 0.05).requires_grad_()
    names = [name for name, _ in encoding.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(encoding, dict(zip(names, values, strict=True)), (x,))

    leaves = [x, *(p.detach().clone().requires_grad_() for p in encoding.parameters())]
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize(
    ("config", "dim", "message"),
    [
        (NeuRBF(), 4, "2 or 3 dimensions, got 4: take --encoding hash"),
        (NeuRBF(neighbours=5), 2, "1 to 4 neighbours"),
        (NeuRBF(jitter=0.7), 3, "jitter of 0 to 0.5"),
        (NeuRBF(resolution=2000), 3, "too many"),
    ],
)
def test_impossible_kernels_are_refused(config: NeuRBF, dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_encoding(config, dim)
