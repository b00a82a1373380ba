"""An image fitted by Dr.Jit on LLVM: its hash grid, and its network of cooperative vectors or of tensors.

The same encoding, network, rates, schedule and batch as a configuration of ours says. Imported when Dr.Jit is there.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fields.encodings import Hash
from fields.field import SignalFieldConfig
from fields.networks import MLP
from fields.presets import Config
from scenes.image import Image

Mode = Literal["cooperative vectors", "tensors"]


def prepare(threads: int) -> str | None:
    """Set Dr.Jit up; says in one line why it cannot be used here, where it cannot."""
    try:
        dr: Any = importlib.import_module("drjit")
        llvm: Any = importlib.import_module("drjit.llvm.ad")
    except ImportError:
        return "Dr.Jit is not installed (pip install drjit)"
    try:
        dr.eval(llvm.Float([1.0, 2.0]) + 1)
    except (RuntimeError, AttributeError):
        return "Dr.Jit finds no LLVM (on Debian: apt-get install libllvm19, or the version that there is)"
    dr.set_thread_count(threads)
    return None


@dataclass
class DrJitImage:
    """One fit. Iterate over `steps`, then call `predict`."""

    scene: Image
    config: Config
    mode: Mode
    seconds: float = field(default=0.0, init=False)
    """Of fitting so far."""

    def __post_init__(self) -> None:
        self.dr: Any = importlib.import_module("drjit")
        self.nn: Any = importlib.import_module("drjit.nn")
        self.types: Any = importlib.import_module("drjit.llvm.ad")
        dr, nn, types, c = self.dr, self.nn, self.types, self.config
        assert isinstance(c.field, SignalFieldConfig) and isinstance(c.field.encoding, Hash)
        e, m, o = c.field.encoding, c.field.network, c.fit.optimiser
        assert isinstance(m, MLP)
        growth = (e.finest_resolution / e.base_resolution) ** (1 / max(e.levels - 1, 1))
        self.encoding = nn.HashGridEncoding(
            types.Float32,
            2,
            n_levels=e.levels,
            n_features_per_level=e.features_per_level,
            hashmap_size=2**e.log2_table_size,
            base_resolution=e.base_resolution,
            per_level_scale=growth,
            rng=dr.rng(seed=c.fit.seed),
        )
        channels = self.scene.pixels.shape[2]
        hidden = [
            part for _ in range(m.hidden_layers) for part in (nn.Linear(-1, m.hidden_dim, bias=m.bias), nn.ReLU())
        ]
        layers = nn.Sequential(*hidden, nn.Linear(-1, channels, bias=m.bias))
        self.net = layers.alloc(types.TensorXf, self.encoding.n_output_features)
        if self.mode == "cooperative vectors":
            self.net = nn.pack(self.net, layout="training")
        adam: Any = importlib.import_module("drjit.opt").Adam
        self.optimiser = adam(lr=o.network_rate, beta_1=o.beta1, beta_2=o.beta2, epsilon=o.eps)
        self.optimiser.update(self.net)
        self.optimiser["table"] = types.Float32(self.encoding.data)
        self.random = dr.rng(seed=c.fit.seed + 1)
        values = self.scene.format.to_values(self.scene.pixels)
        self.pixels = types.Float32(np.ascontiguousarray(values.numpy().reshape(-1)))
        corners = self.scene.box.to_unit(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).tolist()
        self.origin, self.pitch = corners[0], [b - a for a, b in zip(*corners, strict=True)]

    def steps(self, seconds: float) -> Iterator[int]:
        """Fit for a time, one step a turn."""
        dr, types, c, index = self.dr, self.types, self.config, 0
        height, width, channels = self.scene.pixels.shape
        while self.seconds < seconds:
            started = time.perf_counter()
            self._set_rates(self.seconds / seconds, index)
            self._read_parameters()
            drawn = types.UInt32(self.random.random(types.Float32, c.fit.batch) * (width * height))
            pixel = dr.minimum(drawn, width * height - 1)
            truth = [dr.gather(types.Float32, self.pixels, pixel * channels + i) for i in range(channels)]
            errors = [dr.square(a - b) for a, b in zip(self._values(self._place(pixel)), truth, strict=True)]
            dr.backward(dr.mean(sum(errors, start=types.Float32(0))) / channels)
            self.optimiser.step()
            dr.sync_thread()
            index += 1
            self.seconds += time.perf_counter() - started
            yield index

    def predict(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N C"]:
        """Values at points of the unit cube."""
        types = self.types
        self._read_parameters()
        place = types.Array2f(*(types.Float32(np.ascontiguousarray(axis.numpy())) for axis in x.T))
        with self.dr.suspend_grad():
            values = [torch.from_numpy(np.array(channel)) for channel in self._values(place)]
        return torch.stack(values, dim=1)

    def _set_rates(self, progress: float, index: int) -> None:
        """The schedule of `fields.fitting`."""
        o = self.config.fit.optimiser
        decay = o.final_rate + (1 - o.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        factor = decay * min(1.0, (index + 1) / max(o.warmup_steps, 1))
        rates = {name: o.table_rate if name == "table" else o.network_rate for name in self.optimiser}
        self.optimiser.set_learning_rate({name: rate * factor for name, rate in rates.items()})

    def _read_parameters(self) -> None:
        for name in self.net:
            self.net[name] = self.optimiser[name]
        self.encoding.data[:] = self.optimiser["table"]

    def _place(self, pixel: Any) -> Any:
        """Middles of pixels in the unit cube."""
        types, width = self.types, self.scene.pixels.shape[1]
        row = pixel // width
        column = pixel - row * width
        pairs = zip((column, row), self.origin, self.pitch, strict=True)
        return types.Array2f(*((types.Float32(at) + 0.5) * pitch + origin for at, origin, pitch in pairs))

    def _values(self, place: Any) -> list[Any]:
        features = self.encoding(place)
        if self.mode == "cooperative vectors":
            return list(self.net(self.nn.CoopVec(*features)))
        out = self.net(self.types.TensorXf(features))
        return [out[i].array for i in range(out.shape[0])]
