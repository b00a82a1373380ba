"""nerfacc: what it computes on a CPU is a truth for our compositing and occupancy; and marching by it.

Its kernels need a GPU. Where it marches here, stand-ins take their place (pretend_nerfacc_cuda.py), on a GPU that is
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import nerfacc
import pretend_nerfacc_cuda
import pytest
import torch
from nerfacc import grid as nerfacc_grid
from pretend_gpu import GPU, Kernels, pretend_kernels
from tolerances import EXACT, GRADIENTS, RENDERED, VALUES
from torch import Tensor

from fields.field import MarchConfig, RadianceField, RadianceFieldConfig
from fields.kernels import gpu_libraries, ops, reference
from fields.kernels.bits import pack_bits, unpack_bits, visit_cells
from fields.kernels.shapes import MarchShape
from fields.rendering import nerfacc_march
from fields.rendering.nerfacc_march import to_binaries, to_samples, visible_samples
from fields.rendering.occupancy import Occupancy, OccupancyConfig
from fields.rendering.render import look
from scenes.box import Box
from scenes.errors import InputError
from scenes.rays import Rays

pytestmark = pytest.mark.usefixtures("one_thread")

COUNTS = {"ragged": [0, 2, 2, 0, 3], "one sample": [1], "no sample": [0, 0], "long": [64, 1, 33]}


def offsets_of(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


# A truth on the CPU ---------------------------------------------------------------------------------------------------


def by_nerfacc(sigma: Tensor, rgb: Tensor, t0: Tensor, t1: Tensor, counts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(rgb, opacity, depth): weights of rays that are filled up with nothing to equal length, accumulated packed."""
    ray = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    place = torch.cat([torch.arange(n) for n in counts])

    def dense(values: Tensor) -> Tensor:
        return values.new_zeros(len(counts), max([*counts, 1])).index_put((ray, place), values)

    weights, _, _ = nerfacc.render_weight_from_density(dense(t0), dense(t1), dense(sigma))
    packed = weights[ray, place]
    of = [rgb, None, ((t0 + t1) / 2)[:, None]]
    colour, opacity, depth = (nerfacc.accumulate_along_rays(packed, values, ray, len(counts)) for values in of)
    return colour, opacity[:, 0], depth[:, 0]


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("composite", [reference.composite, ops.composite], ids=["reference", "kernel"])
def test_compositing_is_that_of_nerfacc(
    counts: list[int], composite: Callable[..., tuple[Tensor, Tensor, Tensor]], generator: torch.Generator
) -> None:
    n = sum(counts)
    t0 = torch.rand(n, generator=generator, dtype=torch.float64)
    t1 = t0 + torch.rand(n, generator=generator, dtype=torch.float64) * 0.2
    sigma = torch.rand(n, generator=generator, dtype=torch.float64) * 20
    rgb = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    pulls = torch.rand(len(counts), 5, generator=generator, dtype=torch.float64)

    def gradients(seen: tuple[Tensor, Tensor, Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
        together = torch.cat([seen[0], seen[1][:, None], seen[2][:, None]], 1)
        return torch.autograd.grad((together * pulls.to(together.dtype)).sum(), leaves)

    wide = sigma.requires_grad_(), rgb.requires_grad_()
    truth = by_nerfacc(*wide, t0, t1, counts)
    ours = sigma.detach().float().requires_grad_(), rgb.detach().float().requires_grad_()
    got = composite(*ours, t0.float(), t1.float(), offsets_of(counts))
    for a, b in zip(got, truth, strict=True):
        VALUES.check(a.detach(), b.detach())
    for a, b in zip(gradients(got, *ours), gradients(truth, *wide), strict=True):
        GRADIENTS.check(a, b)


class Densities:
    """A density of each cell, the same wherever one looks in it, another one in every round."""

    def __init__(self, resolution: int, generator: torch.Generator) -> None:
        self.resolution, self.generator = resolution, generator
        self.of_cells = torch.zeros(resolution**3)

    def change(self) -> None:
        size = self.resolution**3
        draw = torch.rand(size, generator=self.generator)
        self.of_cells = torch.where(draw < 0.6, 0.0, torch.rand(size, generator=self.generator) * 3)

    def __call__(self, x: Tensor) -> Tensor:
        cell = (x * self.resolution).floor().long()
        return self.of_cells[(cell[:, 2] * self.resolution + cell[:, 1]) * self.resolution + cell[:, 0]]


def ours_to_theirs(cells: Tensor, r: int) -> Tensor:
    """Indices of cells, x fastest, as those of nerfacc, z fastest."""
    return (cells % r * r + cells // r % r) * r + cells // (r * r)


@pytest.mark.parametrize("threshold", [1e-3, 0.5], ids=["the threshold decides", "the mean decides"])
def test_occupancy_follows_the_rule_of_nerfacc(threshold: float, generator: torch.Generator) -> None:
    """Decay, largest density, threshold or mean, cells that no camera sees: cell by cell, over rounds that visit all
    cells or some."""
    r, step, decay = 8, 0.25, 0.8
    theirs: Any = nerfacc.OccGridEstimator([0, 0, 0, 1, 1, 1], r)
    intrinsics = torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]])
    pose = torch.tensor([[[1.0, 0, 0, 0.4], [0, 1, 0, 0.6], [0, 0, 1, -0.9]]])
    theirs.mark_invisible_cells(intrinsics, pose, 16, 16)
    everywhere = torch.arange(r**3)
    to_theirs = ours_to_theirs(everywhere, r)
    seen = theirs.occs[to_theirs] >= 0
    assert 50 < int(seen.sum()) < r**3 - 50
    allowed = pack_bits(seen.view(r, r, r))
    density, bits = torch.full((r**3,), torch.inf), pack_bits(torch.ones(r, r, r, dtype=torch.bool))
    sigma = Densities(r, generator)
    for n_visited in (None, None, 100, 40, None, 7):
        sigma.change()
        visited = everywhere[seen]
        if n_visited is not None:
            visited = visited[torch.randperm(len(visited), generator=generator)[:n_visited]].sort().values
        found = sigma(reference_middles(visited, r))
        visit_cells(visited, found, decay, threshold / step, allowed, density, bits)
        theirs._get_all_cells = lambda visited=visited: [to_theirs[visited]]
        theirs._update(0, lambda x: sigma(x)[:, None] * step, occ_thre=threshold, ema_decay=decay)
        VALUES.check(density[seen] * step, theirs.occs[to_theirs[seen]])
        EXACT.check(to_binaries(bits, r), theirs.binaries)
        assert 0 < int(theirs.binaries.sum()) < int(seen.sum())


