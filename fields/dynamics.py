"""What moves in a radiance field: how time enters its features.

Letters: N points of the unit cube x, each at a time t in [0, 1]; K features of the field's encoding. A static field has
the features encoding(x); each of these makes other ones of encoding, x and t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.encodings import Hash
from fields.encodings.grid import GridEncoding
from fields.kernels import ops, reference
from fields.networks.configs import MLP
from fields.networks.mlp import Perceptron
from scenes.errors import InputError

Encode: TypeAlias = Callable[[Tensor], Tensor]
"""Points [N, 3] to features [N, K]: the field's own encoding."""
MOST_FREQUENCIES = 24


@dataclass(frozen=True)
class Static:
    """Nothing moves; times are ignored."""


@dataclass(frozen=True)
class TimeFeatures:
    """Time as further features, by sines and cosines (T-NeRF of Pumarola et al. 2021)."""

    n_frequencies: int = 4
    """Octaves of time."""


@dataclass(frozen=True)
class Deformation:
    """A network moves each point to where it is in a field that does not change (D-NeRF, Pumarola et al. 2021)."""

    hidden_dim: int = 64
    """Width of the network's hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers."""
    position_frequencies: int = 4
    """Octaves of position that it reads."""
    time_frequencies: int = 4
    """Octaves of time that it reads."""
    reach: float = 0.1
    """The network's values count in this many edges of the unit cube: small, so that points move gently at first."""
    time_features: int = 4
    """Octaves of time that are features too, for what changes without moving, such as shadows; 0 for none."""


@dataclass(frozen=True)
class SpaceTime:
    """A hashed grid over position and time beside the field's own encoding of position, which keeps what stands still
    (static and dynamic features of Masked Space-Time Hash Encoding, Wang et al. 2023, without its mask)."""

    levels: int = 4
    """Resolutions, from base to finest in geometric progression."""
    features_per_level: int = 4
    """1, 2, 4 or 8."""
    log2_table_size: int = 17
    """Entries of a level at most, as a power of two."""
    base_resolution: int = 16
    """Cells along an edge of the unit cube at the coarsest level."""
    finest_resolution: int = 256
    """The same at the finest level."""
    time_resolution: int = 24
    """Cells along time at the finest level; coarser levels have fewer, in proportion."""


DynamicsConfig: TypeAlias = Static | TimeFeatures | Deformation | SpaceTime


def waves(x: Float[Tensor, "N D"], n_frequencies: int) -> Float[Tensor, "N K"]:
    """The coordinates in [-1, 1], then (sin, cos)(2^k pi x) of each."""
    return torch.cat([2 * x - 1, ops.frequency(x, n_frequencies)], dim=1)


class TimeFeatureDynamics(nn.Module):
    """[encoding(x), waves(t)]."""

    def __init__(self, config: TimeFeatures) -> None:
        super().__init__()
        self.n_frequencies = _octaves("n_frequencies", config.n_frequencies, 1)
        self.width = 1 + 2 * self.n_frequencies
        """Features beside those of the encoding."""

    def forward(self, encode: Encode, x: Float[Tensor, "N 3"], t: Float[Tensor, "N 1"]) -> Float[Tensor, "N KT"]:
        """Features of points at times."""
        return torch.cat([encode(x), waves(t, self.n_frequencies)], dim=1)


class Offsets(Perceptron):
    """A perceptron whose values are zero at first."""

    def initialise(self, generator: torch.Generator) -> None:
        """As any, but for the last layer."""
        super().initialise(generator)
        with torch.no_grad():
            for part in reference.mlp_layers(self.params, self.shape)[-1]:
                if part is not None:
                    part.zero_()


class DeformationDynamics(nn.Module):
    """[encoding(x + offset(x, t)), waves(t)], points kept in the unit cube.

    The offsets are zero at first, so that it starts as a static field.
    """

    def __init__(self, config: Deformation) -> None:
        super().__init__()
        self.config = config
        of_position = 3 * (1 + 2 * _octaves("position_frequencies", config.position_frequencies, 1))
        of_time = 1 + 2 * _octaves("time_frequencies", config.time_frequencies, 1)
        network = MLP(hidden_dim=config.hidden_dim, hidden_layers=config.hidden_layers, bias=True)
        self.network = Offsets(network, of_position + of_time, 3, "identity")
        n = _octaves("time_features", config.time_features, 0)
        self.width = 1 + 2 * n if n else 0
        """Features beside those of the encoding."""

    def offset(self, x: Float[Tensor, "N 3"], t: Float[Tensor, "N 1"]) -> Float[Tensor, "N 3"]:
        """From where a point is at time t to where it is in the field that does not change."""
        c = self.config
        read = torch.cat([waves(x, c.position_frequencies), waves(t, c.time_frequencies)], dim=1)
        return c.reach * self.network(read)

    def forward(self, encode: Encode, x: Float[Tensor, "N 3"], t: Float[Tensor, "N 1"]) -> Float[Tensor, "N KT"]:
        """Features of points at times."""
        features = encode((x + self.offset(x, t)).clamp(0, 1))
        return torch.cat([features, waves(t, self.config.time_features)], dim=1) if self.width else features


class SpaceTimeDynamics(nn.Module):
    """[encoding(x), grid(x, t)]."""

    def __init__(self, config: SpaceTime) -> None:
        super().__init__()
        if not 1 <= config.time_resolution <= config.finest_resolution:
            raise InputError(
                f"time_resolution: expected 1 to finest_resolution {config.finest_resolution}, "
                f"got {config.time_resolution}"
            )
        self.pace = config.time_resolution / config.finest_resolution
        """Edges of the grid's cube that all of time is long."""
        sizes = config.levels, config.features_per_level, config.log2_table_size
        self.grid = GridEncoding(Hash(*sizes, config.base_resolution, config.finest_resolution), 4)
        self.width = self.grid.width
        """Features beside those of the encoding."""

    def forward(self, encode: Encode, x: Float[Tensor, "N 3"], t: Float[Tensor, "N 1"]) -> Float[Tensor, "N KT"]:
        """Features of points at times."""
        return torch.cat([encode(x), self.grid(torch.cat([x, self.pace * t], dim=1))], dim=1)


Dynamics: TypeAlias = TimeFeatureDynamics | DeformationDynamics | SpaceTimeDynamics


def build_dynamics(config: DynamicsConfig) -> Dynamics | None:
    """The module of a configuration; None where nothing moves.

    Raises:
        InputError: the configuration cannot be built.
    """
    match config:
        case Static():
            return None
        case TimeFeatures():
            return TimeFeatureDynamics(config)
        case Deformation():
            return DeformationDynamics(config)
        case SpaceTime():
            return SpaceTimeDynamics(config)
        case _:
            assert_never(config)


def _octaves(name: str, n: int, least: int) -> int:
    if not least <= n <= MOST_FREQUENCIES:
        raise InputError(f"{name}: expected {least} to {MOST_FREQUENCIES}, got {n}")
    return n
