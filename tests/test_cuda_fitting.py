"""A step of fitting by the CUDA kernels, run by the host under AddressSanitizer, against the same step on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cuda_shim import Shim
from test_rendering import lively, rays_at
from tolerances import EXACT, GRADIENTS, RENDERED, TWO_KERNELS, Tolerance
from torch import Tensor

from fields.encodings import Frequency, Hash
from fields.field import Field, RadianceField, SignalFieldConfig, build, initialise
from fields.kernels import cuda_render, ops
from fields.kernels.cuda import Core
from fields.networks import MLP
from fields.optim import Adam, OptimiserConfig
from fields.rendering.render import look, render_rays

By = Callable[[], None]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Core:
    shim = Shim("address", tmp_path_factory.mktemp("shim"))
    return Core(lambda _: shim)


@pytest.fixture
def by_kernels(core: Core, monkeypatch: pytest.MonkeyPatch) -> Iterator[By]:
    """From when it is called, the CUDA kernels stand for the native core."""

    def forget() -> None:
        ops._grid_spec.cache_clear()
        ops._mlp_spec.cache_clear()

    def begin() -> None:
        forget()
        monkeypatch.setattr(ops, "_core", lambda device_type: core)

    yield begin
    forget()


def check_scaled(tolerance: Tolerance, got: Tensor, want: Tensor) -> None:
    scale = want.abs().amax().clamp(min=1e-3)
    tolerance.check(got.double() / scale, want.double() / scale)


def gradients(field: Field | RadianceField, optimiser: Adam) -> dict[str, Tensor]:
    """By parameter; that of a table from where it is gathered."""
    found = {}
    for group in optimiser.groups:
        gradient = group.param.grad if group.gathered is None else group.gathered.gradient
        assert gradient is not None
        found[group.name] = gradient.clone()
    return found


def step(field: Field | RadianceField, loss: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor], Adam]:
    """(what the loss is, gradients, the optimiser before its step)."""
    optimiser = Adam(field, OptimiserConfig())
    value = loss()
    value.backward()
    return value.detach(), gradients(field, optimiser), optimiser


def compare(make: Callable[[], Field | RadianceField], loss: Callable[..., Tensor], by_kernels: By) -> None:
    """Loss, gradients, and what Adam makes of them, from the same field."""
    ours, theirs = make(), make()
    value, d_ours, _ = step(ours, lambda: loss(ours))
    by_kernels()
    got, d_theirs, optimiser = step(theirs, lambda: loss(theirs))
    GRADIENTS.check(got, value)
    assert d_ours.keys() == d_theirs.keys()
    for name, gradient in d_ours.items():
        assert bool(gradient.any()), name
        check_scaled(TWO_KERNELS, d_theirs[name], gradient)
    before = {name: parameter.detach().clone() for name, parameter in theirs.named_parameters()}
    optimiser.step(1.0)
    for group in optimiser.groups:  # the first step of Adam moves by the rate, against the sign of the gradient
        gradient, param = d_theirs[group.name], group.param.detach()
        large = gradient.abs() > 1e-12  # squares of smaller ones are lost to float32
        GRADIENTS.check(param[large], (before[group.name] - group.rate / 10 * gradient.sign())[large])
        if group.table is not None:
            EXACT.check(param[gradient == 0], before[group.name][gradient == 0])
            assert group.gathered is not None and not bool(group.gathered.gradient.any())


@pytest.mark.parametrize("encoding", [Hash(2, 4, 9, 4, 24), Frequency(3)], ids=["grid", "frequency"])
def test_a_step_on_coordinates(encoding: Hash | Frequency, by_kernels: By, generator: torch.Generator) -> None:
    x, target = torch.rand(300, 2, generator=generator), torch.rand(300, 3, generator=generator)

    def make() -> Field:
        built = build(SignalFieldConfig(encoding, MLP(hidden_dim=16, bias=True)), {"kind": "image", "channels": 3})
        assert isinstance(built, Field)
        if isinstance(encoding, Hash):
            with torch.no_grad():
                built.encoding.get_parameter("table").mul_(5000)
        return built

    compare(make, lambda field: (field(x) - target).square().mean(), by_kernels)


@pytest.mark.parametrize("unbounded", [False, True])
def test_a_step_on_rays(unbounded: bool, by_kernels: By, generator: torch.Generator) -> None:
    """March, compaction, field, compositing and all of it backward; rays that become opaque are among them."""
    rays, target = rays_at(24), torch.rand(24, 3, generator=generator)

    def loss(field: RadianceField) -> Tensor:
        seen = render_rays(field, rays, torch.Generator().manual_seed(1))
        assert seen.n_samples > 400
        return (seen.rgb - target).square().mean() + 0.01 * seen.opacity.mean()

    def make() -> RadianceField:
        field = lively(unbounded)
        with torch.no_grad():
            field.density_network.get_parameter("params").mul_(2)
        return field

    compare(make, loss, by_kernels)


@pytest.mark.parametrize("most", [0, 2**21], ids=["following rays", "dropping samples"])
def test_both_ways_to_what_can_be_seen(most: int, by_kernels: By, monkeypatch: pytest.MonkeyPatch) -> None:
    field, rays = lively(), rays_at(40)
    with torch.no_grad():
        field.density_network.get_parameter("params").mul_(3)
    model, weights, batch, shape = parts(field, rays.origins, rays.directions)
    monkeypatch.setattr(cuda_render, "MOST_CANDIDATES", most)
    want = ops.core_for(*weights).march_visible(
        ops.grid_spec(model.grid, weights[0]), weights[0], ops.mlp_spec(model.density, weights[1]), weights[1],
        *batch, *ops.march_arguments(shape), 1e-2,
    )  # fmt: skip
    everything = ops.march(*batch, shape)
    assert len(want[1]) < 0.8 * len(everything.t0)
    by_kernels()
    got = ops.core_for(*weights).march_visible(
        ops.grid_spec(model.grid, weights[0]), weights[0], ops.mlp_spec(model.density, weights[1]), weights[1],
        *batch, *ops.march_arguments(shape), 1e-2,
    )  # fmt: skip
    same = got[0].diff() == want[0].diff()
    assert int((~same).sum()) <= 1  # a ray whose transmittance comes within rounding of the least
    keep, keep_want = same.repeat_interleave(got[0].diff()), same.repeat_interleave(want[0].diff())
    for ours, theirs in zip(got[1:], want[1:], strict=True):
        GRADIENTS.check(ours[keep], theirs[keep_want])


def parts(
    field: RadianceField, origins: Tensor, directions: Tensor
) -> tuple[ops.RadianceModel, tuple[Tensor, Tensor, Tensor], ops.RayBatch, ops.MarchShape]:
    """A field and rays as `ops.render` takes them."""
    from fields.rendering.render import march_shape

    encoding, density, color = field.encoding, field.density_network, field.color_network
    model = ops.RadianceModel(encoding.shape, density.shape, color.shape, field.harmonics_degree)  # pyright: ignore
    weights = tuple(p.detach() for p in (encoding.table, density.params, color.params))  # pyright: ignore
    batch = ops.RayBatch(field.box.to_unit(origins), directions, None, field.occupancy.bits)
    return model, weights, batch, march_shape(field)  # pyright: ignore[reportReturnType]


def test_looking_and_rendering_agree(by_kernels: By) -> None:
    field, rays = lively(), rays_at(50)
    by_kernels()
    with torch.no_grad():
        seen = look(field, rays)
    RENDERED.check(render_rays(field, rays).rgb.detach(), seen.rgb)


def test_a_tape_serves_one_backward_pass(by_kernels: By) -> None:
    field, rays = lively(), rays_at(3)
    by_kernels()
    loss = render_rays(field, rays).rgb.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(ValueError, match="serves one backward pass"):
        loss.backward()


def test_rays_that_meet_nothing(by_kernels: By) -> None:
    field = lively()
    by_kernels()
    rays = rays_at(5)
    rays.directions.neg_()
    seen = render_rays(field, rays)
    assert seen.n_samples == 0
    EXACT.check(seen.rgb.detach(), rays.background)
    seen.rgb.sum().backward()
    gradient = field.density_network.get_parameter("params").grad
    assert gradient is not None and not bool(gradient.any())


def test_initial_values_do_not_matter_to_the_device() -> None:
    """Fields are drawn on the CPU from a seed, so that a GPU begins with the same values."""
    one, other = lively(), lively()
    initialise(one, 3)
    initialise(other, 3)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        EXACT.check(a.detach(), b.detach())
