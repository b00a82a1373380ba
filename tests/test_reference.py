"""The torch references against closed forms, other libraries, invariances and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from tolerances import FINITE_DIFFERENCES, QUADRATURE, VALUES

from fields.kernels import reference
from fields.kernels.shapes import MarchShape, MlpShape, grid_shape


def test_grid_reproduces_a_linear_function(generator: torch.Generator) -> None:
    """Interpolation of vertex values of a linear function is that function, on dense levels."""
    shape = grid_shape(3, 3, 1, 4, 16, None)
    x = torch.rand(200, 3, dtype=torch.float64, generator=generator)
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    table = torch.zeros(shape.entries, 1, dtype=torch.float64)
    for level in shape.levels:
        axis = (torch.arange(level.resolution, dtype=torch.float64) - 0.5) / level.scale
        z, y, x_axis = torch.meshgrid(axis, axis, axis, indexing="ij")
        values = torch.stack([x_axis, y, z], -1).view(-1, 3) @ slope
        table[level.offset : level.offset + level.resolution**3, 0] = values
    VALUES.check(reference.grid_encode(x, table, shape), (x @ slope)[:, None].expand(-1, 3))


def test_grid_levels_grow_in_geometric_progression() -> None:
    shape = grid_shape(3, 4, 2, 16, 128, 2**16)
    cells = [level.scale + 1 for level in shape.levels]
    assert cells == pytest.approx([16, 32, 64, 128])
    assert [level.hashed for level in shape.levels] == [False, False, True, True]
    assert shape.entries == sum(level.entries for level in shape.levels)


def test_harmonics_agree_with_scipy(generator: torch.Generator) -> None:
    d = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64, generator=generator), dim=1)
    theta, phi = torch.arccos(d[:, 2]).numpy(), torch.atan2(d[:, 1], d[:, 0]).numpy()
    expected = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            y = sph_harm_y(degree, abs(order), theta, phi)
            real = y.real if order == 0 else math.sqrt(2) * (y.real if order > 0 else y.imag)
            expected.append(real)
    VALUES.check(reference.harmonics(d, 4).abs(), torch.from_numpy(np.abs(np.stack(expected, 1))))


def test_harmonics_are_orthonormal() -> None:
    """The Gram matrix over a fine grid of the sphere is the identity."""
    n = 400
    theta = (torch.arange(n, dtype=torch.float64) + 0.5) * math.pi / n
    phi = (torch.arange(2 * n, dtype=torch.float64) + 0.5) * math.pi / n
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    d = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], -1).view(-1, 3)
    y = reference.harmonics(d, 4)
    area = (t.sin() * (math.pi / n) ** 2).view(-1, 1)
    QUADRATURE.check(y.T @ (y * area), torch.eye(16, dtype=torch.float64))


def test_frequency_is_sines_and_cosines() -> None:
    out = reference.frequency(torch.tensor([[0.25, 0.5]], dtype=torch.float64), 2)
    r = math.sqrt(0.5)
    expected = torch.tensor([[r, r, 1.0, 0.0, 1.0, 0.0, 0.0, -1.0]], dtype=torch.float64)
    VALUES.check(out, expected)


def test_mlp_agrees_with_torch_modules(generator: torch.Generator) -> None:
    shape = MlpShape((5, 7, 3), "silu", "sigmoid", bias=True)
    params = torch.randn(shape.size, dtype=torch.float64, generator=generator)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.SiLU(), torch.nn.Linear(7, 3), torch.nn.Sigmoid()
    ).double()
    torch.nn.utils.vector_to_parameters(params, net.parameters())
    x = torch.randn(11, 5, dtype=torch.float64, generator=generator)
    VALUES.check(reference.mlp(x, params, shape), net(x).detach())


@pytest.mark.parametrize("kind", ["identity", "relu", "silu", "sine", "sigmoid", "exp"])
def test_activation_gradients(kind: reference.Activation, generator: torch.Generator) -> None:
    z = (torch.randn(64, dtype=torch.float64, generator=generator) * 3).requires_grad_()
    reference.activate(kind, z).sum().backward()
    h = 1e-4
    with torch.no_grad():
        slope = (reference.activate(kind, z + h) - reference.activate(kind, z - h)) / (2 * h)
    smooth = z.detach().abs() > 2 * h
    assert z.grad is not None
    FINITE_DIFFERENCES.check(z.grad[smooth], slope[smooth])


def test_exp_is_clamped_but_keeps_a_gradient() -> None:
    z = torch.tensor([20.0], dtype=torch.float64, requires_grad=True)
    value = reference.activate("exp", z)
    value.sum().backward()
    assert value.item() == pytest.approx(math.exp(15))
    assert z.grad is not None and z.grad.item() == pytest.approx(math.exp(15))


def test_contraction_keeps_the_middle_and_is_invertible(generator: torch.Generator) -> None:
    inside = torch.rand(100, 3, dtype=torch.float64, generator=generator)
    VALUES.check(reference.contract(inside), inside / 2 + 0.25)
    anywhere = torch.randn(500, 3, dtype=torch.float64, generator=generator) * 20
    squashed = reference.contract(anywhere)
    assert ((squashed >= 0) & (squashed <= 1)).all()
    VALUES.check(reference.uncontract(squashed), anywhere)


def test_uniform_medium_has_the_closed_form() -> None:
    """A slab of constant density: opacity 1 - exp(-sigma L), and the mean depth of an exponential cut off at L."""
    sigma, length, n = 1.7, 2.0, 4000
    edges = torch.linspace(0, length, n + 1, dtype=torch.float64)
    rgb = torch.tensor([[0.2, 0.5, 0.9]], dtype=torch.float64).expand(n, 3)
    density = torch.full((n,), sigma, dtype=torch.float64)
    color, opacity, depth = reference.composite(density, rgb, edges[:-1], edges[1:], torch.tensor([0, n]))
    expected = 1 - math.exp(-sigma * length)
    QUADRATURE.check(opacity, torch.tensor([expected]))
    QUADRATURE.check(color[0], expected * rgb[0])
    mean = 1 / sigma - math.exp(-sigma * length) * (length + 1 / sigma)
    QUADRATURE.check(depth, torch.tensor([mean]))


def test_march_counts_steps_in_a_single_cell() -> None:
    """One occupied cell of 4^3, crossed along x: its width over the step."""
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[2, 1, 3] = True  # z, y, x
    shape = MarchShape(4, False, 0.0, 10.0, 0.01, 0.0, 1000)
    origin = torch.tensor([[-0.5, 0.375, 0.625]], dtype=torch.float64)
    offsets, t0, t1, x, _ = reference.march(origin, torch.tensor([[1.0, 0, 0]]).double(), None, occupied, shape)
    assert 24 <= int(offsets[-1]) <= 26
    assert bool((x[:, 0] >= 0.75).all())
    VALUES.check(t1 - t0, torch.full_like(t0, 0.01))
