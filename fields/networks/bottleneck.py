"""The residual trunk whose blocks are narrow (Chen et al. 2025, eq. 3), without the normalisation over the batch:

    z_0 = W_in x                z_{i+1} = z_i + W2_i act(W1_i z_i)                y = W_out z_L

Depth is cheap: a block of a trunk d wide costs 2 d k for an inner width of k. W2 begins at zero, so that every block
begins as the identity (Bachlechner et al. 2021) and the trunk as a linear map, however deep it is.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At
from fields.kernels import ops, reference
from fields.kernels.shapes import Activation, MlpShape
from fields.networks.configs import Bottleneck
from scenes.errors import InputError

EPSILON = 1e-6
"""Added to a mean square: features of a grid begin near zero, where they are not worth being blown up to one."""


class BottleneckTrunk(nn.Module):
    """Linear in, blocks, linear out; optionally reads a second input, one row per ray."""

    def __init__(self, config: Bottleneck, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if min(config.hidden_dim, config.bottleneck_dim) < 1 or config.blocks < 0:
            raise InputError(
                f"bottleneck: expected hidden_dim >= 1, bottleneck_dim >= 1 and blocks >= 0, got {config.hidden_dim}, "
                f"{config.bottleneck_dim} and {config.blocks}"
            )
        wide, narrow = config.hidden_dim, config.bottleneck_dim
        self.norm = config.norm
        self.input_shape = MlpShape((n_in, wide), "identity", "identity", bias=False)
        self.block_shape = MlpShape((wide, narrow, wide), config.activation, "identity", bias=True)
        self.output_shape = MlpShape((wide, n_out), "identity", output_activation, bias=True)
        self.input = nn.Parameter(torch.empty(self.input_shape.size))
        self.blocks = nn.ParameterList([nn.Parameter(torch.empty(self.block_shape.size)) for _ in range(config.blocks)])
        self.output = nn.Parameter(torch.empty(self.output_shape.size))

    def initialise(self, generator: torch.Generator) -> None:
        """W_in keeps the size of what it reads, W1 is He's for its activation, W2 and all biases are zero."""
        with torch.no_grad():
            ((weight, _),) = reference.mlp_layers(self.input, self.input_shape)
            _uniform(weight, 3.0, generator)
            for params in self.blocks:
                params.zero_()
                _uniform(reference.mlp_layers(params, self.block_shape)[0][0], 6.0, generator)
            self.output.zero_()
            _uniform(reference.mlp_layers(self.output, self.output_shape)[0][0], 1.5, generator)

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        z = ops.mlp(x, self.input, self.input_shape, aux, index)
        for params in self.blocks:
            z = z + ops.mlp(root_mean_square_norm(z) if self.norm else z, params, self.block_shape)
        return ops.mlp(z, self.output, self.output_shape)


def root_mean_square_norm(z: Float[Tensor, "N Z"]) -> Float[Tensor, "N Z"]:
    """z over its root mean square (Zhang and Sennrich 2019, eq. 4); rows do not see each other."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)


def _uniform(weight: Float[Tensor, "O I"], variance: float, generator: torch.Generator) -> None:
    """Uniform of variance `variance / 3` over the number of inputs."""
    bound = math.sqrt(variance / weight.shape[1])
    weight.uniform_(-bound, bound, generator=generator)
