"""The networks of a picture as integers: a step for each group of weights, and what they cost.

A weight is `base + q 2^-k`, where `base` is what every fit begins with, q is an integer, and k, from 0 to 10, is the
group's. Decoders compute with multiples of 2^-10 (`UNIT`).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from fields.codec.shape import CONTEXT, CONTEXT_HIDDEN, LEVELS, TAPS, CodecShape
from fields.kernels.native import core

UNIT = 10
"""Binary places of a decoder's weights."""
N_SCALES = 64
MOST = 2047
"""The largest magnitude of an integer."""
PRIOR = Path(__file__).with_name("prior.json")


@dataclass(frozen=True)
class Group:
    """How the weights of a group are written."""

    places: int
    """k: weights are multiples of 2^-k."""
    bits: int
    """Integers are at most 2^bits - 1."""
    scale: int
    """Number of the Laplace distribution that they are coded under."""

    def __post_init__(self) -> None:
        if not (0 <= self.places <= UNIT and 0 <= self.bits <= 11 and 0 <= self.scale < N_SCALES):
            raise ValueError(f"a group of weights with {self}")

    @property
    def most(self) -> int:
        """The largest magnitude."""
        return (1 << self.bits) - 1


def layout(shape: CodecShape) -> list[Int[np.ndarray, " _"]]:
    """Which parameters, of the context network's and then the synthesis's, make each group."""
    k, m, c = CONTEXT_HIDDEN, shape.hidden, shape.channels
    sizes = [k * CONTEXT, LEVELS * k, k * k, k, 2 * k, 2]  # of the context network: W1, b1, W2, b2, W3, b3
    n = LEVELS + shape.known
    sizes += [(LEVELS - 1) * TAPS, m * n, m, c * m, c]  # filters, then of the synthesis W1, b1, W2, b2
    sizes += [9 * c * c, c, 9 * c * c, c]  # and the image's filters K1, c1, K2, c2
    ends = np.cumsum(sizes)
    tensors = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    groups = [[0], [2, 4], [1, 3, 5], [6], [7], [9], [8, 10], [11, 12, 13, 14]]
    return [np.concatenate([tensors[i] for i in group]) for group in groups]


N_GROUPS = 8


@functools.cache
def _prior() -> Int[np.ndarray, " P"]:
    return np.array(json.loads(PRIOR.read_text())["weights"], np.int32)


def base(shape: CodecShape) -> Int[np.ndarray, " P"]:
    """What a fit begins with and a file's weights are relative to, in units of 2^-10: networks that were fitted to
    other pictures in three channels (`bench/codec_prior.py`). For pictures of other channels each is made the mean of
    the three, and the filters of the image begin as none."""
    prior = _prior()
    c, m = shape.channels, shape.hidden
    ends = np.cumsum([shape.context_size + (LEVELS - 1) * TAPS, m * LEVELS, m, 3 * m, 3])
    head, w1, b1, w2, b2, filters = np.split(prior, ends)
    if c != 3:
        w2 = np.tile((2 * w2.reshape(3, m).sum(0) + 3) // 6, c)  # rounded
        b2 = np.tile((2 * b2.sum() + 3) // 6, c)
    if c != 3 or shape.known:
        filters = np.zeros(2 * c * (9 * c + 1), np.int32)
    if shape.known:  # latents of zero add nothing to the prediction
        w1 = np.concatenate([w1.reshape(m, LEVELS), np.zeros((m, shape.known), np.int32)], 1).reshape(-1)
        b2 = -(w2.reshape(c, m) @ np.maximum(b1, 0) + 512 >> UNIT)
    return np.concatenate([head, w1, b1, w2, b2, filters]).astype(np.int32)


def quantised(x: Float[np.ndarray, " N"], places: int) -> Int[np.ndarray, " N"]:
    """Integers of weights less their base; limited to what can be written."""
    return np.clip(np.rint(x * 2.0**places), -MOST, MOST).astype(np.int32)


def best_group(q: Int[np.ndarray, " N"], places: int) -> tuple[Group, float]:
    """How integers are written with the fewest bits, and how many those are."""
    bits = int(np.abs(q).max(initial=0)).bit_length()
    costs = np.zeros(N_SCALES)
    core().codec_integer_bits(q, (1 << bits) - 1, costs)
    scale = int(costs.argmin())
    return Group(places, bits, scale), float(costs[scale])


def to_integers(
    shape: CodecShape, groups: list[Group], values: list[Int[np.ndarray, " _"]]
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " Q"]]:
    """A decoder's weights, in units of 2^-10: of the context network, and of the synthesis."""
    weights = base(shape).copy()
    for index, group, q in zip(layout(shape), groups, values, strict=True):
        weights[index] += q << (UNIT - group.places)
    return weights[: shape.context_size].copy(), weights[shape.context_size :].copy()


def write_weights(groups: list[Group], values: list[Int[np.ndarray, " _"]]) -> bytes:
    """Two bytes for each group (places and bits; scale), then the integers, range-coded."""
    head = bytes(b for g in groups for b in (g.places << 4 | g.bits, g.scale))
    coded = [(len(q), g.scale, g.most) for g, q in zip(groups, values, strict=True)]
    return head + core().codec_write_integers(coded, np.concatenate(values))


def read_integers(data: bytes, sizes: list[int]) -> tuple[list[Group], list[Int[np.ndarray, " _"]]]:
    """The inverse, for groups of these sizes. Raises ValueError for what no encoder writes."""
    n = len(sizes)
    if len(data) < 2 * n:
        raise ValueError("weights are cut off")
    head, body = data[: 2 * n], data[2 * n :]
    groups = [Group(head[2 * i] >> 4, head[2 * i] & 15, head[2 * i + 1]) for i in range(n)]
    values = np.zeros(sum(sizes), np.int32)
    coded = [(n, g.scale, g.most) for g, n in zip(groups, sizes, strict=True)]
    if not core().codec_read_integers(coded, body, values):
        raise ValueError("weights are followed by something else")
    return groups, np.split(values, np.cumsum(sizes)[:-1])


def read_weights(shape: CodecShape, data: bytes) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " Q"]]:
    """A decoder's weights. Raises ValueError for what no encoder writes."""
    return to_integers(shape, *read_integers(data, [len(index) for index in layout(shape)]))
