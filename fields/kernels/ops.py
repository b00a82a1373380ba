"""The operations that fields are made of, differentiable, and the one place that chooses what computes them.

float32 tensors go to a core: on a CPU to the native one, on an NVIDIA GPU to the CUDA kernels. Everything else (other
precisions and devices) goes to the torch reference.
Gradients of gradients: the cores' operations define none, and say so; `fields.kernels.reference` has them.
"""

# pyright: reportIncompatibleMethodOverride=false
# An autograd function's backward names its cotangents; torch declares it for any number of them.

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from fields.kernels import cuda, native, reference
from fields.kernels.bits import unpack_bits
from fields.kernels.shapes import GridShape, MarchShape, MlpShape
from fields.kernels.table_gradient import TableGradient

ACTIVATIONS = {"identity": 0, "relu": 1, "silu": 2, "sine": 3, "sigmoid": 4, "exp": 5}


def is_native(*tensors: Tensor) -> bool:
    """Whether a core takes these tensors."""
    return all(t.dtype == torch.float32 and t.device.type in ("cpu", "cuda") for t in tensors)


def core_for(*tensors: Tensor | None) -> Any:
    """The core of the machine that all of the tensors lie on.

    Raises:
        ValueError: they lie on several devices.
        InputError: they lie on a GPU, and its driver or NVRTC is missing or too old.
        ImportError: they lie on a CPU, and the native core is not built.
    """
    return _core(_device_type(tensors))


def grid_spec(shape: GridShape, *tensors: Tensor) -> Any:
    """A grid as the core of these tensors takes it."""
    return _grid_spec(shape, _device_type(tensors))


def mlp_spec(shape: MlpShape, *tensors: Tensor | None) -> Any:
    """A perceptron as the core of these tensors takes it."""
    return _mlp_spec(shape, _device_type(tensors))


def _device_type(tensors: Sequence[Tensor | None]) -> str:
    devices = {t.device for t in tensors if t is not None}
    if len(devices) != 1:
        raise ValueError(f"expected tensors on one device, got {' and '.join(sorted(map(str, devices))) or 'none'}")
    return devices.pop().type


def _core(device_type: str) -> Any:
    return cuda.core() if device_type == "cuda" else native.core()


@functools.cache
def _grid_spec(shape: GridShape, device_type: str) -> Any:
    levels = [(level.entries, level.resolution, int(level.hashed), level.scale) for level in shape.levels]
    return _core(device_type).GridSpec(shape.dim, shape.features, levels)


@functools.cache
def _mlp_spec(shape: MlpShape, device_type: str) -> Any:
    kinds = ACTIVATIONS[shape.activation], ACTIVATIONS[shape.output_activation]
    return _core(device_type).MlpSpec(list(shape.dims), *kinds, shape.bias, shape.precision == "bfloat16")


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, shape: GridShape, into: TableGradient | None, known: Tensor | None
    ) -> Tensor:
        out = x.new_empty(len(x), shape.width) if known is None else known.detach()
        if known is None:
            grid_spec(shape, x, table).forward(x, table.detach(), out)
        ctx.save_for_backward(x, table)
        ctx.shape, ctx.into = shape, into
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, table = ctx.saved_tensors
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        into: TableGradient | None = ctx.into
        if into is not None and ctx.needs_input_grad[1]:
            gathered, touched, d_table = into.gradient, into.touched, None
        else:
            gathered = d_table = torch.zeros_like(table) if ctx.needs_input_grad[1] else None
            touched = None
        grid_spec(ctx.shape, x).backward(x, table.detach(), d_out.contiguous(), gathered, touched, d_x)
        return d_x, d_table, None, None, None


def grid_encode(
    x: Float[Tensor, "N D"],
    table: Float[Tensor, "E F"],
    shape: GridShape,
    into: TableGradient | None = None,
    known: Float[Tensor, "N LF"] | None = None,
) -> Float[Tensor, "N LF"]:
    """Features of a multi-resolution grid at points of the unit cube.

    With `into`, the gradient of the table is added there, and none reaches `table.grad`. Features that are `known`,
    having been computed without gradients, are not computed again.
    """
    if not is_native(x, table):
        return reference.grid_encode(x, table, shape)
    return _Grid.apply(x.contiguous(), table, shape, into, known)


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, params: Tensor, shape: MlpShape, aux: Tensor | None, index: Tensor | None, keep: bool
    ) -> Tensor:
        out = x.new_empty(len(x), shape.dims[-1])
        tape = core_for(x).Tape() if keep else None
        mlp_spec(shape, x, params, aux, index).forward(x, params.detach(), aux, index, out, tape)
        ctx.save_for_backward(x, params, aux, index)
        ctx.shape, ctx.tape = shape, tape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, params, aux, index = ctx.saved_tensors
        d_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        d_params = torch.empty_like(params)
        mlp_spec(ctx.shape, x).backward(x, params.detach(), aux, index, d_out.contiguous(), d_x, d_params, ctx.tape)
        return d_x, d_params, None, None, None, None


