"""Lines and planes of features, and encodings made of them: against torch's grid_sample in float64 and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from tolerances import EXACT, GRADIENTS, VALUES
from torch import Tensor, nn

from fields.contracts import Gridded, Initialised, Scheduled, Smooth
from fields.encodings import CP, EncodingConfig, Hash, TriPlane, VectorMatrix, build_encoding
from fields.encodings.factors import Factor, Growth, dense_grids, interpolation
from fields.encodings.lowrank import CPEncoding, VectorMatrixEncoding
from fields.encodings.planes import TriPlaneEncoding, resolutions_of
from fields.encodings.table import GridTable
from scenes.errors import InputError

VM = VectorMatrix(rank=4, width=6, base_resolution=5, resolution=9, stages=3)
LINES = CP(rank=8, base_resolution=5, resolution=9, stages=2)
PLANES = TriPlane(features=4, levels=2, base_resolution=4, finest_resolution=9)


def points(n: int, dim: int, seed: int = 0) -> Tensor:
    """Some of them outside of the cube."""
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2


def drawn(encoding: nn.Module) -> nn.Module:
    assert isinstance(encoding, Initialised)
    encoding.initialise(torch.Generator().manual_seed(3))
    return encoding


def sampled(grid: Tensor, x: Tensor) -> Tensor:
    """[N, G F] by torch: grids [G, R, (R,) F] in float64 at points [N, 1 or 2], the border held."""
    resolution = grid.shape[1]
    place = x.clamp(0, 1) * (resolution - 2) + 0.5  # in vertices; half a cell is left at both ends
    place = 2 * place / (resolution - 1) - 1
    channels = torch.movedim(grid, -1, 1).flatten(0, 1)[None]
    if x.shape[1] == 1:
        channels, place = channels[:, :, None], torch.cat([place, torch.zeros_like(place)], 1)
    out = nn.functional.grid_sample(channels, place[None, None], padding_mode="border", align_corners=True)
    return out[0, :, 0].T


def truth(encoding: nn.Module, x: Tensor) -> Tensor:
    """Features of an encoding by `sampled`, from its own parameters."""

    def read(table: nn.Module, axes: tuple[int, ...]) -> Tensor:
        assert isinstance(table, GridTable)
        return torch.cat([sampled(grid, x[:, axes]) for grid in table.grids()], 1)

    match encoding:
        case VectorMatrixEncoding():
            pairs = [((1, 2), (0,)), ((0, 2), (1,)), ((0, 1), (2,))]
            tables = zip(encoding.planes, encoding.lines, pairs, strict=True)
            return torch.cat([read(p, a) * read(v, b) for p, v, (a, b) in tables], 1) @ encoding.basis.T
        case CPEncoding():
            return torch.stack([read(line, (a,)) for a, line in enumerate(encoding.lines)]).prod(0)
        case TriPlaneEncoding():
            pairs = itertools.combinations(range(x.shape[1]), 2)
            values = [read(plane, pair) for plane, pair in zip(encoding.planes, pairs, strict=True)]
            joined = {"sum": torch.stack(values).sum(0), "product": torch.stack(values).prod(0)}
            return torch.cat(values, 1) if encoding.combine == "concat" else joined[encoding.combine]
        case _:
            raise AssertionError(encoding)


CASES = [
    (VM, 3),
    *((LINES, dim) for dim in (2, 3, 4)),
    *((replace(PLANES, combine=c), dim) for dim in (2, 3, 4) for c in ("sum", "concat", "product")),
    (replace(PLANES, features=16, levels=1), 3),
]
NAMES = [f"{type(c).__name__}-{dim}d-{getattr(c, 'combine', '')}" for c, dim in CASES]


@pytest.mark.parametrize("n", [0, 1, 300])
@pytest.mark.parametrize(("config", "dim"), CASES, ids=NAMES)
def test_encodings_and_their_gradients_are_those_of_grid_sample(config: EncodingConfig, dim: int, n: int) -> None:
    results = []
    for dtype, compute in ((torch.float32, lambda e, x: e(x)), (torch.float64, truth)):
        encoding = drawn(build_encoding(config, dim))
        for module in encoding.modules():
            if n > 1 and isinstance(module, Scheduled):
                module.advance(0.2)  # to a stage between the first and the last
        encoding.to(dtype)
        x = points(n, dim).to(dtype).requires_grad_()
        out = compute(encoding, x)
        assert out.shape == (n, encoding.width)
        pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        (out * pull).sum().backward()
        inside = (x.detach() >= 0) & (x.detach() <= 1)  # out there the border's own slope is no gradient to follow
        assert x.grad is not None
        results.append([out.detach(), x.grad * inside, *(p.grad for p in encoding.parameters())])
    for got, want in zip(*results, strict=True):
        assert want.abs().max() > 0 if n else True
        GRADIENTS.check(got, want)


@pytest.mark.parametrize(("config", "dim"), CASES, ids=NAMES)
def test_in_double_precision_gradients_have_gradients(config: EncodingConfig, dim: int) -> None:
    encoding = drawn(build_encoding(config, dim)).double()
    x = (points(3, dim).double() * 0.5 + 0.3).requires_grad_()
    assert torch.autograd.gradgradcheck(encoding, x)


@pytest.mark.parametrize(("config", "dim"), CASES, ids=NAMES)
def test_outside_of_the_cube_the_border_holds(config: EncodingConfig, dim: int) -> None:
    encoding, x = drawn(build_encoding(config, dim)), points(50, dim)
    EXACT.check(encoding(x).detach(), encoding(x.clamp(0, 1)).detach())


def at_vertices(resolution: int) -> Tensor:
    """Coordinates of an axis' vertices that lie in the unit interval."""
    return (torch.arange(1, resolution - 1, dtype=torch.float64) - 0.5) / (resolution - 2)


