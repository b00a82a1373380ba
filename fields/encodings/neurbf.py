"""Radial basis functions in coordinate space with features, read by nearest neighbours: the idea of NeuRBF (Chen et al.
2023), with centres that stay where they are drawn.

    features(x) = sum_k w_k F_k / sum_k w_k,   w_k = 1 / (1 + q_k) or exp(-q_k / 2),   q_k = |L_k (x - c_k)|^2

over the nearest kernels k. Lengths are cells of a lattice that has one centre in each cell, off its middle by a random
part of it; a ring of cells around the cube gives points at its faces neighbours on all sides.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.encodings.configs import NeuRBF
from scenes.errors import InputError

RING = 2
"""Cells around the unit cube on each side."""


class NeuRBFEncoding(nn.Module):
    """Features of the nearest kernels, weighted by what the kernels say."""

    centers: Tensor

    def __init__(self, config: NeuRBF, dim: int) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise InputError(f"neurbf: kernels lie in 2 or 3 dimensions, got {dim}: take --encoding hash")
        if config.features < 1 or config.resolution < 1 or not 1 <= config.neighbours <= 2**dim:
            raise InputError(
                f"neurbf: expected features >= 1, resolution >= 1 and 1 to {2**dim} neighbours, "
                f"got {config.features}, {config.resolution} and {config.neighbours}"
            )
        if not 0 <= config.jitter <= 0.5:
            raise InputError(f"neurbf: expected a jitter of 0 to 0.5, got {config.jitter}")
        self.config, self.dim, self.width = config, dim, config.features
        self.side = config.resolution + 2 * RING
        """Cells along an edge, the ring included."""
        n, full = self.side**dim, config.shape == "full"
        if n * config.features > 2**31:
            raise InputError(f"neurbf: {n * config.features:,} parameters are too many; lower resolution")
        self.register_buffer("centers", torch.empty(n, dim))
        self.features = nn.Parameter(torch.empty(n, config.features))
        self.log_scale = nn.Parameter(torch.empty(n, dim))
        """Logarithms of the diagonal of L."""
        self.shear = nn.Parameter(torch.empty(n, dim * (dim - 1) // 2)) if full else None
        """L below its diagonal, row by row."""

    def grid_parameters(self) -> list[nn.Parameter]:
        """The features."""
        return [self.features]

    def initialise(self, generator: torch.Generator) -> None:
        """Centres off the middle of their cells, round kernels, and features of almost zero as a hash grid has them."""
        with torch.no_grad():
            axes = [torch.arange(self.side, dtype=torch.float32) + 0.5] * self.dim
            middles = torch.cartesian_prod(*axes).to(self.centers.device)
            moved = torch.rand(middles.shape, generator=generator).to(middles.device) - 0.5
            self.centers.copy_(middles + self.config.jitter * moved)
            self.features.uniform_(-1e-4, 1e-4, generator=generator)
            self.log_scale.zero_()
            if self.shear is not None:
                self.shear.zero_()

    def lattice(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Points of the unit cube in cells of the lattice."""
        return x.clamp(0, 1) * self.config.resolution + RING

    def neighbours(self, p: Float[Tensor, "N D"]) -> Int[Tensor, "N K"]:
        """The nearest centres of points in cells of the lattice.

        Centres in the cells around a point's own are looked at first. One that lies further away than any of the cells
        beyond could be proves nothing, and for such points the next ring of cells is looked at too.
        """
        found, certain = self._within(p, 1)
        unsure = (~certain).nonzero()[:, 0]
        if len(unsure):
            found = found.index_copy(0, unsure, self._within(p[unsure], 2)[0])
        return found

    def _within(self, p: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """Nearest centres in the cells up to `reach` away, and for which points nothing further can be nearer."""
        n_neighbours = self.config.neighbours
        cell = p.floor().clamp(RING, self.side - RING - 1).long()
        offsets = list(itertools.product(range(-reach, reach + 1), repeat=self.dim))
        around = cell[:, None, :] + torch.tensor(offsets, device=p.device)
        strides = self.side ** torch.arange(self.dim - 1, -1, -1, device=p.device)
        index = (around * strides).sum(-1)
        distance2 = (self.centers[index] - p[:, None, :]).square().sum(-1)
        nearest = distance2.topk(n_neighbours, dim=1, largest=False, sorted=True)
        inside = torch.minimum(p - cell, 1 - (p - cell)).amin(1)
        beyond = inside + reach + (1 - self.config.jitter) / 2
        return index.gather(1, nearest.indices), nearest.values[:, -1].sqrt() <= beyond

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """Features at points of the unit cube."""
        p = self.lattice(x)
        with torch.no_grad():
            index = self.neighbours(p)
        weight = self.kernels(p, index)
        weight = weight / weight.sum(1, keepdim=True)
        rows = self.features.index_select(0, index.flatten()).view(*index.shape, self.width)
        return (rows * weight[..., None]).sum(1)

    def kernels(self, p: Float[Tensor, "N D"], index: Int[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """What each of the kernels says at points in cells of the lattice."""
        flat = index.flatten()
        r = p[:, None, :] - self.centers[index]
        q = r * self.log_scale.index_select(0, flat).view(*index.shape, self.dim).exp()
        if self.shear is not None:
            below = self.shear.index_select(0, flat).view(*index.shape, -1)
            rows = [q[..., 0]]
            for i in range(1, self.dim):
                first = i * (i - 1) // 2
                rows.append(q[..., i] + (below[..., first : first + i] * r[..., :i]).sum(-1))
            q = torch.stack(rows, dim=-1)
        q2 = q.square().sum(-1)
        return 1 / (1 + q2) if self.config.kernel == "inverse-quadratic" else torch.exp(-0.5 * q2.clamp(max=100))
