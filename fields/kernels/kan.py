"""Layers of learned functions, differentiable: a core computes float32 on a CPU or a GPU, the torch reference the rest.

Gradients of gradients are those of the reference: where a graph of the backward pass is wanted, it is evaluated again
there.
"""

# pyright: reportIncompatibleMethodOverride=false
# An autograd function's backward names its cotangents; torch declares it for any number of them.

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels import ops, reference_bases, reference_kan
from fields.kernels.shapes import KAN_BASES, KanBasis


class _Rational(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
        out = torch.empty_like(x)
        ops.core_for(x).rational_forward(x, numerator.detach(), denominator.detach(), out)
        ctx.save_for_backward(x, numerator, denominator)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this pass is wanted
            return _through_reference(reference_kan.rational(*inputs), inputs, d_out)
        d = tuple(torch.empty_like(t) for t in inputs)
        ops.core_for(d_out).rational_backward(*(t.detach() for t in inputs), d_out.contiguous(), *d)
        return d


def rational(
    x: Float[Tensor, "N I"], numerator: Float[Tensor, " 6"], denominator: Float[Tensor, "G 4"]
) -> Float[Tensor, "N I"]:
    """`reference_kan.rational`; G divides I."""
    if not ops.is_native(x, numerator, denominator):
        return reference_kan.rational(x, numerator, denominator)
    return _Rational.apply(x.contiguous(), numerator.contiguous(), denominator.contiguous())


class _RationalLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor, weight: Tensor, bias: Tensor, scale: float
    ) -> Tensor:
        out = x.new_empty(len(x), len(weight))
        of = numerator.detach(), denominator.detach(), scale, weight.detach(), bias.detach()
        ops.core_for(x).rational_layer_forward(x, *of, out)
        ctx.save_for_backward(x, numerator, denominator, weight, bias)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            out = reference_kan.rational_layer(*inputs, scale=ctx.scale)
            return *_through_reference(out, inputs, d_out), None
        x, *parameters = inputs
        numerator, denominator, weight, bias = (t.detach() for t in parameters)
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        d = tuple(torch.empty_like(t) for t in parameters)
        core = ops.core_for(x)
        core.rational_layer_backward(x, numerator, denominator, ctx.scale, weight, bias, d_out.contiguous(), d_x, *d)
        return d_x, *d, None


def rational_layer(
    x: Float[Tensor, "N I"],
    numerator: Float[Tensor, " 6"],
    denominator: Float[Tensor, "G 4"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"],
    scale: float = 1.0,
) -> Float[Tensor, "N O"]:
    """`reference_kan.rational_layer`. On a CPU the activations are never written to memory."""
    if not ops.is_native(x, numerator, denominator, weight, bias) or x.is_cuda:
        return torch.nn.functional.linear(rational(x * scale, numerator, denominator), weight, bias)
    of = (t.contiguous() for t in (x, numerator, denominator, weight, bias))
    return _RationalLayer.apply(*of, scale)


class _BasisLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, kind: KanBasis, count: int, knots: Tensor | None
    ) -> Tensor:
        out = x.new_empty(len(x), len(weight))
        form = KAN_BASES.index(kind), count, *_first_and_spacing(kind, count)
        table = None if knots is None else spline_table(knots)
        ops.core_for(x).basis_layer_forward(x, weight.detach(), bias.detach(), form, table, out)
        ctx.save_for_backward(x, weight, bias)
        ctx.basis = kind, count, knots
        ctx.form, ctx.table = form, table
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_through_reference(reference_kan.basis_layer(*inputs, *ctx.basis), inputs, d_out), None, None, None
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        d, values = (torch.empty_like(weight), torch.empty_like(bias)), (x, weight.detach(), bias.detach())
        ops.core_for(x).basis_layer_backward(*values, ctx.form, ctx.table, d_out.contiguous(), d_x, *d)
        return d_x, *d, None, None, None


def basis_layer(
    x: Float[Tensor, "N I"],
    weight: Float[Tensor, "O IT"],
    bias: Float[Tensor, " O"],
    kind: KanBasis,
    count: int,
    knots: Float[Tensor, "I K"] | None = None,
) -> Float[Tensor, "N O"]:
    """`reference_kan.basis_layer`, the terms of a point never written to memory. Knots get no gradient."""
    if not ops.is_native(x, weight, bias):
        return reference_kan.basis_layer(x, weight, bias, kind, count, knots)
    return _BasisLayer.apply(x.contiguous(), weight.contiguous(), bias.contiguous(), kind, count, knots)


def _first_and_spacing(kind: KanBasis, count: int) -> tuple[float, float]:
    """Of centres; of waves, which have none, zero and what they repeat after."""
    if kind == "fourier":
        return 0.0, 2 * reference_bases.EXTENT
    return (0.0, 1.0) if kind == "chebyshev" else reference_bases.grid_of(count)


def spline_table(knots: Float[Tensor, "I K"]) -> Float[Tensor, "I K4"]:
    """Of each knot its place and 1 over the distance to the first, second and third one after it, if there is one."""
    rows = [knots]
    for order in (1, 2, 3):
        inverse = torch.zeros_like(knots)
        inverse[:, :-order] = 1 / (knots[:, order:] - knots[:, :-order])
        rows.append(inverse)
    return torch.stack(rows, dim=2).flatten(1)


def _through_reference(out: Tensor, inputs: tuple[Tensor, ...], d_out: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [t for t in inputs if t.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, d_out, create_graph=True))
    return tuple(next(found) if t.requires_grad else None for t in inputs)