def reference_middles(cells: Tensor, r: int) -> Tensor:
    return (torch.stack([cells % r, cells // r % r, cells // (r * r)], 1) + 0.5) / r


def test_bits_are_cells_in_the_order_of_nerfacc(generator: torch.Generator) -> None:
    """Its own look-up of points in its own array finds what our bits say of the cell they lie in."""
    r = 5
    occupied = torch.rand(r, r, r, generator=generator) < 0.3
    bits = pack_bits(occupied)
    x = torch.rand(2000, 3, generator=generator)
    cell = (x * r).long()
    found, _ = nerfacc_grid._query(x, to_binaries(bits, r), torch.tensor(nerfacc_march.CUBE))
    EXACT.check(found, occupied[cell[:, 2], cell[:, 1], cell[:, 0]])
    single = torch.zeros(r, r, r, dtype=torch.bool)
    single[3, 1, 4] = True  # z, y, x
    assert to_binaries(pack_bits(single), r).nonzero().tolist() == [[0, 4, 1, 3]]


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_packed_samples_become_ours(counts: list[int], generator: torch.Generator) -> None:
    n, s = len(counts), sum(counts)
    ray = torch.arange(n).repeat_interleave(torch.tensor(counts))
    t0 = torch.rand(s, generator=generator)
    origins, directions = torch.rand(n, 3, generator=generator), torch.rand(n, 3, generator=generator)
    batch = ops.RayBatch(origins, directions, None, torch.zeros(1, dtype=torch.int32))
    samples = to_samples(batch, ray, t0, t0 + 0.5)
    assert samples.offsets.tolist() == offsets_of(counts).tolist()
    assert samples.offsets.dtype == torch.int64 and samples.ray.dtype == torch.int32
    EXACT.check(samples.ray, ray)
    EXACT.check(torch.stack([samples.t0, samples.t1]), torch.stack([t0, t0 + 0.5]))
    for i in range(s):
        VALUES.check(samples.x[i], origins[ray[i]] + directions[ray[i]] * (t0[i] + 0.25))
    rgb = torch.rand(s, 3, generator=generator)  # what comes next takes them as they are
    colour, _, _ = ops.composite(torch.ones(s), rgb, samples.t0, samples.t1, samples.offsets)
    assert colour.shape == (n, 3)


# Marching, by stand-ins -----------------------------------------------------------------------------------------------


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    pretend_nerfacc_cuda.put_in(monkeypatch)
    monkeypatch.setattr(gpu_libraries.shutil, "which", lambda name, **_: f"/somewhere/{name}")
    nerfacc_march._estimator.cache_clear()
    nerfacc_march._try_kernels.cache_clear()
    with pretend_kernels(monkeypatch) as kernels:
        yield kernels
    nerfacc_march._estimator.cache_clear()
    nerfacc_march._try_kernels.cache_clear()


R = 16
SHAPE = MarchShape(R, contracted=False, near=0.05, far=1e6, step=0.01, cone_angle=0.0, max_samples=1024)


def batch_of(n: int, g: torch.Generator, jitter: Tensor | None = None) -> ops.RayBatch:
    """Rays from within the cube, where our steps too are counted from the near plane; 3 of 10 cells are occupied."""
    origins = torch.rand(n, 3, generator=g) * 0.2 + 0.4
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    occupied = torch.rand(R, R, R, generator=g) < 0.3
    return ops.RayBatch(origins, directions, jitter, pack_bits(occupied))


def moved(rays: ops.RayBatch) -> ops.RayBatch:
    jitter = None if rays.jitter is None else rays.jitter.to(GPU)
    return ops.RayBatch(rays.origins.to(GPU), rays.directions.to(GPU), jitter, rays.occupancy.to(GPU))


def nothing(x: Tensor) -> Tensor:
    return torch.zeros_like(x[:, 0])


@pytest.mark.parametrize("jittered", [False, True])
def test_it_takes_the_samples_that_we_take(jittered: bool, kernels: Kernels, generator: torch.Generator) -> None:
    rays = batch_of(50, generator, torch.rand(50, generator=generator) if jittered else None)
    origins, directions, jitter = (None if part is None else part.double() for part in rays[:3])
    assert origins is not None and directions is not None
    _, *truth = reference.march(origins, directions, jitter, unpack_bits(rays.occupancy, R), SHAPE)
    inside = ((truth[2] >= 0) & (truth[2] <= 1)).all(1)  # nerfacc takes no step whose middle is behind the cube
    t0, t1, x, ray = (part[inside] for part in truth)
    got = visible_samples(moved(rays), SHAPE, nothing, 1e-3)
    assert all(kernels.gpu.holds(part) for part in got)
    counts, expected = got.offsets.diff().cpu(), torch.bincount(ray, minlength=50)
    same = counts == expected  # a middle within rounding of a cell's face may fall on either side
    assert int(same.sum()) >= 48 and len(t0) > 500
    keep, keep_expected = same.repeat_interleave(counts), same.repeat_interleave(expected)
    for a, b in zip(got[1:], (t0, t1, x, ray), strict=True):
        VALUES.check(a.cpu()[keep], b[keep_expected])


def test_it_stops_where_a_ray_is_opaque(kernels: Kernels, generator: torch.Generator) -> None:
    rays = batch_of(40, generator)
    everything = visible_samples(moved(rays), SHAPE, nothing, 1e-3)

    def dense(x: Tensor) -> Tensor:
        assert kernels.gpu.holds(x) and bool((x >= 0).all() & (x <= 1).all())
        return torch.full_like(x[:, 0], 300.0)

    visible = visible_samples(moved(rays), SHAPE, dense, 1e-3)
    before = torch.cat([torch.arange(int(n)) for n in everything.offsets.diff()])
    seen = torch.exp(-3.0 * before) >= 1e-3
    EXACT.check(visible.t0.cpu(), everything.t0.cpu()[seen])
    assert int(visible.offsets.diff().max()) == 3


def test_rays_that_meet_nothing_have_no_samples(kernels: Kernels, generator: torch.Generator) -> None:
    rays = batch_of(4, generator)
    away = rays._replace(origins=rays.origins + 9, directions=torch.tensor([[1.0, 0.1, 0.1]]).expand(4, 3))
    for batch in (moved(away), moved(rays._replace(occupancy=rays.occupancy * 0)), moved(batch_of(0, generator))):
        samples = visible_samples(batch, SHAPE, nothing, 1e-3)
        assert samples.offsets.tolist() == [0] * (len(batch.origins) + 1)
        assert samples.x.shape == (0, 3) and samples.ray.dtype == torch.int32


class SoftBall(RadianceField):
    """Density that falls off from the middle of the cube, of a colour that changes with it."""

    def latent(self, x: Tensor, time: object = None, features: object = None) -> Tensor:
        return ((0.25 - (x - 0.5).norm(dim=1, keepdim=True)) * 30).clamp(max=2.5).expand(len(x), 16)

    def color(self, latent: Tensor, x: Tensor, directions: Tensor, index: object = None, time: object = None) -> Tensor:
        return torch.cat([latent[:, :1].sigmoid(), latent[:, 1:2].sigmoid() / 2, 0.5 + 0 * latent[:, 2:3]], 1)


def test_what_it_renders_is_what_we_render(kernels: Kernels, generator: torch.Generator) -> None:
    """From cameras around the cube, with cells that are empty."""
    box = Box((-2.0, -2.0, -2.0), (2.0, 2.0, 2.0))
    origins = torch.nn.functional.normalize(torch.randn(60, 3, generator=generator), dim=1) * 6
    directions = torch.nn.functional.normalize((torch.rand(60, 3, generator=generator) - 0.5) * 3 - origins, dim=1)
    rays = Rays(origins, directions, torch.ones(60, 3)).to(GPU)
    seen = []
    for marcher in ("fieldfit", "nerfacc"):
        march = MarchConfig(steps=1500, marcher=marcher)
        field = SoftBall(
            RadianceFieldConfig(march=march, occupancy=OccupancyConfig(resolution=R)), box, unbounded=False
        )
        field.encoding = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]  no grid: not the fused path
        middles = Occupancy.middles(R)
        field.occupancy.restrict(((middles - 0.5).norm(dim=1) < 0.48).view(R, R, R))
        seen.append(look(field.to(GPU), rays))
    ours, theirs = seen
    assert 0.3 < float(ours.opacity.mean()) < 0.9
    RENDERED.check(theirs.rgb, ours.rgb)
    RENDERED.check(theirs.opacity, ours.opacity)


def build(unbounded: bool = False) -> RadianceField:
    config = RadianceFieldConfig(march=MarchConfig(marcher="nerfacc"))
    return RadianceField(config, Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), unbounded)


def test_unbounded_scenes_are_refused(kernels: Kernels) -> None:
    with pytest.raises(InputError, match="marcher nerfacc: expected a bounded scene, got an unbounded one; take"):
        build(unbounded=True)


def test_kernels_that_cannot_be_compiled_are_told_at_once(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Error building extension 'nerfacc_cuda':\n ninja says no")

    build()
    monkeypatch.setattr("nerfacc.cuda.ray_aabb_intersect", broken)
    nerfacc_march._try_kernels.cache_clear()
    with pytest.raises(InputError, match=r"cannot be compiled \(Error building .*: ninja says no\); they need"):
        build()


def test_rays_on_the_cpu_are_refused(kernels: Kernels, generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="nerfacc computes on an NVIDIA GPU only, got rays on cpu; take --device cuda"):
        visible_samples(batch_of(2, generator), SHAPE, nothing, 1e-3)
