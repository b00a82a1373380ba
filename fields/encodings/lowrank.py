"""Low-rank grids: a 3-D grid as a sum of products of planes and lines, and a grid of any dimension of lines alone.

TensoRF (Chen et al. 2022): component r of mode k is M_r(x_i, x_j) v_r(x_k), (i, j, k) = (1, 2, 0), (0, 2, 1), (0, 1, 2)
(eq. 5), and of CP it is v_r^0(x_0) v_r^1(x_1) .. (eq. 2). Components are not summed but are features: a linear basis
mixes those of VM (eq. 8), and of CP the first layer of the network that reads them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings.configs import CP, VectorMatrix
from fields.encodings.factors import Factor, Growth, check_room, product


def growth_of(config: VectorMatrix | CP) -> Growth:
    """How the resolution of a configuration grows. Raises InputError."""
    return Growth.geometric(config.base_resolution, config.resolution, config.stages, config.grown_by)


class VectorMatrixEncoding(nn.Module):
    """Products of planes and lines, one pair for each axis, mixed by a linear basis."""

    def __init__(self, config: VectorMatrix, dim: int) -> None:
        super().__init__()
        check_room("tensorf", dim, (3,), "cp or --encoding triplane")
        growth = growth_of(config)
        pairs = [tuple(a for a in range(3) if a != axis) for axis in range(3)]
        self.planes = nn.ModuleList(Factor(pair, config.rank, growth) for pair in pairs)
        self.lines = nn.ModuleList(Factor((axis,), config.rank, growth) for axis in range(3))
        self.width = config.width
        self.basis = nn.Parameter(torch.empty(config.width, 3 * config.rank))

    def initialise(self, generator: torch.Generator) -> None:
        """The authors' deviation of 0.1, but lines around one instead of zero: a component starts as its plane, and
        the gradients of neither vanish."""
        for plane, line in zip(self.planes, self.lines, strict=True):
            assert isinstance(plane, Factor) and isinstance(line, Factor)
            plane.draw(0.0, 0.1, generator)
            line.draw(1.0, 0.1, generator)
        bound = math.sqrt(3 / self.basis.shape[1])
        with torch.no_grad():
            self.basis.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N W"]:
        """Features at points of the unit cube."""
        components = [plane(x) * line(x) for plane, line in zip(self.planes, self.lines, strict=True)]
        return nn.functional.linear(torch.cat(components, dim=1), self.basis)


class CPEncoding(nn.Module):
    """Products of one line for each axis."""

    def __init__(self, config: CP, dim: int) -> None:
        super().__init__()
        check_room("cp", dim, (2, 3, 4), "frequency")
        growth = growth_of(config)
        self.lines = nn.ModuleList(Factor((axis,), config.rank, growth) for axis in range(dim))
        self.width = config.rank

    def initialise(self, generator: torch.Generator) -> None:
        """Lines around one with either sign, so that a product of them is neither tiny nor the same for all."""
        for line in self.lines:
            assert isinstance(line, Factor)
            line.draw(0.0, 0.5, generator)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N W"]:
        """Features at points of the unit cube."""
        return product([line(x) for line in self.lines])
