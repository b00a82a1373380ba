"""Planes of features for every pair of axes: tri-planes of EG3D (Chan et al. 2022) in 3-D, K-Planes (Fridovich-Keil et
al. 2023) in any dimension. Outside of the cube the border holds; nothing fades to zero there.
"""

from __future__ import annotations

import itertools
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings.configs import TriPlane
from fields.encodings.factors import check_room, dense_grids, product
from fields.encodings.table import GridTable
from scenes.errors import InputError


class TriPlaneEncoding(nn.Module):
    """D (D - 1) / 2 planes, each at one or several resolutions, which are concatenated."""

    def __init__(self, config: TriPlane, dim: int) -> None:
        super().__init__()
        check_room("triplane", dim, (2, 3, 4), "frequency")
        if config.levels < 1 or not 2 <= config.base_resolution <= config.finest_resolution:
            raise InputError(
                "triplane: expected levels >= 1 and 2 <= base_resolution <= finest_resolution, got "
                f"{config.levels}, {config.base_resolution}, {config.finest_resolution}"
            )
        self.combine: Literal["sum", "concat", "product"] = config.combine
        self.pairs = list(itertools.combinations(range(dim), 2))
        shape = dense_grids(2, config.features, resolutions_of(config))
        self.planes = nn.ModuleList(GridTable(shape) for _ in self.pairs)
        self.width = shape.width * (len(self.pairs) if config.combine == "concat" else 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Small noise where planes add, N(0, 0.1^2); around one where they multiply, as in K-Planes."""
        mean = 1.0 if self.combine == "product" and len(self.pairs) > 1 else 0.0
        with torch.no_grad():
            for plane in self.planes:
                assert isinstance(plane, GridTable)
                plane.table.normal_(mean, 0.1, generator=generator)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N W"]:
        """Features at points of the unit cube."""
        values = [plane(x[:, pair]) for plane, pair in zip(self.planes, self.pairs, strict=True)]
        match self.combine:
            case "sum":
                return torch.stack(values).sum(0) if len(values) > 1 else values[0]
            case "product":
                return product(values)
            case "concat":
                return torch.cat(values, dim=1)
            case _:
                assert_never(self.combine)


def resolutions_of(config: TriPlane) -> list[int]:
    """Cells along an edge, level by level, in geometric progression."""
    if config.levels == 1:
        return [config.finest_resolution]
    growth = (config.finest_resolution / config.base_resolution) ** (1 / (config.levels - 1))
    return [round(config.base_resolution * growth**level) for level in range(config.levels)]
