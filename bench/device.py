"""Every CUDA kernel on this machine's GPU: held to the torch references in float64, then timed.

    python bench/device.py [--quick]

Needs an NVIDIA GPU and a CUDA build of torch; nothing of fieldfit has to be built. Times are medians, by events.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from fields.kernels import cam, cuda, kan, ops, rbf, reference, reference_cam, reference_kan, reference_rbf
from fields.kernels import reference_bases as bases
from fields.kernels.bits import pack_bits, unpack_bits
from fields.kernels.cuda import Core
from fields.kernels.reference_rbf import RbfWeights
from fields.kernels.shapes import (
    ALIGNMENT,
    KAN_BASES,
    CamShape,
    GridShape,
    MarchShape,
    MlpShape,
    ModulationAxis,
    grid_shape,
)

GPU = torch.device("cuda", 0)
PRESET = grid_shape(3, 8, 4, 16, 1024, 2**17)
LARGE = grid_shape(3, 16, 2, 16, 2048, 2**19)
MLP = MlpShape((32, 64, 64, 4), "relu", "identity", bias=False)
WIDE = MlpShape((32, 128, 128, 16), "silu", "identity", bias=True)
DENSITY = MlpShape((32, 64, 16), "relu", "identity", bias=False)
COLOR = MlpShape((32, 64, 64, 3), "relu", "sigmoid", bias=False)
MARCH = MarchShape(128, False, 0.05, 1e6, 3**0.5 / 1024, 0.0, 1024)


def grid_spec(core: Core, shape: GridShape) -> cuda.GridSpec:
    levels = [(v.entries, v.resolution, int(v.hashed), v.scale) for v in shape.levels]
    return core.GridSpec(shape.dim, shape.features, levels)


def mlp_spec(core: Core, shape: MlpShape) -> cuda.MlpSpec:
    kinds = ops.ACTIVATIONS[shape.activation], ops.ACTIVATIONS[shape.output_activation]
    return core.MlpSpec(shape.dims, *kinds, shape.bias)


def uniform(g: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=g, device=GPU)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, device=GPU)


def milliseconds(call: Callable[[], object], repeats: int = 30) -> float:
    """Median time of a call on the GPU."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[repeats // 2]


class Report:
    """Lines as they come, and how many were bad."""

    def __init__(self) -> None:
        self.bad = 0

    def error(self, name: str, got: Tensor, want: Tensor, limit: float) -> None:
        """Relative error in the norm, and where it is more than `limit`."""
        error = float((got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-30))
        good = error <= limit and bool(torch.isfinite(got).all())
        self.bad += not good
        print(f"  {name:<44} {error:9.2e}   {'ok' if good else f'WRONG: more than {limit:.0e}'}", flush=True)


