"""The perceptron, its parameters in one flat tensor as the kernels read them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At
from fields.kernels import ops, reference
from fields.kernels.shapes import Activation, MlpShape
from fields.networks.configs import MLP
from scenes.errors import InputError

MAX_LAYERS = 16


class Perceptron(nn.Module):
    """Linear layers with an activation between; optionally reads a second input, one row per ray."""

    def __init__(self, config: MLP, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if config.hidden_dim < 1 or not 0 <= config.hidden_layers < MAX_LAYERS:
            raise InputError(
                f"mlp: expected hidden_dim >= 1 and 0 to {MAX_LAYERS - 1} hidden layers, "
                f"got {config.hidden_dim} and {config.hidden_layers}"
            )
        dims = (n_in, *(config.hidden_dim,) * config.hidden_layers, n_out)
        self.shape = MlpShape(dims, config.activation, output_activation, config.bias, config.precision)
        self.omega = config.omega
        self.params = nn.Parameter(torch.empty(self.shape.size))

    def initialise(self, generator: torch.Generator) -> None:
        """He's uniform initialisation; for sine SIREN's, with the frequency factor folded into the first layer."""
        with torch.no_grad():
            for i, (weight, bias) in enumerate(reference.mlp_layers(self.params, self.shape)):
                n_in = weight.shape[1]
                bound = math.sqrt(6 / n_in)
                if self.shape.activation == "sine" and i == 0:
                    bound = self.omega / n_in
                weight.uniform_(-bound, bound, generator=generator)
                if bias is not None:
                    bias.uniform_(-bound / math.sqrt(6), bound / math.sqrt(6), generator=generator)
                if i == len(self.shape.dims) - 2:
                    weight.mul_(1 / math.sqrt(6) if self.shape.activation == "sine" else 0.5)

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        return ops.mlp(x, self.params, self.shape, aux, index)
