"""Sphere tracing against rays and spheres that meet in closed form, and the light on what they meet."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import EIGHT_BIT, NORMALS, POSES, TRACED

from fields.rendering.shading import Lights, ShadingConfig, decode_srgb, encode_srgb, render_surface
from fields.rendering.sphere_tracing import TraceConfig, normals, trace
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.rays import Rays

BOX = Box((10.0, -3.0, 100.0), (14.0, -1.0, 103.0))
CENTRE, RADIUS = torch.tensor([12.3, -2.1, 101.4]), 0.7


def sphere(x):
    """Exact, in edges of the unit cube."""
    return ((BOX.from_unit(x) - CENTRE).norm(dim=-1, keepdim=True) - RADIUS) / BOX.side


def towards(origins, targets):
    d = torch.nn.functional.normalize(targets - origins, dim=-1)
    return Rays(origins, d, torch.zeros_like(d))


def random_rays(generator, n=4000):
    """From points around the box to points of it: about a third meet the sphere."""
    away = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    lo, hi = torch.tensor(BOX.lo), torch.tensor(BOX.hi)
    return towards(CENTRE + 6 * away, lo + (hi - lo) * torch.rand(n, 3, generator=generator))


def closed_form(rays):
    """Depth of each ray's first point on the sphere in float64, infinity for a miss; and how near a miss it is."""
    o, d = (rays.origins - CENTRE).double(), rays.directions.double()
    b, c = (o * d).sum(-1), (o * o).sum(-1) - RADIUS**2
    discriminant = b * b - c
    depth = torch.where(discriminant > 0, -b - discriminant.clamp(min=0).sqrt(), math.inf)
    return depth, discriminant.abs() < 0.02


def camera(position=(12.3, -8.0, 101.4), size=64):
    """Looks along +y at the sphere's middle, z upward."""
    T = torch.tensor([[[1.0, 0, 0, position[0]], [0, 0, 1, position[1]], [0, -1, 0, position[2]]]])
    f, half = 2.0 * size, 0.5 * size
    return Cameras(
        T, torch.tensor([[f, f]]), torch.tensor([[half, half]]), torch.tensor([[size, size]]), torch.zeros(1, 6)
    )


@pytest.mark.parametrize("config", [TraceConfig(), TraceConfig(chunk=100, normals="autograd")])
def test_depth_and_normal_of_a_sphere_in_world_units(generator, config):
    rays = random_rays(generator)
    expected, grazing = closed_form(rays)
    hits = trace(sphere, rays, BOX, config)
    assert torch.equal(hits.hit[~grazing], torch.isfinite(expected[~grazing]))
    assert 500 < int(hits.hit.sum()) < 3500
    clear = hits.hit & ~grazing
    TRACED.check(hits.depth[clear], expected[clear])
    point = rays.origins + hits.depth[:, None] * rays.directions
    NORMALS.check(hits.normal[clear], (point[clear] - CENTRE) / RADIUS)
    TRACED.check(BOX.from_unit(hits.position[clear]), point[clear])


def test_misses_have_no_depth_and_no_normal(generator):
    rays = random_rays(generator)
    hits = trace(sphere, rays, BOX)
    assert torch.isinf(hits.depth[~hits.hit]).all()
    assert (hits.normal[~hits.hit] == 0).all()
    assert torch.isfinite(hits.position).all()


@pytest.mark.parametrize(
    ("field", "config"),
    [
        (lambda x: 3 * sphere(x), TraceConfig(step_factor=0.3)),
        (lambda x: 3 * sphere(x), TraceConfig()),
        (lambda x: 0.3 * sphere(x), TraceConfig(max_steps=400, tolerance=5e-5)),
        (lambda x: sphere(x).sign() * sphere(x).abs().sqrt() * 0.3, TraceConfig()),
    ],
    ids=["three times too long, short steps", "three times too long", "too short", "bent"],
)
def test_fields_that_are_not_distances(generator, field, config):
    """What overshoots changes its sign, is bracketed and bisected."""
    rays = towards(
        torch.tensor([12.3, -7.0, 101.4]).repeat(200, 1), CENTRE + 0.4 * torch.randn(200, 3, generator=generator)
    )
    expected, grazing = closed_form(rays)
    near = torch.isfinite(expected) & ~grazing & ((rays.origins - CENTRE).norm(dim=-1) - expected > 0.3)
    hits = trace(field, rays, BOX, config)
    assert int(near.sum()) > 50
    assert bool(hits.hit[near].all())
    TRACED.check(hits.depth[near], expected[near])


def test_a_ray_that_begins_inside_meets_the_surface_at_once():
    hits = trace(sphere, towards(CENTRE[None] + 0.1, CENTRE[None] + 1.0), BOX)
    assert bool(hits.hit[0])
    assert float(hits.depth[0]) == 0.0


def test_only_the_box_is_seen():
    """A plane that fills space beyond the box, and rays that pass the box by."""
    rays = towards(
        torch.tensor([[20.0, -2.0, 101.0], [20.0, 5.0, 101.0]]), torch.tensor([[15.0, -2.0, 101.0], [15.0, 5.0, 101.0]])
    )
    hits = trace(lambda x: x[:, :1] - 2.0, rays, BOX)  # inside everywhere in the box
    assert hits.hit.tolist() == [True, False]
    POSES.check(hits.depth[:1], torch.tensor([6.0]))


