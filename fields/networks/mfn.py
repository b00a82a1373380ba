"""The multiplicative filter network (Fathony et al. 2021, eq. 4): products of sines, so sums of sines at all depths.

    g_l(x) = sin(Omega_l x + phi_l)          h_0 = g_0          h_{l+1} = (W_l h_l + b_l) * g_{l+1}(x)

It has no other nonlinearity: h is a sum of sines whose frequencies are sums and differences of the filters'. Rows of
Omega are spread over frequencies as in MAGNet (Romero et al. 2022), low ones more often in later filters.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At
from fields.kernels import ops, reference
from fields.kernels.shapes import Activation, MlpShape
from fields.networks.configs import MFN
from scenes.errors import InputError

ALPHA = 6.0
"""Shape of the first filter's gamma distribution."""


class FilterNetwork(nn.Module):
    """Filters of the input, joined by linear layers; optionally reads a second input, one row per ray."""

    def __init__(self, config: MFN, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if config.hidden_dim < 1 or config.hidden_layers < 0 or not config.omega > 0:
            raise InputError(
                f"mfn: expected hidden_dim >= 1, hidden_layers >= 0 and omega > 0, got {config.hidden_dim}, "
                f"{config.hidden_layers} and {config.omega:g}"
            )
        width, n_layers = config.hidden_dim, config.hidden_layers
        self.omega = config.omega
        self.filter_shape = MlpShape((n_in, width), "identity", "sine", bias=True)
        self.linear_shape = MlpShape((width, width), "identity", "identity", bias=True)
        self.output_shape = MlpShape((width, n_out), "identity", output_activation, bias=True)
        self.filters = nn.ParameterList(
            [nn.Parameter(torch.empty(self.filter_shape.size)) for _ in range(n_layers + 1)]
        )
        self.linear = nn.ParameterList([nn.Parameter(torch.empty(self.linear_shape.size)) for _ in range(n_layers)])
        self.output = nn.Parameter(torch.empty(self.output_shape.size))

    def initialise(self, generator: torch.Generator) -> None:
        """Phases are uniform, so that E g^2 = 1/2 wherever a sample lies; W has variance 1/H and b is 1 (MAGNet's), so
        that E h^2 = 1 - 2^-(l+1): it neither vanishes nor grows with depth, and every filter shows in the sum by
        itself as well as in products."""
        with torch.no_grad():
            for level, params in enumerate(self.filters):
                ((omega, phase),) = reference.mlp_layers(params, self.filter_shape)
                assert phase is not None
                bound = 2 * math.pi * self.omega / math.sqrt(omega.shape[1])
                omega.uniform_(-bound, bound, generator=generator)
                omega.mul_(gamma(ALPHA / (level + 1), len(omega), generator)[:, None])
                phase.uniform_(-math.pi, math.pi, generator=generator)
            for params in self.linear:
                self._draw(params, self.linear_shape, math.sqrt(3), 1.0, generator)
            self._draw(self.output, self.output_shape, math.sqrt(1.5), 0.0, generator)

    @staticmethod
    def _draw(params: Tensor, shape: MlpShape, bound: float, bias: float, generator: torch.Generator) -> None:
        ((weight, b),) = reference.mlp_layers(params, shape)
        assert b is not None
        weight.uniform_(-bound, bound, generator=generator).div_(math.sqrt(weight.shape[1]))
        b.fill_(bias)

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        first, *others = [ops.mlp(x, params, self.filter_shape, aux, index) for params in self.filters]
        h = first
        for params, g in zip(self.linear, others, strict=True):
            h = ops.mlp(h, params, self.linear_shape) * g
        return ops.mlp(h, self.output, self.output_shape)


def gamma(alpha: float, n: int, generator: torch.Generator) -> Float[Tensor, " N"]:
    """Draws of Gamma(alpha, 1), by the inverse of its distribution function: torch draws none from a generator."""
    from scipy.special import gammaincinv

    uniform = torch.rand(n, generator=generator, dtype=torch.float64)
    return torch.from_numpy(gammaincinv(alpha, uniform.numpy())).float()
