"""Rows of single operations: the perceptron in float32 and bfloat16, the grids, and the builds for instruction sets.

Operations are called as fields call them, through `fields.kernels.ops`; so autograd's share is in every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from limits import GridBound, Limits
from report import Asked, Row, row, share
from rounds import Rounds
from substitutes import build_for
from torch import Tensor

from fields.encodings import Hash
from fields.encodings.grid import shape_of
from fields.kernels import native, ops, reference
from fields.kernels.shapes import GridShape, MlpShape, grid_shape
from fields.kernels.table_gradient import TableGradient
from fields.presets import capture_preset

N = 2**16
MLP = MlpShape((32, 64, 64, 4), "relu", "identity", bias=False)
LARGE_GRID = grid_shape(3, 16, 2, 16, 2048, 2**19)


def preset_grid() -> GridShape:
    """That of the default radiance field."""
    encoding = capture_preset(unbounded=False).field.encoding
    assert isinstance(encoding, Hash)
    return shape_of(encoding, 3)


@dataclass(frozen=True)
class Bench:
    """What every row needs."""

    limits: Limits
    threads: int
    n_rounds: int
    n_slow: int
    compile: bool
    """Whether torch.compile takes part."""

    def rounds(self) -> Rounds:
        """An empty race."""
        return Rounds(self.n_rounds, self.n_slow)


Forward = Callable[[Tensor, Tensor], Tensor]
"""(points, parameters) to values."""


def looking(function: Forward, x: Tensor, params: Tensor) -> Callable[[], object]:
    """A call without gradients."""

    def call() -> None:
        with torch.no_grad():
            function(x, params)

    return call


def learning(function: Forward, x: Tensor, params: Tensor, d_out: Tensor) -> Callable[[], object]:
    """A call and its gradients: of the parameters, and of x where it wants one."""

    def call() -> None:
        x.grad = params.grad = None
        function(x, params).backward(d_out)

    return call


def add_all(
    bench: Bench,
    rounds: Rounds,
    ours: Forward,
    torch_form: Forward,
    call: Callable[[Forward], Callable[[], object]],
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """The contenders that most rows have; ours runs `within` a context."""
    rounds.time("ours", call(ours), bench.threads, within)
    if bench.threads > 1:
        rounds.time("ours on 1 thread", call(ours), 1, within)
    rounds.time("eager", call(torch_form), bench.threads)
    if bench.compile:
        rounds.time("compiled", call(torch.compile(torch_form, dynamic=False)), bench.threads)


def scaling(rounds: Rounds, least: float = 1.8) -> list[Asked]:
    """The figure for more threads than one."""
    return [Asked("threads", rounds.ratio("ours on 1 thread", "ours"), least)] if "ours on 1 thread" in rounds else []


def against_torch(rounds: Rounds, eager: float, compiled: float) -> list[Asked]:
    """The figures against the reference."""
    found = [Asked("eager", rounds.ratio("eager", "ours"), eager)]
    return found + ([Asked("compiled", rounds.ratio("compiled", "ours"), compiled)] if "compiled" in rounds else [])


def mlp_rows(bench: Bench) -> Iterator[Row]:
    """float32, forward alone and with gradients."""
    x, params, d_out = _mlp_data(torch.float32)

    def ours(x: Tensor, params: Tensor) -> Tensor:
        return ops.mlp(x, params, MLP)

    def torch_form(x: Tensor, params: Tensor) -> Tensor:
        return reference.mlp(x, params, MLP)

    flops = 2 * N * MLP.size
    rounds = bench.rounds()
    add_all(bench, rounds, ours, torch_form, lambda f: looking(f, x, params))
    rounds.ask("limit", lambda: flops / bench.limits.fma(bench.threads), bench.threads)
    rounds.run()
    asked = [share("limit", rounds.ratio("limit", "ours"), 0.85), *scaling(rounds)]
    yield row(rounds, "MLP 32-64-64-4 forward", asked)

    rounds = bench.rounds()
    add_all(bench, rounds, ours, torch_form, lambda f: learning(f, x, params, d_out))
    rounds.ask("limit", lambda: 3 * flops / bench.limits.fma(bench.threads), bench.threads)
    rounds.run()
    asked = [share("limit", rounds.ratio("limit", "ours"), 0.60), *against_torch(rounds, 2.4, 1.8), *scaling(rounds)]
    yield row(rounds, "MLP 32-64-64-4 forward + backward", asked)


def bfloat16_rows(bench: Bench) -> Iterator[Row]:
    """Factors of products in bfloat16, by tiles and by dot products, whichever the processor has.

    Ours takes and gives float32; torch's tensors are all bfloat16.
    """
    peaks = {"amx": bench.limits.tiles, "avx512bf16": bench.limits.bfloat16}
    builds = [name for name in peaks if name in native.available()]
    if not builds:
        print("MLP in bfloat16: left out, since no build for this processor has it")
        return
    shape = dataclasses.replace(MLP, precision="bfloat16")
    data, half = _mlp_data(torch.float32), _mlp_data(torch.bfloat16)

    def ours(x: Tensor, params: Tensor) -> Tensor:
        return ops.mlp(x, params, shape)

    def ours_float32(x: Tensor, params: Tensor) -> Tensor:
        return ops.mlp(x, params, MLP)

    def torch_form(x: Tensor, params: Tensor) -> Tensor:
        return reference.mlp(x, params, MLP)

    def call(f: Forward, gradients: bool) -> Callable[[], object]:
        x, params, d_out = half if f not in (ours, ours_float32) else data
        return learning(f, x, params, d_out) if gradients else looking(f, x, params)

    for name in builds:
        for gradients in (False, True):
            flops, peak = 2 * N * MLP.size * (3 if gradients else 1), peaks[name]
            rounds, within = bench.rounds(), partial(build_for, name)
            add_all(bench, rounds, ours, torch_form, partial(call, gradients=gradients), within)
            rounds.time("ours in float32", call(ours_float32, gradients), bench.threads, within)
            rounds.ask("limit", lambda peak=peak, flops=flops: flops / peak(bench.threads), bench.threads)
            rounds.run()
            asked = [Asked("float32", rounds.ratio("ours in float32", "ours"), 1.6)] if gradients else []
            if name == "avx512bf16" and not gradients:
                asked.append(share("limit", rounds.ratio("limit", "ours"), 0.80))
            passes = "forward + backward" if gradients else "forward"
            yield row(rounds, f"MLP in bfloat16 {passes}, {name} build", [*asked, *scaling(rounds)])


def grid_rows(bench: Bench) -> Iterator[Row]:
    """The large grid and the preset's, random points, gradients of the table gathered in place as fits do."""
    large = _GridForms(LARGE_GRID)
    preset = _GridForms(preset_grid())
    for grid, name in ((large, "grid 16 x 2, 2^19"), (preset, f"grid of the preset, {_describe(preset.shape)}")):
        bound = GridBound(bench.limits, grid.shape, N)
        rounds = bench.rounds()
        add_all(bench, rounds, grid.ours, grid.torch_form, lambda f, grid=grid: looking(f, grid.x, grid.table))
        rounds.ask("limit", lambda bound=bound: bound.forward(bench.threads), bench.threads)
        rounds.run()
        yield row(rounds, f"{name} forward")

        def call(f: Forward, grid: _GridForms = grid) -> Callable[[], object]:
            return learning(f, grid.x, grid.table, grid.d_out)

        rounds = bench.rounds()
        add_all(bench, rounds, grid.ours, grid.torch_form, call)
        rounds.ask("limit", lambda bound=bound: bound.forward_backward(bench.threads), bench.threads)
        if grid is preset:
            rounds.time("large grid", learning(large.ours, large.x, large.table, large.d_out), bench.threads)
        rounds.run()
        if grid is large:
            asked = [share("limit", rounds.ratio("limit", "ours"), 0.60), *against_torch(rounds, 25, 8)]
        else:
            asked = [Asked("16 x 2, 2^19", rounds.ratio("large grid", "ours"), 4.0)]
        yield row(rounds, f"{name} forward + backward", [*asked, *scaling(rounds)])


