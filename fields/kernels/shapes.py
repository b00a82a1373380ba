"""What an operation needs to know besides its tensors: sizes of grids, networks and marches, as plain frozen values."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

ALIGNMENT = 16
"""Levels of a table start at multiples of this many entries; the optimiser's marks of what was touched need it."""

Activation = Literal["identity", "relu", "silu", "sine", "sigmoid", "exp"]
Precision = Literal["float32", "bfloat16"]
KanBasis: TypeAlias = Literal["spline", "rbf", "chebyshev", "fourier", "dog", "mexican-hat"]
KAN_BASES: tuple[KanBasis, ...] = get_args(KanBasis)
"""In the order of `BasisKind` in cuda/bases.h."""


@dataclass(frozen=True)
class GridLevelShape:
    """One level of a grid."""

    offset: int
    """First entry in the table."""
    entries: int
    """Entries in the table, a multiple of ALIGNMENT; a power of two where hashed."""
    resolution: int
    """Vertices per axis."""
    hashed: bool
    """Whether vertices share entries by hashing."""
    scale: float
    """Cells per unit length; a point x lies at x * scale + 0.5."""


@dataclass(frozen=True)
class GridShape:
    """A multi-resolution grid in one table."""

    dim: int
    features: int
    """Per level."""
    levels: tuple[GridLevelShape, ...]

    @property
    def entries(self) -> int:
        """Of the whole table."""
        return self.levels[-1].offset + self.levels[-1].entries

    @property
    def width(self) -> int:
        """Values per point."""
        return len(self.levels) * self.features


def grid_growth(levels: int, base: int, finest: int) -> float:
    """By what each level has more cells per axis than the one before it."""
    return math.exp(math.log(finest / base) / (levels - 1)) if levels > 1 else 1.0


@functools.cache
def grid_shape(dim: int, levels: int, features: int, base: int, finest: int, max_entries: int | None) -> GridShape:
    """Levels from `base` to `finest` cells per axis in geometric progression; dense up to `max_entries`, hashed beyond.

    `max_entries` is a power of two, or None for dense levels only.
    """
    growth = grid_growth(levels, base, finest)
    shapes, offset = [], 0
    for level in range(levels):
        scale = base * growth**level - 1
        resolution = math.floor(scale + 0.5) + 2
        dense = resolution**dim
        hashed = max_entries is not None and dense > max_entries
        entries = max_entries if hashed and max_entries is not None else -(-dense // ALIGNMENT) * ALIGNMENT
        shapes.append(GridLevelShape(offset, entries, resolution, hashed, scale))
        offset += entries
    return GridShape(dim, features, tuple(shapes))


@dataclass(frozen=True)
class MlpShape:
    """A perceptron: sizes of its layers and its activations."""

    dims: tuple[int, ...]
    """Input, hidden ..., output."""
    activation: Activation
    output_activation: Activation
    bias: bool
    precision: Precision = "float32"
    """Of the factors in matrix products; sums are float32. Where a processor has no bfloat16, they are float32 too."""

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(a * b + (b if self.bias else 0) for a, b in zip(self.dims, self.dims[1:], strict=False))


@dataclass(frozen=True)
class MarchShape:
    """How rays step. Lengths are edges of the unit cube."""

    resolution: int
    """Cells of the occupancy grid per axis."""
    contracted: bool
    """Whether all of space is squashed into the field's cube; otherwise rays end at the cube."""
    near: float
    far: float
    step: float
    """Smallest step."""
    cone_angle: float
    """A step is at least this times the distance."""
    max_samples: int
    """Per ray."""


@dataclass(frozen=True)
class ModulationAxis:
    """One axis of a modulation grid."""

    vertices: int
    wraps: bool = False
    """Whether 0 and 1 are the same place; then no vertex lies at 1. Otherwise coordinates are held at the borders."""


@dataclass(frozen=True)
class CamShape:
    """A perceptron whose hidden layers are modulated."""

    mlp: MlpShape
    """With a bias, relu or silu, and hidden layers of one width."""
    axes: tuple[ModulationAxis, ...]
    """Of the grids; none where nothing is modulated."""
    each: bool
    """Scale and shift of each channel, or one pair for all of them."""
    normalised: bool
    """Whether what a linear layer gives is normalised over the channels of a sample."""

    @property
    def grids(self) -> tuple[int, int, int, int]:
        """Hidden layers, vertices by axis with the first the quickest, scale and shift, channels."""
        entries = math.prod(axis.vertices for axis in self.axes)
        return len(self.mlp.dims) - 2, entries, 2, self.mlp.dims[1] if self.each else 1
