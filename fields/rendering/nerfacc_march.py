"""Marching by nerfacc (Li et al. 2023) on an NVIDIA GPU: its estimator reads our occupancy, its samples become ours.

A step is a sample where the cell of its middle is occupied, as with us. What differs: steps are counted from the near
plane, not from where the ray enters the cube; one whose middle lies behind the cube is left out; where steps grow with
distance, those that are skipped all have the size of the first of them; there is no limit to how many a ray has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fields.kernels.bits import unpack_bits
from fields.kernels.gpu_libraries import library
from fields.kernels.ops import RayBatch, Samples
from fields.kernels.shapes import MarchShape
from scenes.errors import InputError

SWITCH = "--field.march.marcher"
INSTEAD = f"{SWITCH} fieldfit"
CUBE = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0)


def expect_usable(unbounded: bool) -> None:
    """Look at all that could be wrong, before anything is fitted.

    Raises:
        InputError: the scene is unbounded, nerfacc is missing, there is no GPU, or its kernels cannot be compiled.
    """
    if unbounded:
        raise InputError(f"{SWITCH} nerfacc: expected a bounded scene, got an unbounded one; take {INSTEAD}")
    library("nerfacc", INSTEAD)
    _try_kernels()


@functools.cache
def _try_kernels() -> None:
    """nerfacc compiles its kernels when the first of them is called: call one."""
    nerfacc = library("nerfacc", INSTEAD)
    ray, cube = torch.full((1, 3), 0.5, device="cuda"), torch.tensor([CUBE], device="cuda")
    try:
        nerfacc.ray_aabb_intersect(ray, ray, cube)
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{SWITCH} nerfacc: its kernels cannot be compiled ({reason}); they need the CUDA toolkit (nvcc) that fits "
            f"torch's CUDA {torch.version.cuda}; install it, or take {INSTEAD}"
        ) from None


@functools.cache
def _estimator(resolution: int, device: torch.device) -> Any:
    """One for all fields: it is told at every call what is occupied."""
    return library("nerfacc", INSTEAD).OccGridEstimator(list(CUBE), resolution).to(device)


def visible_samples(
    rays: RayBatch, shape: MarchShape, sigma: Callable[[Tensor], Tensor], min_transmittance: float
) -> Samples:
    """Samples in occupied cells, up to where rays are opaque; `sigma` is the density at field coordinates.

    Raises:
        InputError: the rays are not on an NVIDIA GPU.
    """
    if not rays.origins.is_cuda:
        raise InputError(
            f"nerfacc computes on an NVIDIA GPU only, got rays on {rays.origins.device}; take --device cuda"
        )
    if len(rays.origins) == 0:  # its kernels divide by the number of rays
        return to_samples(rays, *(rays.origins.new_zeros(0) for _ in range(3)))

    def density(t0: Tensor, t1: Tensor, ray: Tensor) -> Tensor:
        return sigma(_middles(rays, ray, t0, t1))

    estimator = _estimator(shape.resolution, rays.origins.device)
    estimator.binaries = to_binaries(rays.occupancy, shape.resolution)
    start = torch.full_like(rays.origins[:, 0], shape.near) + shape.step * (0.5 if rays.jitter is None else rays.jitter)
    found = estimator.sampling(
        rays.origins.contiguous(),
        rays.directions.contiguous(),
        sigma_fn=density,
        near_plane=shape.near,
        far_plane=shape.far,
        t_min=start,
        render_step_size=shape.step,
        early_stop_eps=min_transmittance,
        cone_angle=shape.cone_angle,
    )
    return to_samples(rays, *found)


def to_binaries(occupancy: Int[Tensor, " W"], resolution: int) -> Bool[Tensor, "1 R R R"]:
    """Our bits as the estimator has them: cells [level, x, y, z]."""
    return unpack_bits(occupancy, resolution).permute(2, 1, 0)[None].contiguous()


def to_samples(rays: RayBatch, ray: Tensor, t0: Float[Tensor, " S"], t1: Float[Tensor, " S"]) -> Samples:
    """Packed samples in the order of their rays, `ray` [S] whole numbers, as ours."""
    ray = ray.long()
    counts = ray.new_zeros(len(rays.origins)).index_add(0, ray, torch.ones_like(ray))
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Samples(offsets, t0, t1, _middles(rays, ray, t0, t1), ray.int())


def _middles(rays: RayBatch, ray: Int[Tensor, " S"], t0: Tensor, t1: Tensor) -> Float[Tensor, "S 3"]:
    """Of intervals, in the unit cube."""
    return rays.origins[ray] + rays.directions[ray] * ((t0 + t1) / 2)[:, None]