def set_line(line: nn.Module, values: Tensor) -> None:
    assert isinstance(line, Factor)
    line.grids()[0].data[0, :, 0] = values


def test_a_separable_function_is_one_component() -> None:
    """Of CP, and of VM, whose plane is then an outer product."""
    cells, vertices = 6, 7
    waves = torch.rand(3, vertices, generator=torch.Generator().manual_seed(0)) + 0.5
    axis = at_vertices(vertices)
    x = torch.cartesian_prod(axis, axis, axis)
    expected = torch.einsum("i,j,k->ijk", *waves[:, 1:-1]).reshape(-1, 1)
    cp = build_encoding(CP(1, base_resolution=cells, resolution=cells, stages=1), 3)
    assert isinstance(cp, CPEncoding)
    for line, values in zip(cp.lines, waves, strict=True):
        set_line(line, values)
    VALUES.check(cp.double()(x).detach(), expected)
    vm = drawn(build_encoding(VectorMatrix(1, 1, base_resolution=cells, resolution=cells, stages=1), 3))
    assert isinstance(vm, VectorMatrixEncoding)
    set_line(vm.lines[0], waves[0])
    plane = vm.planes[0]
    assert isinstance(plane, Factor)
    plane.grids()[0].data[0, :, :, 0] = torch.outer(waves[2], waves[1])  # the first coordinate is the last axis
    vm.basis.data.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    VALUES.check(vm.double()(x).detach(), expected)


def test_planes_that_multiply_begin_around_one_and_planes_that_add_around_zero() -> None:
    x = points(2000, 4)
    for combine, mean in (("product", 1.0), ("sum", 0.0), ("concat", 0.0)):
        values = drawn(build_encoding(replace(PLANES, combine=combine), 4))(x).detach()
        assert abs(float(values.mean()) - mean) < 0.1 < 2 * float(values.std())


