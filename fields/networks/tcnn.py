"""The fully fused perceptron of tiny-cuda-nn: products of 16-bit floats; the last activation is ours, in float32.

It pads inputs to a multiple of 16 with ones, whose weights then are a bias of the first layer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At, with_aux
from fields.kernels import reference, tcnn
from fields.kernels.gpu_libraries import library
from fields.kernels.shapes import Activation
from fields.networks.configs import TcnnMLP
from scenes.errors import InputError

WIDTHS = (16, 32, 64, 128)


class TcnnPerceptron(nn.Module):
    """Linear layers with a ReLU between; optionally reads a second input, one row per ray."""

    def __init__(self, config: TcnnMLP, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if config.hidden_dim not in WIDTHS or config.hidden_layers < 1:
            raise InputError(
                f"tcnn-mlp: expected hidden_dim {', '.join(map(str, WIDTHS))} and 1 hidden layer or more, "
                f"got {config.hidden_dim} and {config.hidden_layers}"
            )
        settings = {
            "otype": "FullyFusedMLP",
            "activation": "ReLU",
            "output_activation": "None",
            "n_neurons": config.hidden_dim,
            "n_hidden_layers": config.hidden_layers,
        }
        self.n_out = n_out
        self.output_activation: Activation = output_activation
        self.mlp = tcnn.prepared(library("tinycudann", "--network mlp").Network(n_in, n_out, settings))

    @property
    def params(self) -> nn.Parameter:
        """All weights, float32, one layer after another."""
        return self.mlp.params

    def initialise(self, generator: torch.Generator) -> None:
        """As the library does: uniform, by the sizes of a layer (Glorot & Bengio 2010)."""
        tcnn.initialise(self.mlp, generator)

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        values = tcnn.evaluate(self.mlp, with_aux(x, aux, index), self.n_out)
        return reference.activate(self.output_activation, values)
