"""Fields of tiny-cuda-nn's modules, by a stand-in for the library (pretend_tinycudann.py) on a GPU that is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pretend_tinycudann
import pytest
import torch
from pretend_gpu import GPU, Kernels, pretend_kernels
from tolerances import EXACT, HALF_STORAGE, VALUES
from torch import Tensor

from fields.encodings import Frequency, Hash, TcnnHash, build_encoding
from fields.encodings.grid import GridEncoding, shape_of
from fields.encodings.tcnn import TcnnGridEncoding, settings
from fields.field import RadianceFieldConfig, SignalFieldConfig, build, gpu_only, initialise
from fields.fitting import FitConfig
from fields.kernels import reference, tcnn
from fields.networks import MLP, TcnnMLP, build_network
from fields.networks.tcnn import TcnnPerceptron
from fields.optim import Adam, OptimiserConfig
from fields.presets import Config, _switched, capture_preset, image_preset
from scenes.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = {"kind": "image", "channels": 3}


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    monkeypatch.setitem(sys.modules, "tinycudann", pretend_tinycudann)
    with pretend_kernels(monkeypatch) as kernels:
        yield kernels


def on_gpu(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(GPU)


def encoding(config: TcnnHash, dim: int) -> TcnnGridEncoding:
    built = build_encoding(config, dim)
    assert isinstance(built, TcnnGridEncoding)
    return built


def network(n_in: int, n_out: int, config: TcnnMLP | None = None, last: reference.Activation = "identity"):
    built = build_network(config or TcnnMLP(hidden_dim=16, hidden_layers=1), n_in, n_out, last)
    assert isinstance(built, TcnnPerceptron)
    initialise(built, 1)
    return built


@pytest.mark.parametrize("config", [TcnnHash(4, 2, 10, 4, 50), TcnnHash(1, 8, 10, 6, 6), TcnnHash(2, 1, 10, 5, 9)])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_grid_has_the_features_of_ours(config: TcnnHash, dim: int, kernels: Kernels) -> None:
    """The same vertices hold the same values; away from the far faces, where the library's dense levels wrap around."""
    theirs = encoding(config, dim)
    ours = GridEncoding(Hash(*vars(config).values()), dim)
    assert theirs.width == ours.width == config.levels * config.features_per_level
    with torch.no_grad():
        ours.table.normal_(generator=torch.Generator().manual_seed(2))
        table = torch.zeros(theirs.table.numel() // config.features_per_level, config.features_per_level)
        for level, of_ours in zip(theirs.grid.levels, ours.shape.levels, strict=True):
            assert level.hashed == of_ours.hashed
            assert level.scale == pytest.approx(of_ours.scale)
            if level.hashed:
                table[level.offset : level.offset + level.entries] = ours.table[of_ours.offset :][: of_ours.entries]
                continue
            vertex = torch.cartesian_prod(*[torch.arange(level.resolution)] * dim)
            to, of = ((vertex * r ** torch.arange(dim)).sum(1) for r in (level.resolution, of_ours.resolution))
            table[level.offset + to] = ours.table[of_ours.offset + of]
        theirs.table.copy_(table.flatten().to(GPU))
    x = on_gpu(300, dim) * 0.7
    got = theirs(x)
    assert got.dtype == torch.float32 and kernels.gpu.holds(got)
    HALF_STORAGE.check(got.detach().cpu(), reference.grid_encode(x.cpu().double(), ours.table.double(), ours.shape))


def test_a_grid_grows_from_the_base_to_the_finest() -> None:
    grid = encoding(TcnnHash(levels=5, base_resolution=16, finest_resolution=777), 3).grid
    assert [grid.levels[0].scale + 1, grid.levels[-1].scale + 1] == pytest.approx([16, 777])
    assert settings(TcnnHash(levels=1))["per_level_scale"] == 1.0


def test_coordinates_outside_of_the_unit_cube_are_its_faces() -> None:
    grid = encoding(TcnnHash(2, 2, 8, 4, 8), 2)
    initialise(grid, 3)
    outside = torch.tensor([[-0.5, 0.3], [0.3, 7.0]]).to(GPU)
    EXACT.check(grid(outside).detach(), grid(outside.clamp(0, 1)).detach())


@pytest.mark.parametrize(("n_in", "n_out"), [(32, 16), (3, 1), (16, 3), (37, 20)])
@pytest.mark.parametrize("last", ["identity", "sigmoid"])
def test_a_network_is_its_layers(n_in: int, n_out: int, last: reference.Activation) -> None:
    built = network(n_in, n_out, TcnnMLP(hidden_dim=32, hidden_layers=2), last)
    x = on_gpu(50, n_in) - 0.5
    weights = built.mlp.params.detach().half().double().cpu()
    at, padded = 0, [-(-n // 16) * 16 for n in (n_in, n_out)]
    expected = torch.cat([x.cpu().half().double(), torch.ones(50, padded[0] - n_in)], 1)
    for rows, columns in ((32, padded[0]), (32, 32), (padded[1], 32)):
        layer = weights[at : at + rows * columns].view(rows, columns)
        expected, at = (expected if at == 0 else expected.relu()) @ layer.T, at + rows * columns
    assert at == len(weights)
    got = built(x)
    assert got.dtype == torch.float32
    HALF_STORAGE.check(got.detach().cpu(), reference.activate(last, expected)[:, :n_out])


def test_a_second_input_is_one_row_per_ray() -> None:
    built, x, aux = network(19, 3), on_gpu(6, 16), on_gpu(3, 3, seed=1)
    index = torch.tensor([0, 0, 2, 2, 1, 0], dtype=torch.int32).to(GPU)
    EXACT.check(built(x, aux, index).detach(), built(torch.cat([x, aux[index.long()]], 1)).detach())
    EXACT.check(built(x[:3], aux).detach(), built(torch.cat([x[:3], aux], 1)).detach())


def test_no_points() -> None:
    assert network(16, 3)(on_gpu(0, 16)).shape == (0, 3)
    assert encoding(TcnnHash(2, 2, 8, 4, 8), 3)(on_gpu(0, 3)).shape == (0, 4)


def relative_error(scale: float, monkeypatch: pytest.MonkeyPatch, size: float) -> float:
    """Of the gradients of a network's parameters and inputs, for cotangents of this size."""
    monkeypatch.setattr(tcnn, "GRADIENT_SCALE", scale)
    built, x = network(16, 3), on_gpu(300, 16).requires_grad_()
    d = (on_gpu(300, 3, seed=1) - 0.5) * size
    got = torch.autograd.grad(built(x), [built.mlp.params, x], d)
    params = built.mlp.params.detach().half().double().cpu().requires_grad_()
    wide = x.detach().half().double().cpu().requires_grad_()
    hidden = (wide @ params[:256].view(16, 16).T).relu()
    truth = torch.autograd.grad((hidden @ params[256:].view(16, 16).T)[:, :3], [params, wide], d.cpu().double())
    return max(float((a.cpu().double() - b).norm() / b.norm()) for a, b in zip(got, truth, strict=True))


@pytest.mark.parametrize("size", [0.5, 1.0e-5, 1.0e-8])
def test_gradients_of_any_size_survive_16_bits(size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative_error(tcnn.GRADIENT_SCALE, monkeypatch, size) < HALF_STORAGE.rtol


def test_small_gradients_would_not_survive_without_being_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative_error(1.0, monkeypatch, 1.0e-8) > 10 * HALF_STORAGE.rtol


def test_initial_values_come_from_the_seed() -> None:
    field = build(SignalFieldConfig(TcnnHash(2, 2, 8, 4, 8), TcnnMLP(16, 1)), IMAGE)
    drawn = []
    for seed in (0, 0, 1):
        initialise(field, seed)
        drawn.append(torch.cat([p.detach().cpu() for p in field.parameters()]))
    EXACT.check(drawn[0], drawn[1])
    assert not bool((drawn[0] == drawn[2]).any())


def test_a_table_gets_the_rate_of_tables_and_only_where_it_was_touched() -> None:
    field = build(SignalFieldConfig(TcnnHash(1, 2, 8, 8, 8), TcnnMLP(16, 1)), IMAGE).to(GPU)
    optimiser = Adam(field, OptimiserConfig(table_rate=0.25, network_rate=0.125, warmup_steps=0))
    rates = {group.name: (group.rate, group.is_grid) for group in optimiser.groups}
    assert rates == {"encoding.grid.params": (0.25, True), "network.mlp.params": (0.125, False)}
    assert isinstance(field.encoding, TcnnGridEncoding)
    table = field.encoding.table
    before = table.detach().clone()
    (field(on_gpu(1, 2) * 0).sum() * 1e-2).backward()
    gradient = table.grad
    assert gradient is not None and optimiser.finite()
    touched = gradient != 0
    assert 0 < int(touched.sum()) <= 4 * 2
    optimiser.step(1.0)
    EXACT.check(table.detach()[~touched], before[~touched])
    VALUES.check((table.detach() - before)[touched].abs(), torch.full((int(touched.sum()),), 0.25).to(GPU))


def test_an_overflow_is_not_finite() -> None:
    """A gradient beyond 16 bits: the step is skipped rather than taken."""
    field = build(SignalFieldConfig(TcnnHash(1, 2, 8, 8, 8), TcnnMLP(16, 1)), IMAGE).to(GPU)
    optimiser = Adam(field, OptimiserConfig())
    (field(on_gpu(5, 2)).sum() * 1e6).backward()
    assert not optimiser.finite()
    optimiser.forget()
    assert optimiser.finite()
    assert isinstance(field.encoding, TcnnGridEncoding)
    field.encoding.table.grad = torch.full_like(field.encoding.table, torch.inf)  # sums in 16 bits, of this table alone
    assert not optimiser.finite()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TcnnMLP(hidden_dim=48), "expected hidden_dim 16, 32, 64, 128 and 1 hidden layer or more, got 48 and 2"),
        (TcnnMLP(hidden_layers=0), "expected hidden_dim 16, 32, 64, 128 and 1 hidden layer or more, got 64 and 0"),
        (TcnnHash(features_per_level=3), "features_per_level: expected 1, 2, 4 or 8, got 3"),
        (TcnnHash(log2_table_size=40), "log2_table_size: expected 4 to 26, got 40"),
        (TcnnHash(base_resolution=9, finest_resolution=8), "grid: expected levels >= 1 and 1 <= base_resolution <="),
    ],
)
def test_what_the_library_does_not_compute_is_refused(config: TcnnHash | TcnnMLP, message: str) -> None:
    chosen = SignalFieldConfig(network=config) if isinstance(config, TcnnMLP) else SignalFieldConfig(config)
    with pytest.raises(InputError, match=message):
        build(chosen, IMAGE)


def test_data_on_the_cpu_are_refused() -> None:
    with pytest.raises(InputError, match="tiny-cuda-nn computes on an NVIDIA GPU only, got data on cpu"):
        network(16, 3)(torch.zeros(2, 16))


def test_the_switches_keep_the_sizes_of_the_preset() -> None:
    image = image_preset(512.0, 512.0 * 384.0)
    field = _switched(image, "tcnn-hash", "tcnn-mlp").field
    assert vars(field.encoding) == vars(image.field.encoding)
    assert field == SignalFieldConfig(TcnnHash(*vars(image.field.encoding).values()), TcnnMLP())
    capture = _switched(capture_preset(unbounded=False), "tcnn-hash", "tcnn-mlp").field
    assert isinstance(capture, RadianceFieldConfig)
    assert capture.density == capture.color == TcnnMLP()
    assert gpu_only(capture) == "tiny-cuda-nn"
    assert _switched(image, "tcnn-hash", None).field == SignalFieldConfig(field.encoding, MLP())
    assert _switched(image, "frequency", "tcnn-mlp").field == SignalFieldConfig(Frequency(), TcnnMLP(128, 3))
    with pytest.raises(InputError, match="--network tcnn-mlp cannot read plain coordinates"):
        _switched(Config(SignalFieldConfig(), FitConfig()), "coordinates", "tcnn-mlp")


def test_shapes_of_both_grids_are_checked_alike() -> None:
    assert shape_of(TcnnHash(), 3) == shape_of(Hash(), 3)