def check_grid(report: Report, core: Core, g: torch.Generator) -> None:
    for dim, features in ((2, 1), (3, 2), (3, 4), (4, 8)):
        shape = grid_shape(dim, 8, features, 4, 64 if dim < 4 else 16, 2**14)
        x, table = uniform(g, 5000, dim), normal(g, shape.entries, features)
        x[:1000] = (x[0] + 1e-4 * x[:1000]).clamp(0, 1)
        d_out, out = normal(g, 5000, shape.width), torch.empty(5000, shape.width, device=GPU)
        d_table, d_x = torch.zeros_like(table), torch.empty_like(x)
        touched = torch.zeros(len(table) // ALIGNMENT, dtype=torch.uint8, device=GPU)
        spec = grid_spec(core, shape)
        spec.forward(x, table, out)
        spec.backward(x, table, d_out, d_table, touched, d_x)
        report.bad += not torch.equal(touched.bool(), (d_table != 0).view(len(touched), -1).any(1))
        wide = x.double().requires_grad_(), table.double().requires_grad_()
        expected = reference.grid_encode(*wide, shape)
        expected.backward(d_out.double())
        assert wide[0].grad is not None and wide[1].grad is not None
        report.error(f"grid {dim}d x {features} forward", out, expected.detach(), 1e-5)
        report.error(f"grid {dim}d x {features} d_table", d_table, wide[1].grad, 1e-5)
        report.error(f"grid {dim}d x {features} d_x", d_x, wide[0].grad, 1e-4)


def check_mlp(report: Report, core: Core, half: bool, g: torch.Generator) -> None:
    limit = 5e-3 if half else 2e-6
    smooth = MlpShape((34, 32, 32, 5), "silu", "sigmoid", bias=True)
    for shape in (MLP, WIDE, smooth, MlpShape((5, 16, 3), "sine", "exp", bias=False)):
        x, params = normal(g, 3001, shape.dims[0]), normal(g, shape.size) / max(shape.dims) ** 0.5
        d_out = normal(g, 3001, shape.dims[-1]) * 1e-6
        out, d_x, d_params = torch.empty_like(d_out), torch.empty_like(x), torch.empty_like(params)
        spec = mlp_spec(core, shape)
        spec.forward(x, params, None, None, out)
        spec.backward(x, params, None, None, d_out, d_x, d_params)
        wide = x.double().requires_grad_(), params.double().requires_grad_()
        expected = reference.mlp(*wide, shape)
        expected.backward(d_out.double())
        assert wide[0].grad is not None and wide[1].grad is not None
        name = f"mlp {'-'.join(map(str, shape.dims))} {shape.activation}{' half' if half else ''}"
        flips = 20 if shape.activation == "relu" else 1  # a ReLU within rounding of zero turns a whole row
        report.error(f"{name} forward", out, expected.detach(), limit)
        report.error(f"{name} d_x", d_x, wide[0].grad, limit * flips)
        report.error(f"{name} d_params", d_params, wide[1].grad, limit * flips)


def check_layers(report: Report, g: torch.Generator) -> None:
    """Through autograd, as fields use them: values and the gradients of everything."""
    axes = ModulationAxis(10, wraps=True), ModulationAxis(5)
    for each in (False, True):
        shape = CamShape(MlpShape((32, 64, 64, 3), "silu", "identity", bias=True), axes, each, True)
        inputs = [normal(g, 3001, 32), uniform(g, 3001, 2), normal(g, shape.mlp.size) / 8, normal(g, *shape.grids)]
        name = f"cam 32-64-64-3 {'each channel' if each else 'one pair'}"
        check_layer(report, name, g, inputs, partial(cam.cam, shape=shape), partial(reference_cam.cam, shape=shape))
    inputs = [normal(g, 3001, 64), normal(g, 6), normal(g, 8, 4)]
    check_layer(report, "rational 64 in 8 groups", g, inputs, kan.rational, reference_kan.rational)
    inputs = [normal(g, 3001, 32), normal(g, 16, 32 * 9) / 16, normal(g, 16)]
    for kind in KAN_BASES:
        knots = bases.even_knots(8).repeat(32, 1) if kind == "spline" else None
        ours, truth = (
            lambda x, w, b, op=op, how=(kind, 8), knots=knots: op(x, w, b, *how, None if knots is None else knots.to(x))
            for op in (kan.basis_layer, reference_kan.basis_layer)
        )
        check_layer(report, f"{kind} 32-16", g, inputs, ours, truth)
    inputs = [normal(g, 3001, 32), normal(g, 64, 32), normal(g, 64, 32), normal(g, 4, 64), normal(g, 4)]
    check_layer(
        report, "rbf 32-64-4", g, inputs,
        lambda x, *w: rbf.rbf(x, RbfWeights(*w)), lambda x, *w: reference_rbf.rbf(x, RbfWeights(*w)),
    )  # fmt: skip


def check_layer(
    report: Report,
    name: str,
    g: torch.Generator,
    inputs: list[Tensor],
    ours: Callable[..., Tensor],
    truth: Callable[..., Tensor],
) -> None:
    """One layer against its reference."""
    narrow, wide = [t.requires_grad_() for t in inputs], [t.detach().double().requires_grad_() for t in inputs]
    got, want = ours(*narrow), truth(*wide)
    d_out = normal(g, *got.shape)
    got.backward(d_out)
    want.backward(d_out.double())
    report.error(f"{name} forward", got.detach(), want.detach(), 1e-5)
    for i, (a, b) in enumerate(zip(narrow, wide, strict=True)):
        assert a.grad is not None and b.grad is not None
        report.error(f"{name} gradient {i}", a.grad, b.grad, 1e-4)


def check_rest(report: Report, core: Core, g: torch.Generator) -> None:
    d, x = torch.nn.functional.normalize(normal(g, 999, 3), dim=1), uniform(g, 999, 3)
    out = torch.empty(999, 16, device=GPU)
    core.harmonics(4, d, out)
    report.error("harmonics", out, reference.harmonics(d.double(), 4), 1e-6)
    out, d_out, d_x = torch.empty(999, 60, device=GPU), normal(g, 999, 60), torch.empty_like(x)
    core.frequency(10, x, out)
    core.frequency_backward(10, x, d_out, d_x)
    wide = x.double().requires_grad_()
    expected = reference.frequency(wide, 10)
    expected.backward(d_out.double())
    assert wide.grad is not None
    report.error("frequency", out, expected.detach(), 1e-6)
    report.error("frequency d_x", d_x, wide.grad, 1e-6)
    counts = torch.randint(0, 90, (700,), generator=g, device=GPU)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    s = int(offsets[-1])
    sigma, rgb, t0 = uniform(g, s) * 30, uniform(g, s, 3), uniform(g, s)
    t1 = t0 + uniform(g, s) * 0.05
    rays = torch.empty(700, 3, device=GPU), torch.empty(700, device=GPU), torch.empty(700, device=GPU)
    d_rays = [torch.randn(r.shape, generator=g, device=GPU) for r in rays]
    d_sigma, d_rgb = torch.empty_like(sigma), torch.empty_like(rgb)
    core.composite_forward(offsets, sigma, rgb, t0, t1, *rays)
    core.composite_backward(offsets, sigma, rgb, t0, t1, *rays, *d_rays, d_sigma, d_rgb)
    leaves = sigma.double().requires_grad_(), rgb.double().requires_grad_()
    expected = reference.composite(*leaves, t0.double(), t1.double(), offsets)
    torch.autograd.backward(expected, [d.double() for d in d_rays])
    for name, got, want in zip(("rgb", "opacity", "depth"), rays, expected, strict=True):
        report.error(f"composite {name}", got, want.detach(), 1e-5)
    assert leaves[0].grad is not None and leaves[1].grad is not None
    report.error("composite d_sigma", d_sigma, leaves[0].grad, 1e-4)
    report.error("composite d_rgb", d_rgb, leaves[1].grad, 1e-5)
    state = [normal(g, 5001), torch.zeros(5001, device=GPU), torch.zeros(5001, device=GPU)]
    kept = [v.double() for v in state]
    grad = normal(g, 5001) * (uniform(g, 5001) < 0.5)
    core.adam(state[0], grad, state[1], state[2], 1e-2, 0.9, 0.99, 1e-15, 0.1, 0.01, True)
    reference.adam(kept[0], grad.double(), (kept[1], kept[2]), 1e-2, (0.9, 0.99), 1e-15, 1, True)
    report.error("adam", state[0], kept[0], 1e-6)


class Scene:
    """A ball of density in the cube, and rays of a camera that looks at it."""

    def __init__(self, side: int, g: torch.Generator) -> None:
        axis = (torch.arange(128, device=GPU) + 0.5) / 128 - 0.5
        inside = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.35**2
        self.bits = pack_bits(inside)
        pixel = (torch.arange(side, device=GPU) + 0.5) / side - 0.5
        y, x = torch.meshgrid(pixel, pixel, indexing="ij")
        self.directions = torch.nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3), dim=1)
        self.origins = self.directions.new_tensor([0.5, 0.5, -0.6]).expand(side * side, 3).contiguous()
        self.table = normal(g, PRESET.entries, PRESET.features) * 0.5
        self.density = normal(g, DENSITY.size) / 6
        self.density[-16 * 64 :][:64] *= 12  # the first output is log density: an opaque ball with holes
        self.color = normal(g, COLOR.size) / 6
        self.rays = self.origins, self.directions, None, self.bits

    def samples(self) -> ops.Samples:
        """All samples in occupied cells."""
        return ops.Samples(*cuda.core().march(*self.rays, *ops.march_arguments(MARCH), MARCH.max_samples))

    def visible(self, core: Core, least: float) -> ops.Samples:
        """Those up to where rays are opaque."""
        specs = grid_spec(core, PRESET), mlp_spec(core, DENSITY)
        steps = *ops.march_arguments(MARCH), least
        return ops.Samples(*core.march_visible(specs[0], self.table, specs[1], self.density, *self.rays, *steps))

    def render(self, core: Core, least: float) -> tuple[list[Tensor], int]:
        """(rgb, opacity, depth) and the samples evaluated."""
        n = len(self.origins)
        out = [torch.full((n, 3), -1.0, device=GPU), torch.empty(n, device=GPU), torch.empty(n, device=GPU)]
        specs = grid_spec(core, PRESET), mlp_spec(core, DENSITY), mlp_spec(core, COLOR)
        networks = specs[1], self.density, specs[2], self.color, 4
        steps = *ops.march_arguments(MARCH), least
        return out, core.render(specs[0], self.table, *networks, *self.rays, *steps, *out)

    def expected(self, least: float) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
        """In float64 through the references, from the samples of the marching kernel."""
        s = self.samples()
        features = reference.grid_encode(s.x.double(), self.table.double(), PRESET)
        latent = reference.mlp(features, self.density.double(), DENSITY)
        sigma = reference.activate("exp", latent[:, 0])
        directions = reference.harmonics(self.directions.double(), 4)
        rgb = reference.mlp(latent, self.color.double(), COLOR, directions, s.ray)
        thickness = sigma * (s.t1 - s.t0).double()
        before = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])[:-1]
        first = s.offsets[:-1].clamp(max=len(before) - 1)
        seen = (-(before - before[first][s.ray.long()])).exp() >= least
        counts = torch.zeros(len(self.origins), dtype=torch.int64, device=GPU).index_add(0, s.ray.long(), seen.long())
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        out = reference.composite(sigma[seen], rgb[seen], s.t0[seen].double(), s.t1[seen].double(), offsets)
        return out, int(counts.sum())


