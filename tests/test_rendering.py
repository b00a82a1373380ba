"""Rendering: the fused path against the differentiable one, both against closed forms; occupancy and its limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_captures import look_at, rig
from tolerances import GRADIENTS, NORMALS, QUADRATURE, RENDERED, RENDERED_GRADIENTS

from fields.encodings import Hash
from fields.encodings.grid import GridEncoding
from fields.field import MarchConfig, RadianceField, RadianceFieldConfig, initialise
from fields.kernels import ops, reference
from fields.networks import MLP
from fields.networks.mlp import Perceptron
from fields.rendering.occupancy import Occupancy, OccupancyConfig
from fields.rendering.render import (
    MIN_TRANSMITTANCE,
    compose_rays,
    is_fused,
    look,
    march_shape,
    render_rays,
    render_view,
    unit_rays,
    view_normals,
    visible_samples,
)
from scenes.box import Box
from scenes.rays import Rays

SMALL = RadianceFieldConfig(
    encoding=Hash(levels=4, log2_table_size=10, base_resolution=4, finest_resolution=32),
    density=MLP(hidden_dim=16, hidden_layers=1),
    color=MLP(hidden_dim=16, hidden_layers=1),
    march=MarchConfig(steps=128),
    occupancy=OccupancyConfig(resolution=16),
)
BOX = Box((-2.0, -1.0, -1.0), (2.0, 1.0, 1.0))


def lively(unbounded: bool = False) -> RadianceField:
    """A field with something in it: features of the size of a fitted one."""
    field = RadianceField(SMALL, BOX, unbounded)
    initialise(field, 0)
    with torch.no_grad():
        field.encoding.get_parameter("table").normal_(generator=torch.Generator().manual_seed(1)).mul_(2)
    return field


def rays_at(n: int, seed: int = 0) -> Rays:
    g = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1) * 5
    directions = torch.nn.functional.normalize(torch.rand(n, 3, generator=g) - 0.5 - origins, dim=1)
    return Rays(origins, directions, torch.rand(n, 3, generator=g))


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize("n", [1, 63, 200])
def test_fused_rendering_agrees_with_the_operations(unbounded: bool, n: int) -> None:
    field, rays = lively(unbounded), rays_at(n)
    assert is_fused(field)
    fused = look(field, rays)
    composed = compose_rays(field, rays)
    RENDERED.check(fused.rgb, composed.rgb.detach())
    RENDERED.check(fused.opacity, composed.opacity.detach())
    assert fused.n_samples == composed.n_samples


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize("n", [1, 63, 200])
def test_gradients_of_the_fused_pass_are_those_of_the_operations_in_double_precision(unbounded: bool, n: int) -> None:
    """Colour, opacity and depth all pull. The same samples, from the native march: the truth is of the field alone."""
    field, rays = lively(unbounded), rays_at(n)
    pulls = torch.rand(n, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradients(of: RadianceField, colour: torch.Tensor, opacity: torch.Tensor, depth: torch.Tensor) -> list:
        loss = (torch.cat([colour, opacity[:, None], depth[:, None]], 1) * pulls.to(colour.dtype)).sum()
        networks = (of.density_network.get_parameter("params"), of.color_network.get_parameter("params"))
        return list(torch.autograd.grad(loss, [of.encoding.get_parameter("table"), *networks]))

    origins, directions = unit_rays(field, rays)
    batch = ops.RayBatch(origins, directions, None, field.occupancy.bits)
    encoding, density, color = field.encoding, field.density_network, field.color_network
    assert isinstance(encoding, GridEncoding) and isinstance(density, Perceptron) and isinstance(color, Perceptron)
    model = ops.RadianceModel(encoding.shape, density.shape, color.shape, field.harmonics_degree)
    weights = encoding.table, density.params, color.params
    seen = ops.render(model, weights, batch, march_shape(field), MIN_TRANSMITTANCE)

    s = visible_samples(field, origins, directions, None)
    assert seen.n_samples == len(s.t0) > 0
    wide = lively(unbounded).double()
    latent = wide.latent(s.x.double())
    colours = wide.color(latent, s.x.double(), directions.double(), s.ray)
    sigma = reference.activate("exp", latent[:, 0])
    expected = reference.composite(sigma, colours, s.t0.double(), s.t1.double(), s.offsets)
    for got, truth in zip(gradients(field, *seen[:3]), gradients(wide, *expected), strict=True):
        assert bool((truth != 0).any())
        RENDERED_GRADIENTS.check(got, truth)


def test_a_wide_field_follows_a_narrow_one() -> None:
    """A pass takes over the buffers of the pass before it, whatever the widths of its field."""
    rays = rays_at(3000)

    def pulled(features: int) -> torch.Tensor:
        encoding = replace(SMALL.encoding, features_per_level=features)
        field = RadianceField(replace(SMALL, encoding=encoding), BOX, unbounded=False)
        initialise(field, 0)
        render_rays(field, rays).rgb.sum().backward()
        gradient = field.encoding.get_parameter("table").grad
        assert gradient is not None
        return gradient

    pulled(1)
    after_a_narrow_one = pulled(8)
    assert bool((after_a_narrow_one != 0).any())
    assert torch.equal(pulled(8), after_a_narrow_one)


def test_a_fused_pass_goes_back_once() -> None:
    field, rays = lively(), rays_at(20)
    loss = render_rays(field, rays).rgb.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(ValueError, match="serves one backward pass"):
        loss.backward()


def test_rendering_in_double_precision_is_the_same() -> None:
    """The torch references of every operation, all samples of every ray, no early end."""
    field, rays = lively(), rays_at(40)
    wide = lively().double()
    rays64 = Rays(rays.origins.double(), rays.directions.double(), rays.background.double())
    assert not is_fused(wide)
    RENDERED.check(look(field, rays).rgb, look(wide, rays64).rgb)


class Fog(RadianceField):
    """The same density everywhere in the cube, in one colour."""

    sigma = 3.0

    def latent(self, x: torch.Tensor, time: object = None, features: object = None) -> torch.Tensor:
        return torch.full((len(x), 16), math.log(self.sigma))

    def color(
        self, latent: torch.Tensor, x: torch.Tensor, directions: torch.Tensor, index: object = None, time: object = None
    ) -> torch.Tensor:
        return torch.tensor([0.25, 0.5, 0.75]).expand(len(latent), 3)


def test_fog_has_the_closed_form() -> None:
    """Density is per edge of the unit cube; a ray along x crosses one edge of it, in world units the box's side."""
    field = Fog(SMALL.__class__(encoding=SMALL.encoding, march=MarchConfig(steps=1500)), BOX, unbounded=False)
    field.encoding = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]  no grid: not the fused path
    rays = Rays(torch.tensor([[-10.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1, 3))
    seen = look(field, rays)
    opacity = 1 - math.exp(-Fog.sigma)
    QUADRATURE.check(seen.opacity, torch.tensor([opacity]))
    expected = opacity * torch.tensor([[0.25, 0.5, 0.75]]) + (1 - opacity)
    QUADRATURE.check(seen.rgb, expected)
    mean = (1 / Fog.sigma - math.exp(-Fog.sigma) * (1 + 1 / Fog.sigma)) / opacity * BOX.side + 8
    QUADRATURE.check(seen.depth, torch.tensor([mean]))


class SoftBall(RadianceField):
    """Density that falls off from the middle of the cube: opaque within a radius of 0.2 of its edge."""

    def latent(self, x: torch.Tensor, time: object = None, features: object = None) -> torch.Tensor:
        return ((0.2 - (x - 0.5).norm(dim=1, keepdim=True)) * 100 + 3).expand(len(x), 16)

    def color(
        self, latent: torch.Tensor, x: torch.Tensor, directions: torch.Tensor, index: object = None, time: object = None
    ) -> torch.Tensor:
        return torch.zeros(len(latent), 3)


def test_normals_of_a_ball_point_away_from_its_middle() -> None:
    field = SoftBall(SMALL, BOX, unbounded=False)
    field.encoding = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]  no grid: not the fused path
    cameras = rig([look_at((0.0, -5.0, 1.0), (0.0, 0.0, 0.0))], focal=60.0, size=24)
    seen = render_view(field, cameras, 0, (1.0, 1.0, 1.0))
    normal = view_normals(field, cameras, 0, seen)
    hit = seen.opacity > 0.5
    assert 20 < int(hit.sum()) < hit.numel()
    rays = cameras.image_rays(0)
    points = rays.origins + rays.directions * seen.depth.view(-1, 1)
    outward = torch.nn.functional.normalize(points, dim=1).view_as(normal)
    NORMALS.check(normal[hit], outward[hit])
    assert not bool(normal[~hit].any())


def test_gradients_flow_to_all_parameters() -> None:
    field, rays = lively(unbounded=True), rays_at(50)
    render_rays(field, rays, torch.Generator().manual_seed(0)).rgb.square().sum().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_rays_that_miss_show_the_background() -> None:
    rays = Rays(torch.full((3, 3), 9.0), torch.tensor([[1.0, 0, 0]]).expand(3, 3), torch.rand(3, 3))
    for seen in (look(lively(), rays), render_rays(lively(), rays)):
        assert seen.n_samples == 0
        GRADIENTS.check(seen.rgb.detach(), rays.background)
        assert bool(torch.isinf(seen.depth).all())


def test_no_rays() -> None:
    rays = Rays(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3))
    assert look(lively(), rays).rgb.shape == (0, 3)


