"""A group of a film's frames as one network (FFNeRV, Lee et al. 2022, with the modulation of CAM, Lee et al. 2024).

Latents of two resolutions in time go through convolutions that double the picture's rows and columns. Each is followed
by a normalisation over the frame and by a scale and a shift of each channel, which are functions of time. Weights and
latents are small integers.

Decoders compute with integers below 2^53 in float64, whose sums and products are exact in any order, and otherwise
with single operations of IEEE 754; so all of them make the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fields.codec import weights
from fields.codec.shape import UNIT

BASE = 9
"""Rows or columns of a frame's latents, about, along its shorter side."""
COARSE, FINE = 4, 2
"""Frames for each latent, and the first of them for each scale and shift."""
SHARES = (1.0, 1.0, 0.75, 0.6, 0.5)
"""Channels behind each doubling, the last for all further ones."""
MOST_CHANNELS = 64
ROUGH, SMOOTH = 5, 7
"""Bits of an integer's magnitude: of latents and convolutions, and of all that decides about values directly."""
MODULATION, CONTRAST = 2.0, 0.25
"""What integers of full magnitude are: of a scale and a shift; of the last convolution."""
MOST_BITS = 15
"""Of values that are squared."""
POWERS = torch.tensor([2.0**-n for n in range(64)], dtype=torch.float64)

Integers = Mapping[str, Int[np.ndarray, "..."]]


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of all tensors."""

    height: int
    width: int
    frames: int
    latents: int
    """Channels of the latents of each resolution."""
    hidden: int
    """Channels behind the first doubling."""

    @property
    def doublings(self) -> int:
        """From latents to frames: the nearest power of two."""
        n = 0
        while min(self.height, self.width) ** 2 >= 2 * BASE**2 * 4**n:
            n += 1
        return n

    @property
    def base(self) -> tuple[int, int]:
        """Rows and columns of latents."""
        return -(-self.height >> self.doublings), -(-self.width >> self.doublings)

    @property
    def times(self) -> tuple[int, int]:
        """Latents along time, of both resolutions."""
        return -(-self.frames // COARSE), -(-self.frames // FINE)

    @property
    def widths(self) -> list[int]:
        """Channels behind each doubling, multiples of four."""
        shares = [SHARES[min(i, len(SHARES) - 1)] for i in range(self.doublings)]
        return [max(4, int(self.hidden * share) // 4 * 4) for share in shares]

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Of each tensor: latents, convolutions (out, in, row, column), scales and shifts, the last convolution."""
        rows, columns = self.base
        found: dict[str, tuple[int, ...]] = {
            f"latents{i}": (self.latents, t, rows, columns) for i, t in enumerate(self.times)
        }
        before = 2 * self.latents
        for i, channels in enumerate(self.widths):
            found[f"weights{i}"] = (4 * channels, before, 3, 3)
            found[f"scale{i}"] = found[f"shift{i}"] = (channels, self.times[0])
            before = channels
        return found | {"weights": (3, before, 3, 3), "bias": (3,)}

    @property
    def n_weights(self) -> int:
        """Of all tensors."""
        return sum(math.prod(size) for size in self.sizes.values())

    @property
    def decoding_bytes(self) -> int:
        """Memory that a frame takes, about: the last channels, some copies of them."""
        channels = self.widths[-1] if self.doublings else 2 * self.latents
        rows, columns = self.base
        return 8 * 5 * channels * (rows * columns << 2 * self.doublings)

    @property
    def macs_per_pixel(self) -> float:
        """Multiplications of the convolutions for each pixel of a frame."""
        rows, columns = self.base
        total = 0.0
        for i in range(self.doublings):
            total += math.prod(self.sizes[f"weights{i}"]) * (rows << i) * (columns << i)
        total += math.prod(self.sizes["weights"]) * (rows << self.doublings) * (columns << self.doublings)
        return total / (self.height * self.width)


def bits_of(name: str) -> int:
    """Of the magnitude of a tensor's integers."""
    return ROUGH if name.startswith("latents") or (name.startswith("weights") and name != "weights") else SMOOTH


def parts(name: str, q: Int[np.ndarray, "..."]) -> list[Int[np.ndarray, " _"]]:
    """What of a tensor is coded under one distribution: each channel of latents, and all of any other."""
    return [*q.reshape(len(q), -1)] if name.startswith("latents") else [q.reshape(-1)]


def write(shape: NetworkShape, integers: Integers) -> tuple[bytes, float]:
    """Two bytes for the numbers of channels, then all tensors; and how many bits the model expects those to take."""
    values = [part for name in shape.sizes for part in parts(name, integers[name])]
    groups, costs = zip(*(weights.best_group(np.ascontiguousarray(q), 0) for q in values), strict=True)
    head = bytes([shape.latents, shape.hidden])
    return head + weights.write_weights(list(groups), values), sum(costs) + 16.0 * (len(groups) + 1)


