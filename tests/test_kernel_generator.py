"""Kernels that a network of coordinates generates: of any size the same function, and applied to whole signals."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tolerances import GRADIENTS, INITIAL_VALUES, VALUES
from torch import Tensor

from fields.kernel_generator import Form, GatedKernel, GlobalKernel, KernelGenerator, convolve, offsets
from fields.networks import MFN

SMALL = MFN(hidden_dim=16, hidden_layers=2, omega=0.5)


def generator_of(dim: int, channels: int, seed: int = 0) -> KernelGenerator:
    made = KernelGenerator(SMALL, dim, channels)
    made.network.initialise(torch.Generator().manual_seed(seed))
    return made


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_kernels_of_other_sizes_agree_where_their_offsets_do(dim: int) -> None:
    made = generator_of(dim, 4)
    small, large = made((3,) * dim, 1), made((9,) * dim, 1)
    assert large.shape == (4, *(9,) * dim)
    VALUES.check(small.detach(), large[(slice(None), *(slice(None, None, 4),) * dim)].detach())
    VALUES.check(made((1,) * dim, 1).detach(), large[(slice(None), *(slice(4, 5),) * dim)].detach())


def test_axes_of_a_kernel_may_differ_in_size() -> None:
    made = generator_of(2, 3)
    VALUES.check(made((3, 5), 1).detach(), made((5, 5), 1)[:, ::2].detach())
    assert made((0, 5), 1).shape == (3, 0, 5)
    with pytest.raises(ValueError, match="expected 2 sizes"):
        made((3,), 1)


def test_offsets_are_symmetric() -> None:
    assert offsets(1).tolist() == [0]
    assert offsets(5).tolist() == [-1, -0.5, 0, 0.5, 1]


def test_first_kernels_have_unit_mean_square_over_the_number_of_terms() -> None:
    squares = [float(generator_of(2, 32, seed)((7, 7), 49).detach().square().mean()) * 49 for seed in range(40)]
    assert INITIAL_VALUES.allows(sum(squares) / len(squares), 1.0)


def directly(z: Tensor, kernel: Tensor) -> Tensor:
    """y[i] = sum_j kernel[j] z[i - j], term by term, with j = 0 in the kernel's middle."""
    spatial = z.shape[2:]
    out = torch.zeros_like(z)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in kernel.shape[1:])).view(-1, len(spatial)).tolist():
        shift = [i - k // 2 for i, k in zip(index, kernel.shape[1:], strict=True)]
        into = tuple(slice(max(s, 0), max(n + min(s, 0), 0)) for s, n in zip(shift, spatial, strict=True))
        of = tuple(slice(max(-s, 0), max(n - max(s, 0), 0)) for s, n in zip(shift, spatial, strict=True))
        if all(part.start < n and part.stop > part.start for part, n in zip(into, spatial, strict=True)):
            weight = kernel[(slice(None), *index)].view(-1, *[1] * len(spatial))
            out[(..., *into)] += weight * z[(..., *of)]
    return out


@pytest.mark.parametrize(
    ("size", "kernel"),
    [
        ((8,), (15,)),
        ((8,), (3,)),
        ((1,), (1,)),
        ((5,), (31,)),
        ((6, 5), (11, 9)),
        ((7, 4), (3, 7)),
        ((3, 4, 2), (5, 3, 3)),
    ],
)
def test_convolution_by_fourier_transform_is_the_sum(size: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, *kernel, generator=generator, dtype=torch.float64)
    VALUES.check(convolve(z, weights), directly(z, weights))
    VALUES.check(convolve(z.float(), weights.float()) / math.prod(kernel), directly(z, weights) / math.prod(kernel))


def test_kernels_of_even_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="odd sizes"):
        convolve(torch.zeros(1, 1, 4), torch.zeros(1, 2))


@pytest.mark.parametrize("form", ["product", "convolution"])
@pytest.mark.parametrize("size", [(6,), (5, 4)])
def test_layers_are_what_they_say(form: Form, size: tuple[int, ...]) -> None:
    """In float32 against their definition in float64, gradients too."""
    generator = torch.Generator().manual_seed(0)
    for kind in (GlobalKernel, GatedKernel):
        layer = kind(len(size), 3, form, SMALL)
        made = layer.kernel if isinstance(layer, GlobalKernel) else layer.context.kernel
        made.network.initialise(generator)
        wide = copy.deepcopy(made).double()
        z = torch.randn(2, 3, *size, generator=generator)
        leaf, leaf64 = z.clone().requires_grad_(), z.double().requires_grad_()
        value = layer(leaf)
        if form == "product":
            expected = wide(size, 1) * leaf64
        else:
            expected = directly(leaf64, wide([2 * n - 1 for n in size], math.prod(size)))
        expected = expected * leaf64 if kind is GatedKernel else expected
        GRADIENTS.check(value.detach(), expected.detach())  # phases of some ten radians lose a digit
        value.square().sum().backward()
        expected.square().sum().backward()
        pairs = [(leaf.grad, leaf64.grad)]
        pairs += [(a.grad, b.grad) for a, b in zip(made.parameters(), wide.parameters(), strict=True)]
        for got, want in pairs:
            assert got is not None and want is not None
            scale = want.abs().amax().clamp(min=1)
            GRADIENTS.check(got / scale, want / scale)


def test_a_layer_takes_signals_of_any_size() -> None:
    layer = GlobalKernel(2, 3, "convolution", SMALL)
    layer.kernel.network.initialise(torch.Generator().manual_seed(0))
    for size in ((1, 1), (3, 8), (16, 2)):
        assert layer(torch.ones(2, 3, *size)).shape == (2, 3, *size)
