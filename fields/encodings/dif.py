"""The basis part of Factor Fields' DiF-Grid (Chen et al. 2023): dense grids, each tiled over the unit cube.

Level l interpolates a small grid at wrap(x f_l). Frequencies differ from level to level, so that two points that share
a vertex in one level rarely share one in the others: what a hash table reaches by collisions, at low resolutions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings.configs import Dense, DiF
from fields.encodings.grid import GridEncoding
from scenes.errors import InputError


class TiledGrid(GridEncoding):
    """One level: a dense grid that starts at normal values."""

    def __init__(self, features: int, resolution: int, scale: float, dim: int) -> None:
        super().__init__(Dense(1, features, resolution, resolution), dim)
        self.scale = scale

    def initialise(self, generator: torch.Generator) -> None:
        """Normal values with the deviation of the configuration."""
        with torch.no_grad():
            self.table.normal_(0, self.scale, generator=generator)


class DiFEncoding(nn.Module):
    """Features of all levels, one level after another."""

    def __init__(self, config: DiF, dim: int) -> None:
        super().__init__()
        sizes = len(config.features), len(config.resolutions), len(config.frequencies)
        if min(sizes) < 1 or len(set(sizes)) > 1:
            raise InputError(
                "dif: expected as many features, resolutions and frequencies as levels, got "
                f"{', '.join(map(str, sizes))}"
            )
        if min(config.frequencies) <= 0 or config.scale <= 0:
            raise InputError(f"dif: expected frequencies and scale > 0, got {config.frequencies} and {config.scale}")
        self.wrap = config.wrap
        self.frequencies = config.frequencies
        self.levels = nn.ModuleList(
            TiledGrid(features, resolution, config.scale, dim)
            for features, resolution in zip(config.features, config.resolutions, strict=True)
        )
        self.width = sum(config.features)

    def tiled(self, x: Float[Tensor, "N D"], frequency: float) -> Float[Tensor, "N D"]:
        """Where x lies in a tile: a sawtooth repeats it, a triangle wave mirrors every other one."""
        phase = x * frequency
        if self.wrap == "sawtooth":
            # The far face of the cube belongs to the last tile, or it would jump to the first vertex.
            whole = phase.detach().floor()
            return phase - torch.where((phase.detach() == whole) & (x.detach() >= 1), whole - 1, whole)
        return 1 - (phase - 2 * (phase.detach() / 2).floor() - 1).abs()

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Features at points of the unit cube."""
        x = x.clamp(0, 1)
        levels = zip(self.levels, self.frequencies, strict=True)
        return torch.cat([grid(self.tiled(x, frequency)) for grid, frequency in levels], dim=1)
