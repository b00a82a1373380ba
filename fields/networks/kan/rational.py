"""Networks whose activations are learned rational functions (GR-KAN, Yang & Wang 2024): y = W F(x) + b, F = P / Q.

All channels of a layer share the numerator, each group of channels has a denominator of its own. Coefficients are kept
for x / 3, so that they are of one size on [-3, 3], where F starts as a known function, and a step of the optimiser
moves all of them alike.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At, with_aux
from fields.kernels import kan, reference, reference_kan
from fields.kernels import reference_bases as bases
from fields.kernels.shapes import Activation
from fields.networks.configs import Denominator, RationalKAN
from scenes.errors import InputError

RANGE = 3.0
NUDGE = 1e-3
"""Coefficients of |x| and |x|^3 at the start, over the range: |b| has no slope at zero, and would stay there."""
STARTS = {
    # x (1 + 0.1 x^2 + 0.001 x^4) over the same: straight also far outside
    "identity": ((0.0, 1.0, 0.0, 0.1, 0.0, 0.001), (0.1, 0.001)),
    # the least-squares fit to x sigmoid(x) that KAT (Yang & Wang 2024) publishes, made for this denominator
    "swish": ((3.05e-7, 0.50000079, 0.24999783, 0.05326628, 0.00580303, 0.00027520), (0.10652899, 0.00055023)),
}


class RationalActivation(nn.Module):
    """F of each channel."""

    powers: Tensor

    def __init__(
        self, start: Literal["identity", "swish"], width: int, groups: int, denominator: Denominator = "absolute"
    ) -> None:
        super().__init__()
        if groups < 1 or width % groups:
            raise InputError(f"groups: expected a divisor of the width {width}, got {groups}")
        self.start: Literal["identity", "swish"] = start
        self.denominator_form: Denominator = denominator
        self.terms = 1
        self.numerator = nn.Parameter(torch.empty(6))
        self.denominator = nn.Parameter(torch.empty(groups, 4 if denominator == "absolute" else 2))
        self.register_buffer("powers", RANGE ** -torch.arange(6.0), persistent=False)
        with torch.no_grad():
            self.reset()

    def reset(self) -> None:
        """Back to the function that it starts as."""
        numerator, even = STARTS[self.start]
        self.numerator.copy_(torch.tensor([a * RANGE**i for i, a in enumerate(numerator)]))
        second, fourth = even[0] * RANGE**2, even[1] * RANGE**4
        if self.denominator_form == "absolute":
            self.denominator.copy_(torch.tensor([NUDGE, second, NUDGE, fourth]))
        else:
            self.denominator.copy_(torch.tensor([math.sqrt(second), math.sqrt(fourth)]))

    def initialise(self, generator: torch.Generator) -> None:
        """The known function: nothing is drawn."""
        with torch.no_grad():
            self.reset()

    def over_range(self) -> tuple[Float[Tensor, " 6"], Float[Tensor, "G 4"]]:
        """Coefficients of P, and of Q but for its leading one, for x / RANGE. The even form is c2^2 x^2 + c4^2 x^4:
        smooth at zero, as normals of a surface need, and without poles."""
        b = self.denominator
        if self.denominator_form == "even":
            zero = torch.zeros_like(b[:, 0])
            b = torch.stack([zero, b[:, 0].square(), zero, b[:, 1].square()], dim=1)
        return self.numerator, b

    def coefficients(self) -> tuple[Float[Tensor, " 6"], Float[Tensor, "G 4"]]:
        """The same for x."""
        a, b = self.over_range()
        return a * self.powers, b * self.powers[1:5]

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N I"]:
        """F(x), channel by channel."""
        return kan.rational(x, *self.coefficients())

    def product(
        self, x: Float[Tensor, "N I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"]
    ) -> Float[Tensor, "N O"]:
        """A linear layer of F(x)."""
        return kan.rational_layer(x, *self.over_range(), weight, bias, 1 / RANGE)

    def deviation(self, n_in: int) -> float:
        """Of weights that keep the variance of standard normal inputs: 1 / sqrt(I E[F(x)^2])."""
        a, b = (c.detach().double().cpu() for c in self.coefficients())
        return 1 / math.sqrt(n_in * bases.power(lambda x: reference_kan.rational(x, a, b[:1])))


class RationalLayer(nn.Module):
    """The activation, then a linear layer: y = W F(x) + b."""

    def __init__(self, activation: RationalActivation, n_in: int, n_out: int) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out))

    def initialise(self, generator: torch.Generator) -> None:
        """The variance of standard normal inputs is kept."""
        with torch.no_grad():
            self.activation.reset()
            self.weight.normal_(generator=generator).mul_(self.activation.deviation(self.weight.shape[1]))
            self.bias.zero_()

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """W F(x) + b."""
        return self.activation.product(x, self.weight, self.bias)


class RationalNetwork(nn.Module):
    """Layers whose first activation starts as the identity and the others as swish, as in KAT's blocks.

    Groups divide the hidden width; features that they do not divide are in as many groups as the two have in common.
    """

    def __init__(self, config: RationalKAN, n_in: int, n_out: int, output_activation: Activation) -> None:
        super().__init__()
        if config.hidden_dim < 1 or config.hidden_layers < 0 or config.groups < 1:
            raise InputError(
                f"rational kan: expected hidden_dim and groups >= 1 and hidden_layers >= 0, got {config.hidden_dim}, "
                f"{config.groups} and {config.hidden_layers}"
            )
        if config.hidden_dim % config.groups:
            raise InputError(
                f"rational kan: groups have equal size, but {config.groups} do not divide hidden_dim "
                f"{config.hidden_dim}; take one of "
                f"{', '.join(str(g) for g in range(1, config.hidden_dim + 1) if config.hidden_dim % g == 0)}"
            )
        dims = (n_in, *(config.hidden_dim,) * config.hidden_layers, n_out)
        self.output_activation: Activation = output_activation
        self.layers = nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise(dims)):
            start: Literal["identity", "swish"] = "identity" if i == 0 else "swish"
            activation = RationalActivation(start, a, math.gcd(config.groups, a), config.denominator)
            self.layers.append(RationalLayer(activation, a, b))

    def forward(
        self,
        x: Float[Tensor, "N X"],
        aux: Float[Tensor, "R A"] | None = None,
        index: Int[Tensor, " N"] | None = None,
        at: At | None = None,
    ) -> Float[Tensor, "N O"]:
        """Values for [x, aux[index]]."""
        x = with_aux(x, aux, index)
        for layer in self.layers:
            x = layer(x)
        return reference.activate(self.output_activation, x)
