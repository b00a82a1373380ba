"""Encodings without parameters: sines and cosines, or the coordinates themselves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings.configs import Frequency
from fields.kernels import ops
from scenes.errors import InputError


class FrequencyEncoding(nn.Module):
    """The coordinates in [-1, 1], then (sin, cos)(2^k pi x) for each of them."""

    def __init__(self, config: Frequency, dim: int) -> None:
        super().__init__()
        if not 1 <= config.n_frequencies <= 24:
            raise InputError(f"n_frequencies: expected 1 to 24, got {config.n_frequencies}")
        self.n_frequencies = config.n_frequencies
        self.width = dim * (1 + 2 * config.n_frequencies)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """D (1 + 2 n_frequencies) values of each point."""
        return torch.cat([2 * x - 1, ops.frequency(x, self.n_frequencies)], dim=1)


class CoordinateEncoding(nn.Module):
    """The coordinates in [-1, 1]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = dim

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """From the unit cube to [-1, 1]."""
        return 2 * x - 1
