"""Torch references of layers of learned functions: the rational activation, and layers whose functions have a basis.

Letters: N points, I inputs, O outputs, G groups, T terms of an input.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels import reference_bases
from fields.kernels.shapes import KanBasis


def rational(
    x: Float[Tensor, "N I"], numerator: Float[Tensor, " 6"], denominator: Float[Tensor, "G 4"]
) -> Float[Tensor, "N I"]:
    """Safe Pade activation (Molina et al. 2020), in groups of channels that share a denominator (GR-KAN, Yang & Wang
    2024, in the form of its kernels): F = (a0 + a1 x + ... + a5 x^5) / (1 + |b1| |x| + ... + |b4| |x|^4)."""
    a, b = numerator, denominator.abs().repeat_interleave(x.shape[1] // len(denominator), dim=0)
    p, q, y = a[5].expand_as(x), b[:, 3].expand_as(x), x.abs()
    for i in (4, 3, 2, 1, 0):
        p = p * x + a[i]
    for j in (2, 1, 0):
        q = q * y + b[:, j]
    return p / (1 + q * y)


def rational_layer(
    x: Float[Tensor, "N I"],
    numerator: Float[Tensor, " 6"],
    denominator: Float[Tensor, "G 4"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"],
    scale: float = 1.0,
) -> Float[Tensor, "N O"]:
    """A linear layer of the activation at `scale` times x."""
    return torch.nn.functional.linear(rational(x * scale, numerator, denominator), weight, bias)


def basis_layer(
    x: Float[Tensor, "N I"],
    weight: Float[Tensor, "O IT"],
    bias: Float[Tensor, " O"],
    kind: KanBasis,
    count: int,
    knots: Float[Tensor, "I K"] | None = None,
) -> Float[Tensor, "N O"]:
    """Products of the weights with the functions of each input and, where there is one term more, with its SiLU; plus a
    bias."""
    terms = reference_bases.terms(kind, x, count, knots)
    if weight.shape[1] == x.shape[1] * (count + 1):
        terms = torch.cat([terms, torch.nn.functional.silu(x)[:, :, None]], dim=2)
    return torch.nn.functional.linear(terms.flatten(1), weight, bias)