class _GridForms:
    """A grid's data, and its two forms."""

    def __init__(self, shape: GridShape) -> None:
        self.shape = shape
        g = torch.Generator().manual_seed(0)
        self.x = torch.rand(N, shape.dim, generator=g)
        self.table = torch.randn(shape.entries, shape.features, generator=g).requires_grad_()
        self.d_out = torch.randn(N, shape.width, generator=g)
        self.into = TableGradient(self.table)

    def ours(self, x: Tensor, table: Tensor) -> Tensor:
        return ops.grid_encode(x, table, self.shape, self.into)

    def torch_form(self, x: Tensor, table: Tensor) -> Tensor:
        return reference.grid_encode(x, table, self.shape)


def build_rows(bench: Bench) -> Iterator[Row]:
    """Builds for sets of vector instructions beside one another, and how far their values are from float64."""
    grid, (x, params, d_out) = _GridForms(LARGE_GRID), _mlp_data(torch.float32)

    def mlp(x: Tensor, params: Tensor) -> Tensor:
        return ops.mlp(x, params, MLP)

    calls = {
        "MLP": learning(mlp, x, params, d_out),
        "grid": learning(grid.ours, grid.x, grid.table, grid.d_out),
    }
    names = [name for name in ("avx512", "avx2", "baseline") if name in native.available()]
    for what, call in calls.items():
        rounds = bench.rounds()
        for name in names:
            rounds.time(name, call, bench.threads, partial(build_for, name))
        if what == "MLP":
            peaks = {"avx512": bench.limits.fma, "avx2": bench.limits.fma256}
            for name in peaks.keys() & set(names):
                flops, peak = 6 * N * MLP.size, peaks[name]
                rounds.ask(f"{name} limit", lambda peak=peak, flops=flops: flops / peak(bench.threads), bench.threads)
        rounds.run()
        for name in names:
            asked = []
            if name == "avx2" and "avx512" in names:
                asked = [Asked("avx512", rounds.ratio("avx512", "avx2"), 0.9)]
            with build_for(name):
                digits = _mlp_digits(x, params) if what == "MLP" else _grid_digits(grid)
            asked.append(Asked("digits right", digits, 5 if what == "MLP" else 3, "{:.1f}"))
            milliseconds = f"{rounds.median(name) * 1e3:.3g} ms"
            limit = rounds.ratio(f"{name} limit", name) if f"{name} limit" in rounds else None
            yield Row(
                f"{what} forward + backward, {name} build", milliseconds, limit, asked=asked, values=rounds.values
            )