def check_render(report: Report, g: torch.Generator) -> None:
    scene = Scene(100, g)
    got = scene.samples()
    occupied = unpack_bits(scene.bits, MARCH.resolution)
    offsets, t0, *_ = reference.march(scene.origins.double(), scene.directions.double(), None, occupied, MARCH)
    same = got.offsets.diff() == offsets.diff()
    agree = float(same.float().mean())
    print(f"  march: {len(got.t0)} samples; {100 * agree:.2f} % of the rays have as many as the reference's")
    report.bad += agree < 0.97
    keep, keep64 = same.repeat_interleave(got.offsets.diff()), same.repeat_interleave(offsets.diff())
    report.error("march t0", got.t0[keep], t0[keep64], 1e-5)
    expected, counted = scene.expected(1e-3)
    for half in (False, True):
        out, evaluated = scene.render(cuda.core(half), 1e-3)
        visible = scene.visible(cuda.core(half), 1e-3)
        name = "render half" if half else "render"
        for part, a, b in zip(("rgb", "opacity", "depth"), out, expected, strict=True):
            report.error(f"{name} {part}", a, b, 1e-2 if half else 1e-4)
        opacity = float(out[1].mean())
        print(
            f"  {name}: {evaluated} samples, visible {len(visible.t0)}, expected {counted}; mean opacity {opacity:.2f}"
        )
        report.bad += abs(evaluated - counted) > 0.01 * counted or abs(len(visible.t0) - counted) > 0.01 * counted


