"""The CUDA kernels behind the native core's own interface: what `fields.kernels.native.core()` has, for CUDA tensors.

Shapes are checked once, before a launch, as the CPU's bindings do; tensors cross without copies; kernels run on torch's
current stream. An `index` or `offsets` that points outside is clamped, not reported: to look would wait for the GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fields.kernels import nvrtc
from fields.kernels.cuda_arguments import (
    AdamRule,
    MachineOf,
    MarchSteps,
    blocks,
    check_rays,
    expect,
    expect_tensor,
    march_steps,
)
from fields.kernels.cuda_grid import GridSpec
from fields.kernels.cuda_mlp import MlpSpec
from fields.kernels.cuda_render import launch
from fields.kernels.nvrtc import Argument, Program
from fields.kernels.shapes import ALIGNMENT


class Core:
    """The functions of the native core, on the machine that the tensors lie on."""

    def __init__(self, machine_of: MachineOf, half: bool = False) -> None:
        self.machine_of = machine_of
        self.GridSpec = functools.partial(GridSpec, machine_of)
        self.MlpSpec = functools.partial(MlpSpec, machine_of, half)

    def _each(self, like: Tensor, program: str, kernel: str, n: int, arguments: Sequence[Argument]) -> None:
        """Launch a kernel with a thread for each of n."""
        if n > 0:
            self.machine_of(like).launch(Program(program), kernel, (blocks(n, 256), 1), 256, 0, arguments)

    def harmonics(self, degree: int, d: Tensor, out: Tensor) -> None:
        """Real spherical harmonics of unit directions."""
        expect(1 <= degree <= 4, "harmonics have degree 1 to 4")
        expect_tensor("directions", d, (len(d), 3))
        expect_tensor("out", out, (len(d), degree * degree))
        self._each(d, "encodings.cu", "harmonics", len(d), (degree, len(d), d, out))

    def frequency(self, n_frequencies: int, x: Tensor, out: Tensor) -> None:
        """(sin, cos)(2^k pi x)."""
        expect(1 <= n_frequencies <= 24, "1 to 24 frequencies")
        expect_tensor("x", x, x.shape)
        expect_tensor("out", out, (len(x), x.shape[1] * n_frequencies * 2))
        n = x.numel()
        self._each(x, "encodings.cu", "frequency", n * n_frequencies, (n_frequencies, n, x, out))

    def frequency_backward(self, n_frequencies: int, x: Tensor, d_out: Tensor, d_x: Tensor) -> None:
        """Its vjp."""
        expect(1 <= n_frequencies <= 24, "1 to 24 frequencies")
        expect_tensor("d_out", d_out, (len(x), x.shape[1] * n_frequencies * 2))
        expect_tensor("d_x", d_x, x.shape)
        n = x.numel()
        self._each(x, "encodings.cu", "frequency_backward", n, (n_frequencies, n, x, d_out, d_x))

    def march(
        self, origins: Tensor, directions: Tensor, jitter: Tensor | None, occupancy: Tensor, *steps: int | float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(offsets, t0, t1, x, ray); `steps` ends with the most samples of a ray. Waits for the GPU once: how many?"""
        rays = check_rays(origins, directions, jitter)
        rule = march_steps(occupancy, steps[:-1])
        counts = torch.zeros(len(origins) + 1, dtype=torch.int64, device=origins.device)
        self._each(origins, "march.cu", "march_count", len(origins), (*rays, occupancy, rule, int(steps[-1]), counts))
        return self._write(rays, occupancy, rule, origins, counts)

    def _write(
        self, rays: tuple[Argument, ...], occupancy: Tensor, rule: MarchSteps, like: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The samples of rays, when it is known how many each has."""
        offsets = counts.cumsum(0)
        n = int(offsets[-1])
        t0, t1, x = like.new_empty(n), like.new_empty(n), like.new_empty(n, 3)
        ray = torch.empty(n, dtype=torch.int32, device=like.device)
        self._each(like, "march.cu", "march_write", len(like), (*rays, occupancy, rule, offsets, t0, t1, x, ray))
        return offsets, t0, t1, x, ray

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
        if n > 0:
            arguments = n, s, offsets, sigma, *tensors
            self.machine_of(sigma).launch(Program("composite.cu"), kernel, (blocks(n, 4), 1), 128, 0, arguments)

    def adam(self, param: Tensor, grad: Tensor, moment1: Tensor, moment2: Tensor, *rule: int | float) -> None:
        """`rule`: learning rate, beta1, beta2, eps, both corrections, whether to skip zeros."""
        for name, tensor in (("param", param), ("grad", grad), ("moment1", moment1), ("moment2", moment2)):
            expect_tensor(name, tensor, (len(param),))
        n, skip_zero = len(param), int(rule[6])
        arguments = AdamRule(*rule[:6]), skip_zero, n, param, grad, moment1, moment2
        self._each(param, "adam.cu", "adam", n, arguments)

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
        self._each(param, "adam.cu", "adam_touched", n, arguments)

    def march_visible(
        self,
        grid: GridSpec,
        table: Tensor,
        density: MlpSpec,
        density_params: Tensor,
        *rest: Tensor | int | float | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As `march`, up to where each ray is opaque.

        `rest`: origins, directions, jitter, occupancy, steps, least transmittance.
        """
        origins, directions, jitter, occupancy, *steps = rest
        assert isinstance(origins, Tensor) and isinstance(directions, Tensor) and isinstance(occupancy, Tensor)
        assert jitter is None or isinstance(jitter, Tensor)
        rays = check_rays(origins, directions, jitter)
        numbers = tuple(s for s in steps if isinstance(s, int | float))
        counts = torch.zeros(len(origins) + 1, dtype=torch.int64, device=origins.device)
        if len(origins) > 0:
            field = grid, table, density, density_params, None, None, 1
            launch(field, rays, occupancy, numbers, (None, None, None, counts))
        return self._write(rays, occupancy, march_steps(occupancy, numbers[:-1]), origins, counts)

    def render(self, grid: GridSpec, table: Tensor, density: MlpSpec, density_params: Tensor, *rest: Any) -> int:
        """March, evaluate and composite in one pass; returns the samples evaluated, for which it waits.

        `rest`: colour network, its parameters, harmonics' degree, origins, directions, jitter, occupancy, steps, least
        transmittance, then rgb, opacity and depth, which are written.
        """
        color, color_params, degree, origins, directions, jitter, occupancy, *steps = rest[:-3]
        rgb, opacity, depth = rest[-3:]
        expect(1 <= degree <= 4, "harmonics have degree 1 to 4")
        expect(
            color.dims[0] == density.dims[-1] + degree**2 and color.dims[-1] == 3,
            "the colour network takes the latent and the harmonics, and gives three values",
        )
        expect_tensor("color_params", color_params, (color.size,))
        rays, n = check_rays(origins, directions, jitter), len(origins)
        for name, tensor, shape in (("rgb", rgb, (n, 3)), ("opacity", opacity, (n,)), ("depth", depth, (n,))):
            expect_tensor(name, tensor, shape)
        if n == 0:
            return 0
        field = grid, table, density, density_params, color, color_params, degree
        return int(launch(field, rays, occupancy, tuple(steps), (rgb, opacity, depth, None))[1])


@functools.cache
def core(half: bool = False) -> Core:
    """The kernels for CUDA tensors; with `half`, perceptrons run on tensor cores where they fit, in 16-bit floats."""
    return Core(nvrtc.machine_of, half)