@pytest.mark.parametrize("dim", [1, 2])
def test_growing_interpolates(dim: int) -> None:
    """At the vertices of the finer grid the field is what it was, and a ramp stays one everywhere."""
    factor = Factor(tuple(range(dim)), 16, Growth((5, 12), 0.5)).double()
    factor.draw(0.0, 1.0, torch.Generator().manual_seed(0))
    axis = at_vertices(13)
    x = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    before, parameter = factor(x).detach(), factor.table
    factor.advance(0.49)
    EXACT.check(factor(x).detach(), before)
    assert not factor.resampled
    factor.advance(0.5)
    assert factor.resampled and factor.table is parameter
    assert factor.grids()[0].shape[1] == 13
    VALUES.check(factor(x).detach(), before)
    between = points(200, dim).double()
    ramp = Factor(tuple(range(dim)), 1, Growth((5, 12), 0.5)).double()
    ramp.draw(0.0, 0.0, torch.Generator())
    steps = torch.arange(6.0)
    ramp.grids()[0].data[0, ..., 0] = steps if dim == 1 else steps[:, None] * 2 + steps
    ramp.advance(1.0)
    ramp.advance(0.0)  # longer fits than planned do not shrink it
    slopes = torch.tensor([1.0, 2.0])[:dim]
    VALUES.check(ramp(between).detach()[:, 0], ((between.clamp(0, 1) * 4 + 0.5) * slopes).sum(1))


def test_weights_of_growing_sum_to_one() -> None:
    coarse, fine = (dense_grids(1, 1, [cells]).levels[0] for cells in (7, 31))
    weights = interpolation(coarse, fine)
    assert weights.shape == (32, 8) and bool((weights >= 0).all())
    VALUES.check(weights.sum(1), torch.ones(32))
    EXACT.check(interpolation(fine, fine), torch.eye(32))


def test_stages_last_equally_long() -> None:
    growth = Growth.geometric(64, 512, 4, 0.3)
    assert growth.resolutions == (64, 128, 256, 512)
    assert [growth.stage(p) for p in (0.0, 0.09, 0.11, 0.21, 0.31, 1.0)] == [0, 0, 1, 2, 3, 3]
    assert Growth.geometric(64, 512, 4, 0.0).stage(0.0) == 3
    assert Growth.geometric(64, 512, 1, 0.5) == Growth((512,))
    assert resolutions_of(TriPlane(levels=3, base_resolution=16, finest_resolution=64)) == [16, 32, 64]


@pytest.mark.parametrize(("config", "dim"), [(VM, 3), (LINES, 3), (PLANES, 3)], ids=["vm", "cp", "triplane"])
def test_what_modules_offer(config: EncodingConfig, dim: int) -> None:
    """All but the basis is fitted at the rate of tables, and can be kept smooth."""
    encoding = drawn(build_encoding(config, dim))
    grids = {id(p) for m in encoding.modules() if isinstance(m, Gridded) for p in m.grid_parameters()}
    assert grids == {id(p) for name, p in encoding.named_parameters() if name != "basis"}
    smooth = sum(grid.numel() for m in encoding.modules() if isinstance(m, Smooth) for grid in m.grids())
    first = {VM: 3 * 4 * (36 + 6), LINES: 3 * 8 * 6, PLANES: 3 * 4 * (25 + 100)}[config]
    assert smooth == first
    assert any(isinstance(m, Scheduled) for m in encoding.modules()) == (config != PLANES)


def test_hashed_levels_are_not_offered_as_smooth() -> None:
    table = build_encoding(Hash(levels=3, log2_table_size=8, base_resolution=4, finest_resolution=64), 2)
    assert isinstance(table, GridTable)
    assert [list(grid.shape) for grid in table.grids()] == [[1, 5, 5, 4]]


@pytest.mark.parametrize(
    ("config", "dim", "words"),
    [
        (VM, 2, "tensorf: works in 3 dimensions, got 2; take --encoding cp or --encoding triplane"),
        (LINES, 5, "cp: works in 2 or 3 or 4 dimensions, got 5"),
        (replace(LINES, base_resolution=10), 2, "base_resolution <= resolution"),
        (replace(LINES, stages=0), 2, "stages >= 1"),
        (replace(LINES, grown_by=math.nan), 2, "grown_by"),
        (replace(LINES, rank=0), 2, "expected 1 to 256 features"),
        (replace(LINES, rank=264), 2, "expected 1 to 256 features"),
        (replace(PLANES, levels=0), 3, "levels >= 1"),
        (replace(PLANES, finest_resolution=2**17), 3, "parameters are too many"),
    ],
)
def test_what_cannot_be_built_is_refused(config: EncodingConfig, dim: int, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", "\\(")):
        build_encoding(config, dim)
