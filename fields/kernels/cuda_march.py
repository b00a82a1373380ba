"""Marching on a GPU: which samples rays have in occupied cells, and which of them can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fields.kernels.cuda_arguments import MarchSteps, blocks, each, each_warp, expect, expect_tensor
from fields.kernels.nvrtc import Argument, Machine

COARSE = 4
"""`kCoarse` of cuda/march.h."""


class Samples(NamedTuple):
    """Packed samples of rays, as `fields.kernels.ops.Samples`."""

    offsets: Tensor
    t0: Tensor
    t1: Tensor
    x: Tensor
    ray: Tensor


class Evaluated(NamedTuple):
    """Samples, and what a density network has found there."""

    samples: Samples
    features: Tensor
    """[S, F], what it took."""
    latent: Tensor
    """[S, Z], what it gave; first log density."""
    sigma: Tensor
    """[S]."""


class Rays(NamedTuple):
    """Rays and how they step, checked."""

    n: int
    machine: Machine
    like: Tensor
    """For arrays that are made."""
    arguments: tuple[Argument, ...]
    """As kernels take them: n, origins, directions, jitter, occupancy, room, rule."""


def march_steps(occupancy: Tensor, steps: Sequence[int | float]) -> MarchSteps:
    """(resolution, contracted, near, far, step, cone_angle), checked against the occupancy's bits."""
    resolution, contracted, near, far, step, cone_angle = steps
    expect(0 < resolution <= 1024, "the occupancy grid has 1 to 1024 cells per axis")
    expect_tensor("occupancy", occupancy, (blocks(int(resolution) ** 3, 32),), torch.int32)
    sound = step > 0 and 0 <= near < far and cone_angle >= 0
    expect(sound, "marching needs step > 0, 0 <= near < far, cone_angle >= 0")
    return MarchSteps(int(resolution), int(contracted), near, far, step, cone_angle)


def prepare(
    machine: Machine,
    origins: Tensor,
    directions: Tensor,
    jitter: Tensor | None,
    occupancy: Tensor,
    steps: Sequence[int | float],
) -> Rays:
    """Check rays and steps, and find the coarse cells that are empty."""
    n = len(origins)
    expect_tensor("origins", origins, (n, 3))
    expect_tensor("directions", directions, (n, 3))
    if jitter is not None:
        expect_tensor("jitter", jitter, (n,))
    rule = march_steps(occupancy, steps)
    cells = blocks(rule.resolution, COARSE) ** 3
    room = torch.empty(cells, dtype=torch.uint8, device=occupancy.device)
    if n > 0:
        each(machine, "march.cu", "coarse_occupancy", cells, (rule.resolution, occupancy, room))
    return Rays(n, machine, origins, (n, origins, directions, jitter, occupancy, room, rule))


def march(rays: Rays, max_samples: int) -> Samples:
    """All samples in occupied cells. Waits for the GPU once: how many?"""
    counts = torch.zeros(rays.n + 1, dtype=torch.int64, device=rays.like.device)
    each(rays.machine, "march.cu", "march_count", rays.n, (*rays.arguments, max_samples, counts))
    return write(rays, counts)


def write(rays: Rays, counts: Tensor) -> Samples:
    """The first samples of rays, `counts[i + 1]` of ray i. Waits for the GPU."""
    offsets = counts.cumsum(0)
    n = int(offsets[-1])
    t0, t1, x = rays.like.new_empty(n), rays.like.new_empty(n), rays.like.new_empty(n, 3)
    ray = torch.empty(n, dtype=torch.int32, device=rays.like.device)
    each(rays.machine, "march.cu", "march_write", rays.n, (*rays.arguments, offsets, t0, t1, x, ray))
    return Samples(offsets, t0, t1, x, ray)


def compact(machine: Machine, found: Samples, features: Tensor, latent: Tensor, least: float) -> Evaluated:
    """Without the samples behind which the ray was opaque already. Waits for the GPU once: how many are left?"""
    n, width, latent_dim = len(found.offsets) - 1, features.shape[1], latent.shape[1]
    expect_tensor("features", features, (len(found.t0), width))
    expect_tensor("latent", latent, (len(found.t0), latent_dim))
    counts = torch.zeros_like(found.offsets)
    arguments = n, found.offsets, latent, latent_dim, found.t0, found.t1, least, counts
    each_warp(machine, "visible.cu", "visible_count", n, arguments)
    kept = counts.cumsum(0)
    s = int(kept[-1])
    t0, t1, sigma = latent.new_empty(s), latent.new_empty(s), latent.new_empty(s)
    x, ray = latent.new_empty(s, 3), torch.empty(s, dtype=torch.int32, device=latent.device)
    to_features, to_latent = latent.new_empty(s, width), latent.new_empty(s, latent_dim)
    sources = found.t0, found.t1, found.x, features, width, latent, latent_dim
    targets = t0, t1, x, ray, to_features, to_latent, sigma
    each_warp(machine, "visible.cu", "visible_write", n, (n, found.offsets, kept, *sources, *targets))
    return Evaluated(Samples(kept, t0, t1, x, ray), to_features, to_latent, sigma)