def mlp(
    x: Float[Tensor, "N X"],
    params: Float[Tensor, " P"],
    shape: MlpShape,
    aux: Float[Tensor, "R A"] | None = None,
    index: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, "N O"]:
    """Perceptron of [x, aux[index]]. `aux` (for example encoded view directions, one row per ray) gets no gradient."""
    if not is_native(x, params):
        return reference.mlp(x, params, shape, aux, index)
    aux = None if aux is None else aux.detach().contiguous()
    index = None if index is None else index.contiguous()
    return _Mlp.apply(x.contiguous(), params, shape, aux, index, torch.is_grad_enabled())


def harmonics(d: Float[Tensor, "N 3"], degree: int) -> Float[Tensor, "N K"]:
    """Real spherical harmonics of unit directions, degree^2 values. No gradient reaches the directions on the CPU."""
    if not is_native(d) or d.requires_grad:
        return reference.harmonics(d, degree)
    out = d.new_empty(len(d), degree * degree)
    core_for(d).harmonics(degree, d.contiguous(), out)
    return out


class _Frequency(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n_frequencies: int) -> Tensor:
        out = x.new_empty(len(x), x.shape[1] * n_frequencies * 2)
        core_for(x).frequency(n_frequencies, x, out)
        ctx.save_for_backward(x)
        ctx.n_frequencies = n_frequencies
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        d_x = torch.empty_like(x)
        core_for(x).frequency_backward(ctx.n_frequencies, x, d_out.contiguous(), d_x)
        return d_x, None


def frequency(x: Float[Tensor, "N D"], n_frequencies: int) -> Float[Tensor, "N K"]:
    """(sin, cos)(2^k pi x) for k = 0 .. n - 1, coordinate by coordinate."""
    if not is_native(x):
        return reference.frequency(x, n_frequencies)
    return _Frequency.apply(x.contiguous(), n_frequencies)


class Samples(NamedTuple):
    """Packed samples of N rays: those of ray i are `offsets[i] : offsets[i + 1]`. The only ragged layout."""

    offsets: Int[Tensor, " N1"]
    t0: Float[Tensor, " S"]
    t1: Float[Tensor, " S"]
    x: Float[Tensor, "S 3"]
    """Field coordinates of the middle of each interval."""
    ray: Int[Tensor, " S"]


def march(
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    jitter: Float[Tensor, " N"] | None,
    occupancy: Int[Tensor, " W"],
    shape: MarchShape,
) -> Samples:
    """Intervals of rays in occupied cells. Rays in unit-cube coordinates, `jitter` in steps; not differentiable."""
    if not is_native(origins, directions):
        occupied = unpack_bits(occupancy, shape.resolution)
        return Samples(*reference.march(origins, directions, jitter, occupied, shape))
    rays = origins.contiguous(), directions.contiguous(), jitter
    return Samples(*core_for(*rays, occupancy).march(*rays, occupancy, *march_arguments(shape), shape.max_samples))


def march_arguments(shape: MarchShape) -> tuple[int, bool, float, float, float, float]:
    """A march as a core's arguments."""
    return shape.resolution, shape.contracted, shape.near, shape.far, shape.step, shape.cone_angle


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigma: Tensor, rgb: Tensor, t0: Tensor, t1: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(offsets) - 1
        out = rgb.new_empty(n, 3), rgb.new_empty(n), rgb.new_empty(n)
        core_for(sigma, rgb, t0, t1, offsets).composite_forward(offsets, sigma.detach(), rgb.detach(), t0, t1, *out)
        ctx.save_for_backward(sigma, rgb, t0, t1, offsets, *out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_rgb: Tensor, d_opacity: Tensor, d_depth: Tensor) -> tuple[Tensor | None, ...]:
        sigma, rgb, t0, t1, offsets, *out = ctx.saved_tensors
        d_sigma, d_sample_rgb = torch.empty_like(sigma), torch.empty_like(rgb)
        core_for(sigma).composite_backward(
            offsets, sigma.detach(), rgb.detach(), t0, t1, *out,
            d_rgb.contiguous(), d_opacity.contiguous(), d_depth.contiguous(), d_sigma, d_sample_rgb,
        )  # fmt: skip
        return d_sigma, d_sample_rgb, None, None, None