def test_no_rays():
    empty = Rays(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3))
    assert len(trace(sphere, empty, BOX).depth) == 0


def test_values_that_are_not_numbers_end_in_a_miss():
    rays = towards(torch.tensor([[12.0, -8.0, 101.0]]), torch.tensor([[12.0, -2.0, 101.0]]))
    hits = trace(lambda x: torch.full_like(x[:, :1], math.nan), rays, BOX)
    assert not bool(hits.hit[0])


def test_work_shrinks_with_the_rays_still_under_way(generator):
    rays, counts = random_rays(generator), []

    def field(x):
        counts.append(len(x))
        return sphere(x)

    trace(field, rays, BOX)
    assert counts[0] <= len(rays)
    assert sum(counts) < 25 * len(rays)
    assert min(counts) < 0.1 * len(rays)


def test_normals_of_both_kinds_agree(generator):
    x = torch.rand(300, 3, generator=generator)
    a, b = (normals(sphere, x, TraceConfig(normals=kind)) for kind in ("differences", "autograd"))
    NORMALS.check(a, b)


def test_a_view_has_the_silhouette_the_depth_and_the_light_of_a_sphere():
    view = render_surface(sphere, camera(), 0, BOX)
    # the cone that touches the sphere, cut by the picture plane
    distance, focal = 5.9, 128.0
    r = focal * RADIUS / math.sqrt(distance**2 - RADIUS**2)
    assert abs(float(view.opacity.sum()) / (math.pi * r * r) - 1) < 5e-3
    assert TRACED.allows(float(view.depth[32, 32]), distance - RADIUS)
    assert 0 <= float(view.rgb.min()) <= float(view.rgb.max()) <= 1
    lit, dark = view.rgb[25, 25].mean(), view.rgb[42, 42].mean()  # the key light stands to the upper left
    assert lit > dark + 0.1


def test_the_backdrop_is_the_gradient_that_was_asked_for():
    config = ShadingConfig(backdrop_top=(0.9, 0.8, 0.7), backdrop_bottom=(0.1, 0.2, 0.3))
    view = render_surface(lambda x: torch.ones_like(x[:, :1]), camera(size=100), 0, BOX, config=config)
    EIGHT_BIT.check(view.rgb[0, 50], torch.tensor([0.896, 0.797, 0.698]))
    EIGHT_BIT.check(view.rgb[99, 50], torch.tensor([0.104, 0.203, 0.302]))
    assert float(view.opacity.max()) == 0


def test_edges_are_smooth_and_the_rest_is_untouched():
    smooth, jagged = (render_surface(sphere, camera(), 0, BOX, config=ShadingConfig(edge_samples=k)) for k in (16, 1))
    covered = smooth.opacity
    assert set(jagged.opacity.unique().tolist()) == {0.0, 1.0}
    partial = (covered > 0) & (covered < 1)
    assert 60 < int(partial.sum()) < 400
    POSES.check(smooth.rgb[30:34, 30:34], jagged.rgb[30:34, 30:34])


def test_crevices_and_shadows_are_darker():
    """A floor below a ball, seen from the front and above: dark where they touch, and to the right of it."""

    def scene(x):
        p = BOX.from_unit(x) - torch.tensor([12.0, -2.0, 101.3])
        return torch.minimum(p.norm(dim=-1) - 0.5, p[:, 2] + 0.5) / BOX.side

    T = torch.tensor([[[1.0, 0, 0, 12.0], [0, -0.7071068, 0.7071068, -6.0], [0, -0.7071068, -0.7071068, 105.3]]])
    above = Cameras(
        T, torch.tensor([[120.0, 120.0]]), torch.tensor([[32.0, 32.0]]), torch.tensor([[64, 64]]), torch.zeros(1, 6)
    )
    plain = render_surface(scene, above, 0, BOX, config=ShadingConfig(shadow_steps=0, occlusion_samples=0))
    full = render_surface(scene, above, 0, BOX)
    darker = plain.rgb.mean(-1) - full.rgb.mean(-1)
    floor = full.normal[..., 2] > 0.999
    floor[54:] = False  # below, the box cuts through the floor
    assert float(darker[floor].max()) > 0.15
    assert float(darker.min()) > -1e-3
    shadow = (torch.where(floor, darker, 0.0) > 0.15).nonzero().float().mean(0)
    assert shadow[0] > 36  # the ball's middle is at (32, 32)
    assert shadow[1] > 36
    assert float(darker[:24].max()) < 0.02


def test_lights_turn_with_the_camera():
    lights = Lights.of(camera(), 0)
    POSES.check(lights.up, torch.tensor([0.0, 0.0, 1.0]))
    POSES.check(lights.forward, torch.tensor([0.0, 1.0, 0.0]))
    assert lights.key[0] < 0 < lights.key[2]
    assert lights.key[1] < 0


def test_display_colours_and_light():
    """Values of IEC 61966-2-1."""
    display = torch.tensor([0.0, 0.04045, 0.2, 0.5, 1.0])
    linear = torch.tensor([0.0, 0.0031308, 0.0331047, 0.2140411, 1.0])
    POSES.check(decode_srgb(display), linear)
    POSES.check(encode_srgb(linear), display)
