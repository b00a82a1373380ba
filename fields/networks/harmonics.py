"""Colour as spherical harmonics of the direction, whose coefficients the density's network gives; no parameters.

    rgb = activation(sum_j Y_j(d) a_j),   latent = [log density, a of red, a of green, a of blue]

As in Plenoxels (Yu et al. 2021) and the radiance head of Bouzidi et al. 2025.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At
from fields.kernels import reference
from fields.kernels.shapes import Activation
from scenes.errors import InputError


class HarmonicsHead(nn.Module):
    """Reads a latent vector as coefficients."""

    def __init__(self, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        self.n_basis, rest = divmod(n_in - 1, n_out + 1)
        self.n_out = n_out
        self.output_activation: Activation = output_activation
        if rest or self.n_basis not in (1, 4, 9, 16):
            sizes = ", ".join(f"{1 + n_out * k**2} with {k}" for k in (1, 2, 3, 4))
            raise InputError(
                "harmonics head: --field.latent-dim must be one log density and the coefficients of every colour, "
                f"which depends on --field.harmonics-degree: {sizes}"
            )

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values of latent vectors x in directions whose harmonics are aux[index]."""
        if aux is None:
            raise ValueError("a harmonics head needs the harmonics of directions, got none")
        basis = aux.detach() if index is None else aux.detach().index_select(0, index)
        coefficients = x[:, 1:].reshape(len(x), self.n_out, self.n_basis)
        return reference.activate(self.output_activation, torch.einsum("nob,nb->no", coefficients, basis))
