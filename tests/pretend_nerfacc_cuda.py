"""Stand-ins for the three CUDA functions of nerfacc that its occupancy estimator calls when it samples, in plain torch,
written from what nerfacc documents of them. All else of nerfacc that runs in these tests is nerfacc.

`traverse_grids` takes one grid and steps of equal size only: step k of a ray is [t_k, t_k + size], t_k = near + k size,
and is a sample where the cell of its middle is occupied.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from nerfacc import cuda
from torch import Tensor


def put_in(patch: pytest.MonkeyPatch) -> None:
    """Let nerfacc call these instead of its own."""
    for function in (ray_aabb_intersect, traverse_grids, exclusive_sum):
        patch.setattr(cuda, function.__name__, function)


def ray_aabb_intersect(
    rays_o: Tensor, rays_d: Tensor, aabbs: Tensor, near: float, far: float, miss: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(t of entry [N, M], t of exit [N, M], hit [N, M])."""
    expect_on_gpu(rays_o, rays_d, aabbs)
    to_lo, to_hi = ((side - rays_o[:, None]) / rays_d[:, None] for side in (aabbs[None, :, :3], aabbs[None, :, 3:]))
    t0 = torch.minimum(to_lo, to_hi).amax(-1)
    t1 = torch.maximum(to_lo, to_hi).amin(-1)
    hit = (t0 <= t1) & (t1 > 0)
    return torch.where(hit, t0.clamp(near, far), miss), torch.where(hit, t1.clamp(near, far), miss), hit


def traverse_grids(
    rays_o: Tensor, rays_d: Tensor, rays_mask: Tensor, binaries: Tensor, aabbs: Tensor,
    t_sorted: Tensor, t_indices: Tensor, hits: Tensor, near_planes: Tensor, far_planes: Tensor,
    step_size: float, cone_angle: float, intervals: bool, samples: bool, terminate: bool, limit: int, allocate: bool,
) -> tuple[SimpleNamespace, SimpleNamespace, Tensor]:  # fmt: skip
    """(edges of intervals, samples, where rays ended), packed by ray; `binaries` [1, X, Y, Z]."""
    n = len(rays_o)
    expect_on_gpu(rays_o, rays_d, rays_mask, binaries, aabbs, t_sorted, t_indices, hits, near_planes, far_planes)
    assert n > 0 and binaries.shape[0] == 1 and binaries.dtype == torch.bool and bool(rays_mask.all())
    assert all(t.dtype == torch.float32 for t in (rays_o, rays_d, aabbs, t_sorted, near_planes, far_planes))
    assert cone_angle == 0 and step_size > 0 and limit <= 0 and not allocate
    begin = torch.maximum(t_sorted[:, 0], near_planes)
    end = torch.minimum(t_sorted[:, 1], far_planes)
    n_steps = int(((end - near_planes)[hits[:, 0]] / step_size).clamp(min=0).amax().ceil()) + 1 if hits.any() else 1
    k = torch.arange(n_steps, device=rays_o.device)
    t0 = near_planes[:, None] + k * step_size  # [N, K]
    middle = t0 + step_size / 2
    lo, hi = aabbs[0, :3], aabbs[0, 3:]
    x = (rays_o[:, None] + rays_d[:, None] * middle[..., None] - lo) / (hi - lo)
    resolution = torch.tensor(binaries.shape[1:], device=rays_o.device)
    cell = (x * resolution).floor().long().clamp(min=0).minimum(resolution - 1)
    taken = binaries[0, cell[..., 0], cell[..., 1], cell[..., 2]]
    taken = taken & hits[:, :1] & (middle >= begin[:, None]) & (middle < end[:, None])
    ray, _ = taken.nonzero().unbind(1)
    counts = taken.sum(1)
    starts = counts.cumsum(0) - counts
    edges = torch.stack([t0[taken], t0[taken] + step_size], 1).flatten()
    left = torch.arange(len(edges), device=rays_o.device) % 2 == 0
    of_edges = SimpleNamespace(
        vals=edges, ray_indices=ray.repeat_interleave(2), is_left=left, is_right=~left,
        chunk_starts=2 * starts, chunk_cnts=2 * counts,
    )  # fmt: skip
    of_samples = SimpleNamespace(
        vals=middle[taken], ray_indices=ray, is_valid=torch.ones_like(ray, dtype=torch.bool),
        chunk_starts=starts, chunk_cnts=counts,
    )  # fmt: skip
    return of_edges, of_samples, end


def exclusive_sum(starts: Tensor, counts: Tensor, inputs: Tensor, normalize: bool, backward: bool) -> Tensor:
    """Within each chunk, the sum of what lies before."""
    expect_on_gpu(starts, counts, inputs)
    assert not normalize and not backward
    before = inputs.cumsum(0) - inputs
    first = before[starts.clamp(max=max(len(inputs) - 1, 0))] if len(inputs) else before.new_zeros(len(starts))
    return before - first.repeat_interleave(counts)


def expect_on_gpu(*tensors: Tensor) -> None:
    """The library computes nowhere else."""
    assert all(t.is_cuda and t.is_contiguous() for t in tensors)