def read(shape: NetworkShape, data: bytes) -> Integers:
    """The inverse, behind the numbers of channels. Raises ValueError."""
    if shape.n_weights > (1 << 12) + (len(data) << 7):
        raise ValueError(f"{shape.n_weights:,} weights in {len(data):,} bytes")
    names = [name for name, size in shape.sizes.items() for _ in range(size[0] if name.startswith("latents") else 1)]
    empty = {name: np.zeros(size, np.int32) for name, size in shape.sizes.items()}
    lengths = [len(part) for name in shape.sizes for part in parts(name, empty[name])]
    groups, values = weights.read_integers(data, lengths)
    if any(group.places or group.bits > bits_of(name) for group, name in zip(groups, names, strict=True)):
        raise ValueError("a weight is out of range")
    flat, ends = np.concatenate(values), np.cumsum([math.prod(size) for size in shape.sizes.values()])
    pieces = np.split(flat, ends[:-1])
    return {name: piece.reshape(size) for (name, size), piece in zip(shape.sizes.items(), pieces, strict=True)}


# Decoding -------------------------------------------------------------------------------------------------------------


def place(frame: int, frames: int, entries: int) -> tuple[int, int, float]:
    """Between which entries a frame lies, and how far on the way."""
    along, whole = frame * (entries - 1), max(frames - 1, 1)
    return along // whole, min(along // whole + 1, entries - 1), along % whole / whole


def decoded(shape: NetworkShape, integers: Integers) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frame after frame."""
    exact = {name: torch.from_numpy(q).double() for name, q in integers.items()}
    for frame in range(shape.frames):
        yield decoded_frame(shape, exact, frame)


def decoded_frame(shape: NetworkShape, exact: Mapping[str, Tensor], frame: int) -> UInt8[np.ndarray, "H W 3"]:
    """One frame, from integers in float64."""

    def at(name: str) -> Float[Tensor, "..."]:
        q = exact[name]
        first, second, part = place(frame, shape.frames, q.shape[1])
        return q[:, first] + (q[:, second] - q[:, first]) * part

    unit = UNIT / 2.0**ROUGH
    x = torch.cat([torch.floor(at(f"latents{i}") * unit + 0.5) for i in range(2)])
    for i in range(shape.doublings):
        x = _normalised(_doubled(_convolved(x, exact[f"weights{i}"])))
        scale, shift = (at(name) * (MODULATION / 2.0**SMOOTH) for name in (f"scale{i}", f"shift{i}"))
        x = x * (scale + 1)[:, None, None] + shift[:, None, None]
        x = torch.floor(x * (x + 3).clamp(0, 6) / 6 * UNIT + 0.5)
    x = _convolved(x, exact["weights"]) * (CONTRAST / (UNIT * 2.0**SMOOTH))
    x = x + (exact["bias"] / 2.0**SMOOTH + 0.5)[:, None, None]
    samples = torch.floor(x[:, : shape.height, : shape.width] * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(samples.permute(1, 2, 0).numpy())


def _convolved(x: Float[Tensor, "C H W"], filters: Float[Tensor, "O C 3 3"]) -> Float[Tensor, "O H W"]:
    """With zeros outside. A product of matrices for each of the nine places: exact, as convolutions of a library need
    not be."""
    _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    out = x.new_zeros(len(filters), height * width)
    for dy in range(3):
        for dx in range(3):
            out += filters[:, :, dy, dx] @ padded[:, dy : dy + height, dx : dx + width].reshape(len(x), -1)
    return out.view(-1, height, width)


def _doubled(x: Float[Tensor, "O H W"]) -> Float[Tensor, "C Y X"]:
    """Channels 4 c + 2 i + j become rows i and columns j of channel c."""
    return torch.nn.functional.pixel_shuffle(x, 2)


def _normalised(x: Float[Tensor, "C H W"]) -> Float[Tensor, "C H W"]:
    """To a mean of zero and a variance of one over the frame, from integers."""
    n = x[0].numel()
    x = x - torch.floor(x.sum((1, 2)) / n)[:, None, None]
    bits = min(MOST_BITS, (53 - n.bit_length()) // 2)
    _, exponent = torch.frexp(x.abs().amax((1, 2)))
    x = torch.floor(x * POWERS[(exponent - bits).clamp(min=0).long()][:, None, None])
    return x / torch.sqrt(x.square().sum((1, 2)) / n + 1)[:, None, None]
