"""Configurations of the encodings; no torch, so that a command line can be built from them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class _HashedLevels:
    levels: int = 8
    """Resolutions, from base to finest in geometric progression."""
    features_per_level: int = 4
    """1, 2, 4 or 8."""
    log2_table_size: int = 17
    """Entries of a level at most, as a power of two."""
    base_resolution: int = 16
    """Cells along an edge of the unit cube at the coarsest level."""
    finest_resolution: int = 1024
    """The same at the finest level."""


@dataclass(frozen=True)
class Hash(_HashedLevels):
    """Multi-resolution grid whose fine levels share a table by hashing (Mueller et al. 2022)."""


@dataclass(frozen=True)
class Dense:
    """Multi-resolution grid with every vertex stored: no collisions, memory by the cube of the resolution."""

    levels: int = 4
    """Resolutions, from base to finest in geometric progression."""
    features_per_level: int = 4
    """1, 2, 4 or 8."""
    base_resolution: int = 16
    """Cells along an edge of the unit cube at the coarsest level."""
    finest_resolution: int = 128
    """The same at the finest level."""


@dataclass(frozen=True)
class TcnnHash(_HashedLevels):
    """The grid of `Hash` by tiny-cuda-nn, in 16-bit floats; needs that library and an NVIDIA GPU."""


@dataclass(frozen=True)
class Frequency:
    """Sines and cosines of growing frequency (Mildenhall et al. 2020), and the coordinates themselves."""

    n_frequencies: int = 10
    """Octaves."""


@dataclass(frozen=True)
class Coordinates:
    """The coordinates alone, in [-1, 1]: what a network with sine activations (SIREN) takes."""


@dataclass(frozen=True)
class RandomFourier:
    """Cosines and sines of random directions and frequencies, drawn once and not fitted (Tancik et al. 2020)."""

    n_frequencies: int = 256
    """Directions; twice as many features come out."""
    sigma: float = 10.0
    """Standard deviation of the frequencies along each axis, in waves across the unit cube."""


@dataclass(frozen=True)
class VectorMatrix:
    """A 3-D grid as a sum of products of planes and lines (TensoRF, Chen et al. 2022)."""

    rank: int = 16
    """Components of each of the three pairs of a plane and a line; a multiple of 8 is quickest."""
    width: int = 32
    """Features that a linear basis makes of all components."""
    base_resolution: int = 64
    """Cells along an edge of the unit cube when fitting begins."""
    resolution: int = 256
    """The same at the end."""
    stages: int = 4
    """Resolutions on the way, in geometric progression."""
    grown_by: float = 0.3
    """Share of the fit that is done when the last one is reached."""


@dataclass(frozen=True)
class CP:
    """A grid as a sum of products of lines, one for each axis (CP decomposition, in Chen et al. 2022)."""

    rank: int = 96
    """Components, which are the features; a multiple of 8 is quickest, and 256 are the most."""
    base_resolution: int = 64
    """Cells along an edge of the unit cube when fitting begins."""
    resolution: int = 512
    """The same at the end."""
    stages: int = 4
    """Resolutions on the way, in geometric progression."""
    grown_by: float = 0.3
    """Share of the fit that is done when the last one is reached."""


@dataclass(frozen=True)
class TriPlane:
    """A plane of features for every pair of axes: 1 in 2-D, 3 in 3-D (EG3D, Chan et al. 2022), 6 in 4-D (K-Planes,
    Fridovich-Keil et al. 2023)."""

    features: int = 16
    """Of each plane and resolution; a multiple of 8 is quickest."""
    levels: int = 2
    """Resolutions of each plane, from base to finest in geometric progression."""
    base_resolution: int = 64
    """Cells along an edge of the unit cube at the coarsest level."""
    finest_resolution: int = 256
    """The same at the finest level."""
    combine: Literal["sum", "concat", "product"] = "product"
    """How planes join: their features are added, put side by side, or multiplied."""


@dataclass(frozen=True)
class DiF:
    """Small dense grids, each tiled over the unit cube: the basis of Factor Fields (Chen et al. 2023)."""

    features: tuple[int, ...] = (4, 4, 4, 2, 2, 2)
    """Of each level: 1, 2, 4 or 8."""
    resolutions: tuple[int, ...] = (32, 51, 70, 89, 108, 128)
    """Cells along an edge of each level's tile."""
    frequencies: tuple[float, ...] = (2.0, 3.2, 4.4, 5.6, 6.8, 8.0)
    """Tiles along an edge of the unit cube."""
    wrap: Literal["sawtooth", "triangle"] = "sawtooth"
    """Tiles are repeated, or every other one is mirrored, which leaves no jumps between them."""
    scale: float = 0.1
    """Deviation of the values that grids start with."""


@dataclass(frozen=True)
class NeuRBF:
    """Radial basis functions in coordinate space with features, read by nearest neighbours (Chen et al. 2023)."""

    resolution: int = 32
    """Cells along an edge of the unit cube, each with one kernel."""
    features: int = 16
    """Of a kernel, and of what comes out."""
    neighbours: int = 4
    """Nearest kernels that a point reads."""
    kernel: Literal["inverse-quadratic", "gaussian"] = "inverse-quadratic"
    """How weights fall with distance."""
    shape: Literal["diagonal", "full"] = "full"
    """Whether kernels are stretched along the axes, or in any direction; learned."""
    jitter: float = 0.5
    """How far centres lie off the middles of their cells, in cells; at most 0.5."""


EncodingConfig: TypeAlias = (
    Hash | Dense | TcnnHash | Frequency | Coordinates | RandomFourier | VectorMatrix | CP | TriPlane | DiF | NeuRBF
)
