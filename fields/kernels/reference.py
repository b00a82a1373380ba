"""Torch references: what each operation computes, as short and plain as can be, at any precision and on any device.

Kernels are tested against these in float64; they also run where no kernel does.
Letters: N points or rays, S packed samples, D dimensions, L levels, F features per level, E table entries.
"""

# pyright: reportIncompatibleMethodOverride=false
# An autograd function's backward names its cotangents; torch declares it for any number of them.

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fields.kernels.shapes import Activation, GridShape, MarchShape, MlpShape

PRIMES = (1, 2654435761, 805459861, 3674653429)


def grid_encode(x: Float[Tensor, "N D"], table: Float[Tensor, "E F"], shape: GridShape) -> Float[Tensor, "N LF"]:
    """Multilinear interpolation of every level's vertices (Mueller et al. 2022). Coordinates are clamped to [0, 1]."""
    levels = []
    corners = torch.tensor([[(c >> d) & 1 for d in range(shape.dim)] for c in range(2**shape.dim)], device=x.device)
    for level in shape.levels:
        p = x.clamp(0, 1) * level.scale + 0.5
        cell = p.floor()
        fraction = (p - cell)[:, None, :]  # [N, 1, D]
        vertex = cell.long()[:, None, :] + corners  # [N, 2^D, D]
        weight = torch.where(corners.bool(), fraction, 1 - fraction).prod(-1)  # [N, 2^D]
        if level.hashed:
            index = torch.zeros_like(vertex[..., 0])
            for d in range(shape.dim):
                index = index ^ ((vertex[..., d] * PRIMES[d]) & 0xFFFFFFFF)
            index = index & (level.entries - 1)
        else:
            stride = level.resolution ** torch.arange(shape.dim, device=x.device)
            index = (vertex * stride).sum(-1)
        levels.append((table[level.offset + index] * weight[..., None]).sum(1))
    return torch.cat(levels, dim=1)


