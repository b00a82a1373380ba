"""The CUDA kernels behind the native core's own interface: what `fields.kernels.native.core()` has, for CUDA tensors.

Shapes are checked once, before a launch, as the CPU's bindings do; tensors cross without copies; kernels run on torch's
current stream. An `index` or `offsets` that points outside is clamped, not reported: to look would wait for the GPU.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fields.kernels import cuda_layers, nvrtc
from fields.kernels.cuda_arguments import AdamRule, MachineOf, each, each_warp, expect, expect_tensor
from fields.kernels.cuda_grid import GridSpec
from fields.kernels.cuda_march import Samples, march, prepare
from fields.kernels.cuda_mlp import MlpSpec
from fields.kernels.cuda_render import RadianceModel, launch, visible
from fields.kernels.cuda_training import RadianceTape, backward, forward
from fields.kernels.shapes import ALIGNMENT


class Core:
    """The functions of the native core, on the machine that the tensors lie on."""

    def __init__(self, machine_of: MachineOf, half: bool = False) -> None:
        self.machine_of = machine_of
        self.GridSpec = functools.partial(GridSpec, machine_of)
        self.MlpSpec = functools.partial(MlpSpec, machine_of, half)
        self.CamSpec = functools.partial(cuda_layers.CamSpec, machine_of)
        self.RadianceTape = RadianceTape

    def Tape(self) -> None:
        """Perceptrons compute their activations again in the backward pass: none are kept."""

    def harmonics(self, degree: int, d: Tensor, out: Tensor) -> None:
        """Real spherical harmonics of unit directions."""
        expect(1 <= degree <= 4, "harmonics have degree 1 to 4")
        expect_tensor("directions", d, (len(d), 3))
        expect_tensor("out", out, (len(d), degree * degree))
        each(self.machine_of(d), "encodings.cu", "harmonics", len(d), (degree, len(d), d, out))

    def frequency(self, n_frequencies: int, x: Tensor, out: Tensor) -> None:
        """(sin, cos)(2^k pi x)."""
        expect(1 <= n_frequencies <= 24, "1 to 24 frequencies")
        expect_tensor("x", x, x.shape)
        expect_tensor("out", out, (len(x), x.shape[1] * n_frequencies * 2))
        n = x.numel()
        each(self.machine_of(x), "encodings.cu", "frequency", n * n_frequencies, (n_frequencies, n, x, out))

    def frequency_backward(self, n_frequencies: int, x: Tensor, d_out: Tensor, d_x: Tensor) -> None:
        """Its vjp."""
        expect(1 <= n_frequencies <= 24, "1 to 24 frequencies")
        expect_tensor("d_out", d_out, (len(x), x.shape[1] * n_frequencies * 2))
        expect_tensor("d_x", d_x, x.shape)
        n = x.numel()
        each(self.machine_of(x), "encodings.cu", "frequency_backward", n, (n_frequencies, n, x, d_out, d_x))

    def rational_forward(self, x: Tensor, numerator: Tensor, denominator: Tensor, out: Tensor) -> None:
        """The rational activation."""
        cuda_layers.rational_forward(self.machine_of(x), x, numerator, denominator, out)

    def rational_backward(self, *tensors: Tensor) -> None:
        """`tensors`: x, numerator, denominator, d_out, then the gradients of the first three, written."""
        x, numerator, denominator, d_out, d_x, d_numerator, d_denominator = tensors
        d = d_x, d_numerator, d_denominator
        cuda_layers.rational_backward(self.machine_of(x), (x, numerator, denominator), d_out, d)

    def basis_layer_forward(self, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> None:
        """`rest`: the form of the basis; the knots of splines or None; out, written."""
        cuda_layers.basis_layer_forward(self.machine_of(x), (x, weight, bias), *rest)

    def basis_layer_backward(self, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> None:
        """`rest`: as in forward; d_out; d_x, which may be None, d_weight and d_bias, written."""
        cuda_layers.basis_layer_backward(self.machine_of(x), (x, weight, bias), *rest)

    def rbf_forward(self, x: Tensor, *rest: Any) -> None:
        """`rest`: centres, log precisions, weight, bias; out, which is written; no tape."""
        cuda_layers.rbf_forward(self.machine_of(x), x, rest[:4], rest[4])

    def rbf_backward(self, x: Tensor, *rest: Any) -> None:
        """`rest`: as in forward; d_out; the gradients of the four, and d_x, which may be None, written; no tape."""
        cuda_layers.rbf_backward(self.machine_of(x), x, rest[:4], *rest[4:7])

    def march(
        self, origins: Tensor, directions: Tensor, jitter: Tensor | None, occupancy: Tensor, *steps: int | float
    ) -> Samples:
        """`steps` ends with the most samples of a ray. Waits for the GPU once: how many?"""
        rays = prepare(self.machine_of(origins), origins, directions, jitter, occupancy, steps=steps[:-1])
        return march(rays, int(steps[-1]))

    def composite_forward(self, offsets: Tensor, sigma: Tensor, *tensors: Tensor) -> None:
        """`tensors`: rgb, t0, t1 of the samples, then rgb, opacity, depth of the rays, which are written."""
        self._composite("composite_forward", offsets, sigma, tensors)

    def composite_backward(self, offsets: Tensor, sigma: Tensor, *tensors: Tensor) -> None:
        """As forward, then d_rgb, d_opacity, d_depth of the rays, then d_sigma and d_rgb of the samples, written."""
        self._composite("composite_backward", offsets, sigma, tensors)

    def _composite(self, kernel: str, offsets: Tensor, sigma: Tensor, tensors: tuple[Tensor, ...]) -> None:
        n, s = len(offsets) - 1, len(sigma)
        expect_tensor("offsets", offsets, (n + 1,), torch.int64)
        expect_tensor("sigma", sigma, (s,))
        of_rays = [(n, 3), (n,), (n,)]
        shapes = [(s, 3), (s,), (s,), *of_rays, *of_rays, (s,), (s, 3)]
        expect(len(tensors) in (6, len(shapes)), "too few arrays")
        for i, (tensor, shape) in enumerate(zip(tensors, shapes, strict=False)):
            expect_tensor(f"array {i + 3} of {kernel}", tensor, shape)
        each_warp(self.machine_of(sigma), "composite.cu", kernel, n, (n, s, offsets, sigma, *tensors))

    def adam(self, param: Tensor, grad: Tensor, moment1: Tensor, moment2: Tensor, *rule: int | float) -> None:
        """`rule`: learning rate, beta1, beta2, eps, both corrections, whether to skip zeros."""
        for name, tensor in (("param", param), ("grad", grad), ("moment1", moment1), ("moment2", moment2)):
            expect_tensor(name, tensor, (len(param),))
        n, skip_zero = len(param), int(rule[6])
        arguments = AdamRule(*rule[:6]), skip_zero, n, param, grad, moment1, moment2
        each(self.machine_of(param), "adam.cu", "adam", n, arguments)

    def adam_touched(
        self, param: Tensor, grad: Tensor, touched: Tensor, moment1: Tensor, moment2: Tensor, *rule: int | float
    ) -> None:
        """`adam` on the marked blocks of a table where the gradient is not zero; clears gradient and marks."""
        entries, features = param.shape
        for name, tensor in (("param", param), ("grad", grad), ("moment1", moment1), ("moment2", moment2)):
            expect_tensor(name, tensor, (entries, features))
        n = entries // ALIGNMENT
        expect(entries % ALIGNMENT == 0, f"a table is a multiple of {ALIGNMENT} entries")
        expect_tensor("touched", touched, (n,), torch.uint8)
        arguments = AdamRule(*rule), ALIGNMENT * features, n, touched, param, grad, moment1, moment2
        each(self.machine_of(param), "adam.cu", "adam_touched", n, arguments)

    def march_visible(
        self, grid: GridSpec, table: Tensor, density: MlpSpec, density_params: Tensor, *rest: Any
    ) -> Samples:
        """As `march`, up to where each ray is opaque. `rest`: origins, directions, jitter, occupancy, steps, least
        transmittance."""
        model = RadianceModel(grid, table, density, density_params)
        model.check()
        return visible(model, prepare(self.machine_of(table), *rest[:4], steps=rest[4:-1]), rest[-1]).samples

    def render(self, grid: GridSpec, table: Tensor, density: MlpSpec, density_params: Tensor, *rest: Any) -> int:
        """March, evaluate and composite in one pass; returns the samples evaluated, for which it waits.

        `rest`: colour network, its parameters, harmonics' degree, origins, directions, jitter, occupancy, steps, least
        transmittance, then rgb, opacity and depth, which are written, and perhaps a tape for `render_backward`.
        """
        tape = rest[-1] if isinstance(rest[-1], RadianceTape) else None
        rest = rest if tape is None else rest[:-1]
        model = RadianceModel(grid, table, density, density_params, *rest[:3])
        model.check()
        rays = prepare(self.machine_of(table), *rest[3:7], steps=rest[7:-4])
        least, rgb, opacity, depth = rest[-4:]
        self._expect_rendering(rays.n, rgb, opacity, depth)
        if tape is not None:
            return forward(self, model, rays, least, (rgb, opacity, depth), tape)
        return int(launch(model, rays, least, (rgb, opacity, depth, None))[1])

    def render_backward(
        self, grid: GridSpec, table: Tensor, density: MlpSpec, density_params: Tensor, *rest: Any
    ) -> None:
        """Gradients of what was rendered with a tape.

        `rest`: colour network, its parameters, harmonics' degree, directions, the tape; rgb, opacity and depth, their
        cotangents; the table's gradient, which is added to, its marks or None, and those of both networks, written.
        """
        model = RadianceModel(grid, table, density, density_params, *rest[:3])
        model.check()
        directions, tape = rest[3:5]
        for of_rays in (rest[5:8], rest[8:11]):
            self._expect_rendering(len(directions), *of_rays)
        backward(self, model, tape, rest[5:8], rest[8:11], rest[11:])

    @staticmethod
    def _expect_rendering(n: int, rgb: Tensor, opacity: Tensor, depth: Tensor) -> None:
        for name, tensor, shape in (("rgb", rgb, (n, 3)), ("opacity", opacity, (n,)), ("depth", depth, (n,))):
            expect_tensor(name, tensor, shape)


@functools.cache
def core(half: bool = False) -> Core:
    """The kernels for CUDA tensors; with `half`, perceptrons run on tensor cores where they fit, in 16-bit floats."""
    return Core(nvrtc.machine_of, half)
