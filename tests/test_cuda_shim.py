"""The CUDA kernels, run by the host through a thread shim under AddressSanitizer and ThreadSanitizer, against the torch
references in float64.

What this shows is the kernels' semantics, their launches, and that no thread races with another on these inputs. How a
GPU executes them, and how fast, is not in it: bench/device.py, on a machine that has one, is for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cuda_shim import ROOT, Shim, ShimError, kernels_of
from tolerances import EXACT, GRADIENTS, HALF_STORAGE, VALUES, Tolerance
from torch import Tensor

from fields.kernels import cuda, ops, reference
from fields.kernels.bits import pack_bits
from fields.kernels.cuda import Core
from fields.kernels.shapes import ALIGNMENT, GridShape, MarchShape, MlpShape, grid_shape

GRIDS = [
    grid_shape(1, 2, 8, 3, 20, None),
    grid_shape(2, 2, 1, 3, 20, 2**6),
    grid_shape(3, 4, 4, 3, 40, 2**9),
    grid_shape(3, 33 - 1, 2, 2, 6, None),
    grid_shape(4, 2, 8, 2, 5, 2**6),
]
SMALL = MlpShape((20, 32, 32, 5), "silu", "sigmoid", bias=True)
MLPS = [SMALL, MlpShape((5, 17, 3), "sine", "identity", bias=False), MlpShape((3, 2), "relu", "exp", bias=True)]
TENSOR_MLPS = [
    SMALL,
    MlpShape((3, 16, 17), "relu", "identity", bias=False),
    MlpShape((34, 64, 64, 64, 4), "relu", "sigmoid", bias=True),
    MlpShape((16, 128, 3), "sine", "exp", bias=False),
]
MARCHES = [MarchShape(8, False, 0.01, 5.0, 0.05, 0.0, 12), MarchShape(8, True, 0.01, 9.0, 0.05, 0.05, 1000)]


def core_of(shim: Shim, half: bool = False) -> Core:
    return Core(lambda _: shim, half)


def grid_spec(core: Core, shape: GridShape) -> cuda.GridSpec:
    return core.GridSpec(
        shape.dim, shape.features, [(v.entries, v.resolution, v.hashed, v.scale) for v in shape.levels]
    )


def mlp_spec(core: Core, shape: MlpShape) -> cuda.MlpSpec:
    activations = ops.ACTIVATIONS[shape.activation], ops.ACTIVATIONS[shape.output_activation]
    return core.MlpSpec(shape.dims, *activations, shape.bias)


def check_scaled(tolerance: Tolerance, got: Tensor, want: Tensor) -> None:
    """A sum over a batch is as good as its largest entry allows."""
    scale = want.abs().amax().clamp(min=1)
    tolerance.check(got.double() / scale, want.double() / scale)


def run_grid(core: Core, shape: GridShape, n: int) -> None:
    g = torch.Generator().manual_seed(n)
    x = torch.rand(n, shape.dim, generator=g)
    x[n // 3 : n // 2] = x[n // 3] + 1e-3 * torch.rand(n // 2 - n // 3, shape.dim, generator=g)  # lanes that meet
    x = x.clamp(0, 1)
    table, d_out = torch.randn(shape.entries, shape.features, generator=g), torch.randn(n, shape.width, generator=g)
    out, d_table, d_x = torch.empty_like(d_out), torch.zeros_like(table), torch.empty_like(x)
    touched = torch.zeros(len(table) // ALIGNMENT, dtype=torch.uint8)
    spec = grid_spec(core, shape)
    spec.forward(x, table, out)
    spec.backward(x, table, d_out, d_table, touched, d_x)
    EXACT.check(touched.bool(), (d_table != 0).view(len(touched), -1).any(1))
    wide = x.double().requires_grad_(), table.double().requires_grad_()
    expected = reference.grid_encode(*wide, shape)
    expected.backward(d_out.double())
    assert wide[0].grad is not None and wide[1].grad is not None
    check_scaled(GRADIENTS, out, expected.detach())
    check_scaled(GRADIENTS, d_table, wide[1].grad)
    check_scaled(GRADIENTS, d_x, wide[0].grad)


@pytest.mark.parametrize("shape", GRIDS, ids=lambda s: f"{s.dim}d-{s.features}f")
def test_grid(shim: Shim, shape: GridShape) -> None:
    run_grid(core_of(shim), shape, 77)


def rounded(x: Tensor) -> Tensor:
    """The nearest half, with the gradient of the value itself."""
    return x + (x.half().double() - x).detach()


def half_mlp(x: Tensor, params: Tensor, shape: MlpShape) -> Tensor:
    """The reference with inputs, weights and activations rounded where tensor cores take them."""
    layers = reference.mlp_layers(params, shape)
    for i, (weight, bias) in enumerate(layers):
        z = torch.nn.functional.linear(rounded(x), rounded(weight), bias)
        x = reference.activate(shape.output_activation if i + 1 == len(layers) else shape.activation, z)
    return x


def run_mlp(core: Core, shape: MlpShape, n: int, with_d_x: bool = True) -> None:
    g = torch.Generator().manual_seed(n)
    aux_dim = shape.dims[0] // 3
    x, aux = torch.randn(n, shape.dims[0] - aux_dim, generator=g), torch.randn(7, aux_dim, generator=g)
    index = torch.randint(7, (n,), generator=g, dtype=torch.int32)
    params = torch.randn(shape.size, generator=g) / max(shape.dims) ** 0.5
    d_out = torch.randn(n, shape.dims[-1], generator=g)
    out, d_x, d_params = torch.empty_like(d_out), torch.empty_like(x), torch.empty_like(params)
    spec = mlp_spec(core, shape)
    rest = (aux, index) if aux_dim else (None, None)
    spec.forward(x, params, *rest, out)
    spec.backward(x, params, *rest, d_out, d_x if with_d_x else None, d_params)
    wide = x.double().requires_grad_(), params.double().requires_grad_()
    joined = torch.cat([wide[0], aux.double()[index.long()]], dim=1)
    half = spec.half
    expected = half_mlp(joined, wide[1], shape) if half else reference.mlp(joined, wide[1], shape)
    expected.backward(d_out.double())
    assert wide[0].grad is not None and wide[1].grad is not None
    (HALF_STORAGE if half else VALUES).check(out, expected.detach())
    check_scaled(HALF_STORAGE if half else GRADIENTS, d_params, wide[1].grad)
    if with_d_x:
        check_scaled(HALF_STORAGE if half else GRADIENTS, d_x, wide[0].grad)


@pytest.mark.parametrize("shape", MLPS, ids=lambda s: "-".join(map(str, s.dims)))
def test_mlp(shim: Shim, shape: MlpShape) -> None:
    run_mlp(core_of(shim), shape, 150, with_d_x=shape.bias)


@pytest.mark.parametrize("shape", TENSOR_MLPS, ids=lambda s: "-".join(map(str, s.dims)))
def test_tensor_mlp(shim: Shim, shape: MlpShape) -> None:
    core = core_of(shim, half=True)
    assert mlp_spec(core, shape).layout(shim) is not None
    run_mlp(core, shape, 150)


def test_tensor_gradients_keep_tiny_cotangents(shim_folder: Path) -> None:
    """Cotangents of a mean over many points lie below what halves can hold; they are scaled, and scaled back."""
    core, shape, n = core_of(Shim("address", shim_folder), half=True), TENSOR_MLPS[0], 20
    g = torch.Generator().manual_seed(0)
    x, params = torch.randn(n, 20, generator=g), torch.randn(shape.size, generator=g) / 5
    for factor in (0.0, 1e-9, 1e9):
        d_out = torch.randn(n, 5, generator=g) * factor
        d_x, d_params = torch.empty_like(x), torch.empty_like(params)
        mlp_spec(core, shape).backward(x, params, None, None, d_out, d_x, d_params)
        wide = x.double().requires_grad_(), params.double().requires_grad_()
        half_mlp(*wide, shape).backward(d_out.double())
        assert wide[0].grad is not None and wide[1].grad is not None
        divisor = factor or 1.0
        HALF_STORAGE.check(d_x.double() / divisor, wide[0].grad / divisor)
        check_scaled(HALF_STORAGE, d_params / divisor, wide[1].grad / divisor)


def test_encodings(shim: Shim, generator: torch.Generator) -> None:
    core = core_of(shim)
    d = torch.nn.functional.normalize(torch.randn(70, 3, generator=generator), dim=1)
    for degree in (1, 2, 3, 4):
        out = torch.empty(70, degree**2)
        core.harmonics(degree, d, out)
        VALUES.check(out, reference.harmonics(d.double(), degree))
    x, d_out = torch.rand(33, 2, generator=generator), torch.randn(33, 12, generator=generator)
    out, d_x = torch.empty(33, 12), torch.empty(33, 2)
    core.frequency(3, x, out)
    core.frequency_backward(3, x, d_out, d_x)
    wide = x.double().requires_grad_()
    expected = reference.frequency(wide, 3)
    expected.backward(d_out.double())
    assert wide.grad is not None
    VALUES.check(out, expected.detach())
    check_scaled(GRADIENTS, d_x, wide.grad)


def drawn_rays(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    origins = torch.randn(n, 3, generator=generator) + 0.5
    directions = torch.nn.functional.normalize(torch.rand(n, 3, generator=generator) - origins, dim=1)
    directions[:3] = torch.eye(3)
    return origins, directions, torch.rand(n, generator=generator)


@pytest.mark.parametrize("shape", MARCHES, ids=["cube", "contracted"])
def test_march(shim: Shim, shape: MarchShape, generator: torch.Generator) -> None:
    """The same samples as the CPU's kernel, which is held to the reference elsewhere."""
    rays = drawn_rays(70, generator)
    bits = pack_bits(torch.rand((8, 8, 8), generator=generator) < 0.3)
    want = ops.march(*rays, bits, shape)
    offsets, t0, t1, x, ray = core_of(shim).march(*rays, bits, *ops.march_arguments(shape), shape.max_samples)
    assert len(t0) > 100
    EXACT.check(offsets, want.offsets)
    EXACT.check(ray, want.ray)
    for got, expected in ((t0, want.t0), (t1, want.t1), (x, want.x)):
        VALUES.check(got, expected)