def activate(kind: Activation, z: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Activation by name; `exp` is clamped to exp(15), with the gradient of the clamped value everywhere."""
    match kind:
        case "identity":
            return z
        case "relu":
            return z.relu()
        case "silu":
            return torch.nn.functional.silu(z)
        case "sine":
            return z.sin()
        case "sigmoid":
            return z.sigmoid()
        case "exp":
            return _ClampedExp.apply(z)


class _ClampedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        value = z.clamp(max=15).exp()
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, d_value: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return d_value * value


def mlp_layers(params: Float[Tensor, " P"], shape: MlpShape) -> list[tuple[Tensor, Tensor | None]]:
    """Views of the flat parameters: (weight [out, in], bias [out] or None) of each layer."""
    layers, at = [], 0
    for n_in, n_out in zip(shape.dims, shape.dims[1:], strict=False):
        weight = params[at : at + n_in * n_out].view(n_out, n_in)
        at += n_in * n_out
        layers.append((weight, params[at : at + n_out] if shape.bias else None))
        at += n_out if shape.bias else 0
    return layers


class _Round(torch.autograd.Function):
    """A factor as bfloat16 keeps it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> Tensor:
        return d[0]


class _RoundCotangent(torch.autograd.Function):
    """Backward, the cotangent is a factor of the products for inputs and weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> Tensor:
        return d[0].to(torch.bfloat16).to(d[0].dtype)


def mlp(
    x: Float[Tensor, "N X"],
    params: Float[Tensor, " P"],
    shape: MlpShape,
    aux: Float[Tensor, "R A"] | None = None,
    index: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, "N O"]:
    """Perceptron of [x, aux[index]]; `aux` gets no gradient."""
    if aux is not None:
        x = torch.cat([x, aux.detach() if index is None else aux.detach()[index.long()]], dim=1)
    layers = mlp_layers(params, shape)
    for i, (weight, bias) in enumerate(layers):
        if shape.precision == "bfloat16":
            x = _RoundCotangent.apply(torch.nn.functional.linear(_Round.apply(x), _Round.apply(weight), bias))
        else:
            x = torch.nn.functional.linear(x, weight, bias)
        x = activate(shape.output_activation if i + 1 == len(layers) else shape.activation, x)
    return x


def harmonics(d: Float[Tensor, "N 3"], degree: int) -> Float[Tensor, "N K"]:
    """Real spherical harmonics of unit directions: degree^2 values, l = 0, then m = -l .. l."""
    x, y, z = d.unbind(-1)
    values = [
        torch.full_like(x, math.sqrt(1 / (4 * math.pi))),
        -math.sqrt(3 / (4 * math.pi)) * y,
        math.sqrt(3 / (4 * math.pi)) * z,
        -math.sqrt(3 / (4 * math.pi)) * x,
        math.sqrt(15 / (4 * math.pi)) * x * y,
        -math.sqrt(15 / (4 * math.pi)) * y * z,
        math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
        -math.sqrt(15 / (4 * math.pi)) * x * z,
        math.sqrt(15 / (16 * math.pi)) * (x * x - y * y),
        math.sqrt(35 / (32 * math.pi)) * y * (y * y - 3 * x * x),
        math.sqrt(105 / (4 * math.pi)) * x * y * z,
        math.sqrt(21 / (32 * math.pi)) * y * (1 - 5 * z * z),
        math.sqrt(7 / (16 * math.pi)) * z * (5 * z * z - 3),
        math.sqrt(21 / (32 * math.pi)) * x * (1 - 5 * z * z),
        math.sqrt(105 / (16 * math.pi)) * z * (x * x - y * y),
        math.sqrt(35 / (32 * math.pi)) * x * (3 * y * y - x * x),
    ]
    return torch.stack(values[: degree * degree], dim=-1)


def frequency(x: Float[Tensor, "N D"], n_frequencies: int) -> Float[Tensor, "N K"]:
    """(sin, cos)(2^k pi x), k = 0 .. n - 1 (Mildenhall et al. 2020, eq. 4), coordinate by coordinate."""
    phase = x[..., None] * (math.pi * 2.0 ** torch.arange(n_frequencies, dtype=x.dtype, device=x.device))
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)


def contract(p: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Unit-cube coordinates, unbounded, to field coordinates in [0, 1]: the cube keeps the middle half of each axis."""
    q = 2 * p - 1
    m = q.abs().amax(-1, keepdim=True).clamp(min=1)
    return q * (2 - 1 / m) / m / 4 + 0.5


def uncontract(x: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Inverse of `contract`; the faces of the field's cube, which lie at infinity, are held at 1e4 cubes."""
    q = 4 * (x - 0.5)
    m = q.abs().amax(-1, keepdim=True)
    r = 1 / (2 - m.clamp(1, 2 - 1e-4))
    return (q * torch.where(m > 1, r / m.clamp(min=1), 1.0) + 1) / 2


def march(
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    jitter: Float[Tensor, " N"] | None,
    occupied: Bool[Tensor, "R R R"],
    shape: MarchShape,
) -> tuple[Int[Tensor, " N1"], Float[Tensor, " S"], Float[Tensor, " S"], Float[Tensor, "S 3"], Int[Tensor, " S"]]:
    """Steps in occupied cells: (offsets, t0, t1, field coordinates of their middles, ray), packed by ray.

    All rays step together, one step at a time, and empty space is not skipped: slow, and plain. `occupied[z, y, x]`.
    """
    n = len(origins)
    t = torch.full((n,), shape.near, dtype=origins.dtype, device=origins.device)
    end = torch.full_like(t, shape.far)
    if not shape.contracted:
        d = torch.where(directions.abs() < 1e-12, 1e-12, directions)
        u, v = -origins / d, (1 - origins) / d
        t = torch.maximum(t, torch.minimum(u, v).amax(-1))
        end = torch.minimum(end, torch.maximum(u, v).amin(-1))
    t = t + (t * shape.cone_angle).clamp(min=shape.step) * (0.5 if jitter is None else jitter)
    count = torch.zeros(n, dtype=torch.long, device=origins.device)
    found = []
    while bool((t < end).any()):
        dt = (t * shape.cone_angle).clamp(min=shape.step)
        x = origins + directions * (t + dt / 2)[:, None]
        x = contract(x) if shape.contracted else x
        cell = (x * shape.resolution).floor().long().clamp(0, shape.resolution - 1)
        hit = (t < end) & occupied[cell[:, 2], cell[:, 1], cell[:, 0]] & (count < shape.max_samples)
        ray = hit.nonzero()[:, 0]
        found.append((ray, t[ray], (t + dt)[ray], x[ray]))
        count = count + hit
        t = t + dt
    ray = torch.cat([f[0] for f in found]) if found else torch.zeros(0, dtype=torch.long, device=origins.device)
    order = ray.argsort(stable=True)
    ray = ray[order]
    t0, t1, x = (torch.cat([f[i] for f in found])[order] if found else origins.new_zeros(0) for i in (1, 2, 3))
    offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return offsets, t0, t1, x.reshape(-1, 3), ray.int()


def visit_cells(
    cells: Int[Tensor, " N"], found: Float[Tensor, " N"], decay: float, threshold: float, density: Float[Tensor, " C"]
) -> Bool[Tensor, " C"]:
    """Bring densities up to date, in place; which cells are above the threshold, or the mean where that is less."""
    before = density[cells]
    density[cells] = torch.where(torch.isinf(before), 0.0, before * decay)
    density.scatter_reduce_(0, cells, found, "amax")
    finite = density[torch.isfinite(density)]
    return density > (min(threshold, float(finite.mean())) if len(finite) else threshold)


def composite(
    sigma: Float[Tensor, " S"],
    rgb: Float[Tensor, "S 3"],
    t0: Float[Tensor, " S"],
    t1: Float[Tensor, " S"],
    offsets: Int[Tensor, " N1"],
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Emission and absorption (Max 1995): (rgb, opacity, depth) of each ray; depth sum w_i t_i is not normalised."""
    n = len(offsets) - 1
    ray = torch.repeat_interleave(torch.arange(n, device=sigma.device), offsets.diff())
    thickness = sigma * (t1 - t0)
    before = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])  # optical depth in front of each sample, all rays
    transmittance = (-(before[:-1] - before[offsets[:-1]][ray])).exp()
    w = transmittance * -torch.expm1(-thickness)
    out_rgb = rgb.new_zeros(n, 3).index_add(0, ray, w[:, None] * rgb)
    opacity = w.new_zeros(n).index_add(0, ray, w)
    depth = w.new_zeros(n).index_add(0, ray, w * (t0 + t1) / 2)
    return out_rgb, opacity, depth


def adam(
    param: Tensor,
    grad: Tensor,
    moments: tuple[Tensor, Tensor],
    rate: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    skip_zero: bool,
) -> None:
    """One step of Adam in place (Kingma & Ba 2015); with `skip_zero`, entries whose gradient is zero stay untouched."""
    moment1, moment2 = moments
    touched = grad != 0 if skip_zero else torch.ones_like(grad, dtype=torch.bool)
    m = betas[0] * moment1 + (1 - betas[0]) * grad
    v = betas[1] * moment2 + (1 - betas[1]) * grad**2
    update = rate * (m / (1 - betas[0] ** step)) / ((v / (1 - betas[1] ** step)).sqrt() + eps)
    param.copy_(torch.where(touched, param - update, param))
    moment1.copy_(torch.where(touched, m, moment1))
    moment2.copy_(torch.where(touched, v, moment2))