def time_grid(g: torch.Generator, n: int) -> None:
    for name, shape in (("8 x 4 x 2^17", PRESET), ("16 x 2 x 2^19", LARGE)):
        table, spec = normal(g, shape.entries, shape.features), grid_spec(cuda.core(), shape)
        along = torch.linspace(0, 1, 64, device=GPU)[None, :, None]
        ends = uniform(g, n // 64, 1, 3), uniform(g, n // 64, 1, 3)
        rays = (ends[0] + along * (ends[1] - ends[0])).reshape(-1, 3).contiguous()
        for order, x in (("random", uniform(g, n, 3)), ("along rays", rays)):
            out, d_out = torch.empty(n, shape.width, device=GPU), normal(g, n, shape.width)
            d_table, d_x = torch.zeros_like(table), torch.empty_like(x)
            forward = milliseconds(lambda x=x, o=out, s=spec, t=table: s.forward(x, t, o))
            slope = milliseconds(lambda x=x, d=d_out, dx=d_x, s=spec, t=table: s.backward(x, t, d, None, None, dx))
            print(f"  grid {name:<14} {n} {order:<11} forward {forward:7.3f} ms, d_x {slope:7.3f} ms")
            scatter = []
            for resolution in (0, 32, 128, 512, 4096):
                spec.shared_resolution = resolution
                ms = milliseconds(lambda x=x, d=d_out, dt=d_table, s=spec, t=table: s.backward(x, t, d, dt, None, None))
                scatter.append(f"{resolution}: {ms:.3f}")
            print(f"    d_table, warps sum first up to this resolution: {', '.join(scatter)} ms")


def time_mlp(g: torch.Generator, n: int) -> None:
    for shape in (MLP, WIDE):
        x, params, d_out = normal(g, n, shape.dims[0]), normal(g, shape.size) / 8, normal(g, n, shape.dims[-1])
        out, d_x, d_params = torch.empty_like(d_out), torch.empty_like(x), torch.empty_like(params)
        flops = 2 * n * sum(a * b for a, b in itertools.pairwise(shape.dims))
        name = f"mlp {n} x {'-'.join(map(str, shape.dims))}"
        for half in (False, True):
            spec = mlp_spec(cuda.core(half), shape)
            forward = milliseconds(lambda s=spec, i=(x, params), o=out: s.forward(*i, None, None, o))
            d = d_out, d_x, d_params
            backward = milliseconds(lambda s=spec, i=(x, params), d=d: s.backward(*i, None, None, *d))
            kind = "half" if half else "float32"
            print(f"  {name} {kind:<8} forward {forward:7.3f} ms {flops / forward / 1e9:6.1f} TFLOP/s")
            print(f"    forward again and backward {backward:7.3f} ms {4 * flops / backward / 1e9:6.1f} TFLOP/s")
    layers = [w.t().contiguous().bfloat16() for w, _ in reference.mlp_layers(normal(g, MLP.size), MLP)]
    low = normal(g, n, 32).bfloat16()
    ms = milliseconds(lambda: (((low @ layers[0]).relu_() @ layers[1]).relu_()) @ layers[2])
    print(f"  mlp {n} x 32-64-64-4 torch bf16 forward {ms:7.3f} ms")


def time_rest(g: torch.Generator) -> None:
    scene, core = Scene(800, g), cuda.core()
    samples = scene.samples()
    s, n = len(samples.t0), len(scene.origins)
    print(f"  march {n} rays, {s} samples {milliseconds(scene.samples):7.3f} ms")
    sigma, rgb = uniform(g, s) * 30, uniform(g, s, 3)
    out = torch.empty(n, 3, device=GPU), torch.empty(n, device=GPU), torch.empty(n, device=GPU)
    d = torch.empty_like(sigma), torch.empty_like(rgb)
    inputs = samples.offsets, sigma, rgb, samples.t0, samples.t1
    forward = milliseconds(lambda: core.composite_forward(*inputs, *out))
    backward = milliseconds(lambda: core.composite_backward(*inputs, *out, *out, *d))
    rate = s * 24 / forward / 1e6
    print(f"  composite {s} samples forward {forward:7.3f} ms {rate:6.0f} GB/s, backward {backward:7.3f} ms")
    p, grad, m, v = (normal(g, 2**24).abs_() for _ in range(4))
    ms = milliseconds(lambda: core.adam(p, grad, m, v, 1e-2, 0.9, 0.99, 1e-15, 0.1, 0.01, True))
    print(f"  adam 2^24 parameters {ms:7.3f} ms {2**24 * 28 / ms / 1e6:6.0f} GB/s")
    for half in (False, True):
        kind = "half" if half else "float32"
        for least in (1e-3, 0.0):
            _, evaluated = scene.render(cuda.core(half), least)
            ms = milliseconds(lambda h=half, v=least: scene.render(cuda.core(h), v), 10)
            print(f"  render 800 x 800 {kind:<8} {ms:8.3f} ms, {evaluated} samples, {evaluated / ms / 1e3:7.1f} M/s")
        ms = milliseconds(lambda h=half: scene.visible(cuda.core(h), 1e-3), 10)
        print(f"  march up to where rays are opaque, {kind:<8} {ms:8.3f} ms")


def main() -> int:
    """Checks, then times; the exit code tells whether all checks passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the checks")
    quick = parser.parse_args().quick
    if not torch.cuda.is_available():
        sys.exit("bench/device.py: needs an NVIDIA GPU and a CUDA build of torch; torch sees none here")
    g, report = torch.Generator(GPU).manual_seed(0), Report()
    print(f"{torch.cuda.get_device_name(GPU)}, torch {torch.__version__}; relative errors against float64")
    check_grid(report, cuda.core(), g)
    check_mlp(report, cuda.core(), False, g)
    check_mlp(report, cuda.core(half=True), True, g)
    check_layers(report, g)
    check_rest(report, cuda.core(), g)
    check_render(report, g)
    if not quick:
        print("times")
        time_grid(g, 2**20)
        time_mlp(g, 2**20)
        time_rest(g)
    print("all checks passed" if report.bad == 0 else f"{report.bad} checks failed")
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
