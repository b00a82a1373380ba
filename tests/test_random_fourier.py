"""Random Fourier features: the kernel that they approximate, what they are drawn from, and that they are saved."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import EXACT, GRADIENTS, MONTE_CARLO

from fields.encodings import RandomFourier, build_encoding
from fields.encodings.random_fourier import RandomFourierEncoding
from scenes.errors import InputError


def drawn(n_frequencies: int, sigma: float, dim: int, seed: int = 0) -> RandomFourierEncoding:
    encoding = build_encoding(RandomFourier(n_frequencies, sigma), dim)
    assert isinstance(encoding, RandomFourierEncoding)
    encoding.initialise(torch.Generator().manual_seed(seed))
    return encoding


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_features_approximate_a_gaussian_kernel(dim: int) -> None:
    """Mean of cos(2 pi b . (x - y)) over b ~ N(0, sigma^2 I) is exp(-2 pi^2 sigma^2 |x - y|^2)."""
    sigma, encoding = 0.7, drawn(200_000, 0.7, dim)
    x = torch.rand(6, dim, generator=torch.Generator().manual_seed(1))
    features = encoding(x).double()
    assert features.shape == (6, 400_000)
    expected = torch.exp(-2 * math.pi**2 * sigma**2 * torch.cdist(x.double(), x.double()).square())
    MONTE_CARLO.check(features @ features.T / 200_000, expected)


def test_directions_are_normal() -> None:
    scaled = drawn(200_000, 10.0, 2).directions / 10
    MONTE_CARLO.check(scaled.mean(0), torch.zeros(2))
    MONTE_CARLO.check(scaled.T @ scaled / 200_000, torch.eye(2))


def test_values_and_gradients_are_those_of_double_precision() -> None:
    single = drawn(32, 3.0, 3)
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    pull = torch.randn(40, 64, generator=torch.Generator().manual_seed(3))
    (got,) = torch.autograd.grad((single(x) * pull).sum(), x)
    phase = 2 * math.pi * x.double() @ single.directions.double().T
    GRADIENTS.check(single(x).detach(), torch.stack([phase.sin(), phase.cos()], -1).flatten(1).detach())
    d_phase = phase.cos() * pull[:, ::2] - phase.sin() * pull[:, 1::2]
    want = 2 * math.pi * d_phase @ single.directions.double()
    GRADIENTS.check(got.double() / want.abs().max(), (want / want.abs().max()).detach())


def test_directions_come_from_the_seed_and_are_saved_but_not_fitted() -> None:
    one, same, other = drawn(16, 1.0, 2), drawn(16, 1.0, 2), drawn(16, 1.0, 2, seed=1)
    EXACT.check(same.directions, one.directions)
    assert not torch.equal(other.directions, one.directions)
    other.load_state_dict(one.state_dict())
    EXACT.check(other.directions, one.directions)
    assert not list(one.parameters())


@pytest.mark.parametrize("config", [RandomFourier(0), RandomFourier(sigma=0.0), RandomFourier(sigma=math.inf)])
def test_nonsense_is_refused(config: RandomFourier) -> None:
    with pytest.raises(InputError, match="rff: expected"):
        build_encoding(config, 2)
