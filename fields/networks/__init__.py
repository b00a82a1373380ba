"""Networks: from features to values."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from fields.kernels.shapes import Activation
from fields.networks.configs import MLP, NetworkConfig, TcnnMLP

if TYPE_CHECKING:
    from fields.networks.mlp import Perceptron
    from fields.networks.tcnn import TcnnPerceptron

    Network = Perceptron | TcnnPerceptron

__all__ = ["MLP", "NetworkConfig", "TcnnMLP", "build_network"]


def build_network(config: NetworkConfig, n_in: int, n_out: int, output_activation: Activation = "identity") -> Network:
    """The module of a configuration.

    Raises:
        InputError: the configuration cannot be built, or cannot be built here.
    """
    from fields.networks.mlp import Perceptron
    from fields.networks.tcnn import TcnnPerceptron

    match config:
        case MLP():
            return Perceptron(config, n_in, n_out, output_activation)
        case TcnnMLP():
            return TcnnPerceptron(config, n_in, n_out, output_activation)
        case _:
            assert_never(config)