def test_composite(shim: Shim, generator: torch.Generator) -> None:
    counts = torch.tensor([0, 1, 70, 2, 32, 33, 0, 5])
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    s, n = int(offsets[-1]), len(counts)
    sigma, rgb = torch.rand(s, generator=generator) * 30, torch.rand(s, 3, generator=generator)
    t0 = torch.rand(s, generator=generator)
    t1 = t0 + torch.rand(s, generator=generator) * 0.1
    out = torch.empty(n, 3), torch.empty(n), torch.empty(n)
    d_out = [torch.randn(o.shape, generator=generator) for o in out]
    d_sigma, d_rgb = torch.empty_like(sigma), torch.empty_like(rgb)
    core = core_of(shim)
    core.composite_forward(offsets, sigma, rgb, t0, t1, *out)
    core.composite_backward(offsets, sigma, rgb, t0, t1, *out, *d_out, d_sigma, d_rgb)
    wide = sigma.double().requires_grad_(), rgb.double().requires_grad_()
    expected = reference.composite(*wide, t0.double(), t1.double(), offsets)
    torch.autograd.backward(expected, [d.double() for d in d_out])
    for got, want in zip((*out, d_sigma, d_rgb), (*expected, *(w.grad for w in wide)), strict=True):
        assert want is not None
        GRADIENTS.check(got, want.detach())


