"""Bases of functions of one value: B functions at each of N x I values, and how large they are.

Those that live on a grid share one: [-EXTENT, EXTENT], which holds 95 % of a standard normal value. Outside, splines go
on straight and bumps and wavelets vanish; polynomials see tanh(x), and sines and cosines repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels.shapes import KanBasis

EXTENT = 2.0
ORDER = 3
"""Of the splines: piecewise cubic, smooth to the second derivative."""


def terms(kind: KanBasis, x: Float[Tensor, "N I"], count: int, knots: Float[Tensor, "I K"] | None) -> Tensor:
    """[N, I, count]: the functions of a basis; splines have knots."""
    match kind:
        case "spline":
            assert knots is not None
            return spline(x, knots)
        case "rbf":
            return rbf(x, count)
        case "chebyshev":
            return chebyshev(x, count)
        case "fourier":
            return fourier(x, count)
        case "dog":
            return dog(x, count)
        case "mexican-hat":
            return mexican_hat(x, count)
        case _:
            assert_never(kind)


def even_knots(count: int) -> Float[Tensor, " K"]:
    """Knots of `count` splines over the grid, ORDER of them beyond each end."""
    return extended(torch.linspace(-EXTENT, EXTENT, count - ORDER + 1))


def extended(grid: Float[Tensor, "*I M"]) -> Float[Tensor, "*I K"]:
    """Increasing ends of intervals, with ORDER knots more on each side, an average interval apart."""
    step = (grid[..., -1:] - grid[..., :1]) / (grid.shape[-1] - 1)
    beyond = step * torch.arange(1, ORDER + 1, dtype=grid.dtype, device=grid.device)
    return torch.cat([grid[..., :1] - beyond.flip(-1), grid, grid[..., -1:] + beyond], dim=-1)


def spline(x: Float[Tensor, "N I"], knots: Float[Tensor, "I K"]) -> Float[Tensor, "N I B"]:
    """Cubic B-splines by de Boor's recurrence. Outside of the grid each goes on as the straight line that touches it at
    the border, so that values and slopes stay defined however far an input drifts."""
    low, high = knots[:, ORDER], knots[:, -1 - ORDER]
    inside = x.clamp(low, high)
    u = inside[:, :, None]
    b = ((u >= knots[:, :-1]) & (u < knots[:, 1:])).to(x.dtype)
    slope = torch.zeros_like(b)
    for k in range(1, ORDER + 1):
        left, right = (
            b[..., :-1] / (knots[:, k:-1] - knots[:, : -k - 1]),
            b[..., 1:] / (knots[:, k + 1 :] - knots[:, 1:-k]),
        )
        slope = k * (left - right)
        b = (u - knots[:, : -k - 1]) * left + (knots[:, k + 1 :] - u) * right
    return b + slope * (x - inside)[:, :, None]


def rbf(x: Float[Tensor, "N I"], count: int) -> Float[Tensor, "N I B"]:
    """Gaussians exp(-v^2), v the distance to a centre in units of their spacing (FastKAN, Li 2024)."""
    return (-_distance(x, count).square()).exp()


def chebyshev(x: Float[Tensor, "N I"], count: int) -> Float[Tensor, "N I B"]:
    """T_0 .. T_{count - 1} of tanh(x) by their recurrence, whose slopes are finite; cos(n acos t) has none at t = 1."""
    t = x.tanh()
    found = [torch.ones_like(t), t]
    while len(found) < count:
        found.append(2 * t * found[-1] - found[-2])
    return torch.stack(found[:count], dim=2)


def fourier(x: Float[Tensor, "N I"], count: int) -> Float[Tensor, "N I B"]:
    """Sines and cosines of frequencies 1 .. count / 2 over the grid's length."""
    frequency = torch.arange(1, count // 2 + 1, dtype=x.dtype, device=x.device) * (math.pi / EXTENT)
    phase = x[:, :, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], dim=2)


def dog(x: Float[Tensor, "N I"], count: int) -> Float[Tensor, "N I B"]:
    """First derivatives of Gaussians, -v exp(-v^2 / 2), v the distance to a centre in units of their spacing."""
    v = _distance(x, count)
    return -v * (-v.square() / 2).exp()


def mexican_hat(x: Float[Tensor, "N I"], count: int) -> Float[Tensor, "N I B"]:
    """Second derivatives, 2 / (sqrt(3) pi^(1/4)) (1 - v^2) exp(-v^2 / 2)."""
    v = _distance(x, count).square()
    return 2 / (math.sqrt(3) * math.pi**0.25) * (1 - v) * (-v / 2).exp()


def grid_of(count: int) -> tuple[float, float]:
    """First centre and spacing of `count` of them."""
    return -EXTENT, 2 * EXTENT / (count - 1)


def power(functions: Callable[[Float[Tensor, "Q 1"]], Tensor]) -> float:
    """Sum over an input's functions of E[B(x)^2] for standard normal x, by quadrature: weights of variance
    1 / (I power) give outputs of variance one. For chebyshev it is about (D + 1) / 2 with degree D."""
    x = torch.linspace(-6, 6, 2401, dtype=torch.float64)[:, None]
    density = (-x[:, 0].square() / 2).exp()
    square = functions(x).flatten(1).square().sum(1)
    return float((density * square).sum() / density.sum())


def _distance(x: Float[Tensor, "N I"], count: int) -> Float[Tensor, "N I B"]:
    first, spacing = grid_of(count)
    return (x[:, :, None] - first) / spacing - torch.arange(count, dtype=x.dtype, device=x.device)
