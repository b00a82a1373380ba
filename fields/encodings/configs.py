"""Configurations of the encodings; no torch, so that a command line can be built from them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Hash:
    """Multi-resolution grid whose fine levels share a table by hashing (Mueller et al. 2022)."""

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
class TcnnHash:
    """The grid of `Hash` by tiny-cuda-nn, in 16-bit floats; needs that library and an NVIDIA GPU."""

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
class Frequency:
    """Sines and cosines of growing frequency (Mildenhall et al. 2020), and the coordinates themselves."""

    n_frequencies: int = 10
    """Octaves."""


@dataclass(frozen=True)
class Coordinates:
    """The coordinates alone, in [-1, 1]: what a network with sine activations (SIREN) takes."""


EncodingConfig: TypeAlias = Hash | Dense | TcnnHash | Frequency | Coordinates
