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

from fields.kernels import ops, reference_kan


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


class _BumpLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, shape: tuple[int, float, float]) -> Tensor:
        out = x.new_empty(len(x), len(weight))
        ops.core_for(x).bump_layer_forward(x, weight.detach(), bias.detach(), *shape, out)
        ctx.save_for_backward(x, weight, bias)
        ctx.shape = shape
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_through_reference(reference_kan.bump_layer(*inputs, *ctx.shape), inputs, d_out), None
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        d_weight, values = torch.empty_like(weight), (x, weight.detach(), bias.detach())
        ops.core_for(x).bump_layer_backward(*values, *ctx.shape, d_out.contiguous(), d_x, d_weight)
        return d_x, d_weight, d_out.sum(0), None


def bump_layer(
    x: Float[Tensor, "N I"],
    weight: Float[Tensor, "O IT"],
    bias: Float[Tensor, " O"],
    count: int,
    first: float,
    spacing: float,
) -> Float[Tensor, "N O"]:
    """`reference_kan.bump_layer`, the terms of a point never written to memory."""
    if not ops.is_native(x, weight, bias):
        return reference_kan.bump_layer(x, weight, bias, count, first, spacing)
    return _BumpLayer.apply(x.contiguous(), weight.contiguous(), bias.contiguous(), (count, first, spacing))


def _through_reference(out: Tensor, inputs: tuple[Tensor, ...], d_out: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [t for t in inputs if t.requires_grad]
    found = iter(torch.autograd.grad(out, wanted, d_out, create_graph=True))
    return tuple(next(found) if t.requires_grad else None for t in inputs)
