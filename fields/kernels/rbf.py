"""The layer of Gaussian neurons, differentiable: fused in float32, on a CPU or a GPU.

Tensors of other precisions go to the torch reference, which also has gradients of gradients.
"""

# pyright: reportIncompatibleMethodOverride=false
# An autograd function's backward names its cotangents; torch declares it for any number of them.

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from fields.kernels import ops, reference_rbf
from fields.kernels.reference_rbf import RbfWeights


class _Rbf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: bool, *weights: Tensor) -> Tensor:
        out = x.new_empty(len(x), len(weights[3]))
        core = ops.core_for(x)
        tape = core.Tape() if keep else None
        core.rbf_forward(x.detach(), *(w.detach() for w in weights), out, tape)
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
        ops.core_for(x).rbf_backward(x.detach(), *plain, d_out.contiguous(), gradients, d_x, ctx.tape)
        return d_x, None, *gradients


def rbf(x: Float[Tensor, "N X"], weights: RbfWeights) -> Float[Tensor, "N O"]:
    """W phi + w0 with phi_k = exp(-1/2 sum_d exp(b_kd) (x_d - c_kd)^2 / X)."""
    if not ops.is_native(x, *weights):
        return reference_rbf.rbf(x, weights)
    return _Rbf.apply(x.contiguous(), torch.is_grad_enabled(), *(w.contiguous() for w in weights))
