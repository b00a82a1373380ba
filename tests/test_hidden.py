"""Samples behind opaque surfaces are left out: as the native march does it, and without changing what is seen."""

from __future__ import annotations

import math

import pytest
import torch
from test_rendering import lively, rays_at
from tolerances import EXACT, RENDERED
from torch import Tensor

from fields.kernels import ops, reference
from fields.kernels.ops import Samples
from fields.rendering.hidden import AT_ONCE, TorchFront, front_of, without_hidden
from fields.rendering.render import MIN_TRANSMITTANCE, march_shape, unit_rays, visible_samples


def packed(counts: list[int]) -> Samples:
    """Samples whose x counts them along their ray."""
    offsets = torch.tensor([0, *counts]).cumsum(0)
    ray = torch.arange(len(counts)).repeat_interleave(offsets.diff())
    place = (torch.arange(len(ray)) - offsets[ray]).float()
    return Samples(offsets, place, place + 1, place[:, None].expand(-1, 3).contiguous(), ray.int())


@pytest.mark.parametrize("last", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
def test_a_wall_ends_a_ray(last: int) -> None:
    """The sample in the wall is seen, those behind it are not; empty and short rays are as they were."""
    s = packed([0, 5, 4 * AT_ONCE, 1, 0])
    wall = torch.full((1,), float(last))
    seen, _ = without_hidden(s, lambda i: (s.x[i, 0] >= wall) * 1e8, MIN_TRANSMITTANCE)
    assert seen.offsets.diff().tolist() == [0, min(5, last + 1), last + 1, 1, 0]
    EXACT.check(seen.t0, torch.cat([torch.arange(float(n)) for n in seen.offsets.diff().tolist()]))
    EXACT.check(seen.ray, torch.arange(5, dtype=torch.int32).repeat_interleave(seen.offsets.diff()))


def test_fog_ends_where_its_closed_form_says() -> None:
    """exp(-sigma k) >= 1e-3 for k <= 6.9 / sigma."""
    for sigma in (0.05, 0.33, 2.0):
        seen, _ = without_hidden(packed([500]), lambda i, s=sigma: torch.full((len(i),), s), MIN_TRANSMITTANCE)
        assert len(seen.t0) == math.floor(-math.log(MIN_TRANSMITTANCE) / sigma) + 1


def test_nothing_at_all() -> None:
    for counts in ([], [0, 0]):
        seen, _ = without_hidden(packed(counts), lambda i: torch.zeros(len(i)), MIN_TRANSMITTANCE)
        assert seen.offsets.tolist() == [0] * (len(counts) + 1)


@pytest.mark.parametrize("unbounded", [False, True])
def test_same_samples_as_the_native_march(unbounded: bool) -> None:
    field, rays = lively(unbounded), rays_at(200)
    field.encoding.get_parameter("table").data.mul_(2)  # dense enough to hide something
    origins, directions = unit_rays(field, rays)
    expected = visible_samples(field, origins, directions, None)
    marched = ops.march(origins, directions, None, field.occupancy.bits, march_shape(field))
    found, _ = without_hidden(marched, lambda i: field.density(marched.x[i]), MIN_TRANSMITTANCE)
    assert len(expected.t0) < len(marched.t0)
    same = expected.offsets.diff() == found.offsets.diff()
    assert same.double().mean() > 0.98  # a sample at the limit may fall on either side of it

    def color(s: Samples) -> Tensor:
        rgb, sigma = field(s.x, directions[s.ray.long()])
        return reference.composite(sigma, rgb, s.t0, s.t1, s.offsets)[0].detach()

    RENDERED.check(color(found), color(marched))


def test_both_fronts_follow_the_same_rays(generator: torch.Generator) -> None:
    """The native one and that of torch: what they ask for, what they find, and where its densities were."""
    counts = torch.randint(0, 60, (300,), generator=generator).tolist()
    s = packed(counts)
    density = 0.6 * torch.rand(len(s.t0), generator=generator)
    fronts = front_of(s, MIN_TRANSMITTANCE), TorchFront(s, MIN_TRANSMITTANCE)
    assert not isinstance(fronts[0], TorchFront)
    asked = []
    while True:
        index, same = (front.next() for front in fronts)
        EXACT.check(index, same)
        if len(index) == 0:
            break
        asked.append(index)
        for front in fronts:
            front.absorb(density[index])
    for got, want in zip(*(front.seen() for front in fronts), strict=True):
        EXACT.check(got, want)
    _, index, row = fronts[0].seen()
    assert 0 < len(index) < len(s.t0)
    EXACT.check(torch.cat(asked)[row], index)
    with pytest.raises(ValueError, match="sigma must have 0 values, got 3"):
        fronts[0].absorb(density[:3])
