"""Damaged files of the codec: cut, changed, and changed so that their checksums still match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fields.codec.bitstream import Container, pack, unpack


def cut_or_flipped(data: bytes) -> Iterator[bytes]:
    """Every beginning of a file, and the file with each bit flipped."""
    yield from (data[:n] for n in range(len(data)))
    for i in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        yield bytes(damaged)


def mutated(files: Sequence[bytes], n: int) -> Iterator[bytes]:
    """Of `n`: bytes changed, cut out, doubled, exchanged between files; without those that none of this changed."""
    g = np.random.default_rng(0)
    for i in range(n):
        data = bytearray(files[i % len(files)])
        at = int(g.integers(len(data)))
        match i % 4:
            case 0:
                for j in g.integers(len(data), size=int(g.integers(1, 9))):
                    data[j] ^= int(g.integers(1, 256))
            case 1:
                del data[at : at + int(g.integers(1, 40))]
            case 2:
                data[at:at] = data[at : at + int(g.integers(1, 40))] or b"\0"
            case _:
                other = files[int(g.integers(len(files)))]
                data[at : at + 40] = other[at : at + 40] + b"\1"
        if bytes(data) not in files:
            yield bytes(data)


def repaired(files: Sequence[bytes], n: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Of `n`: which file, and that file with its header, its latents, its weights or a group of frames cut off or with
    a bit flipped, under checksums of what is there; without those whose damaged part is empty."""
    g = np.random.default_rng(seed)
    for i in range(n):
        parts = unpack(files[i % len(files)])
        header, groups = bytearray(parts.header), [bytearray(group) for group in parts.groups]
        sections = {name: bytearray(payload) for name, payload in parts.sections.items()}
        bodies = groups or [sections[name] for name in "WLS"]
        target = header if i % 7 == 0 else bodies[i % len(bodies)]
        if not target:
            continue
        if i % 5 == 0:
            del target[int(g.integers(len(target))) :]
        else:
            target[int(g.integers(len(target)))] ^= 1 << int(g.integers(8))
        kept = {name: bytes(payload) for name, payload in sections.items()}
        yield i % len(files), pack(Container(bytes(header), kept, tuple(map(bytes, groups))))