@torch.no_grad()
def _mlp_digits(x: Tensor, params: Tensor) -> float:
    part = x[:4096]
    expected = reference.mlp(part.double(), params.double(), MLP)
    return _digits(ops.mlp(part, params, MLP), expected)


@torch.no_grad()
def _grid_digits(grid: _GridForms) -> float:
    """At a resolution of 2^11 a coordinate rounded to float32 moves the weights by 2^-13, so that three are right."""
    part = grid.x[:4096]
    expected = reference.grid_encode(part.double(), grid.table.double(), grid.shape)
    return _digits(ops.grid_encode(part, grid.table, grid.shape), expected)


def _digits(got: Tensor, expected: Tensor) -> float:
    """Decimal digits that agree with float64 in the row that is furthest off, relative to the longest row."""
    error = (got.double() - expected).norm(dim=1).amax() / expected.norm(dim=1).amax()
    return -float(error.clamp(min=1e-16).log10())


def _mlp_data(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, params = torch.randn(N, MLP.dims[0], generator=g), torch.randn(MLP.size, generator=g) / 6
    d_out = torch.randn(N, MLP.dims[-1], generator=g)
    return x.to(dtype).requires_grad_(), params.to(dtype).requires_grad_(), d_out.to(dtype)


def _describe(shape: GridShape) -> str:
    entries = max(level.entries for level in shape.levels)
    return f"{len(shape.levels)} x {shape.features}, 2^{entries.bit_length() - 1}"
