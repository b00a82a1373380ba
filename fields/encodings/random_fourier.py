"""Random Fourier features (Rahimi & Recht 2007) of coordinates (Tancik et al. 2020)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings.configs import RandomFourier
from fields.kernels import ops
from scenes.errors import InputError


class RandomFourierEncoding(nn.Module):
    """(sin, cos)(2 pi B x), the rows of B drawn from N(0, sigma^2 I): sigma is in waves across the unit cube."""

    directions: Tensor

    def __init__(self, config: RandomFourier, dim: int) -> None:
        super().__init__()
        if config.n_frequencies < 1 or not 0 < config.sigma < math.inf:
            raise InputError(
                f"rff: expected n_frequencies >= 1 and a finite sigma > 0, got {config.n_frequencies}, {config.sigma:g}"
            )
        self.sigma = config.sigma
        self.width = 2 * config.n_frequencies
        self.register_buffer("directions", torch.empty(config.n_frequencies, dim))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw B; it belongs to the field, and is saved with it."""
        self.directions.normal_(0.0, self.sigma, generator=generator)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """2 n_frequencies values, sine and cosine of each direction side by side (eq. 4 of Tancik et al.)."""
        return ops.frequency(nn.functional.linear(x, 2 * self.directions), 1)
