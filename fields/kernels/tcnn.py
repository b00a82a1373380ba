"""Modules of tiny-cuda-nn (Mueller et al. 2021) as modules of ours: float32 in and out, any number of points.

It computes in 16-bit floats where the GPU is made for them, keeps parameters in float32, and pads batches to multiples
of 256 itself. Of gradients, 16 bits hold what lies between 6e-8 and 65504. It has a factor for them, by which it
divides before they leave 16 bits; we multiply them before they come in, and divide when they are float32.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scenes.errors import InputError

GRADIENT_SCALE = 4096.0
"""Keeps gradients from 1.5e-11 to 16; one that is larger becomes infinite, and the step is skipped."""


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple[Tensor, None]:
        return d[0] * ctx.factor, None


def prepared(module: Any) -> Any:
    """An `Encoding` or a `Network` of tiny-cuda-nn that leaves the scaling of gradients to us."""
    assert module.loss_scale >= 1  # so that a version that calls it otherwise is noticed
    module.loss_scale = 1.0
    return module


def evaluate(module: nn.Module, x: Float[Tensor, "N X"], width: int) -> Float[Tensor, "N O"]:
    """What a prepared module makes of `x`, `width` values.

    Raises:
        InputError: `x` is not on an NVIDIA GPU.
    """
    if not x.is_cuda:
        raise InputError(f"tiny-cuda-nn computes on an NVIDIA GPU only, got data on {x.device}; take --device cuda")
    if len(x) == 0:  # it divides by the number of points
        return x.new_zeros(0, width)
    params = {"params": _ScaleGradient.apply(module.get_parameter("params"), 1 / GRADIENT_SCALE)}
    out = torch.func.functional_call(module, params, (_ScaleGradient.apply(x, 1 / GRADIENT_SCALE),))
    return _ScaleGradient.apply(out.float(), GRADIENT_SCALE)


def initialise(module: Any, generator: torch.Generator) -> None:
    """tiny-cuda-nn's own initial values, from a seed that is drawn here."""
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.no_grad():
        module.params.copy_(module.native_tcnn_module.initial_params(seed))
