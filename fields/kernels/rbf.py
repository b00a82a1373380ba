"""The layer of Gaussian neurons, differentiable: fused on a CPU in float32.

Tensors on other devices and of other precisions go to the torch reference, which also has gradients of gradients.
"""

# pyright: reportIncompatibleMethodOverride=false
# An autograd function's backward names its cotangents; torch declares it for any number of them.

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from fields.kernels import native, reference_rbf
from fields.kernels.reference_rbf import RbfWeights


class _Rbf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: bool, *weights: Tensor) -> Tensor:
        out = x.new_empty(len(x), len(weights[3]))
        tape = native.core().Tape() if keep else None
        native.core().rbf_forward(x.detach(), *(w.detach() for w in weights), out, tape)
        ctx.save_for_backward(x, *weights)
        ctx.tape = tape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        gradients = tuple(torch.empty_like(w) for w in weights)
        plain = (w.detach() for w in weights)
        native.core().rbf_backward(x.detach(), *plain, d_out.contiguous(), gradients, d_x, ctx.tape)
        return d_x, None, *gradients


def rbf(x: Float[Tensor, "N X"], weights: RbfWeights) -> Float[Tensor, "N O"]:
    """W phi + w0 with phi_k = exp(-1/2 sum_d exp(b_kd) (x_d - c_kd)^2 / X)."""
    if not all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, *weights)):
        return reference_rbf.rbf(x, weights)
    return _Rbf.apply(x.contiguous(), torch.is_grad_enabled(), *(w.contiguous() for w in weights))
