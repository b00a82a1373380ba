"""The gated perceptron (Shazeer 2020, eq. 5), every layer of it one gate without a projection behind it:

    a_{l+1} = (W_l a_l) * silu(V_l a_l + c_l)          y = W_out a_L

Gates begin open, c = 1: features of a grid begin near zero, where a layer without c would be quadratic in them, and
their gradient as small as they are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At
from fields.kernels import ops, reference
from fields.kernels.shapes import Activation, MlpShape
from fields.networks.configs import GLU
from scenes.errors import InputError

GATE = 1.0
"""What c begins with."""
GATE_SQUARE = 1.4809
"""E silu(u + GATE)^2 over standard normal u."""


class GatedPerceptron(nn.Module):
    """Gated layers, then a linear one; optionally reads a second input, one row per ray."""

    def __init__(self, config: GLU, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if config.hidden_dim < 1 or config.hidden_layers < 1:
            raise InputError(
                f"glu: expected hidden_dim >= 1 and hidden_layers >= 1, got {config.hidden_dim} and "
                f"{config.hidden_layers}"
            )
        inputs = [n_in, *[config.hidden_dim] * (config.hidden_layers - 1)]
        self.value_shapes = [MlpShape((n, config.hidden_dim), "identity", "identity", bias=False) for n in inputs]
        self.gate_shapes = [MlpShape((n, config.hidden_dim), "identity", "silu", bias=True) for n in inputs]
        self.output_shape = MlpShape((config.hidden_dim, n_out), "identity", output_activation, bias=True)
        self.values = nn.ParameterList([nn.Parameter(torch.empty(shape.size)) for shape in self.value_shapes])
        self.gates = nn.ParameterList([nn.Parameter(torch.empty(shape.size)) for shape in self.gate_shapes])
        self.output = nn.Parameter(torch.empty(self.output_shape.size))

    def initialise(self, generator: torch.Generator) -> None:
        """Inputs of unit mean square stay at unit mean square: V has variance 1/n, W that over E silu^2."""
        with torch.no_grad():
            for value, gate, value_shape, gate_shape in zip(
                self.values, self.gates, self.value_shapes, self.gate_shapes, strict=True
            ):
                _uniform(value, value_shape, 1 / GATE_SQUARE, generator)
                _uniform(gate, gate_shape, 1.0, generator, bias=GATE)
            _uniform(self.output, self.output_shape, 0.5, generator)

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        a = x
        layers = zip(self.values, self.gates, self.value_shapes, self.gate_shapes, strict=True)
        for i, (value, gate, value_shape, gate_shape) in enumerate(layers):
            second = (aux, index) if i == 0 else (None, None)
            a = ops.mlp(a, value, value_shape, *second) * ops.mlp(a, gate, gate_shape, *second)
        return ops.mlp(a, self.output, self.output_shape)


def _uniform(
    params: Float[Tensor, " P"], shape: MlpShape, variance: float, generator: torch.Generator, bias: float = 0.0
) -> None:
    """Weights of this variance over the number of inputs, and one value for all biases."""
    ((weight, b),) = reference.mlp_layers(params, shape)
    bound = math.sqrt(3 * variance / weight.shape[1])
    weight.uniform_(-bound, bound, generator=generator)
    if b is not None:
        b.fill_(bias)
