"""A second decoder of compressed pictures, written from docs/format.md alone: constriction for the range coder, numpy
for the rest, and nothing of fieldfit but the list of weights that the document names."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path
from typing import Any

import constriction
import numpy as np

stream: Any = vars(constriction)["stream"]  # which has no types
Model, RangeEncoder, RangeDecoder = stream.model.CustomModel, stream.queue.RangeEncoder, stream.queue.RangeDecoder

LEVELS, HIDDEN, WHOLE = 7, 40, 1 << 24
OWN = [(0, -1), (0, -2), (0, -3), (-1, -3), (-1, -2), (-1, -1), (-1, 0), (-1, 1), (-1, 2), (-1, 3)]
OWN += [(-2, -2), (-2, -1), (-2, 0), (-2, 1), (-2, 2), (-3, 0)]
BASE = Path(__file__).parents[1] / "fields" / "codec" / "prior.json"


def decay(k: int) -> int:
    return math.floor(2**32 * math.exp(-1 / (16 * math.exp(k / 8 - 3))))


def centred(k: int, most: int) -> Any:
    """Integers around zero."""
    a = decay(k)
    for _ in range(3):
        a = a * a >> 32
    tail, step = [a >> 1], a * a >> 32
    for _ in range(2047):
        tail.append(tail[-1] * step >> 32)

    def below(x: float) -> float:
        n = math.ceil(x)
        return (tail[-n] >> 8 if n <= 0 else WHOLE - (tail[n - 1] >> 8)) / WHOLE

    return Model(below, lambda _: 0.0, -most, most)


def around(mu: int, tail: list[int], most: int) -> Any:
    """Latents around so many sixteenths."""

    def below(x: float) -> float:
        t = 16 * math.ceil(x) - 8 - mu
        j = min(abs(t), 4095)
        return (tail[j] >> 8 if t < 0 else WHOLE - (tail[j] >> 8)) / WHOLE

    return Model(below, lambda _: 0.0, -most, most)


def words(data: bytes) -> np.ndarray:
    """A payload as constriction has it: whole words, zeros behind the end."""
    return np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)


def encode_integers(groups: list[tuple[int, int, int]], values: np.ndarray) -> bytes:
    """Groups of (count, k, most), as constriction writes them; it ends with a whole word."""
    encoder, at = RangeEncoder(), 0
    for count, k, most in groups:
        encoder.encode(values[at : at + count].astype(np.int32), centred(k, most))
        at += count
    return encoder.get_compressed().astype(">u4").tobytes()


def decode_integers(groups: list[tuple[int, int, int]], data: bytes) -> np.ndarray:
    """The same, read."""
    decoder = RangeDecoder(words(data))
    return np.concatenate([decoder.decode(centred(k, most), n) if most else np.zeros(n, int) for n, k, most in groups])


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def container(data: bytes) -> tuple[list[int], dict[str, bytes]]:
    """Numbers of the header, and sections by tag."""
    assert data[:5] == b"\x89FFC\x01"
    length, at = varint(data, 5)
    end = at + length
    assert int.from_bytes(data[end : end + 4], "little") == zlib.crc32(data[:end])
    header, sections = [], {}
    while at < end:
        value, at = varint(data, at)
        header.append(value)
    at = end + 4
    while at < len(data):
        start, tag = at, chr(data[at])
        length, at = varint(data, at + 1)
        sections[tag] = data[at : at + length]
        at += length
        assert int.from_bytes(data[at : at + 4], "little") == zlib.crc32(data[start:at])
        at += 4
    return header, sections


def tensors(c: int, payload: bytes) -> dict[str, np.ndarray]:
    """Section W: all weights, by name."""
    shapes = {"W1": (16, 20), "b1": (7, 16), "W2": (16, 16), "b2": (16,), "W3": (2, 16), "b3": (2,), "F": (6, 4)}
    shapes |= {"V1": (HIDDEN, 7), "d1": (HIDDEN,), "V2": (c, HIDDEN), "d2": (c,)}
    shapes |= {"K1": (c, c, 3, 3), "e1": (c,), "K2": (c, c, 3, 3), "e2": (c,)}
    flat, at, base = json.loads(BASE.read_text())["weights"], 0, {}
    for name, shape in shapes.items():
        of_three = tuple(3 if n == c and name in ("V2", "d2", "K1", "e1", "K2", "e2") else n for n in shape)
        size = math.prod(of_three)
        base[name] = np.array(flat[at : at + size]).reshape(of_three)
        at += size
    if c != 3:
        for name in ("V2", "d2"):
            base[name] = np.repeat((2 * base[name].sum(0, keepdims=True) + 3) // 6, c, 0)
        for name in ("K1", "e1", "K2", "e2"):
            base[name] = np.zeros(shapes[name], int)
    grouped = [["W1"], ["W2", "W3"], ["b1", "b2", "b3"], ["F"], ["V1"], ["V2"], ["d1", "d2"], ["K1", "e1", "K2", "e2"]]
    counts = [sum(math.prod(shapes[name]) for name in group) for group in grouped]
    places = [payload[2 * i] >> 4 for i in range(8)]
    coded = [(n, payload[2 * i + 1], (1 << (payload[2 * i] & 15)) - 1) for i, n in enumerate(counts)]
    q, at = decode_integers(coded, payload[16:]), 0
    for group, p in zip(grouped, places, strict=True):
        for name in group:
            size = math.prod(shapes[name])
            base[name] = base[name] + (q[at : at + size].reshape(shapes[name]) << (10 - p))
            at += size
    return base


def context(level: int, y: int, x: int, own: np.ndarray, coarser: np.ndarray | None) -> np.ndarray:
    """The 20 integers before the latent at (y, x)."""
    height, width = own.shape

    def at(row: int, column: int) -> bool:
        return 0 <= row < height and 0 <= column < width

    known = [own[y + dy, x + dx] if at(y + dy, x + dx) else 0 for dy, dx in OWN]
    y2, x2 = (y + 1 if y % 2 else y - 1), (x + 1 if x % 2 else x - 1)
    for row, column in [(y, x), (y, x2), (y2, x), (y2, x2)]:
        known.append(0 if coarser is None or not at(row, column) else coarser[row // 2, column // 2])
    return np.array(known, np.int64)


def latents(height: int, width: int, most: list[int], w: dict[str, np.ndarray], payload: bytes) -> list[np.ndarray]:
    """Section L: the levels, finest first."""
    decoder = RangeDecoder(words(payload))
    levels = [np.zeros((-(-height // 2**i), -(-width // 2**i)), np.int64) for i in range(LEVELS)]
    tails: dict[int, list[int]] = {}
    for level in reversed(range(LEVELS)):
        own, coarser = levels[level], levels[level + 1] if level + 1 < LEVELS else None
        rows, columns = own.shape
        waves = [(y, t - 4 * y) for t in range(columns + 4 * rows) for y in range(rows) if 0 <= t - 4 * y < columns]
        for y, x in waves if most[level] else []:
            h = np.clip((w["W1"] @ context(level, y, x, own, coarser) + w["b1"][level] + 2) >> 2, 0, 32767)
            g = np.clip((w["W2"] @ h + 256 * w["b2"] + 512) >> 10, 0, 32767)
            mu = int(np.clip((w["W3"][0] @ g + 256 * w["b3"][0] + 2**13) >> 14, -2048, 2048))
            k = int(np.clip((w["W3"][1] @ g + 256 * w["b3"][1] + 3 * 2**18 + 2**14) >> 15, 0, 63))
            if k not in tails:
                tails[k] = [1 << 31]
                for _ in range(4095):
                    tails[k].append(tails[k][-1] * decay(k) >> 32)
            own[y, x] = decoder.decode(around(mu, tails[k], most[level]))
    return levels


def rounded(s: np.ndarray, least: int = -32768) -> np.ndarray:
    return np.clip((s + 512) >> 10, least, 32767)


def doubled(x: np.ndarray, f: np.ndarray, size: int) -> np.ndarray:
    """Twice as many rows, and of those the first `size`."""
    k = np.arange(len(x))

    def at(shift: int) -> np.ndarray:
        return x[np.clip(k + shift, 0, len(x) - 1)]

    even = rounded(f[0] * at(-2) + f[1] * at(-1) + f[2] * at(0) + f[3] * at(1))
    odd = rounded(f[3] * at(-1) + f[2] * at(0) + f[1] * at(1) + f[0] * at(2))
    return np.stack([even, odd], 1).reshape(-1, *x.shape[1:])[:size]


def correlate(p: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Planes [c, H, W] with filters [out, in, 3, 3], edges repeated."""
    padded = np.pad(p, ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("oirs,iyxrs->oyx", kernel, windows)


def samples(levels: list[np.ndarray], w: dict[str, np.ndarray], depth: int) -> np.ndarray:
    """[H, W, c]."""
    planes = [levels[6] << 8]
    for i in reversed(range(6)):
        height, width = levels[i].shape
        planes = [doubled(doubled(p, w["F"][i], height).T, w["F"][i], width).T for p in planes] + [levels[i] << 8]
    s = np.stack(planes[::-1])
    h = rounded(np.einsum("mi,iyx->myx", w["V1"], s) + 256 * w["d1"][:, None, None], 0)
    o = rounded(np.einsum("cm,myx->cyx", w["V2"], h) + 256 * w["d2"][:, None, None])
    p = rounded(1024 * o + correlate(o, w["K1"]) + 256 * w["e1"][:, None, None], 0)
    q = rounded(1024 * p + correlate(p, w["K2"]) + 256 * w["e2"][:, None, None])
    return ((np.clip(q, 0, 4096) * (2**depth - 1) + 2048) >> 12).transpose(1, 2, 0)


def decode(data: bytes) -> np.ndarray:
    """Samples [H, W, c] of a file's bytes."""
    header, sections = container(data)
    kind, width, height, c, depth, *most = header
    assert kind == 1
    w = tensors(c, sections["W"])
    made = samples(latents(height, width, most, w, sections["L"]), w, depth).astype("<u2" if depth > 8 else "u1")
    assert hashlib.sha256(made.tobytes()).digest() == sections["S"]
    return made
