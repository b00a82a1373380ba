"""What latents and networks of a picture or a frame are fitted to: mean squared error plus a weight times bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fields.codec.image_file import MOST_LATENT
from fields.codec.shape import LEVELS, SCALE, UNIT, CodecShape
from fields.kernels.native import core


def model_of(shape: CodecShape) -> Any:
    """The native model, with the memory that its passes need."""
    return core().CodecModel(shape.height, shape.width, shape.channels, shape.hidden, shape.known)


class Objective:
    """Rate and distortion of latents [N] and networks [P], the context network first, and their gradients."""

    def __init__(
        self,
        shape: CodecShape,
        samples: Shaped[np.ndarray, "H W C"],
        white: int,
        weight: float,
        known: Int[np.ndarray, "C H W"] | None = None,
        model: Any = None,
    ) -> None:
        """`model` may be shared by several that are not used at once."""
        self.shape, self.weight = shape, weight
        self.n_pixels = shape.height * shape.width
        self.model = model_of(shape) if model is None else model
        self.wanted = (torch.from_numpy(samples.astype(np.float32)).permute(2, 0, 1) * (SCALE / white)).contiguous()
        self.known = None if known is None else torch.from_numpy(known).float() / UNIT
        self.level_bits = np.zeros(LEVELS)
        """Of the last `rate`."""

    def rate(
        self, latents: Tensor, networks: Tensor, d_latents: Tensor | None = None, d_networks: Tensor | None = None
    ) -> float:
        """Bits of the latents; adds gradients of the weighted bits a pixel by latents and networks, if there is where
        to."""
        split = self.shape.context_size
        d_context = None if d_networks is None else d_networks[:split]
        weight = self.weight / self.n_pixels
        self.model.rate(latents, networks[:split], weight, self.level_bits, d_latents, d_context)
        return float(self.level_bits.sum())

    def error(
        self, latents: Tensor, networks: Tensor, d_latents: Tensor | None = None, d_networks: Tensor | None = None
    ) -> float:
        """Mean squared error of values from 0 to 1; adds its gradients as `rate` does."""
        split = self.shape.context_size
        d_synthesis = None if d_networks is None else d_networks[split:]
        values = self.wanted.numel() * SCALE**2
        found = self.model.distortion(
            latents, networks[split:], self.wanted, 1 / values, d_latents, d_synthesis, self.known
        )
        return found / values


def whole(latents: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Latents as a file has them."""
    return torch.floor(latents + 0.5).clamp(-MOST_LATENT, MOST_LATENT)
