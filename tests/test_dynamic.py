"""Radiance fields that change with time: features, gradients, occupancy, fitting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import moving_capture, views, where
from tolerances import DISTANCES_OF_CELLS, EXACT, RENDERED_GRADIENTS, SECOND_GRADIENTS, VALUES

from fields.dynamics import Deformation, DynamicsConfig, SpaceTime, Static, TimeFeatures
from fields.encodings import Hash
from fields.export import Moment, surface_mesh
from fields.field import MarchConfig, RadianceField, RadianceFieldConfig, build, initialise
from fields.fitting import FitConfig, Step, fit
from fields.kernels import reference
from fields.kernels.ops import Samples
from fields.networks import MLP
from fields.optim import OptimiserConfig
from fields.rendering.hidden import TorchFront, follow
from fields.rendering.occupancy import OccupancyConfig
from fields.rendering.render import compose_rays, is_fused, look, predictor, render_view, unit_rays, visible_latents
from scenes import Capture, InputError
from scenes.box import Box
from scenes.rays import Rays

GRID = Hash(levels=4, log2_table_size=12, base_resolution=4, finest_resolution=32)
SMALL = RadianceFieldConfig(
    encoding=GRID,
    density=MLP(hidden_dim=16, hidden_layers=1),
    color=MLP(hidden_dim=16, hidden_layers=1),
    march=MarchConfig(steps=96),
    occupancy=OccupancyConfig(resolution=16, update_cells=2048, decay=0.95),
)
MOVING: dict[str, DynamicsConfig] = {
    "time features": TimeFeatures(n_frequencies=3),
    "deformation": Deformation(hidden_dim=16, position_frequencies=2, time_frequencies=3, time_features=0),
    "deformation and time features": Deformation(hidden_dim=16, position_frequencies=2, time_frequencies=3),
    "space-time": SpaceTime(3, 2, 12, 4, 32, 8),
}
each_dynamics = pytest.mark.parametrize("dynamics", MOVING.values(), ids=MOVING.keys())
BOX = Box((-2.0, -2.0, -2.0), (2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return moving_capture(tmp_path_factory.mktemp("moving"))


def lively(dynamics: DynamicsConfig, config: RadianceFieldConfig = SMALL) -> RadianceField:
    """A field with something in it that moves: features and offsets of the size of a fitted one."""
    field = RadianceField(replace(config, dynamics=dynamics), BOX, unbounded=False)
    initialise(field, 0)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in field.named_parameters():
            if name.endswith("table"):
                parameter.normal_(generator=g).mul_(2)
            if name.startswith("dynamics.network"):
                parameter.add_(torch.randn(parameter.shape, generator=g) * 0.3)
    return field


def rays_at(n: int) -> Rays:
    g = torch.Generator().manual_seed(0)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1) * 6
    directions = torch.nn.functional.normalize(torch.rand(n, 3, generator=g) - 0.5 - origins, dim=1)
    return Rays(origins, directions, torch.rand(n, 3, generator=g), torch.rand(n, generator=g))


# Fields.


@each_dynamics
def test_a_dynamic_field_changes_with_time_and_is_not_fused(dynamics: DynamicsConfig):
    field, rays = lively(dynamics), rays_at(60)
    assert not is_fused(field)
    now, later = look(field, rays).rgb, look(field, replace(rays, time=1 - rays.time)).rgb  # pyright: ignore
    assert float((now - later).abs().max()) > 0.01
    with pytest.raises(InputError, match="dynamic: expected times"):
        look(field, replace(rays, time=None))


def test_a_static_field_ignores_times():
    """Nothing of a fit of a static field depends on whether rays have times: fused, bit for bit."""
    field, rays = lively(Static()), rays_at(60)
    assert is_fused(field)
    EXACT.check(look(field, rays).rgb, look(field, replace(rays, time=None)).rgb)
    EXACT.check(compose_rays(field, rays).rgb.detach(), compose_rays(field, replace(rays, time=None)).rgb.detach())
    assert set(dict(field.named_parameters())) == {"encoding.table", "density_network.params", "color_network.params"}


def test_a_static_fit_of_a_moving_capture_is_that_of_one_without_times(capture: Capture):
    """Where the photographs are the same; their silhouettes do not carve, since the times are known to differ."""
    still = replace(capture, cameras=replace(capture.cameras, time=torch.zeros(len(capture.cameras))))
    moving = replace(still, cameras=replace(still.cameras, time=None))
    states = [steps(lively(Static()), scene, 3).state() for scene in (still, moving)]
    for name in states[0].keys() - {"seconds"}:
        EXACT.check(states[0][name], states[1][name])


def test_deformation_starts_as_the_static_field():
    field = RadianceField(replace(SMALL, dynamics=MOVING["deformation"]), BOX, unbounded=False)
    initialise(field, 0)
    g = torch.Generator().manual_seed(2)
    x, t = torch.rand(200, 3, generator=g), torch.rand(200, 1, generator=g)
    EXACT.check(field.features(x, t), field.encoding(x))


@each_dynamics
def test_gradients_are_those_in_double_precision(dynamics: DynamicsConfig):
    """The same samples, from the native march: the truth is of the field and of compositing."""
    field, rays = lively(dynamics), rays_at(40)
    wide = lively(dynamics).double()
    seen = compose_rays(field, rays).rgb
    pull = torch.rand(seen.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    got = torch.autograd.grad((seen * pull.float()).sum(), list(field.parameters()))
    origins, directions = unit_rays(field, rays)
    s, _ = visible_latents(field, origins, directions, None, rays.time)
    assert rays.time is not None and len(s.t0) > 0
    time = rays.time[s.ray.long(), None].double()
    latent = wide.latent(s.x.double(), time)
    colours = wide.color(latent, s.x.double(), directions.double(), s.ray, time)
    sigma = reference.activate("exp", latent[:, 0])
    rgb, opacity, _ = reference.composite(sigma, colours, s.t0.double(), s.t1.double(), s.offsets)
    truth = rgb + (1 - opacity)[:, None] * rays.background.double()
    VALUES.check(seen.detach(), truth.detach())
    expected = torch.autograd.grad((truth * pull).sum(), list(wide.parameters()))
    for mine, theirs in zip(got, expected, strict=True):
        assert bool((theirs != 0).any())
        RENDERED_GRADIENTS.check(mine, theirs)


def test_gradients_of_gradients_go_through_the_references():
    """Of log density by position and time, in double precision, against central differences."""
    field = lively(TimeFeatures(n_frequencies=2), replace(SMALL, density=MLP(16, 1, activation="silu"))).double()
    x = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((3, 1), 0.3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(field.latent(x, t)[:, 0].sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), t)
    h = 1e-4
    ahead, here, behind = (field.latent(x, t.detach() + d)[:, :1].detach() for d in (h, 0.0, -h))
    SECOND_GRADIENTS.check(second, (ahead - 2 * here + behind) / h**2)


@pytest.mark.parametrize(
    "dynamics",
    [
        TimeFeatures(0),
        TimeFeatures(25),
        Deformation(time_features=-1),
        SpaceTime(time_resolution=0),
        SpaceTime(levels=0),
    ],
)
def test_what_cannot_be_built_is_refused(dynamics: DynamicsConfig, capture: Capture):
    with pytest.raises(InputError, match="expected"):
        build(replace(SMALL, dynamics=dynamics), capture.describe())


@each_dynamics
def test_rays_that_meet_nothing_see_the_background(dynamics: DynamicsConfig):
    field, rays = lively(dynamics), rays_at(5)
    away = replace(rays, directions=-rays.directions)
    seen = look(field, away)
    assert seen.n_samples == 0
    EXACT.check(seen.rgb, away.background)


def test_what_is_hidden_is_left_out():
    """Two rays of three samples and an empty one between: opaque in the second sample, thin."""
    ray = torch.tensor([0, 0, 0, 2, 2, 2], dtype=torch.int32)
    t0 = torch.tensor([1.0, 2.0, 3.0] * 2)
    s = Samples(torch.tensor([0, 3, 3, 6], dtype=torch.int32), t0, t0 + 1, torch.rand(6, 3), ray)
    left, _ = follow(TorchFront(s, 1e-3), lambda x, _: torch.tensor([1.0, 9.0, 1.0, 2.0, 2.0, 2.0]))
    assert left.ray.tolist() == [0, 0, 2, 2, 2]
    assert left.offsets.tolist() == [0, 2, 2, 5]
    EXACT.check(left.x, s.x[[0, 1, 3, 4, 5]])
    EXACT.check(left.t1, s.t1[[0, 1, 3, 4, 5]])
    empty = Samples(torch.zeros(3, dtype=torch.int32), *(t[:0] for t in s[1:]))
    none, _ = follow(TorchFront(empty, 1e-3), lambda x, _: torch.zeros(len(x)))
    assert none.offsets.tolist() == [0, 0, 0]


def test_dynamics_need_times(capture: Capture):
    still = replace(capture, cameras=replace(capture.cameras, time=None))
    with pytest.raises(InputError, match="expected photographs of several times"):
        build(replace(SMALL, dynamics=TimeFeatures()), still.describe())


def test_nerfacc_does_not_march_through_dynamic_fields(capture: Capture):
    config = replace(SMALL, dynamics=TimeFeatures(), march=MarchConfig(marcher="nerfacc"))
    with pytest.raises(InputError, match="static fields only"):
        build(config, capture.describe())


# Occupancy.


class MovingBall(RadianceField):
    """Opaque within the ball of `where`, in the box; its dynamics are those of any dynamic field."""

    def density(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        assert time is not None
        first, last = (BOX.to_unit(torch.tensor([where(t)])) for t in (0.0, 1.0))
        centre = first + time * (last - first)
        return 1e3 * ((x - centre).norm(dim=1) < 0.5 / BOX.side).float()


def test_occupancy_is_of_all_times_together():
    field = MovingBall(replace(SMALL, dynamics=TimeFeatures()), BOX, unbounded=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        field.occupancy.refresh(field.sometime(generator), 0.01, generator)
    r = field.occupancy.config.resolution
    middles = field.occupancy.middles(r)
    reached = torch.zeros(len(middles), dtype=torch.int64)
    near = torch.zeros(len(middles), dtype=torch.bool)
    for time in torch.linspace(0, 1, 50):
        distance = (BOX.from_unit(middles) - torch.tensor(where(float(time)))).norm(dim=1)
        reached += distance < 0.4
        near |= distance < 0.5 + BOX.side / r
    occupied = field.occupancy.occupied.flatten()
    often = reached >= 8  # of 50 times: that 60 visits all miss it has a probability of 3e-5
    assert int(often.sum()) > 20
    assert bool(occupied[often].all()), "wherever the ball ever is"
    assert not bool(occupied[~near].any()), "and nowhere else"


def test_nothing_that_moves_is_carved_away(capture: Capture):
    field = lively(TimeFeatures())
    field.occupancy.carve(capture, field.to_world)
    r = field.occupancy.config.resolution
    world = BOX.from_unit(field.occupancy.middles(r))
    occupied = field.occupancy.occupied.flatten()
    for _, time in views(24):
        assert bool(occupied[(world - torch.tensor(where(time))).norm(dim=1) < 0.5].all())
    assert not bool(occupied.all()), "but something is"


def test_a_surface_is_that_of_one_time():
    field = MovingBall(replace(SMALL, dynamics=TimeFeatures()), BOX, unbounded=False)
    for time in (0.0, 0.75):
        mesh = surface_mesh(Moment(field, time), {"kind": "capture", "box": BOX.to_json()}, 64)
        assert mesh is not None
        lo, hi = (torch.from_numpy(np.array(end)) for end in mesh.bounds)
        DISTANCES_OF_CELLS.check((lo + hi) / 2, torch.tensor(where(time), dtype=torch.float64))
        DISTANCES_OF_CELLS.check(hi - lo, torch.ones(3, dtype=torch.float64))


# Fitting.


def steps(field: RadianceField, scene: Capture, n: int, state: dict[str, torch.Tensor] | None = None) -> Step:
    config = FitConfig(steps=n, minutes=None, batch=4096, optimiser=OptimiserConfig(2e-2, 1e-2))
    *_, last = fit(field, scene, config, state=state)
    return last


def test_a_moving_ball_is_fitted_better_than_by_a_static_field(capture: Capture):
    """At times and views that it has not seen, by 3 dB at least."""
    score: dict[str, float] = {}
    for dynamics in (Static(), MOVING["space-time"]):
        field = build(replace(SMALL, dynamics=dynamics), capture.describe())
        assert isinstance(field, RadianceField)
        steps(field, capture, 150)
        score[type(dynamics).__name__] = capture.evaluate(predictor(field)).results["psnr"]
    assert score["SpaceTime"] > score["Static"] + 3, score


@each_dynamics
def test_resuming_is_exact(capture: Capture, dynamics: DynamicsConfig):
    config = FitConfig(steps=18, minutes=None, batch=512)
    whole, halves = lively(dynamics), lively(dynamics)
    *_, last = fit(whole, capture, config)
    begun = fit(halves, capture, config)
    step = [next(begun) for _ in range(16)][-1]
    state, weights = step.state(), {k: v.clone() for k, v in halves.state_dict().items()}
    other = lively(dynamics)
    other.load_state_dict(weights)
    *_, resumed = fit(other, capture, config, state=state)
    assert resumed.index == last.index == 18
    for name, tensor in whole.state_dict().items():
        EXACT.check(other.state_dict()[name], tensor)


def test_views_are_rendered_at_their_own_time(capture: Capture):
    """The middle of what is not background moves to where the ball is."""
    field = lively(Deformation(hidden_dim=16, time_features=0))
    cameras = replace(capture.cameras[[0, 0]], time=torch.tensor([0.0, 1.0]))
    first, second = (render_view(field, cameras, view, (1.0, 1.0, 1.0)).rgb for view in (0, 1))
    assert float((first - second).abs().max()) > 0.01
