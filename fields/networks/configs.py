"""Configurations of the networks; no torch, so that a command line can be built from them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fields.kernels.shapes import KanBasis


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


KanFamily: TypeAlias = Literal["spline", "rbf", "chebyshev", "fourier", "dog", "mexican-hat", "rational"]
Denominator: TypeAlias = Literal["absolute", "even"]


@dataclass(frozen=True)
class KAN:
    """Layers with a learned function of one value on every edge (Kolmogorov-Arnold networks, Liu et al. 2024)."""

    basis: KanBasis = "rbf"
    """What the functions are made of: cubic splines, Gaussians, polynomials of tanh, sines and cosines, or wavelets
    (the first or second derivative of a Gaussian)."""
    hidden_dim: int = 16
    """Width of the hidden layers."""
    hidden_layers: int = 1
    """Number of hidden layers."""
    n_basis: int = 8
    """Functions that each edge is a sum of, besides SiLU; on a grid, its size."""


@dataclass(frozen=True)
class RationalKAN:
    """Linear layers behind learned rational activations (GR-KAN, Yang & Wang 2024), numerators of degree 5 and
    denominators of degree 4."""

    hidden_dim: int = 32
    """Width of the hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers."""
    groups: int = 8
    """Channels of a layer are in so many groups, each with a denominator of its own; divides hidden_dim."""
    denominator: Denominator = "absolute"
    """1 + sum |b_j| |x|^j; or even, 1 + c2^2 x^2 + c4^2 x^4, which has no kink at zero, for signed distances."""


@dataclass(frozen=True)
class SelectableKAN:
    """A network that tries several activation spaces at every node and keeps some (S-KAN, Yang et al. 2024)."""

    hidden_dim: int = 16
    """Width of the hidden layers."""
    hidden_layers: int = 1
    """Number of hidden layers."""
    n_basis: int = 8
    """Functions of an edge in every family, besides SiLU; rational activations are one function."""
    pool: tuple[KanFamily, ...] = ("spline", "rbf", "chebyshev", "fourier", "dog", "rational")
    """The families."""
    gates: Literal["node", "layer"] = "node"
    """Whether each node chooses for itself, or all of a layer together, which computes one family only."""
    keep: int = 1
    """Families that a node keeps in the end; with more than one they are summed."""
    select_at: float = 0.1
    """Progress from which gates sharpen."""
    prune_at: float = 0.3
    """Progress from which only what was chosen is computed and fitted."""


Modulator: TypeAlias = Literal["position", "direction", "time"]


@dataclass(frozen=True)
class CAM:
    """A perceptron whose hidden layers are scaled and shifted by grids over coordinates (Lee et al. 2024)."""

    hidden_dim: int = 64
    """Width of the hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers, all of them modulated."""
    activation: Literal["relu", "silu"] = "relu"
    """After each hidden layer."""
    over: tuple[Modulator, ...] = ()
    """What modulates: position, direction (in colour networks), time (of videos and dynamic scenes). By default time
    where there is one, else direction, else position."""
    resolution: tuple[int, ...] = ()
    """Vertices of the grids, one number per coordinate: those of position, azimuth and elevation, time, in the order of
    `over`. What is missing is 32 per axis of an image or a volume, 10 and 5 of a direction, 5 of time."""
    channels: Literal["single", "each"] = "single"
    """One scale and shift for all channels of a layer, or one for each."""
    norm: Literal["none", "layer", "ray", "instance"] = "layer"
    """What is normalised before: nothing, or the channels of each sample. The paper's norms over rays and whole frames
    need batches that fields are not fitted with, and are refused."""
    modulated: bool = True
    """Off, the same network without its grids, to compare with."""


@dataclass(frozen=True)
class MFN:
    """A multiplicative filter network (Fathony et al. 2021): products of sines of what it reads."""

    hidden_dim: int = 128
    """Sines of each filter, and width of the linear layers between."""
    hidden_layers: int = 3
    """Linear layers between filters, of which there is one more."""
    omega: float = 1.0
    """Frequency factor: filter l turns by about 2 pi omega gamma radians per unit, gamma from Gamma(6 / (l + 1), 1)."""


@dataclass(frozen=True)
class Bottleneck:
    """A residual trunk, wide where it carries features and narrow in its blocks (Chen et al. 2025, "Hourglass MLP")."""

    hidden_dim: int = 64
    """Width of the trunk."""
    bottleneck_dim: int = 16
    """Width inside a block."""
    blocks: int = 2
    """Narrow perceptrons, each added to the trunk."""
    activation: Literal["relu", "silu"] = "relu"
    """Inside a block."""
    norm: bool = False
    """Whether a block reads the trunk divided by its root mean square (Zhang and Sennrich 2019); its sum never is."""


@dataclass(frozen=True)
class GLU:
    """A gated perceptron, linear times SiLU of linear in each layer (Shazeer 2020, "SwiGLU")."""

    hidden_dim: int = 64
    """Width of the hidden layers."""
    hidden_layers: int = 2
    """Number of hidden layers."""


@dataclass(frozen=True)
class RBF:
    """One layer of anisotropic Gaussian neurons in feature space (Bouzidi et al. 2025, Gaussian RBFNet)."""

    n_neurons: int = 64
    """Gaussians."""
    least_scale: float = 0.1
    """Centres are spread at least so far over the features, which start at almost zero in some encodings."""
    anisotropy: float = 1.0
    """Deviation of log precisions at the start: above zero, each neuron looks at some features more than at others."""


@dataclass(frozen=True)
class Harmonics:
    """Colour as spherical harmonics of the direction, whose coefficients are the latent vector (Yu et al. 2021).

    For the colour of radiance fields, with a latent_dim of 1 + 3 harmonics_degree^2; it has no parameters.
    """


NetworkConfig: TypeAlias = (
    MLP | TcnnMLP | CAM | KAN | RationalKAN | SelectableKAN | MFN | Bottleneck | GLU | RBF | Harmonics
)
