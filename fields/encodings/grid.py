"""Multi-resolution feature grids, dense or hashed, in one table of float32 features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fields.encodings.configs import Dense, Hash, TcnnHash
from fields.encodings.table import GridTable
from fields.kernels import ops
from fields.kernels.shapes import GridShape, grid_shape
from scenes.errors import InputError


def shape_of(config: Hash | Dense | TcnnHash, dim: int) -> GridShape:
    """Levels and table of a configuration.

    Raises:
        InputError: a configuration that no kernel computes, or a table beyond any memory.
    """
    if config.features_per_level not in (1, 2, 4, 8):
        raise InputError(f"features_per_level: expected 1, 2, 4 or 8, got {config.features_per_level}")
    if config.levels < 1 or config.base_resolution < 1 or config.finest_resolution < config.base_resolution:
        raise InputError(
            f"grid: expected levels >= 1 and 1 <= base_resolution <= finest_resolution, got {config.levels}, "
            f"{config.base_resolution}, {config.finest_resolution}"
        )
    limit = None
    if not isinstance(config, Dense):
        if not 4 <= config.log2_table_size <= 26:
            raise InputError(f"log2_table_size: expected 4 to 26, got {config.log2_table_size}")
        limit = 2**config.log2_table_size
    shape = grid_shape(
        dim, config.levels, config.features_per_level, config.base_resolution, config.finest_resolution, limit
    )
    if shape.entries * shape.features > 2**31:
        raise InputError(
            f"grid: {shape.entries * shape.features:,} parameters are too many; lower finest_resolution, or use hash"
        )
    return shape


class GridEncoding(GridTable):
    """The table of a configuration."""

    def __init__(self, config: Hash | Dense, dim: int) -> None:
        super().__init__(shape_of(config, dim))

    def forward(self, x: Float[Tensor, "N D"], known: Float[Tensor, "N LF"] | None = None) -> Float[Tensor, "N LF"]:
        """Features of all levels at points of the unit cube. Where they are `known`, having been computed without
        gradients, they are not computed again."""
        return ops.grid_encode(x, self.table, self.shape, self.gathered, known)

    def initialise(self, generator: torch.Generator) -> None:
        """Nearly zero, as in the paper: the network starts on a flat field."""
        with torch.no_grad():
            self.table.uniform_(-1e-4, 1e-4, generator=generator)
