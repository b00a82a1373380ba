"""Hashed grids by tiny-cuda-nn: the levels of `fields.encodings.grid`, computed and stored by that library.

Level l has base growth^l - 1 cells per unit length, and a point x lies at x scale + 0.5, in both. What differs: a dense
level has no vertices behind the last one, so that within half a cell of the far faces it wraps around; tables are
multiples of 8 entries; features and sums of gradients are 16-bit floats.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings.configs import TcnnHash
from fields.encodings.grid import shape_of
from fields.kernels import tcnn
from fields.kernels.gpu_libraries import library
from fields.kernels.shapes import grid_growth


def settings(config: TcnnHash) -> dict[str, str | int | float]:
    """A configuration in the words of tiny-cuda-nn's DOCUMENTATION.md."""
    return {
        "otype": "Grid",
        "type": "Hash",
        "n_levels": config.levels,
        "n_features_per_level": config.features_per_level,
        "log2_hashmap_size": config.log2_table_size,
        "base_resolution": config.base_resolution,
        "per_level_scale": grid_growth(config.levels, config.base_resolution, config.finest_resolution),
        "interpolation": "Linear",
    }


class TcnnGridEncoding(nn.Module):
    """Features interpolated from every level's vertices, one level after another."""

    def __init__(self, config: TcnnHash, dim: int) -> None:
        super().__init__()
        self.width = shape_of(config, dim).width
        self.grid = tcnn.prepared(library("tinycudann", "--encoding hash").Encoding(dim, settings(config)))

    @property
    def table(self) -> nn.Parameter:
        """All features, float32, one after another."""
        return self.grid.params

    def grid_parameters(self) -> list[nn.Parameter]:
        """The table."""
        return [self.table]

    def initialise(self, generator: torch.Generator) -> None:
        """Nearly zero, as ours."""
        tcnn.initialise(self.grid, generator)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N LF"]:
        """Features of all levels at points of the unit cube."""
        return tcnn.evaluate(self.grid, x.clamp(0, 1), self.width)
