"""Torch reference of perceptrons with coordinate-aware modulation (Lee et al. 2024): any precision, any device.

A hidden layer computes `h' = act(scale(at) norm(W h + b) + shift(at))`, where scale and shift come from grids of the
layer's own, interpolated between the 2^D vertices around `at`, and the last layer is a plain one. `norm` is over the
channels of a sample (layer normalisation without learnt factors).
Letters: N samples, D coordinates that modulate, K = 2^D vertices around one, H hidden layers, E vertices of a grid.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.contracts import with_aux
from fields.kernels.reference import activate, mlp_layers
from fields.kernels.shapes import CamShape, ModulationAxis

EPS = 1e-5
"""Added to the variance."""


def around(
    at: Float[Tensor, "N D"], axes: tuple[ModulationAxis, ...]
) -> tuple[Int[Tensor, "N K"], Float[Tensor, "N K"]]:
    """The vertices around each sample, and their weights, which sum to one."""
    index = torch.zeros(len(at), 1, dtype=torch.long, device=at.device)
    weight = torch.ones(len(at), 1, dtype=at.dtype, device=at.device)
    step = 1
    for d, axis in enumerate(axes):
        x = at[:, d : d + 1]
        if axis.wraps:
            p = (x - x.floor()) * axis.vertices
            cell = p.detach().floor().clamp(0, axis.vertices - 1)
            following = (cell + 1) % axis.vertices
        else:
            p = x.clamp(0, 1) * (axis.vertices - 1)
            cell = p.detach().floor().clamp(max=max(axis.vertices - 2, 0))
            following = (cell + 1).clamp(max=axis.vertices - 1)
        fraction = p - cell
        index = torch.cat([index + step * cell.long(), index + step * following.long()], dim=1)
        weight = torch.cat([weight * (1 - fraction), weight * fraction], dim=1)
        step *= axis.vertices
    return index, weight


def cam(
    x: Float[Tensor, "N X"],
    at: Float[Tensor, "N D"],
    params: Float[Tensor, " P"],
    grids: Float[Tensor, "H E 2 C"],
    shape: CamShape,
    aux: Float[Tensor, "R A"] | None = None,
    index: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, "N O"]:
    """Values for [x, aux[index]] at the coordinates `at`; `aux` gets no gradient."""
    h = with_aux(x, aux, index)
    vertices, weights = around(at, shape.axes)
    *hidden, (last_weight, last_bias) = mlp_layers(params, shape.mlp)
    for grid, (weight, bias) in zip(grids, hidden, strict=True):
        h = torch.nn.functional.linear(h, weight, bias)
        if shape.normalised:
            h = torch.nn.functional.layer_norm(h, h.shape[1:], eps=EPS)
        scale, shift = (grid[vertices] * weights[..., None, None]).sum(1).unbind(1)
        h = activate(shape.mlp.activation, scale * h + shift)
    return activate(shape.mlp.output_activation, torch.nn.functional.linear(h, last_weight, last_bias))