def ball(x: torch.Tensor) -> torch.Tensor:
    """Dense within 0.3 of the middle of the cube."""
    return ((x - 0.5).norm(dim=1) < 0.3).float() * 1000


def test_occupancy_finds_a_ball(generator: torch.Generator) -> None:
    occupancy = Occupancy(OccupancyConfig(resolution=16, update_cells=2**12))
    assert bool(occupancy.occupied.all())
    for _ in range(40):
        occupancy.refresh(ball, step=0.01, generator=generator)
    middles = Occupancy.middles(16)
    distance = (middles - 0.5).norm(dim=1).view(16, 16, 16)
    reach = math.sqrt(3) / 32
    assert bool(occupancy.occupied[distance < 0.3 - reach].all())
    assert not bool(occupancy.occupied[distance > 0.3 + reach].any())


def test_occupancy_stays_within_what_is_allowed(generator: torch.Generator) -> None:
    occupancy = Occupancy(OccupancyConfig(resolution=8))
    allowed = torch.zeros(8, 8, 8, dtype=torch.bool)
    allowed[:, :, :4] = True  # x < 1/2
    occupancy.restrict(allowed)
    assert torch.equal(occupancy.occupied, allowed)
    for _ in range(3):
        occupancy.refresh(lambda x: torch.full((len(x),), 1e3), step=0.01, generator=generator)
    assert torch.equal(occupancy.occupied, allowed)
    x = occupancy.cells(allowed.view(-1).nonzero()[:, 0], torch.full((256, 3), 0.5))
    assert bool((x[:, 0] < 0.5).all())