def composite(
    sigma: Float[Tensor, " S"],
    rgb: Float[Tensor, "S 3"],
    t0: Float[Tensor, " S"],
    t1: Float[Tensor, " S"],
    offsets: Int[Tensor, " N1"],
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Emission and absorption along rays: (rgb, opacity, depth), depth not normalised by opacity."""
    if not is_native(sigma, rgb, t0, t1):
        return reference.composite(sigma, rgb, t0, t1, offsets)
    return _Composite.apply(sigma.contiguous(), rgb.contiguous(), t0, t1, offsets)


class RadianceModel(NamedTuple):
    """A radiance field that a core renders in one pass: a 3-D grid and two perceptrons."""

    grid: GridShape
    density: MlpShape
    """From features to a latent vector, whose first value is log density."""
    color: MlpShape
    """From the latent vector and the direction's harmonics to rgb."""
    harmonics_degree: int


class RayBatch(NamedTuple):
    """N rays in unit-cube coordinates, and where they may stop."""

    origins: Float[Tensor, "N 3"]
    directions: Float[Tensor, "N 3"]
    jitter: Float[Tensor, " N"] | None
    """In steps; half a step where None."""
    occupancy: Int[Tensor, " W"]


class Rendered(NamedTuple):
    """What N rays see, depth not normalised by opacity."""

    rgb: Float[Tensor, "N 3"]
    opacity: Float[Tensor, " N"]
    depth: Float[Tensor, " N"]
    n_samples: int
    stages: Callable[[], dict[str, float]] = dict
    """Milliseconds by stage of the forward pass, and of the backward pass once it was made; those that a core tells."""


class _Render(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        table: Tensor,
        density: Tensor,
        color: Tensor,
        model: RadianceModel,
        rays: RayBatch,
        how: tuple[Any, ...],
        into: TableGradient | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(rays.origins)
        out = table.new_empty(n, 3), table.new_empty(n), table.new_empty(n)
        weights = _Render.weights(model, table, density, color)
        core_for(table).render(*weights, *rays, *how[:-1], *out, how[-1])
        ctx.save_for_backward(table, density, color, rays.directions, *out)
        ctx.model, ctx.tape, ctx.into = model, how[-1], into
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_out: Tensor) -> tuple[Tensor | None, ...]:
        table, density, color, directions, *out = ctx.saved_tensors
        into: TableGradient | None = ctx.into
        d_table = torch.zeros_like(table) if into is None else None
        gathered, touched = (d_table, None) if into is None else (into.gradient, into.touched)
        d_density, d_color = torch.empty_like(density), torch.empty_like(color)
        core_for(table).render_backward(
            *_Render.weights(ctx.model, table, density, color), directions, ctx.tape, *out,
            *(d.contiguous() for d in d_out), gathered, touched, d_density, d_color,
        )  # fmt: skip
        return d_table, d_density, d_color, None, None, None, None

    @staticmethod
    def weights(model: RadianceModel, table: Tensor, density: Tensor, color: Tensor) -> tuple[Any, ...]:
        return (
            grid_spec(model.grid, table), table.detach(), mlp_spec(model.density, density), density.detach(),
            mlp_spec(model.color, color), color.detach(), model.harmonics_degree,
        )  # fmt: skip


def render(
    model: RadianceModel,
    weights: tuple[Float[Tensor, "E F"], Float[Tensor, " D"], Float[Tensor, " C"]],
    rays: RayBatch,
    shape: MarchShape,
    min_transmittance: float,
    into: TableGradient | None = None,
) -> Rendered:
    """March, evaluate and composite in one pass, up to where a ray is opaque.

    `weights` are the grid's table and the parameters of the two networks. They get gradients, in one backward pass, as
    in `grid_encode`.
    """
    how = *march_arguments(shape), min_transmittance
    core = core_for(*weights, *rays)
    if not torch.is_grad_enabled():
        n, table = len(rays.origins), weights[0]
        out = table.new_empty(n, 3), table.new_empty(n), table.new_empty(n)
        return Rendered(*out, core.render(*_Render.weights(model, *weights), *rays, *how, *out))
    tape = core.RadianceTape()
    rgb, opacity, depth = _Render.apply(*weights, model, rays, (*how, tape), into)
    return Rendered(rgb, opacity, depth, tape.n_samples, tape.stages)


def adam_touched(
    param: Float[Tensor, "E F"],
    gathered: TableGradient,
    moments: tuple[Tensor, Tensor],
    rate: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
) -> None:
    """`adam` with `skip_zero` on a table's touched entries, in place; clears what was gathered."""
    correction = 1 - betas[0] ** step, 1 - betas[1] ** step
    tables = param.detach(), gathered.gradient, gathered.touched, *moments
    core_for(*tables).adam_touched(*tables, rate, *betas, eps, *correction)


def adam(
    param: Tensor,
    grad: Tensor,
    moments: tuple[Tensor, Tensor],
    rate: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    skip_zero: bool,
) -> None:
    """One step of Adam in place; with `skip_zero`, entries whose gradient is exactly zero stay as they are."""
    if not is_native(param, grad):
        reference.adam(param, grad, moments, rate, betas, eps, step, skip_zero)
        return
    correction = 1 - betas[0] ** step, 1 - betas[1] ** step
    flat = param.detach().view(-1), grad.contiguous().view(-1), moments[0].view(-1), moments[1].view(-1)
    core_for(*flat).adam(*flat, rate, *betas, eps, *correction, skip_zero)
