"""Samples behind opaque surfaces are left out: as the native march does it, and without changing what is seen."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from test_rendering import BOX, SMALL, lively, rays_at
from tolerances import EXACT, RENDERED, RENDERED_GRADIENTS
from torch import Tensor

from fields.field import RadianceField, initialise
from fields.kernels import ops, reference
from fields.kernels.ops import RayBatch, Samples
from fields.networks import RationalKAN
from fields.rendering.hidden import AT_ONCE, TorchFront, follow, front_of
from fields.rendering.render import MIN_TRANSMITTANCE, compose_rays, march_shape, unit_rays, visible_samples


def packed(counts: list[int]) -> TorchFront:
    """Rays of so many samples, whose x counts them along their ray."""
    offsets = torch.tensor([0, *counts]).cumsum(0)
    ray = torch.arange(len(counts)).repeat_interleave(offsets.diff())
    place = (torch.arange(len(ray)) - offsets[ray]).float()
    samples = Samples(offsets, place, place + 1, place[:, None].expand(-1, 3).contiguous(), ray.int())
    return TorchFront(samples, MIN_TRANSMITTANCE)


@pytest.mark.parametrize("last", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_a_wall_ends_a_ray(last: int) -> None:
    """The sample in the wall is seen, those behind it are not; empty and short rays are as they were."""
    wall = torch.full((1,), float(last))
    seen, _ = follow(packed([0, 5, 4 * AT_ONCE, 1, 0]), lambda x, _: (x[:, 0] >= wall) * 1e8)
    assert seen.offsets.diff().tolist() == [0, min(5, last + 1), last + 1, 1, 0]
    EXACT.check(seen.t0, torch.cat([torch.arange(float(n)) for n in seen.offsets.diff().tolist()]))
    EXACT.check(seen.ray, torch.arange(5, dtype=torch.int32).repeat_interleave(seen.offsets.diff()))


def test_fog_ends_where_its_closed_form_says() -> None:
    """exp(-sigma k) >= 1e-3 for k <= 6.9 / sigma."""
    for sigma in (0.05, 0.33, 2.0):
        seen, _ = follow(packed([500]), lambda x, _, s=sigma: torch.full((len(x),), s))
        assert len(seen.t0) == math.floor(-math.log(MIN_TRANSMITTANCE) / sigma) + 1


def test_nothing_at_all() -> None:
    for counts in ([], [0, 0]):
        seen, _ = follow(packed(counts), lambda x, _: torch.zeros(len(x)))
        assert seen.offsets.tolist() == [0] * (len(counts) + 1)


@pytest.mark.parametrize("unbounded", [False, True])
def test_same_samples_as_the_native_march(unbounded: bool) -> None:
    field, rays = lively(unbounded), rays_at(200)
    field.encoding.get_parameter("table").data.mul_(2)  # dense enough to hide something
    origins, directions = unit_rays(field, rays)
    expected = visible_samples(field, origins, directions, None)
    batch = RayBatch(origins, directions, None, field.occupancy.bits)
    marched = ops.march(*batch, march_shape(field))
    found, _ = follow(front_of(batch, march_shape(field), MIN_TRANSMITTANCE), lambda x, _: field.density(x))
    assert len(expected.t0) < len(marched.t0)
    same = expected.offsets.diff() == found.offsets.diff()
    assert same.double().mean() > 0.98  # a sample at the limit may fall on either side of it

    def color(s: Samples) -> Tensor:
        rgb, sigma = field(s.x, directions[s.ray.long()])
        return reference.composite(sigma, rgb, s.t0, s.t1, s.offsets)[0].detach()

    RENDERED.check(color(found), color(marched))


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize("most", [3, AT_ONCE + 1, 1024])
def test_both_fronts_follow_the_same_rays(unbounded: bool, most: int, generator: torch.Generator) -> None:
    """The native one, which marches on the way, and that of torch: where they ask, and what they find."""
    field, rays = lively(unbounded), rays_at(333)  # some rays miss the box, some end early
    jitter = torch.rand(333, generator=generator)
    batch = RayBatch(*unit_rays(field, rays), jitter, field.occupancy.bits)
    shape = replace(march_shape(field), max_samples=most)
    fronts = front_of(batch, shape, MIN_TRANSMITTANCE), TorchFront(ops.march(*batch, shape), MIN_TRANSMITTANCE)
    assert not isinstance(fronts[0], TorchFront)
    asked = []
    while True:
        places, same = (front.next() for front in fronts)
        for got, want in zip(places, same, strict=True):
            EXACT.check(got, want)
        if len(places[0]) == 0:
            break
        asked.append(places[0])
        density = 40 * torch.rand(len(places[0]), generator=generator)
        for front in fronts:
            front.absorb(density)
    (samples, row), (wanted, wanted_row) = (front.seen() for front in fronts)
    for got, want in zip(samples, wanted, strict=True):
        EXACT.check(got, want)
    EXACT.check(row, wanted_row)
    assert len(row) > 0
    EXACT.check(torch.cat(asked)[row], samples[3])


@pytest.mark.parametrize("unbounded", [False, True])
def test_gradients_are_those_of_what_is_seen_in_double_precision(unbounded: bool) -> None:
    """Of networks that no core fuses: rounds that look for samples leave nothing behind, and each counts once."""
    config = replace(SMALL, density=RationalKAN(16, 1), color=RationalKAN(16, 1))
    field = RadianceField(config, BOX, unbounded)
    initialise(field, 0)
    with torch.no_grad():
        field.encoding.get_parameter("table").normal_(generator=torch.Generator().manual_seed(1)).mul_(2)
        field.density_network.get_parameter("layers.1.bias")[0] += 3  # dense enough to hide something
    wide = copy.deepcopy(field).double()
    rays, pulls = rays_at(200), torch.rand(200, 3, generator=torch.Generator().manual_seed(2))
    origins, directions = unit_rays(field, rays)
    batch = RayBatch(origins, directions, None, field.occupancy.bits)
    s, row = follow(front_of(batch, march_shape(field), MIN_TRANSMITTANCE), lambda x, _: field.density(x).detach())
    assert 0 < len(row) < len(ops.march(*batch, march_shape(field)).t0)

    compose_rays(field, rays).rgb.mul(pulls).sum().backward()
    colours, sigma = wide(s.x.double(), directions.double()[s.ray.long()])
    rgb, opacity, _ = reference.composite(sigma, colours, s.t0.double(), s.t1.double(), s.offsets)
    behind = rays.background.double() if wide.background is None else wide.background.sigmoid()
    seen = rgb + (1 - opacity)[:, None] * behind
    seen.mul(pulls).sum().backward()
    for (name, got), want in zip(field.named_parameters(), wide.parameters(), strict=True):
        if want.grad is not None:
            assert got.grad is not None and bool((want.grad != 0).any()), name
            scale = want.grad.abs().amax().clamp(min=1)
            RENDERED_GRADIENTS.check(got.grad / scale, want.grad / scale)


def test_a_front_wants_what_it_asked_for() -> None:
    field, rays = lively(False), rays_at(8)
    batch = RayBatch(*unit_rays(field, rays), None, field.occupancy.bits)
    front = front_of(batch, march_shape(field), MIN_TRANSMITTANCE)
    x, _ = front.next()
    with pytest.raises(ValueError, match=f"sigma must have {len(x)} values, got 3"):
        front.absorb(torch.zeros(3))
    with pytest.raises(ValueError, match="what was asked for is absorbed first"):
        front.next()