@pytest.mark.parametrize("skip_zero", [False, True])
def test_adam(shim: Shim, skip_zero: bool, generator: torch.Generator) -> None:
    state = [torch.randn(99, generator=generator), torch.zeros(99), torch.zeros(99)]
    wide = [x.double() for x in state]
    for step in (1, 2):
        grad = torch.randn(99, generator=generator) * (torch.rand(99, generator=generator) < 0.5)
        rule = 1e-2, 0.9, 0.99, 1e-15, 1 - 0.9**step, 1 - 0.99**step, skip_zero
        core_of(shim).adam(state[0], grad, state[1], state[2], *rule)
        reference.adam(wide[0], grad.double(), (wide[1], wide[2]), 1e-2, (0.9, 0.99), 1e-15, step, skip_zero)
    for got, want in zip(state, wide, strict=True):
        GRADIENTS.check(got, want)


def test_adam_touched(shim: Shim, generator: torch.Generator) -> None:
    """Marked blocks as `adam` with zeros skipped, the rest not at all; gradients and marks are cleared."""
    marks = torch.tensor([1, 0, 1] + 50 * [0] + 17 * [1], dtype=torch.uint8)
    state = [torch.randn(len(marks) * ALIGNMENT, 2, generator=generator) for _ in range(3)]
    state[2].abs_()
    grad = torch.randn(state[0].shape, generator=generator) * (torch.rand(state[0].shape, generator=generator) < 0.5)
    grad *= marks.repeat_interleave(ALIGNMENT)[:, None]
    wide = [x.double() for x in state]
    reference.adam(wide[0], grad.double(), (wide[1], wide[2]), 1e-2, (0.9, 0.99), 1e-15, 3, skip_zero=True)
    rule = 1e-2, 0.9, 0.99, 1e-15, 1 - 0.9**3, 1 - 0.99**3
    core_of(shim).adam_touched(state[0], grad, marks, state[1], state[2], *rule)
    for got, want in zip(state, wide, strict=True):
        GRADIENTS.check(got, want)
    assert not bool(grad.any()) and not bool(marks.any())


