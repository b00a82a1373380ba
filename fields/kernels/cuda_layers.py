"""Layers on a GPU that modulate, that are Gaussian neurons, or whose functions are learned.

Activations of a block's tile lie in a part of a scratch buffer that is the block's own, so that layers may be of any
size. Gradients of weights are summed by block in slices, then over slices in their order: the same bits every time.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fields.kernels.cuda_arguments import MachineOf, blocks, expect, expect_tensor
from fields.kernels.cuda_mlp import MlpSpec, sum_slices, weight_tile_bytes
from fields.kernels.nvrtc import Argument, Machine, Program
from fields.kernels.reference_rbf import MOST_LOG_PRECISION
from fields.kernels.shapes import KAN_BASES

MAX_AXES = 6
ROWS = 32
"""Samples of a tile."""
NUMERATOR, DENOMINATOR = 6, 4


class ModulationAxis(ctypes.Structure):
    """`ModulationAxis` of cuda/modulation.h."""

    _fields_ = [("vertices", ctypes.c_int32), ("wraps", ctypes.c_int32)]


class Modulation(ctypes.Structure):
    """`Modulation` of cuda/gpu/cam.cu."""

    _fields_ = [
        ("n_axes", ctypes.c_int32),
        ("axis", ModulationAxis * MAX_AXES),
        ("entries", ctypes.c_int32),
        ("each", ctypes.c_int32),
        ("normalised", ctypes.c_int32),
    ]


class Basis(ctypes.Structure):
    """`Basis` of cuda/bases.h."""

    _fields_ = [
        ("kind", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("first", ctypes.c_float),
        ("spacing", ctypes.c_float),
    ]


class BasisTerms(ctypes.Structure):
    """`BasisTerms` of cuda/gpu/kan.cu."""

    _fields_ = [
        ("n_in", ctypes.c_int32),
        ("n_out", ctypes.c_int32),
        ("terms", ctypes.c_int32),
        ("basis", Basis),
    ]


class RbfSize(ctypes.Structure):
    """`RbfSize` of cuda/gpu/rbf.cu."""

    _fields_ = [(name, ctypes.c_int32) for name in ("features", "neurons", "outputs")]


def tiles(machine: Machine, source: str, n: int, columns: int, like: Tensor) -> tuple[Program, int, Tensor, int]:
    """(program, bytes of the weight tile, scratch [blocks, floats], floats of a block) for so many columns."""
    program = Program(source, (("FF_SIDE", machine.side), ("FF_ROWS", ROWS)))
    kept = columns * (ROWS + 4)
    scratch = like.new_empty(min(blocks(n, ROWS), 4 * machine.processors), kept)
    return program, weight_tile_bytes(machine), scratch, kept


class CamSpec:
    """A perceptron with coordinate-aware modulation, ready for kernels."""

    def __init__(
        self,
        machine_of: MachineOf,
        dims: Sequence[int],
        activation: int,
        output_activation: int,
        axes: Sequence[tuple[int, bool]],
        each: bool,
        normalised: bool,
    ) -> None:
        """`axes`: vertices of each, and whether it wraps."""
        expect(len(axes) <= MAX_AXES, f"a modulation has at most {MAX_AXES} axes")
        expect(len(set(dims[1:-1])) <= 1, "modulated layers are equally wide")
        self.machine_of = machine_of
        self.mlp = MlpSpec(machine_of, False, dims, activation, output_activation, True)
        entries = math.prod(vertices for vertices, _ in axes)
        padded = (ModulationAxis * MAX_AXES)(*(ModulationAxis(vertices, int(wraps)) for vertices, wraps in axes))
        self.modulation = Modulation(len(axes), padded, entries, int(each), int(normalised))
        self.n_axes, self.hidden = len(axes), len(dims) - 2
        self.grid_size = self.hidden * entries * 2 * (dims[1] if each else 1)

    def _check(
        self, x: Tensor, at: Tensor, params: Tensor, grids: Tensor, aux: Tensor | None, index: Tensor | None
    ) -> tuple[Argument, ...]:
        rows = self.mlp.check(x, params, aux, index)
        expect_tensor("at", at, (len(x), self.n_axes))
        expect_tensor("grids", grids, (self.grid_size,))
        return rows

    def forward(
        self,
        x: Tensor,
        at: Tensor,
        params: Tensor,
        grids: Tensor,
        aux: Tensor | None,
        index: Tensor | None,
        out: Tensor,
        tape: None = None,
    ) -> None:
        """Write [n, outputs] into `out`."""
        rows, n, dims = self._check(x, at, params, grids, aux, index), len(x), self.mlp.dims
        expect_tensor("out", out, (n, dims[-1]))
        if n == 0:
            return
        machine = self.machine_of(x)
        program, shared, scratch, kept = tiles(machine, "cam.cu", n, 2 * max(dims), x)
        shared += 4 * ROWS * (3 * self.n_axes + 1)
        arguments = n, self.mlp.layers, self.modulation, params, grids, *rows, at, scratch, kept, out
        machine.launch(program, "cam_forward", (len(scratch), 1), machine.side**2, shared, arguments)

    def backward(
        self,
        x: Tensor,
        at: Tensor,
        params: Tensor,
        grids: Tensor,
        aux: Tensor | None,
        index: Tensor | None,
        d_out: Tensor,
        *d: Tensor | None,
    ) -> None:
        """Write `d = (d_x, d_at, d_params, d_grids)`, of which all but the third may be None; behind them, no tape."""
        rows, n, dims = self._check(x, at, params, grids, aux, index), len(x), self.mlp.dims
        d_x, d_at, d_params, d_grids = d[:4]
        assert d_params is not None
        expect_tensor("d_out", d_out, (n, dims[-1]))
        for name, tensor, like in (("d_x", d_x, x), ("d_at", d_at, at), ("d_params", d_params, params)):
            if tensor is not None:
                expect_tensor(name, tensor, like.shape)
        if d_grids is not None:
            expect_tensor("d_grids", d_grids, grids.shape)
            d_grids.zero_()
        if n == 0:
            d_params.zero_()
            return
        machine = self.machine_of(x)
        columns = sum(dims[:-1]) + self.hidden * dims[1] + 2 * max(dims)
        program, shared, scratch, kept = tiles(machine, "cam.cu", n, columns, x)
        shared += 4 * ROWS * (4 * self.n_axes + max(self.hidden, 1))
        slices = params.new_empty(len(scratch), self.mlp.size)
        arguments = (
            n, self.mlp.layers, self.modulation, params, grids, *rows, at, scratch, kept,
            d_out, d_x, d_at, d_grids, slices, self.mlp.size,
        )  # fmt: skip
        machine.launch(program, "cam_backward", (len(scratch), 1), machine.side**2, shared, arguments)
        sum_slices(machine, slices, d_params)


def rational_forward(machine: Machine, x: Tensor, numerator: Tensor, denominator: Tensor, out: Tensor) -> None:
    """Write the activation of x [N, I] into `out`."""
    group = _check_rational(x, numerator, denominator)
    expect_tensor("out", out, x.shape)
    n, width = x.shape
    if x.numel() > 0:
        arguments = n, width, group, x, numerator, denominator, out
        machine.launch(Program("kan.cu"), "rational_forward", (blocks(x.numel(), 256), 1), 256, 0, arguments)


def rational_backward(
    machine: Machine,
    tensors: tuple[Tensor, Tensor, Tensor],
    d_out: Tensor,
    d: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Write `d`, the gradients of `tensors`: x, numerator and denominator."""
    x, numerator, denominator = tensors
    group = _check_rational(*tensors)
    names = "d_out", "d_x", "d_numerator", "d_denominator"
    for name, tensor, like in zip(names, (d_out, *d), (x, *tensors), strict=True):
        expect_tensor(name, tensor, like.shape)
    n, width = x.shape
    groups, size = width // group, NUMERATOR + DENOMINATOR
    shares = min(blocks(max(n * group, 1), 1024), max(8 * machine.processors // groups, 1))
    slices, sums = x.new_empty(shares, groups * size), x.new_empty(groups, size)
    arguments = n, width, group, x, numerator, denominator, d_out, d[0], slices
    machine.launch(Program("kan.cu"), "rational_backward", (shares, groups), 128, 4 * 4 * size, arguments)
    sum_slices(machine, slices, sums)
    torch.sum(sums[:, :NUMERATOR], 0, out=d[1])
    torch.mul(sums[:, NUMERATOR:], denominator.sign(), out=d[2])


def _check_rational(x: Tensor, numerator: Tensor, denominator: Tensor) -> int:
    """Channels of a group."""
    groups = len(denominator)
    expect_tensor("x", x, x.shape)
    expect_tensor("numerator", numerator, (NUMERATOR,))
    expect_tensor("denominator", denominator, (groups, DENOMINATOR))
    expect(groups > 0 and x.shape[1] % groups == 0, f"{groups} groups do not divide {x.shape[1]} channels")
    return x.shape[1] // groups


Form = tuple[int, int, float, float]
"""Of a basis: its kind, the functions of an input, the place of the first, their spacing."""
KNOT = 4
"""Values of a knot in a table."""


def _basis_terms(x: Tensor, weight: Tensor, bias: Tensor, form: Form, knots: Tensor | None) -> BasisTerms:
    kind, count, first, spacing = form
    n_in, n_out = x.shape[1], len(weight)
    expect(count > 0 and spacing > 0, "functions have a count and a spacing")
    expect(0 <= kind < len(KAN_BASES), "there is such a basis")
    expect(KAN_BASES[kind] != "fourier" or count % 2 == 0, "as many sines as cosines")
    terms = weight.shape[1] // n_in
    expect(
        weight.shape[1] == terms * n_in and terms - count in (0, 1), f"{count} functions do not make {weight.shape[1]}"
    )
    for name, tensor, size in (("x", x, x.shape), ("weight", weight, weight.shape), ("bias", bias, (n_out,))):
        expect_tensor(name, tensor, size)
    expect((knots is not None) == (KAN_BASES[kind] == "spline"), "splines have knots, and nothing else has")
    if knots is not None:
        expect_tensor("knots", knots, (n_in, KNOT * (count + 4)))
    return BasisTerms(n_in, n_out, terms, Basis(kind, count, first, spacing))


def basis_layer_forward(
    machine: Machine,
    tensors: tuple[Tensor, Tensor, Tensor],
    form: Form,
    knots: Tensor | None,
    out: Tensor,
) -> None:
    """Write [N, O] into `out`; `tensors`: x, weight, bias."""
    x, weight, bias = tensors
    of, n = _basis_terms(*tensors, form, knots), len(x)
    expect_tensor("out", out, (n, len(weight)))
    if n == 0:
        return
    program, shared, scratch, kept = tiles(machine, "kan.cu", n, weight.shape[1], x)
    arguments = n, of, knots, x, weight, bias, scratch, kept, out
    machine.launch(program, "basis_layer_forward", (len(scratch), 1), machine.side**2, shared, arguments)


def basis_layer_backward(
    machine: Machine,
    tensors: tuple[Tensor, Tensor, Tensor],
    form: Form,
    knots: Tensor | None,
    d_out: Tensor,
    d_x: Tensor | None,
    d_weight: Tensor,
    d_bias: Tensor,
) -> None:
    """Write the gradients of x, which may be None, of the weight and of the bias; `tensors`: x, weight, bias."""
    x, weight, bias = tensors
    of, n = _basis_terms(*tensors, form, knots), len(x)
    expect_tensor("d_out", d_out, (n, len(weight)))
    expect_tensor("d_weight", d_weight, weight.shape)
    expect_tensor("d_bias", d_bias, bias.shape)
    if d_x is not None:
        expect_tensor("d_x", d_x, x.shape)
    torch.sum(d_out, 0, out=d_bias)
    if n == 0:
        d_weight.zero_()
        return
    program, shared, scratch, kept = tiles(machine, "kan.cu", n, 2 * weight.shape[1] + len(weight), x)
    slices = x.new_empty(len(scratch), weight.numel())
    arguments = n, of, knots, x, weight, scratch, kept, d_out, d_x, slices
    machine.launch(program, "basis_layer_backward", (len(scratch), 1), machine.side**2, shared, arguments)
    sum_slices(machine, slices, d_weight)


def _rbf_form(
    x: Tensor, centers: Tensor, log_precision: Tensor, weight: Tensor, bias: Tensor
) -> tuple[RbfSize, Tensor, Tensor, Tensor]:
    """Sizes, the form [K, 2 X] and constant [K] of half distances, and precisions [K, X] over twice the features."""
    k, features = centers.shape
    expect_tensor("x", x, (len(x), features))
    for name, tensor, size in (
        ("centers", centers, (k, features)),
        ("log_precision", log_precision, (k, features)),
        ("weight", weight, (len(weight), k)),
        ("bias", bias, (len(weight),)),
    ):
        expect_tensor(name, tensor, size)
    p = log_precision.clamp(-MOST_LOG_PRECISION, MOST_LOG_PRECISION).exp() / (2 * features)
    form = torch.cat([-2 * p * centers, p], dim=1)
    return RbfSize(features, k, len(weight)), form, (p * centers.square()).sum(1), p


def rbf_forward(machine: Machine, x: Tensor, weights: Sequence[Tensor], out: Tensor) -> None:
    """Write [N, O] into `out`; `weights`: centres, log precisions, weight, bias."""
    n = len(x)
    of, form, constant, _ = _rbf_form(x, *weights)
    expect_tensor("out", out, (n, of.outputs))
    if n == 0:
        return
    program, shared, scratch, kept = tiles(machine, "rbf.cu", n, 2 * of.features + of.neurons, x)
    arguments = n, of, x, form, constant, *weights[2:], scratch, kept, out
    machine.launch(program, "rbf_forward", (len(scratch), 1), machine.side**2, shared, arguments)


def rbf_backward(
    machine: Machine, x: Tensor, weights: Sequence[Tensor], d_out: Tensor, d: Sequence[Tensor], d_x: Tensor | None
) -> None:
    """Write `d`, the gradients of `weights`, and d_x unless it is None."""
    n, (centers, log_precision, weight, _) = len(x), weights
    of, form, constant, p = _rbf_form(x, *weights)
    expect_tensor("d_out", d_out, (n, of.outputs))
    for tensor, like in zip(d, weights, strict=True):
        expect_tensor("a gradient", tensor, like.shape)
    if d_x is not None:
        expect_tensor("d_x", d_x, x.shape)
    if n == 0:
        for tensor in d:
            tensor.zero_()
        return
    k, o, width = of.neurons, of.outputs, 2 * of.features
    program, shared, scratch, kept = tiles(machine, "rbf.cu", n, 2 * width + 2 * k + o, x)
    sizes = o * k, o, k * width, k
    slices, sums = x.new_empty(len(scratch), sum(sizes)), x.new_empty(sum(sizes))
    arguments = n, of, x, form, constant, weight, scratch, kept, d_out, d_x, slices, sum(sizes)
    machine.launch(program, "rbf_backward", (len(scratch), 1), machine.side**2, shared, arguments)
    sum_slices(machine, slices, sums)
    d_weight, d_bias, d_form, total = sums.split(sizes)
    first, second = d_form.view(k, 2, of.features).unbind(1)  # sums of g x and of g x^2, beside those of g
    total = total[:, None]
    d[0].copy_(2 * p * (centers * total - first))
    inside = log_precision.abs() <= MOST_LOG_PRECISION
    d[1].copy_(torch.where(inside, p * (second - 2 * centers * first + centers.square() * total), 0.0))
    d[2].copy_(d_weight.view(o, k))
    d[3].copy_(d_bias)
