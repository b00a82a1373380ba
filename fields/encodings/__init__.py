"""Encodings: from coordinates in the unit cube to features that a small network can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from fields.encodings.configs import (
    CP,
    Coordinates,
    Dense,
    DiF,
    EncodingConfig,
    Frequency,
    Hash,
    NeuRBF,
    RandomFourier,
    TcnnHash,
    TriPlane,
    VectorMatrix,
)

if TYPE_CHECKING:
    from fields.encodings.dif import DiFEncoding
    from fields.encodings.frequency import CoordinateEncoding, FrequencyEncoding
    from fields.encodings.grid import GridEncoding
    from fields.encodings.lowrank import CPEncoding, VectorMatrixEncoding
    from fields.encodings.neurbf import NeuRBFEncoding
    from fields.encodings.planes import TriPlaneEncoding
    from fields.encodings.random_fourier import RandomFourierEncoding
    from fields.encodings.tcnn import TcnnGridEncoding

    GridLike = GridEncoding | TcnnGridEncoding | VectorMatrixEncoding | CPEncoding | TriPlaneEncoding
    Encoding = GridLike | FrequencyEncoding | CoordinateEncoding | RandomFourierEncoding | DiFEncoding | NeuRBFEncoding

__all__ = [
    "CP",
    "Coordinates",
    "Dense",
    "DiF",
    "EncodingConfig",
    "Frequency",
    "Hash",
    "NeuRBF",
    "RandomFourier",
    "TcnnHash",
    "TriPlane",
    "VectorMatrix",
    "build_encoding",
]


def build_encoding(config: EncodingConfig, dim: int) -> Encoding:
    """The module of a configuration, for coordinates of `dim` dimensions; `module.width` values come out.

    Raises:
        InputError: the configuration cannot be built, or cannot be built here.
    """
    from fields.encodings.dif import DiFEncoding
    from fields.encodings.frequency import CoordinateEncoding, FrequencyEncoding
    from fields.encodings.grid import GridEncoding
    from fields.encodings.lowrank import CPEncoding, VectorMatrixEncoding
    from fields.encodings.neurbf import NeuRBFEncoding
    from fields.encodings.planes import TriPlaneEncoding
    from fields.encodings.random_fourier import RandomFourierEncoding
    from fields.encodings.tcnn import TcnnGridEncoding

    match config:
        case Hash() | Dense():
            return GridEncoding(config, dim)
        case TcnnHash():
            return TcnnGridEncoding(config, dim)
        case Frequency():
            return FrequencyEncoding(config, dim)
        case Coordinates():
            return CoordinateEncoding(dim)
        case RandomFourier():
            return RandomFourierEncoding(config, dim)
        case VectorMatrix():
            return VectorMatrixEncoding(config, dim)
        case CP():
            return CPEncoding(config, dim)
        case TriPlane():
            return TriPlaneEncoding(config, dim)
        case DiF():
            return DiFEncoding(config, dim)
        case NeuRBF():
            return NeuRBFEncoding(config, dim)
        case _:
            assert_never(config)
