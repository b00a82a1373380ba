"""Networks as a file has them: each group of weights gets the step that is best for rate and distortion together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.codec import weights
from fields.codec.shape import CodecShape

PATIENCE = 1.02
"""Coarser steps are tried until the loss is this many times the least."""
LEAST_SCALE = 2.0**-7
"""Of a group's weights, as their cost is fitted."""

Measure = Callable[[Float[Tensor, "P"]], float]


@dataclass
class Written:
    """How networks are written, and what a file with them costs."""

    groups: list[weights.Group]
    values: list[Int[np.ndarray, " _"]]
    weight_bits: float
    latent_bits: float

    def data(self) -> bytes:
        """Of the section."""
        return weights.write_weights(self.groups, self.values)


def rounded(
    shape: CodecShape, networks: Float[Tensor, "P"], bits_of: Measure, error_of: Measure, weight: float
) -> Written:
    """The choice for each group, one after the other. `bits_of` latents and `error_of` pixels under other networks,
    which cost `weight` times their bits; that of the context network decides about bits only, and the rest about
    errors."""
    base = weights.base(shape).astype(np.float64) / 2**weights.UNIT
    exact = networks.double().numpy() - base
    current = base + weights.quantised(exact, weights.UNIT) * 2.0**-weights.UNIT
    bits, error = (of(torch.from_numpy(current).float()) for of in (bits_of, error_of))
    written = Written([], [], 0.0, bits)
    for index in weights.layout(shape):
        attempts, of_context = [], index[0] < shape.context_size
        for places in range(weights.UNIT, -1, -1):
            q = weights.quantised(exact[index], places)
            group, cost = weights.best_group(q, places)
            candidate = current.copy()
            candidate[index] = base[index] + q * 2.0**-places
            tried_networks = torch.from_numpy(candidate).float()
            tried = (bits_of(tried_networks), error) if of_context else (bits, error_of(tried_networks))
            loss = tried[1] + weight * (tried[0] + cost)
            attempts.append((loss, group, q, cost, candidate, tried))
            if loss > PATIENCE * min(attempt[0] for attempt in attempts):
                break
        _, group, q, cost, current, (bits, error) = min(attempts, key=lambda attempt: attempt[0])
        written.groups.append(group)
        written.values.append(q)
        written.weight_bits += cost
    written.latent_bits = bits
    return written


def weight_slope(
    networks: Float[Tensor, "P"], base: Float[Tensor, "P"], groups: list[Int[Tensor, " _"]]
) -> Float[Tensor, "P"]:
    """The gradient of what weights cost, in nats, under a Laplace distribution around the base, of each group's own
    scale."""
    away = networks - base
    size, slope = away.abs(), torch.empty_like(away)
    for index in groups:
        scale = size[index].mean().clamp(min=LEAST_SCALE)
        slope[index] = away[index] / (size[index] + LEAST_SCALE) / scale
    return slope
