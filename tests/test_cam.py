"""Coordinate-aware modulation: the kernel against the reference in float64 on each instruction set, the reference
against torch's own grid sampling, and what the network promises: identity at first, no seam, no bad norms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kernel_table import COUNTS, Case, run_both, run_table_forced
from program import Program, assert_one_line
from tiny_clips import disc, write_lossless
from tiny_runs import write_image
from tolerances import EXACT, FINITE_DIFFERENCES, GRADIENTS, SECOND_GRADIENTS, VALUES
from torch import Tensor
from waves import DESCRIBED, Waves

from fields.contracts import At, AtShape
from fields.encodings import Frequency, Hash
from fields.field import Field, RadianceField, RadianceFieldConfig, SignalFieldConfig, build, initialise
from fields.fitting import FitConfig, fit
from fields.kernels import cam, native, reference_cam
from fields.kernels.shapes import CamShape, MlpShape, ModulationAxis
from fields.networks import CAM, build_network
from fields.networks.cam import CamPerceptron
from fields.optim import Adam, OptimiserConfig
from fields.presets import preset
from fields.run import Data, Run
from scenes.box import Box
from scenes.errors import InputError


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    """Starts once for the whole file."""
    with Program() as program:
        yield program


CLAMPED, WRAPPED, SINGLE = ModulationAxis(5), ModulationAxis(4, wraps=True), ModulationAxis(1)


def shape_of(dims: tuple[int, ...], axes: tuple[ModulationAxis, ...], *marks: str) -> CamShape:
    output = "sigmoid" if "sigmoid" in marks else "identity"
    mlp = MlpShape(dims, "silu" if "silu" in marks else "relu", output, bias=True)
    return CamShape(mlp, axes, "each" in marks, "plain" not in marks)


def drawn(n: int, shape: CamShape, g: torch.Generator, aux_dim: int = 0) -> list[Tensor]:
    dims = shape.mlp.dims
    x = torch.randn(n, dims[0] - aux_dim, generator=g)
    at = torch.rand(n, len(shape.axes), generator=g) * 1.4 - 0.2  # some outside of the grids
    params = torch.randn(shape.mlp.size, generator=g) / max(dims) ** 0.5
    return [x, at, params, torch.randn(shape.grids, generator=g)]


def case(dims: tuple[int, ...], axes: tuple[ModulationAxis, ...], *marks: str, aux_dim: int = 0) -> Case:
    shape = shape_of(dims, axes, *marks)

    def inputs(n: int, g: torch.Generator) -> list[Tensor]:
        found = drawn(n, shape, g, aux_dim)
        if aux_dim:
            found += [torch.randn(7, aux_dim, generator=g), torch.randint(7, (n,), generator=g, dtype=torch.int32)]
        return found

    def call(op):
        def run(x: Tensor, at: Tensor, *others: Tensor) -> Tensor:
            return op(x, at if axes else at.detach(), *others[:2], shape, *others[2:])

        return run

    name = "-".join(
        [*map(str, dims), *(f"{a.vertices}{'w' if a.wraps else ''}" for a in axes), *marks, f"aux{aux_dim}"]
    )
    return Case(name, inputs, call(cam.cam), call(reference_cam.cam), GRADIENTS)


CASES = [
    case((8, 16, 3), (CLAMPED,)),
    case((32, 64, 64, 4), (CLAMPED, CLAMPED)),
    case((5, 17, 17, 17, 3), (WRAPPED, CLAMPED), "silu", "sigmoid"),
    case((20, 33, 33, 5), (CLAMPED, WRAPPED, CLAMPED), "silu", "each", aux_dim=3),
    case((6, 48, 1), (CLAMPED,), "each", "plain"),
    case((1, 1, 1), (SINGLE,), "plain"),
    case((3, 128, 128, 130), (), "silu"),
    case((40, 256, 256, 3), (CLAMPED, SINGLE, WRAPPED, CLAMPED), "silu", "sigmoid", aux_dim=8),
    case((4, 24, 24, 2), (ModulationAxis(2),) * 6, "plain", "silu"),
]


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel_agrees_with_reference(case: Case, n: int) -> None:
    run_both(case, n)


@pytest.mark.parametrize("isa", native.available()[1:])
def test_every_instruction_set_agrees(isa: str) -> None:
    """The whole table again in a process that is forced to another instruction set."""
    run_table_forced(isa, "test_cam")


def test_reference_is_layer_norm_and_grid_sampling(generator: torch.Generator) -> None:
    """torch samples images with corners at the borders' pixels; its first coordinate is the quickest, as ours."""
    shape = shape_of((4, 8, 3), (ModulationAxis(5), ModulationAxis(3)))
    x, at, params, grids = (t.double() for t in drawn(50, shape, generator))
    weight, bias = params[:32].view(8, 4), params[32:40]
    image = grids[0, :, :, 0].T.reshape(1, 2, 3, 5)
    where = (2 * at - 1)[None, None]
    sampled = torch.nn.functional.grid_sample(image, where, padding_mode="border", align_corners=True)[0, :, 0]
    f = x @ weight.T + bias
    y = (f - f.mean(1, keepdim=True)) / (f.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    h = (sampled[0, :, None] * y + sampled[1, :, None]).relu()
    VALUES.check(reference_cam.cam(x, at, params, grids, shape), h @ params[40:64].view(3, 8).T + params[64:])


def test_reference_gradients_are_finite_differences(generator: torch.Generator) -> None:
    shape = shape_of((4, 8, 8, 2), (CLAMPED, WRAPPED), "silu", "each")
    inputs = [t.double().requires_grad_() for t in drawn(9, shape, generator)]
    inputs[1] = (torch.rand(9, 2, generator=generator).double() * 0.02 + 0.6).requires_grad_()  # within one cell
    d_out = torch.randn(9, 2, generator=generator).double()

    def product(inputs: list[Tensor]) -> Tensor:
        x, at, params, grids = inputs
        return (reference_cam.cam(x, at, params, grids, shape) * d_out).sum()

    for i, gradient in enumerate(torch.autograd.grad(product(inputs), inputs)):
        step = torch.randn(gradient.shape, generator=generator).double()
        step = step / step.norm()
        sides = [product([t + s * step if i == j else t for j, t in enumerate(inputs)]) for s in (-1e-4, 1e-4)]
        FINITE_DIFFERENCES.check((sides[1] - sides[0]).detach() / 2e-4, (gradient * step).sum())


def test_gradients_of_gradients(generator: torch.Generator) -> None:
    """Through the reference, as losses of normals need them: against differences of the gradient."""
    shape = shape_of((3, 8, 8, 1), (CLAMPED,) * 3, "silu")
    x, _, params, grids = (t.double() for t in drawn(6, shape, generator))
    x = torch.rand(6, 3, generator=generator).double() * 0.02 + 0.6

    def squared_normal(grids: Tensor) -> Tensor:
        point = x.clone().requires_grad_()
        value = reference_cam.cam(point, point, params, grids, shape).sum()
        (normal,) = torch.autograd.grad(value, point, create_graph=True)
        return normal.square().sum()

    grids = grids.requires_grad_()
    (found,) = torch.autograd.grad(squared_normal(grids), grids)
    step = torch.randn(grids.shape, generator=generator).double() * 1e-5
    difference = (squared_normal(grids + step) - squared_normal(grids - step)).detach() / 2
    SECOND_GRADIENTS.check(difference, (found * step).sum())


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_are_the_same_every_time_and_without_a_tape(threads: int, generator: torch.Generator) -> None:
    torch.set_num_threads(threads)
    shape = shape_of((16, 32, 32, 3), (CLAMPED, WRAPPED), "sigmoid")
    x, at, params, grids = (t.requires_grad_() for t in drawn(3000, shape, generator))
    d_out = torch.randn(3000, 3, generator=generator)
    first, second = (
        torch.autograd.grad(cam.cam(x, at, params, grids, shape), [x, at, params, grids], d_out) for _ in range(2)
    )
    without = [torch.empty_like(t) for t in (x, at, params, grids.view(-1))]
    cam.spec(shape, x).backward(
        x.detach(), at.detach(), params.detach(), grids.detach().view(-1), None, None, d_out, *without, None
    )
    for a, b, c in zip(first, second, without, strict=True):
        EXACT.check(a, b)
        EXACT.check(a, c.view(a.shape))


def test_a_sample_that_is_not_finite_leaves_others_alone(generator: torch.Generator) -> None:
    shape = shape_of((5, 20, 20, 3), (CLAMPED, WRAPPED), "each")
    x, at, params, grids = drawn(301, shape, generator)
    expected = cam.cam(x, at, params, grids, shape)
    x[1::3], at[2::3] = torch.nan, torch.nan
    EXACT.check(cam.cam(x, at, params, grids, shape)[::3], expected[::3])


def test_wrong_shapes_are_refused() -> None:
    shape = shape_of((2, 4, 1), (CLAMPED,))
    sizes = torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(shape.mlp.size), torch.zeros(shape.grids)
    with pytest.raises(ValueError, match=r"at must be \[3, 1\]"):
        cam.cam(sizes[0], torch.zeros(3, 2), *sizes[2:], shape)
    with pytest.raises(ValueError, match="grids must have 10 values"):
        cam.cam(*sizes[:3], torch.zeros(1, 6, 2, 1), shape)


def network(config: CAM, at: AtShape, n_in: int = 6) -> CamPerceptron:
    built = build_network(config, n_in, 3, at=at)
    assert isinstance(built, CamPerceptron)
    initialise(built, 3)
    return built


@pytest.mark.parametrize("channels", ["single", "each"])
def test_a_new_network_is_the_same_without_modulation(channels: str, generator: torch.Generator) -> None:
    x, at = torch.randn(20, 6, generator=generator), At(torch.rand(20, 2, generator=generator))
    config = CAM(hidden_dim=24, channels="each" if channels == "each" else "single")
    plain = network(replace(config, modulated=False), AtShape(2))
    VALUES.check(network(config, AtShape(2))(x, at=at), plain(x, at=at))
    assert plain.grid_parameters() == []
    assert not any(name == "grids" for name, _ in plain.named_parameters())


def random_grids(network: CamPerceptron, generator: torch.Generator) -> CamPerceptron:
    with torch.no_grad():
        network.grids += torch.randn(network.grids.shape, generator=generator)
    return network


def seen_from(network: CamPerceptron, directions: list[tuple[float, float, float]]) -> Tensor:
    d = torch.nn.functional.normalize(torch.tensor(directions), dim=1)
    x = torch.linspace(-1, 1, 6).expand(len(d), 6)
    with torch.no_grad():
        return network(x, at=At(torch.zeros(len(d), 3), d))


COLOR = AtShape(3, direction=True)


@pytest.mark.parametrize("over", [("direction",), ("position", "direction")])
def test_directions_have_no_seam_and_no_poles(over, generator: torch.Generator) -> None:
    resolution = (10, 5) if over == ("direction",) else (2, 3, 2, 10, 5)
    grown = random_grids(network(CAM(over=over, resolution=resolution), COLOR), generator)
    e = 1e-6
    at_seam = seen_from(grown, [(-1, e, 0.3), (-1, -e, 0.3), (-1, -0.5, 0.3), (-1, 0.5, 0.3)])
    GRADIENTS.check(at_seam[0], at_seam[1])
    assert not torch.equal(at_seam[2], at_seam[3])
    for z in (-1, 1):
        at_pole = seen_from(grown, [(e, 0, z), (-e, e, z), (0, -e, z), (0, 0, z), (0.5, 0, z)])
        GRADIENTS.check(at_pole[:3], at_pole[3].expand(3, -1))
        assert not torch.equal(at_pole[3], at_pole[4])
    below, level, above = seen_from(grown, [(1, 0, -0.7), (1, 0, 0), (1, 0, 0.7)])
    assert not torch.equal(below, level) and not torch.equal(level, above) and not torch.equal(below, above)


def test_positions_are_held_at_the_borders(generator: torch.Generator) -> None:
    grown = random_grids(network(CAM(resolution=(4, 6)), AtShape(2)), generator)
    x = torch.randn(1, 6, generator=generator).expand(5, 6)
    outside = torch.tensor([[-3.0, 0.3], [1.5, 0.3], [0.4, -0.1], [0.4, 7.0], [2.0, 2.0]])
    EXACT.check(grown(x, at=At(outside)), grown(x, at=At(outside.clamp(0, 1))))


def test_time_is_given_or_a_videos_last_coordinate(generator: torch.Generator) -> None:
    """By default it modulates where there is one, and nothing else does."""
    of_video, of_scene = (
        random_grids(network(CAM(channels="each"), at), torch.Generator().manual_seed(5))
        for at in (AtShape(3, time="last"), AtShape(3, time="own"))
    )
    x, p = torch.randn(9, 6, generator=generator), torch.rand(9, 3, generator=generator)
    elsewhere = torch.cat([torch.rand(9, 2, generator=generator), p[:, 2:]], dim=1)
    EXACT.check(of_video(x, at=At(p)), of_video(x, at=At(elsewhere)))
    EXACT.check(of_video(x, at=At(p)), of_scene(x, at=At(p[:, :1].expand(9, 3), time=p[:, 2:])))
    assert not torch.equal(of_video(x, at=At(p)), of_video(x, at=At(1 - p)))


def test_a_film_is_modulated_over_time() -> None:
    """From its first frame to its last, wherever these lie in the unit cube."""
    field = Field(SignalFieldConfig(Frequency(1), CAM(resolution=(2,))), 3, 3, (0.25, 0.5))
    assert isinstance(field.network, CamPerceptron) and field.network.modulators == ("time",)
    initialise(field, 0)
    ends = torch.tensor([[0.1, 0.9, 0.25], [0.1, 0.9, 0.5]])
    before = field(ends).detach()
    with torch.no_grad():
        field.network.grids[:, 0] += 1  # the vertex at the first frame
    after = field(ends).detach()
    assert not torch.equal(after[0], before[0])
    EXACT.check(after[1], before[1])


def test_default_resolutions_follow_what_modulates() -> None:
    def vertices(config: CAM, at: AtShape) -> list[int]:
        return [axis.vertices for axis in network(config, at).shape.axes]

    assert vertices(CAM(), AtShape(2)) == [32, 32]
    assert vertices(CAM(), AtShape(3)) == [32, 32, 32]
    assert vertices(CAM(), COLOR) == [10, 5]
    assert vertices(CAM(), AtShape(3, time="last")) == [5]
    assert vertices(CAM(resolution=(7,)), AtShape(2)) == [7, 32]
    assert vertices(CAM(over=("time", "direction"), resolution=(9, 8)), AtShape(3, True, "own")) == [9, 8, 5]


@pytest.mark.parametrize(
    ("config", "at", "message"),
    [
        (CAM(norm="ray"), AtShape(3), "rays are packed.*take norm none or layer"),
        (CAM(norm="instance"), AtShape(3), "samples at random.*take norm none or layer"),
        (CAM(over=("direction",)), AtShape(3), "density and occupancy are the same from everywhere"),
        (CAM(over=("time",)), AtShape(2), "this signal has no time: take over position"),
        (CAM(over=("time", "position")), AtShape(3, time="last"), "position holds its time already"),
        (CAM(over=("position", "position")), AtShape(2), "names a coordinate twice"),
        (CAM(resolution=(4, 4, 4)), AtShape(2), "up to 2 numbers, one for each of position 0, position 1; got 3"),
        (CAM(resolution=(4, 0)), AtShape(2), "resolution of position 1: expected 1 or more, got 0"),
        (CAM(resolution=(4, 2)), COLOR, "resolution of elevation: expected 3 or more, got 2"),
        (CAM(resolution=(1024,) * 3), AtShape(3), "too many; lower resolution"),
        (CAM(hidden_layers=0), AtShape(2), "1 to 15 hidden layers"),
    ],
)
def test_what_cannot_be_built_is_one_line(config: CAM, at: AtShape, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        build_network(config, 6, 3, at=at)
    assert "\n" not in str(raised.value)


def test_what_is_not_told_at_the_first_call_is_one_line() -> None:
    x, p = torch.zeros(2, 6), torch.zeros(2, 3)
    with pytest.raises(InputError, match="not told where its samples lie"):
        network(CAM(), AtShape(2))(x)
    with pytest.raises(InputError, match="take over position"):
        network(CAM(), COLOR)(x, at=At(p))
    with pytest.raises(InputError, match="2 numbers for 3 coordinates"):
        network(CAM(), AtShape(2))(x, at=At(p))


def test_a_density_network_does_not_see_directions() -> None:
    box = Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    sees = CAM(over=("direction",))
    field = RadianceField(RadianceFieldConfig(Frequency(2), CAM(resolution=(4, 4, 4)), sees), box, False)
    initialise(field, 0)
    rgb, sigma = field(torch.rand(3, 3), torch.eye(3))
    assert bool(torch.isfinite(rgb).all() and torch.isfinite(sigma).all())
    with pytest.raises(InputError, match="colour network of a radiance field alone"):
        RadianceField(RadianceFieldConfig(Frequency(2), sees, sees), box, False)


def test_grids_are_fitted_at_the_rate_of_tables() -> None:
    field = image_field(CAM(hidden_dim=8))
    rates = {g.name: g.rate for g in Adam(field, OptimiserConfig(table_rate=0.25, network_rate=0.5)).groups}
    assert rates == {"network.params": 0.5, "network.grids": 0.25}


def image_field(network: CAM) -> Field:
    field = build(SignalFieldConfig(Frequency(2), network), DESCRIBED)
    assert isinstance(field, Field)
    return field


class Noise(Waves):
    """A smooth random picture, finer than two octaves of frequencies are."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        picture = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(8))
        x = torch.rand(n, 2, generator=generator)
        return x, torch.nn.functional.grid_sample(picture, (2 * x - 1)[None, None], align_corners=True)[0, :, 0].T


def test_modulation_fits_an_image_better(one_thread: None) -> None:
    scene, errors = Noise(), []
    for modulated in (False, True):
        field = image_field(CAM(hidden_dim=16, resolution=(9, 9), modulated=modulated))
        rates = OptimiserConfig(table_rate=3e-2, network_rate=1e-2)
        *_, last = fit(field, scene, FitConfig(steps=200, batch=512, optimiser=rates))
        assert last.skipped == 0
        x, target = scene.sample(2000, torch.Generator().manual_seed(9))
        with torch.no_grad():
            errors.append(-10 * math.log10(float((field(x) - target).square().mean())))
    assert errors[1] > errors[0] + 1


def test_a_run_is_saved_and_read_back(tmp_path: Path, one_thread: None) -> None:
    config = replace(preset(Waves(), encoding="frequency", network="cam"), fit=FitConfig(steps=3, batch=64))
    run = Run.create(tmp_path / "run", config, DESCRIBED, Data("/somewhere/waves.png", "waves"))
    field = build(config.field, DESCRIBED)
    *_, last = fit(field, Waves(), config.fit)
    run.save(field, last)
    opened = Run.open(run.path)
    assert opened.config == config
    again, x = opened.field(), torch.rand(5, 2)
    assert isinstance(again, Field) and isinstance(again.network, CamPerceptron)
    assert bool((again.network.grids != build(config.field, DESCRIBED).get_parameter("network.grids")).any())
    EXACT.check(again(x), field(x).detach())


def test_the_program_fits_with_it(fieldfit: Program, tmp_path: Path) -> None:
    picture = write_image(tmp_path / "stripes.png")
    options = ("--network", "cam", "--steps", "5", "--field.encoding.log2-table-size", "12")
    done = fieldfit(tmp_path, "fit", picture, *options, "--field.network.resolution", "8", "4")
    assert done.code == 0, done.stderr
    assert fieldfit(tmp_path, "eval", tmp_path / "runs" / "stripes").code == 0
    refused = fieldfit(tmp_path, "fit", picture, *options, "--field.network.norm", "ray")
    assert_one_line(refused, 1, "rays are packed")


def test_a_modulated_film_has_small_tables(fieldfit: Program, tmp_path: Path) -> None:
    """`--field cam` has a grid of fewer entries than `--network cam`, and both a vertex for each frame."""
    film = write_lossless(tmp_path / "disc.mkv", disc(8, 48, 64))
    sizes: list[int] = []
    for name, how in (("small", ("--field", "cam")), ("large", ("--network", "cam"))):
        done = fieldfit(tmp_path, "fit", film, *how, "--steps", "2", "--fit.batch", "256", "--out", name)
        assert done.code == 0, done.stderr
        match Run.open(tmp_path / name).config.field:
            case SignalFieldConfig(Hash() as tables, CAM(over=("time",), resolution=(8,), channels="each")):
                sizes.append(tables.log2_table_size)
    small, large = sizes
    assert small < large