@dataclass
class Scene:
    """A radiance field in the references' terms, with rays and an occupancy."""

    grid: GridShape
    density: MlpShape
    color: MlpShape
    march: MarchShape

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
        g = torch.Generator().manual_seed(n)
        table = torch.randn(self.grid.entries, self.grid.features, generator=g)
        density = torch.randn(self.density.size, generator=g) / 3
        color = torch.randn(self.color.size, generator=g) / 3
        bits = pack_bits(torch.rand((8, 8, 8), generator=g) < 0.4)
        return table, density, color, drawn_rays(n, g), bits

    def expected(self, n: int, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(rgb, opacity, depth, samples up to where each ray is opaque)."""
        table, density, color, (o, d, jitter), bits = self.draw(n)
        s = ops.march(o, d, jitter, bits, self.march)
        latent = reference.mlp(
            reference.grid_encode(s.x.double(), table.double(), self.grid), density.double(), self.density
        )
        directions = reference.harmonics(d.double(), 2)
        rgb = reference.mlp(latent, color.double(), self.color, directions, s.ray)
        sigma = reference.activate("exp", latent[:, 0])
        thickness = sigma * (s.t1 - s.t0).double()
        before = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])[:-1]
        first = s.offsets[:-1].clamp(max=len(before) - 1)
        seen = (-(before - before[first][s.ray.long()])).exp() >= least
        counts = torch.zeros(n, dtype=torch.int64).index_add(0, s.ray.long(), seen.long())
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        out = reference.composite(sigma[seen], rgb[seen], s.t0[seen].double(), s.t1[seen].double(), offsets)
        return *out, counts


SCENE = Scene(
    grid_shape(3, 3, 4, 3, 9, 2**8),
    MlpShape((12, 16, 16), "relu", "identity", bias=True),
    MlpShape((20, 16, 16, 3), "relu", "sigmoid", bias=False),
    MarchShape(8, False, 0.01, 5.0, 0.08, 0.0, 1000),
)


WIDE = replace(SCENE, density=MlpShape((12, 80, 16), "relu", "identity", bias=True))
"""Whose tiles have fewer samples than a block has threads."""


def run_render(core: Core, n: int, least: float, scene: Scene = SCENE) -> None:
    table, density, color, (o, d, jitter), bits = scene.draw(n)
    specs = grid_spec(core, scene.grid), mlp_spec(core, scene.density), mlp_spec(core, scene.color)
    steps = *ops.march_arguments(scene.march), least
    out = torch.full((n, 3), -1.0), torch.full((n,), -1.0), torch.full((n,), -1.0)
    evaluated = core.render(specs[0], table, specs[1], density, specs[2], color, 2, o, d, jitter, bits, *steps, *out)
    *expected, counts = scene.expected(n, least)
    for got, want in zip(out, expected, strict=True):
        (HALF_STORAGE if specs[1].half else GRADIENTS).check(got, want)
    # Where transmittance comes within rounding of its least, one sample more or less is seen.
    assert abs(evaluated - int(counts.sum())) <= n // 20
    offsets, t0, *_ = core.march_visible(specs[0], table, specs[1], density, o, d, jitter, bits, *steps)
    assert int((offsets.diff() - counts).abs().sum()) <= n // 20
    assert len(t0) == int(offsets[-1])


@pytest.mark.parametrize("half", [False, True], ids=["float32", "tensor"])
def test_render(shim: Shim, half: bool) -> None:
    """More rays than places, so that places are filled again; rays that become opaque, and rays that leave."""
    run_render(core_of(shim, half), 200, 0.05)


def test_threads_that_run_past_an_array_are_seen(shim_folder: Path) -> None:
    """The sanitizer is at work: a level that is too fine for its table reads past it."""
    core = core_of(Shim("address", shim_folder))
    shape = next(grid for grid in GRIDS if (grid.dim, grid.features) == (3, 4))
    spec = grid_spec(core, shape)
    spec.levels.level[3].offset += 2**9
    with pytest.raises(ShimError, match="heap-buffer-overflow"):
        spec.forward(torch.rand(64, 3), torch.zeros(shape.entries, 4), torch.empty(64, 16))


def test_kernels_are_found() -> None:
    found = {"coarse_occupancy": "256", "march_count": "256", "march_write": "256"}
    assert kernels_of(ROOT / "cuda/gpu/march.cu") == found
    assert [path.name for path in (ROOT / "cuda/gpu").glob("*.cu") if not kernels_of(path)] == []
