"""Perceptrons with coordinate-aware modulation as one differentiable operation.

float32 tensors go to a core, which computes all layers of a tile of samples while it is in the cache. Everything else
goes to the torch reference, which also has gradients of gradients.
"""

# pyright: reportIncompatibleMethodOverride=false
# An autograd function's backward names its cotangents; torch declares it for any number of them.

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from fields.kernels import ops, reference_cam
from fields.kernels.ops import ACTIVATIONS
from fields.kernels.shapes import CamShape


def spec(shape: CamShape, *tensors: Tensor) -> Any:
    """The network as the core of these tensors takes it."""
    return _spec(shape, ops.core_for(*tensors))


@functools.cache
def _spec(shape: CamShape, core: Any) -> Any:
    kinds = ACTIVATIONS[shape.mlp.activation], ACTIVATIONS[shape.mlp.output_activation]
    axes = [(axis.vertices, axis.wraps) for axis in shape.axes]
    return core.CamSpec(list(shape.mlp.dims), *kinds, axes, shape.each, shape.normalised)


class _Cam(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        at: Tensor,
        params: Tensor,
        grids: Tensor,
        shape: CamShape,
        further: tuple[Tensor | None, Tensor | None],
        keep: bool,
    ) -> Tensor:
        out = x.new_empty(len(x), shape.mlp.dims[-1])
        tape = ops.core_for(x).Tape() if keep else None
        spec(shape, x, at).forward(x, at, params.detach(), grids.detach().view(-1), *further, out, tape)
        ctx.save_for_backward(x, at, params, grids, *further)
        ctx.shape, ctx.tape = shape, tape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, at, params, grids, *further = ctx.saved_tensors
        wanted_x, wanted_at, _, wanted_grids, *_ = ctx.needs_input_grad
        d_x = torch.empty_like(x) if wanted_x else None
        d_at = torch.empty_like(at) if wanted_at else None
        d_params = torch.empty_like(params)
        d_grids = torch.empty_like(grids) if wanted_grids else None
        spec(ctx.shape, x, at).backward(
            x, at, params.detach(), grids.detach().view(-1), *further, d_out.contiguous(),
            d_x, d_at, d_params, None if d_grids is None else d_grids.view(-1), ctx.tape,
        )  # fmt: skip
        return d_x, d_at, d_params, d_grids, None, None, None


def cam(
    x: Float[Tensor, "N X"],
    at: Float[Tensor, "N D"],
    params: Float[Tensor, " P"],
    grids: Float[Tensor, "H E 2 C"],
    shape: CamShape,
    aux: Float[Tensor, "R A"] | None = None,
    index: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, "N O"]:
    """Values for [x, aux[index]] at the coordinates `at`; all but `aux` and `index` get gradients."""
    if not ops.is_native(x, at, params, grids):
        return reference_cam.cam(x, at, params, grids, shape, aux, index)
    further = None if aux is None else aux.detach().contiguous(), None if index is None else index.contiguous()
    keep = torch.is_grad_enabled()
    return _Cam.apply(x.contiguous(), at.contiguous(), params, grids.contiguous(), shape, further, keep)
