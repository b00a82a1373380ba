"""Networks: from features to values."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from fields.kernels.shapes import Activation
from fields.networks.configs import (
    CAM,
    GLU,
    KAN,
    MFN,
    MLP,
    RBF,
    Bottleneck,
    Harmonics,
    NetworkConfig,
    RationalKAN,
    SelectableKAN,
    TcnnMLP,
)

if TYPE_CHECKING:
    from fields.contracts import AtShape
    from fields.networks.bottleneck import BottleneckTrunk
    from fields.networks.cam import CamPerceptron
    from fields.networks.glu import GatedPerceptron
    from fields.networks.harmonics import HarmonicsHead
    from fields.networks.kan.layer import KanNetwork
    from fields.networks.kan.rational import RationalNetwork
    from fields.networks.kan.selectable import SelectableNetwork
    from fields.networks.mfn import FilterNetwork
    from fields.networks.mlp import Perceptron
    from fields.networks.rbf import GaussianLayer
    from fields.networks.tcnn import TcnnPerceptron

    Network = (
        Perceptron
        | TcnnPerceptron
        | CamPerceptron
        | KanNetwork
        | RationalNetwork
        | SelectableNetwork
        | FilterNetwork
        | BottleneckTrunk
        | GatedPerceptron
        | GaussianLayer
        | HarmonicsHead
    )

__all__ = [
    "CAM",
    "GLU",
    "KAN",
    "MFN",
    "MLP",
    "RBF",
    "Bottleneck",
    "Harmonics",
    "NetworkConfig",
    "RationalKAN",
    "SelectableKAN",
    "TcnnMLP",
    "build_network",
]


def build_network(
    config: NetworkConfig,
    n_in: int,
    n_out: int,
    output_activation: Activation = "identity",
    at: AtShape | None = None,
) -> Network:
    """The module of a configuration; `at` says what it will be told of where samples lie, if that is known.

    Raises:
        InputError: the configuration cannot be built, or cannot be built here.
    """
    from fields.networks.bottleneck import BottleneckTrunk
    from fields.networks.cam import CamPerceptron
    from fields.networks.glu import GatedPerceptron
    from fields.networks.harmonics import HarmonicsHead
    from fields.networks.kan.layer import KanNetwork
    from fields.networks.kan.rational import RationalNetwork
    from fields.networks.kan.selectable import SelectableNetwork
    from fields.networks.mfn import FilterNetwork
    from fields.networks.mlp import Perceptron
    from fields.networks.rbf import GaussianLayer
    from fields.networks.tcnn import TcnnPerceptron

    match config:
        case MLP():
            return Perceptron(config, n_in, n_out, output_activation)
        case TcnnMLP():
            return TcnnPerceptron(config, n_in, n_out, output_activation)
        case KAN():
            return KanNetwork(config, n_in, n_out, output_activation)
        case RationalKAN():
            return RationalNetwork(config, n_in, n_out, output_activation)
        case SelectableKAN():
            return SelectableNetwork(config, n_in, n_out, output_activation)
        case CAM():
            return CamPerceptron(config, n_in, n_out, output_activation, at)
        case MFN():
            return FilterNetwork(config, n_in, n_out, output_activation)
        case Bottleneck():
            return BottleneckTrunk(config, n_in, n_out, output_activation)
        case GLU():
            return GatedPerceptron(config, n_in, n_out, output_activation)
        case RBF():
            return GaussianLayer(config, n_in, n_out, output_activation)
        case Harmonics():
            return HarmonicsHead(n_in, n_out, output_activation)
        case _:
            assert_never(config)
