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
    return _rational(x, by_channel(numerator, denominator, x.shape[1]))


def by_channel(
    numerator: Float[Tensor, " 6"], denominator: Float[Tensor, "G 4"], width: int
) -> Float[Tensor, "{width} 10"]:
    """Coefficients of each channel: those of the numerator, then what the denominator's count as."""
    each = denominator.abs().repeat_interleave(width // len(denominator), dim=0)
    return torch.cat([numerator.expand(width, -1), each], dim=1)


def rational_layer(
    x: Float[Tensor, "N I"],
    coefficients: Float[Tensor, "I 10"],
    weight: Float[Tensor, "O I"],
    bias: Float[Tensor, " O"],
) -> Float[Tensor, "N O"]:
    """A linear layer of the activation, whose coefficients are those of `by_channel`."""
    return torch.nn.functional.linear(_rational(x, coefficients), weight, bias)


def _rational(x: Float[Tensor, "N I"], coefficients: Float[Tensor, "I 10"]) -> Float[Tensor, "N I"]:
    a, b = coefficients[:, :6], coefficients[:, 6:]
    p, q, y = a[:, 5].expand_as(x), b[:, 3].expand_as(x), x.abs()
    for i in (4, 3, 2, 1, 0):
        p = p * x + a[:, i]
    for j in (2, 1, 0):
        q = q * y + b[:, j]
    return p / (1 + q * y)


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
