"""A basis as a module: what layers multiply with their weights, and the grid that its splines keep."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.kernels import kan
from fields.kernels import reference_bases as bases
from fields.kernels.shapes import KanBasis
from scenes.errors import InputError

ADAPTED = 0.5
"""Of a knot's place, what follows the data; the rest keeps the grid even, so that knots never meet."""
REACH = 1.0
"""Grids reach this far to both sides at least: tables of features start at zero and grow while they are fitted."""
RIDGE = 1e-9


class Basis(nn.Module):
    """`count` functions of each of `n_in` inputs."""

    knots: Tensor

    def __init__(self, kind: KanBasis, n_in: int, count: int) -> None:
        super().__init__()
        least = bases.ORDER + 1 if kind == "spline" else 2
        if count < least or (kind == "fourier" and count % 2):
            even = ", an even number" if kind == "fourier" else ""
            raise InputError(f"n_basis: expected {least} or more{even} for {kind}, got {count}")
        self.kind: KanBasis = kind
        self.count = self.terms = count
        if kind == "spline":
            self.register_buffer("knots", bases.even_knots(count).repeat(n_in, 1))

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N I B"]:
        """All functions of all inputs."""
        return bases.terms(self.kind, x, self.count, self.grid())

    def grid(self) -> Tensor | None:
        """The knots of splines [I, K]."""
        return self.knots if self.kind == "spline" else None

    def product(
        self, x: Float[Tensor, "N I"], weight: Float[Tensor, "O IT"], bias: Float[Tensor, " O"]
    ) -> Float[Tensor, "N O"]:
        """Weighted sums over inputs and functions. Weights for one term more per input are those of its SiLU."""
        return kan.basis_layer(x, weight, bias, self.kind, self.count, self.grid())

    def deviation(self, n_in: int, from_zero: bool = False) -> float:
        """Of weights that give outputs of variance one for standard normal inputs, on the even grid; with `from_zero`
        if what they give for zero is taken off."""

        def terms(x: Tensor) -> Tensor:
            if self.kind == "spline":
                return bases.spline(x, bases.even_knots(self.count).to(x)[None])
            return self(x)

        def changes(x: Tensor) -> Tensor:
            return terms(x) - terms(torch.zeros_like(x))

        return 1 / math.sqrt(n_in * bases.power(changes if from_zero else terms))

    @torch.no_grad()
    def update_grid(self, x: Float[Tensor, "N I"], weight: Float[Tensor, "O I B"]) -> Float[Tensor, "O I B"]:
        """Move the knots towards the quantiles of `x`; the weights of the same functions on the new grid, by least
        squares over `x` and the whole grid. Other bases have no grid that moves."""
        x = x[torch.isfinite(x).all(1)].double()
        if self.kind != "spline" or len(x) == 0:
            return weight
        intervals = self.count - bases.ORDER
        share = torch.linspace(0, 1, intervals + 1, dtype=x.dtype, device=x.device)
        quantiles = torch.quantile(x, share, dim=0).T  # [I, intervals + 1]
        low, high = quantiles[:, :1].clamp(max=-REACH), quantiles[:, -1:].clamp(min=REACH)
        even = low + (high - low) * share
        grid = ADAPTED * quantiles + (1 - ADAPTED) * even
        grid = torch.cat([low, grid[:, 1:-1], high], dim=1)
        knots = bases.extended(grid)
        points = torch.cat([x, (low + (high - low) * torch.linspace(0, 1, 64, dtype=x.dtype, device=x.device)).T])
        target = torch.einsum("nib,oib->ino", bases.spline(points, self.knots.double()), weight.double())
        terms = bases.spline(points, knots).transpose(0, 1)  # [I, points, B]
        normal = terms.mT @ terms
        ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(self.count, device=x.device)
        fitted = torch.linalg.solve(normal + ridge, terms.mT @ target)  # [I, B, O]
        self.knots.copy_(knots)
        return fitted.permute(2, 0, 1).to(weight.dtype)
