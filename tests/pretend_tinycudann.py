"""A stand-in for `tinycudann`, written from what NVIDIA documents of it: same classes, arguments, sizes and precisions,
in plain torch. It shows that we call the library as it wants to be called, and nothing about the library itself.

What is imitated: batches are padded to multiples of 256 and must not be empty; tensors must be on a GPU; parameters are
one flat float32 tensor, used as 16-bit floats; gradients are multiplied by `loss_scale`, and divided again while they
are 16-bit floats; a network pads its inputs with ones and its outputs with what is cut off again.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GRANULARITY = 256
GRID = {"otype", "type", "n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution", "per_level_scale"}
GRID |= {"interpolation"}
NETWORK = {"otype", "activation", "output_activation", "n_neurons", "n_hidden_layers"}
ACTIVATIONS = {"None": lambda z: z, "ReLU": torch.relu, "Sigmoid": torch.sigmoid}
PRIMES = (1, 2654435761, 805459861, 3674653429)


class _Times(torch.autograd.Function):
    """The cotangent by a factor, in its own precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple[Tensor, None]:
        return d[0] * ctx.factor, None


@dataclass(frozen=True)
class Native:
    """The object behind a module."""

    bounds: list[tuple[int, float]]
    """(number of parameters, largest initial value) of each part."""

    def n_params(self) -> int:
        return sum(n for n, _ in self.bounds)

    def initial_params(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        parts = [torch.empty(n).uniform_(-bound, bound, generator=generator) for n, bound in self.bounds]
        return torch.cat(parts).to("cuda")


class Module(torch.nn.Module, ABC):
    def __init__(self, native: Native, n_output_dims: int, dtype: torch.dtype, seed: int) -> None:
        super().__init__()
        self.native_tcnn_module = native
        self.dtype = dtype
        self.n_output_dims = n_output_dims
        self.params = torch.nn.Parameter(native.initial_params(seed))
        self.loss_scale = 128.0 if dtype == torch.float16 else 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            warnings.warn("input must be a CUDA tensor, but isn't", stacklevel=2)
        assert self.params.is_cuda and self.params.dtype == torch.float32
        n = len(x)
        if n == 0:
            raise ZeroDivisionError("the library divides by the number of points")
        x = torch.nn.functional.pad(x, [0, 0, 0, -n % GRANULARITY]).float()
        params = _Times.apply(self.params.to(self.dtype), 1 / self.loss_scale)
        out = self.body(_Times.apply(x, 1 / self.loss_scale), params)
        return _Times.apply(out, self.loss_scale)[:n, : self.n_output_dims]

    @abstractmethod
    def body(self, x: Tensor, params: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Level:
    scale: float
    resolution: int
    entries: int
    hashed: bool
    offset: int


class Encoding(Module):
    def __init__(
        self, n_input_dims: int, encoding_config: dict[str, Any], seed: int = 1337, dtype: torch.dtype | None = None
    ) -> None:
        c = encoding_config
        assert set(c) <= GRID and c["otype"] == "Grid" and c["type"] == "Hash" and c["interpolation"] == "Linear"
        assert n_input_dims in (2, 3, 4) and c["n_features_per_level"] in (1, 2, 4, 8)
        assert all(type(c[k]) is int for k in ("n_levels", "n_features_per_level", "log2_hashmap_size"))
        self_levels, offset = [], 0
        log2_scale = torch.tensor(float(c["per_level_scale"])).log2()
        for level in range(c["n_levels"]):
            scale = float((level * log2_scale).exp2() * c["base_resolution"] - 1)  # in float32, as there
            resolution = math.ceil(scale) + 1
            dense, table = resolution**n_input_dims, 2 ** c["log2_hashmap_size"]
            entries = min(-(-dense // 8) * 8, table)
            self_levels.append(Level(scale, resolution, entries, table < dense, offset))
            offset += entries
        self.features = c["n_features_per_level"]
        native = Native([(offset * self.features, 1e-4)])
        super().__init__(native, c["n_levels"] * self.features, dtype or torch.float16, seed)
        self.levels = self_levels

    def body(self, x: Tensor, params: Tensor) -> Tensor:
        dim = x.shape[1]
        far = torch.tensor([[corner >> d & 1 for d in range(dim)] for corner in range(2**dim)], device=x.device)
        table = params.view(-1, self.features)
        found = []
        for level in self.levels:
            p = x * level.scale + 0.5
            cell = p.floor()
            fraction = (p - cell)[:, None]  # [N, 1, D]
            weight = torch.where(far.bool(), fraction, 1 - fraction).prod(-1)  # [N, 2^D]
            vertex = (cell.long()[:, None] + far).unbind(-1)
            index = vertex[0]
            for d in range(1, dim):
                if level.hashed:
                    index = index ^ (vertex[d] * PRIMES[d] & 0xFFFFFFFF)
                else:
                    index = index + vertex[d] * level.resolution**d
            of_corners = weight.to(params.dtype)[..., None] * table[level.offset + index % level.entries]
            found.append(of_corners.float().sum(1).to(params.dtype))
        return torch.cat(found, dim=1)


class Network(Module):
    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict[str, Any], seed: int = 1337) -> None:
        c = network_config
        assert set(c) <= NETWORK and c["otype"] == "FullyFusedMLP" and c["n_hidden_layers"] >= 1
        if c["n_neurons"] not in (16, 32, 64, 128):
            raise RuntimeError(f"FullyFusedMLP only supports 16, 32, 64, and 128 neurons, but got: {c['n_neurons']}")
        padded = [-(-n // 16) * 16 for n in (n_input_dims, n_output_dims)]
        widths = [padded[0], *[c["n_neurons"]] * c["n_hidden_layers"], padded[1]]
        shapes = list(zip(widths[1:], widths[:-1], strict=True))
        native = Native([(a * b, math.sqrt(6 / (a + b))) for a, b in shapes])
        super().__init__(native, n_output_dims, torch.float16, seed)
        self.shapes = shapes
        self.between, self.last = ACTIVATIONS[c["activation"]], ACTIVATIONS[c["output_activation"]]

    def body(self, x: Tensor, params: Tensor) -> Tensor:
        x = torch.nn.functional.pad(x, [0, self.shapes[0][1] - x.shape[1]], value=1.0).to(params.dtype)
        layers = params.split([a * b for a, b in self.shapes])
        for i, (weight, shape) in enumerate(zip(layers, self.shapes, strict=True)):
            x = x.float() @ weight.view(shape).float().T  # sums of products are float32
            x = (self.last if i + 1 == len(layers) else self.between)(x).to(params.dtype)
        return x
