"""A network with a learned function on every edge: y_o = b_o + sum_i (sum_g C_oig B_g(x_i) + W_oi silu(x_i)).

Computed as features times a matrix, N x (I B) by (I B) x O: nothing has the size N x O x I.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.contracts import At, with_aux
from fields.kernels import reference
from fields.kernels.shapes import Activation, KanBasis
from fields.networks.configs import KAN, SelectableKAN
from fields.networks.kan.basis import Basis
from scenes.errors import InputError

SILU_GAIN = math.sqrt(2.8178)
"""1 / sqrt(E[silu(x)^2]) for standard normal x."""


class KanLayer(nn.Module):
    """One layer; half of an output's variance at the start comes from the basis, half from SiLU. At the start it is
    zero at zero, where features of a grid begin."""

    def __init__(self, kind: KanBasis, n_in: int, n_out: int, n_basis: int) -> None:
        super().__init__()
        self.basis = Basis(kind, n_in, n_basis)
        self.weight = nn.Parameter(torch.empty(n_out, n_in, n_basis + 1))
        self.bias = nn.Parameter(torch.empty(n_out))

    def initialise(self, generator: torch.Generator) -> None:
        """Outputs of variance one for standard normal inputs."""
        n_in = self.weight.shape[1]
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            self.weight[:, :, :-1] *= math.sqrt(0.5) * self.basis.deviation(n_in, from_zero=True)
            self.weight[:, :, -1] *= math.sqrt(0.5 / n_in) * SILU_GAIN
            self.bias.zero_()
            self.bias.sub_(self(self.weight.new_zeros(1, n_in))[0])

    def update_grid(self, x: Float[Tensor, "N I"]) -> None:
        """Knots to where inputs like `x` lie; the layer stays the same function."""
        with torch.no_grad():
            self.weight[:, :, :-1] = self.basis.update_grid(x, self.weight[:, :, :-1])

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """Sums of learned functions."""
        return self.basis.product(x, self.weight.flatten(1), self.bias)


@runtime_checkable
class LearnedFunctions(Protocol):
    """A layer that can lay its functions' grids anew."""

    def update_grid(self, x: Float[Tensor, "N I"]) -> None:
        """Grids to where inputs like `x` lie."""
        ...


class KanStack(nn.Module):
    """Layers of learned functions, one after another."""

    def __init__(
        self,
        name: str,
        config: KAN | SelectableKAN,
        n_in: int,
        n_out: int,
        output_activation: Activation,
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        if config.hidden_dim < 1 or config.hidden_layers < 0:
            raise InputError(
                f"{name}: expected hidden_dim >= 1 and hidden_layers >= 0, got {config.hidden_dim} and "
                f"{config.hidden_layers}"
            )
        dims = (n_in, *(config.hidden_dim,) * config.hidden_layers, n_out)
        self.output_activation: Activation = output_activation
        self.layers = nn.ModuleList(itertools.starmap(layer, itertools.pairwise(dims)))

    def calibrate(self, x: Float[Tensor, "N X"], generator: torch.Generator) -> None:
        """Fit the grids of splines to what each layer sees."""
        for layer in self.layers:
            assert isinstance(layer, LearnedFunctions)
            layer.update_grid(x)
            x = layer(x)

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


class KanNetwork(KanStack):
    """Layers of one basis."""

    def __init__(self, config: KAN, n_in: int, n_out: int, output_activation: Activation) -> None:
        def layer(a: int, b: int) -> KanLayer:
            return KanLayer(config.basis, a, b, config.n_basis)

        super().__init__("kan", config, n_in, n_out, output_activation, layer)
