"""Networks: from features to values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fields.kernels.shapes import Activation
from fields.networks.configs import MLP, NetworkConfig

if TYPE_CHECKING:
    from fields.networks.mlp import Perceptron

    Network = Perceptron

__all__ = ["MLP", "NetworkConfig", "build_network"]


def build_network(config: NetworkConfig, n_in: int, n_out: int, output_activation: Activation = "identity") -> Network:
    """The module of a configuration."""
    from fields.networks.mlp import Perceptron

    return Perceptron(config, n_in, n_out, output_activation)
