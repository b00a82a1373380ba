"""Every native operation against the torch reference in float64, row by row: values and gradients, on each instruction
set that runs here, degenerate shapes first. The references themselves are held to closed forms in test_reference.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from kernel_table import COUNTS, Case, run_both
from tolerances import EXACT, FINE_GRID, GRADIENTS, HALF_STORAGE, VALUES
from torch import Tensor

from fields.kernels import native, ops, reference
from fields.kernels.bits import pack_bits, set_bits, unpack_bits, visit_cells
from fields.kernels.shapes import GridShape, MarchShape, MlpShape, grid_shape
from fields.kernels.table_gradient import TableGradient


def grid_case(dim: int, features: int, hashed: bool, finest: int = 40) -> Case:
    shape = grid_shape(dim, 4, features, 3, finest if hashed else 9, 2**9 if hashed else None)

    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        x = torch.rand(n, dim, generator=g) * 1.2 - 0.1  # some outside of the cube
        return [x.clamp(0, 1), torch.randn(shape.entries, features, generator=g)]

    return Case(
        f"grid-{dim}d-{features}f-{'hash' if hashed else 'dense'}-{finest}",
        inputs,
        lambda x, table: ops.grid_encode(x, table, shape),
        lambda x, table: reference.grid_encode(x, table, shape),
        FINE_GRID if finest > 100 else GRADIENTS,
    )


def mlp_case(
    dims: tuple[int, ...], activation: str, output: str, bias: bool, aux_dim: int, precision: str = "float32"
) -> Case:
    shape = MlpShape(dims, activation, output, bias, precision)  # pyright: ignore[reportArgumentType]
    computed = shape if native.core().has_bfloat16 else replace(shape, precision="float32")

    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        x = torch.randn(n, dims[0] - aux_dim, generator=g)
        params = torch.randn(shape.size, generator=g) / max(dims) ** 0.5
        aux = torch.randn(7, aux_dim, generator=g)
        return [x, params, aux, torch.randint(7, (n,), generator=g, dtype=torch.int32)]

    def call(op: Callable[..., Tensor], shape: MlpShape) -> Callable[..., Tensor]:
        if aux_dim == 0:
            return lambda x, params, aux, index: op(x, params, shape)
        return lambda x, params, aux, index: op(x, params, shape, aux, index)

    name = "-".join(["mlp", *map(str, dims), activation, output, "bias" if bias else "", f"aux{aux_dim}", precision])
    tolerance = GRADIENTS if precision == "float32" else HALF_STORAGE
    return Case(name, inputs, call(ops.mlp, shape), call(reference.mlp, computed), tolerance)


def directions(n: int, g: torch.Generator) -> list[Tensor]:
    return [torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)]


CASES = [
    *(
        grid_case(dim, features, hashed)
        for dim in (1, 2, 3, 4)
        for features in (1, 2, 4, 8)
        for hashed in (False, True)
    ),
    grid_case(3, 4, hashed=True, finest=2048),
    mlp_case((32, 64, 64, 4), "relu", "identity", bias=False, aux_dim=0),
    mlp_case((32, 64, 64, 3), "silu", "sigmoid", bias=True, aux_dim=16),
    mlp_case((5, 17, 3), "sine", "identity", bias=True, aux_dim=2),
    mlp_case((1, 1), "relu", "exp", bias=False, aux_dim=0),
    mlp_case((3, 128, 128, 128, 1), "relu", "identity", bias=True, aux_dim=0),
    mlp_case((130, 33, 65), "silu", "relu", bias=False, aux_dim=1),
    mlp_case((32, 64, 64, 4), "relu", "identity", bias=False, aux_dim=0, precision="bfloat16"),
    mlp_case((20, 48, 33, 5), "relu", "sigmoid", bias=True, aux_dim=3, precision="bfloat16"),
    mlp_case((7, 80, 16, 129), "silu", "silu", bias=True, aux_dim=0, precision="bfloat16"),
    mlp_case((64, 3), "relu", "exp", bias=False, aux_dim=0, precision="bfloat16"),
    *(
        Case(
            f"harmonics-{degree}",
            directions,
            lambda d, k=degree: ops.harmonics(d.detach(), k),
            lambda d, k=degree: reference.harmonics(d.detach(), k),
        )
        for degree in (1, 2, 3, 4)
    ),
    *(
        Case(
            f"frequency-{dim}d-{count}",
            lambda n, g, dim=dim: [torch.rand(n, dim, generator=g) * 2 - 1],
            lambda x, k=count: ops.frequency(x, k),
            lambda x, k=count: reference.frequency(x, k),
            GRADIENTS,
        )
        for dim, count in ((1, 1), (2, 6), (3, 10))
    ),
]


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operation_agrees_with_reference(case: Case, n: int) -> None:
    run_both(case, n)


MARCHES = [
    MarchShape(16, False, 0.01, 20.0, 0.02, 0.0, 1000),
    MarchShape(16, False, 0.01, 20.0, 0.02, 0.01, 1000),
    MarchShape(16, True, 0.01, 20.0, 0.02, 0.02, 1000),
    MarchShape(16, False, 0.01, 20.0, 0.02, 0.0, 3),
    MarchShape(1, False, 0.0, 5.0, 0.3, 0.0, 100),
    MarchShape(21, False, 0.01, 20.0, 0.02, 0.0, 1000),
    MarchShape(64, False, 0.01, 20.0, 0.02, 0.0, 1000),
    MarchShape(96, True, 0.01, 20.0, 0.02, 0.02, 1000),
]


def clouds(resolution: int, generator: torch.Generator, share: float = 0.5) -> Tensor:
    """Occupied cells [R, R, R]: a third of those in scattered cubes of four cells, which are a share of all cubes."""
    cubes = torch.rand((-(-resolution // 4),) * 3, generator=generator) < share
    for axis in range(3):
        cubes = cubes.repeat_interleave(4, axis).narrow(axis, 0, resolution)
    return cubes & (torch.rand(cubes.shape, generator=generator) < 0.3)


def run_march() -> None:
    g = torch.Generator().manual_seed(0)
    origins = torch.randn(301, 3, generator=g) * 1.5 + 0.5
    directions = torch.nn.functional.normalize(torch.rand(301, 3, generator=g) - origins, dim=1)
    directions[:3] = torch.eye(3)  # along the axes: a zero in the direction
    for shape, share in product(MARCHES, (0.5, 0.01)):  # the second leaves room for long leaps
        occupied = clouds(shape.resolution, g, share)
        jitter = torch.rand(301, generator=g)
        got = ops.march(origins, directions, jitter, pack_bits(occupied), shape)
        wide = origins.double(), directions.double(), jitter.double()
        offsets, t0, t1, x, _ = reference.march(*wide, occupied, shape)
        # A step whose middle lies within rounding of a cell's face may fall on either side of it.
        same = got.offsets.diff() == offsets.diff()
        assert same.float().mean() > 0.98
        keep = same.repeat_interleave(got.offsets.diff())
        keep64 = same.repeat_interleave(offsets.diff())
        GRADIENTS.check(got.t0[keep], t0[keep64])
        GRADIENTS.check(got.t1[keep], t1[keep64])
        GRADIENTS.check(got.x[keep], x[keep64])
        EXACT.check(got.ray, torch.repeat_interleave(torch.arange(301, dtype=torch.int32), got.offsets.diff()))


def test_march_agrees_with_reference() -> None:
    run_march()


def test_march_of_nothing() -> None:
    shape = MARCHES[0]
    bits = pack_bits(torch.ones(16, 16, 16, dtype=torch.bool))
    none = ops.march(torch.zeros(0, 3), torch.zeros(0, 3), None, bits, shape)
    assert none.offsets.tolist() == [0]
    assert len(none.t0) == 0
    past = ops.march(torch.tensor([[2.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]]), None, bits, shape)
    assert past.offsets.tolist() == [0, 0]


def test_march_through_full_cube_covers_it() -> None:
    """Through an occupied cube the steps are as many as fit between the faces."""
    shape = MarchShape(8, False, 0.0, 10.0, 0.01, 0.0, 1000)
    s = ops.march(
        torch.tensor([[-1.0, 0.5, 0.5]]),
        torch.tensor([[1.0, 0.0, 0.0]]),
        torch.zeros(1),
        pack_bits(torch.ones(8, 8, 8, dtype=torch.bool)),
        shape,
    )
    assert 100 <= len(s.t0) <= 101
    GRADIENTS.check(s.t0[:1], torch.ones(1))
    GRADIENTS.check(s.t1[:-1], s.t0[1:])


def packed_rays(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(n)
    counts = torch.randint(0, 9, (n,), generator=g)
    if n > 2:
        counts[:3] = torch.tensor([0, 1, 200])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    s = int(offsets[-1])
    t0 = torch.rand(s, generator=g) * 3
    t1 = t0 + torch.rand(s, generator=g) * 0.1
    return torch.rand(s, generator=g) * 30, torch.rand(s, 3, generator=g), t0, t1, offsets


def run_composite(n: int) -> None:
    sigma, rgb, t0, t1, offsets = packed_rays(n)
    results = []
    for op, dtype in ((ops.composite, torch.float32), (reference.composite, torch.float64)):
        leaves = sigma.clone().to(dtype).requires_grad_(), rgb.clone().to(dtype).requires_grad_()
        out = op(*leaves, t0.to(dtype), t1.to(dtype), offsets)
        g = torch.Generator().manual_seed(1)
        torch.autograd.backward(out, [torch.randn(o.shape, generator=g).to(dtype) for o in out])
        results.append([*(o.detach() for o in out), *(x.grad for x in leaves)])
    for got, want in zip(*results, strict=True):
        assert got is not None and want is not None
        GRADIENTS.check(got, want)


@pytest.mark.parametrize("n", [0, 1, 2, 300])
def test_composite_agrees_with_reference(n: int) -> None:
    run_composite(n)


def run_adam() -> None:
    g = torch.Generator().manual_seed(0)
    for skip_zero in (False, True):
        for n in (1, 15, 1003):
            start = [torch.randn(n, generator=g) for _ in range(2)]
            state = [start[0], torch.zeros(n), torch.zeros(n)]
            wide = [x.double() for x in state]
            for step in range(1, 5):
                grad = torch.randn(n, generator=g) * (torch.rand(n, generator=g) < 0.5)
                ops.adam(state[0], grad, (state[1], state[2]), 1e-2, (0.9, 0.99), 1e-15, step, skip_zero)
                reference.adam(wide[0], grad.double(), (wide[1], wide[2]), 1e-2, (0.9, 0.99), 1e-15, step, skip_zero)
            for got, want in zip(state, wide, strict=True):
                GRADIENTS.check(got, want)


def test_adam_agrees_with_reference() -> None:
    run_adam()


def test_adam_agrees_with_torch(generator: torch.Generator) -> None:
    param = torch.randn(40, dtype=torch.float64, generator=generator)
    other = torch.nn.Parameter(param.clone())
    optimiser = torch.optim.Adam([other], lr=1e-2, betas=(0.9, 0.99), eps=1e-15)
    moments = torch.zeros(40, dtype=torch.float64), torch.zeros(40, dtype=torch.float64)
    for step in range(1, 6):
        grad = torch.randn(40, dtype=torch.float64, generator=generator)
        other.grad = grad.clone()
        optimiser.step()
        reference.adam(param, grad, moments, 1e-2, (0.9, 0.99), 1e-15, step, skip_zero=False)
    VALUES.check(param, other.detach())


@pytest.mark.parametrize("width", [16, 48])
def test_a_sample_that_is_not_finite_leaves_others_alone(width: int) -> None:
    """Products read rows in wholes of 32 values: what stands behind a narrower row must not come in, be it another
    sample or memory that an earlier pass has left."""
    shape = MlpShape((width, width, 3), "relu", "identity", bias=False, precision="bfloat16")
    earlier = MlpShape((8, 32, 32, 3), "silu", "sigmoid", bias=False)
    g = torch.Generator().manual_seed(0)
    x, params = torch.randn(960, width, generator=g), torch.randn(shape.size, generator=g)
    for _ in range(3):
        spoiled = torch.full((earlier.size,), torch.nan, requires_grad=True)
        ops.mlp(torch.zeros(960, 8), spoiled, earlier).sum().backward()
    expected = ops.mlp(x, params, shape)
    params.requires_grad_()
    assert bool(torch.isfinite(ops.mlp(x, params, shape)).all())
    x[1::2] = torch.nan
    EXACT.check(ops.mlp(x, params, shape).detach()[::2], expected[::2])


@pytest.mark.parametrize("r", [1, 5, 32])
def test_visits_bring_densities_and_bits_up_to_date(r: int, generator: torch.Generator) -> None:
    """Cells visited twice fade once; cells never visited are infinite; a low mean lowers the threshold."""
    density = torch.rand(r**3, generator=generator) * 10
    density[torch.rand(r**3, generator=generator) < 0.2] = torch.inf
    allowed = torch.rand(r, r, r, generator=generator) < 0.7
    cells = torch.randint(r**3, (2 * r**2,), generator=generator)
    for threshold in (0.5, 100.0):
        found = torch.rand(len(cells), generator=generator) * 8
        got, expected, bits = density.clone(), density.clone(), pack_bits(allowed)
        visit_cells(cells, found, 0.8, threshold, pack_bits(allowed), got, bits)
        above = reference.visit_cells(cells, found, 0.8, threshold, expected)
        EXACT.check(got, expected)
        assert torch.equal(unpack_bits(bits, r), above.view(r, r, r) & allowed)
        assert torch.equal(set_bits(bits, r), (above.view(r, r, r) & allowed).view(-1).nonzero()[:, 0])


def test_a_visit_outside_of_the_grid_is_refused() -> None:
    bits = pack_bits(torch.ones(2, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="lie in the grid"):
        visit_cells(torch.tensor([8]), torch.ones(1), 0.8, 1.0, bits, torch.ones(8), bits)


def test_bits_round_trip(generator: torch.Generator) -> None:
    for r in (1, 3, 8, 33):
        occupied = torch.rand(r, r, r, generator=generator) < 0.5
        assert torch.equal(unpack_bits(pack_bits(occupied), r), occupied)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_are_the_same_every_time(threads: int, generator: torch.Generator) -> None:
    torch.set_num_threads(threads)
    grid: GridShape = grid_shape(3, 8, 4, 4, 64, 2**10)
    x = torch.rand(5000, 3, generator=generator)
    table = torch.randn(grid.entries, 4, generator=generator, requires_grad=True)
    shape = MlpShape((32, 64, 4), "relu", "identity", bias=False)
    params = torch.randn(shape.size, generator=generator, requires_grad=True)
    runs = []
    for _ in range(3):
        table.grad = params.grad = None
        ops.mlp(ops.grid_encode(x, table, grid), params, shape).square().sum().backward()
        assert table.grad is not None and params.grad is not None
        runs.append((table.grad, params.grad))
    for again in runs[1:]:
        EXACT.check(again[0], runs[0][0])
        EXACT.check(again[1], runs[0][1])


def run_large_grids() -> None:
    """Tables beyond the caches, and so many samples that blocks, levels and threads share them."""
    g = torch.Generator().manual_seed(0)
    for features in (1, 2, 4, 8):
        shape = grid_shape(3, 3, features, 16, 512, 2**18)
        table = torch.randn(shape.entries, features, generator=g)
        x = torch.rand(40_001, 3, generator=g)
        leaf, leaf64 = table.clone().requires_grad_(), table.double().requires_grad_()
        encoded, expected = ops.grid_encode(x, leaf, shape), reference.grid_encode(x.double(), leaf64, shape)
        EXACT.check(encoded, torch.cat([ops.grid_encode(part, table, shape) for part in x.split(1000)]))
        FINE_GRID.check(encoded, expected)
        d_out = torch.randn(encoded.shape, generator=g)
        encoded.backward(d_out)
        expected.backward(d_out.double())
        assert leaf.grad is not None and leaf64.grad is not None
        scale = leaf64.grad.abs().amax()
        FINE_GRID.check(leaf.grad / scale, leaf64.grad / scale)


def test_large_grids_agree_with_the_reference() -> None:
    run_large_grids()


def test_wrong_shapes_are_refused() -> None:
    grid = grid_shape(3, 2, 4, 4, 8, None)
    core, spec = native.core(), ops.grid_spec(grid, torch.zeros(1))
    with pytest.raises(ValueError, match=r"table must be"):
        spec.forward(torch.zeros(2, 3), torch.zeros(5, 4), torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"x must be"):
        spec.forward(torch.zeros(2, 2), torch.zeros(grid.entries, 4), torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"offsets must rise"):
        core.composite_forward(
            torch.tensor([0, 5]), torch.zeros(2), torch.zeros(2, 3), torch.zeros(2), torch.zeros(2),
            torch.zeros(1, 3), torch.zeros(1), torch.zeros(1),
        )  # fmt: skip
    shape = MlpShape((3, 2), "relu", "identity", bias=False)
    index = torch.tensor([9], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"index points outside"):
        ops.mlp(torch.zeros(1, 2), torch.zeros(6), shape, torch.zeros(4, 1), index)


def test_gathered_gradients_are_those_of_autograd(generator: torch.Generator) -> None:
    """In-place gathering with marks, then Adam on the marked blocks, against the plain gradient and the plain step."""
    shape = grid_shape(3, 4, 2, 4, 40, 2**9)
    table = torch.nn.Parameter(torch.randn(shape.entries, 2, generator=generator))
    gathered = TableGradient(table)
    x = torch.rand(20, 3, generator=generator)
    d_out = torch.randn(20, shape.width, generator=generator)
    ops.grid_encode(x, table, shape).backward(d_out)
    plain = table.grad
    assert plain is not None
    table.grad = None
    ops.grid_encode(x, table, shape, gathered).backward(d_out)
    assert table.grad is None
    EXACT.check(gathered.gradient, plain)
    known = ops.grid_encode(x, table.detach(), shape)
    again = ops.grid_encode(x, table, shape, None, known)  # passed on, with the same gradient
    EXACT.check(again.detach(), known)
    (same,) = torch.autograd.grad(again, table, d_out)
    EXACT.check(same, plain)
    blocks = (plain != 0).view(-1, 32).any(1)
    assert torch.equal(gathered.touched.bool() & blocks, blocks)
    assert not bool(gathered.touched.all())

    start = table.detach().clone()
    moments = torch.zeros_like(start), torch.zeros_like(start)
    ops.adam_touched(table, gathered, moments, 1e-2, (0.9, 0.99), 1e-15, 1)
    other = torch.zeros_like(start), torch.zeros_like(start)
    ops.adam(start, plain, other, 1e-2, (0.9, 0.99), 1e-15, 1, skip_zero=True)
    EXACT.check(table.detach(), start)
    EXACT.check(moments[1], other[1])
    assert not bool(gathered.gradient.any())
    assert not bool(gathered.touched.any())
