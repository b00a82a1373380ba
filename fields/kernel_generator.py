"""Convolution kernels of any size from a network of coordinates, and two layers that apply them to whole signals.

A kernel's value at offset c in [-1, 1]^d is the output of a multiplicative filter network at c (Romero et al. 2022,
"FlexConv"); a size is only a choice of offsets. With the kernel as large as the signal Z [B, C, *S], layers are

    K * Z                 `GlobalKernel`             (K * Z) * Z           `GatedKernel`

where the first product is elementwise or a convolution and the last one elementwise (Zhang 2024, "HyperZZW").
Kernels are divided by the root of how many terms are summed (Chang et al. 2020), so that layers keep the size of Z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.networks.configs import MFN
from fields.networks.mfn import FilterNetwork

Form: TypeAlias = Literal["product", "convolution"]
KERNEL = MFN(hidden_dim=32, hidden_layers=2, omega=1.0)


class KernelGenerator(nn.Module):
    """One kernel for each channel, of any size: a function on [-1, 1]^d."""

    def __init__(self, config: MFN, dim: int, channels: int) -> None:
        super().__init__()
        self.dim, self.channels = dim, channels
        self.network = FilterNetwork(config, dim, channels, "identity")
        # What makes first values have unit mean square: `FilterNetwork.initialise` says what they are without it.
        self.gain = math.sqrt(2 / (1 - 0.5 ** (config.hidden_layers + 1)))

    def forward(self, size: Sequence[int], n_terms: int) -> Float[Tensor, "C *K"]:
        """The kernel at `size` offsets along each axis, over the root of `n_terms`, how many are summed."""
        if len(size) != self.dim:
            raise ValueError(f"expected {self.dim} sizes, got {tuple(size)}")
        parameter = next(self.parameters())
        axes = [offsets(n).to(parameter) for n in size]
        c = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, self.dim)
        return (self.network(c) * (self.gain / math.sqrt(n_terms))).T.reshape(self.channels, *size)


class GlobalKernel(nn.Module):
    """K * Z: a product with a kernel of Z's own size, or a convolution with one that reaches from end to end."""

    def __init__(self, dim: int, channels: int, form: Form = "convolution", kernel: MFN = KERNEL) -> None:
        super().__init__()
        self.form: Form = form
        self.kernel = KernelGenerator(kernel, dim, channels)

    def forward(self, z: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """Channels are kept apart."""
        size = z.shape[2:]
        match self.form:
            case "product":
                return self.kernel(size, 1) * z
            case "convolution":
                return convolve(z, self.kernel([2 * n - 1 for n in size], math.prod(size)))
            case _:
                assert_never(self.form)


class GatedKernel(nn.Module):
    """(K * Z) * Z: what the kernel makes of the signal weighs the signal."""

    def __init__(self, dim: int, channels: int, form: Form = "convolution", kernel: MFN = KERNEL) -> None:
        super().__init__()
        self.context = GlobalKernel(dim, channels, form, kernel)

    def forward(self, z: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """Channels are kept apart."""
        return self.context(z) * z


def offsets(n: int) -> Float[Tensor, " K"]:
    """n offsets from -1 to 1, in float64; 0 if there is only one."""
    return torch.linspace(-1, 1, n, dtype=torch.float64) if n > 1 else torch.zeros(n, dtype=torch.float64)


def convolve(z: Float[Tensor, "B C *S"], kernel: Float[Tensor, "C *K"]) -> Float[Tensor, "B C *S"]:
    """Convolution of each channel with its own kernel of odd sizes, zeros around the signal, of the signal's size.

    By Fourier transform: N log N of the points whatever the kernel's size.
    """
    from scipy.fft import next_fast_len

    spatial = tuple(range(-(z.dim() - 2), 0))
    sizes = list(zip(z.shape[2:], kernel.shape[1:], strict=True))
    if any(k % 2 == 0 for _, k in sizes):
        raise ValueError(f"expected a kernel of odd sizes, got {tuple(kernel.shape[1:])}")
    # Half a kernel of zeros: what wraps around then falls on places that are cut off below.
    period = [next_fast_len(max(n + k // 2, k), real=True) for n, k in sizes]
    spectrum = torch.fft.rfftn(z, period, spatial) * torch.fft.rfftn(kernel, period, spatial)
    full = torch.fft.irfftn(spectrum, period, spatial)
    return full[(..., *(slice(k // 2, k // 2 + n) for n, k in sizes))]
