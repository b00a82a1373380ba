"""Torch reference of a layer of Gaussian neurons in feature space (Bouzidi et al. 2025, "Gaussian RBFNet").

Letters: N points, X features, K neurons, O outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

MOST_FEATURE = 1e9
"""Features are clamped to this size, so that no square overflows, however far a fit went astray."""
MOST_LOG_PRECISION = 40.0
"""The same for log precisions."""


class RbfWeights(NamedTuple):
    """The parameters of the layer."""

    centers: Float[Tensor, "K X"]
    log_precision: Float[Tensor, "K X"]
    weight: Float[Tensor, "O K"]
    bias: Float[Tensor, " O"]


def half_distances(x: Float[Tensor, "N X"], weights: RbfWeights) -> Float[Tensor, "N K"]:
    """1/2 sum_d exp(b_kd) (x_d - c_kd)^2 / X, expanded into two products and a row, and at least zero."""
    x = x.clamp(-MOST_FEATURE, MOST_FEATURE)
    c, b = weights.centers, weights.log_precision.clamp(-MOST_LOG_PRECISION, MOST_LOG_PRECISION)
    p = b.exp() / (2 * x.shape[1])
    return (x.square() @ p.T - 2 * x @ (p * c).T + (p * c.square()).sum(1)).clamp(min=0)


def rbf(x: Float[Tensor, "N X"], weights: RbfWeights) -> Float[Tensor, "N O"]:
    """W phi + w0, where phi is exp of minus half the squared distance to each centre, meant over features."""
    phi = torch.exp(-half_distances(x, weights))
    return torch.nn.functional.linear(phi, weights.weight, weights.bias)
