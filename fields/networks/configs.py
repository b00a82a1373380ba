"""Configurations of the networks; no torch, so that a command line can be built from them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class MLP:
    """A perceptron with equal hidden layers."""

    hidden_dim: int = 64
    """Width of the hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers."""
    activation: Literal["relu", "silu", "sine"] = "relu"
    """After each hidden layer; sine makes it a SIREN (Sitzmann et al. 2020), with its initialisation."""
    bias: bool = False
    """Whether layers add a bias; features of a grid need none."""
    omega: float = 30.0
    """Frequency factor of the first sine layer."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the factors in products, where the processor has bfloat16; parameters and sums are float32."""


@dataclass(frozen=True)
class TcnnMLP:
    """The fully fused perceptron of tiny-cuda-nn, in 16-bit floats; needs that library and an NVIDIA GPU."""

    hidden_dim: int = 64
    """Width of the hidden layers: 16, 32, 64 or 128."""
    hidden_layers: int = 2
    """Number of hidden layers, with a ReLU after each."""


NetworkConfig: TypeAlias = MLP | TcnnMLP
