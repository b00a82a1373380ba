"""What damaged files of the codec cost: seconds and memory for each that is refused.

    python bench/codec_faults.py [--n 100000]

Goes through mutated, cut and bit-flipped golden files, as the tests do, and those with repaired checksums, which reach
the decoders. Memory is what the process grew by from after the first whole decoding to the end, at its highest.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from report import Asked, console, machine

from fields.codec.bitstream import BitstreamError, Container, pack, unpack
from fields.codec.description import kind_of
from fields.codec.film_file import KIND as FILM
from fields.codec.film_file import decoded_frames, open_film
from fields.codec.image_file import read_image

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
LIMIT = 200_000_000


def decode(data: bytes) -> None:
    """All samples. Raises BitstreamError."""
    if kind_of(data) != FILM:
        read_image(data, LIMIT)
        return
    header, container = open_film(data, LIMIT)
    for _ in decoded_frames(header, container, 0, header.frames):
        pass


def cut_or_flipped(whole: Sequence[bytes]) -> Iterator[bytes]:
    for data in whole:
        yield from (data[:n] for n in range(len(data)))
        for i in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[i // 8] ^= 1 << i % 8
            yield bytes(damaged)


def mutated(whole: Sequence[bytes], n: int) -> Iterator[bytes]:
    g = np.random.default_rng(0)
    for i in range(n):
        data = bytearray(whole[i % len(whole)])
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
                other = whole[int(g.integers(len(whole)))]
                data[at : at + 40] = other[at : at + 40] + b"\1"
        yield bytes(data)


def repaired(whole: Sequence[bytes], n: int) -> Iterator[bytes]:
    """Damaged, with checksums of what is there."""
    g = np.random.default_rng(1)
    for i in range(n):
        parts = unpack(whole[i % len(whole)])
        header = bytearray(parts.header)
        payloads = {k: bytearray(v) for k, v in parts.sections.items()}
        groups = [bytearray(group) for group in parts.groups]
        targets = [t for t in (header, *payloads.values(), *groups) if t]
        target = targets[int(g.integers(len(targets)))]
        target[int(g.integers(len(target)))] ^= 1 << int(g.integers(8))
        sections = {k: bytes(v) for k, v in payloads.items()}
        yield pack(Container(bytes(header), sections, tuple(map(bytes, groups))))


def peak() -> int:
    """Bytes of memory that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="mutated files")
    options = parser.parse_args(arguments)
    out = console()
    out.print(machine(1))
    whole = [path.read_bytes() for path in sorted(GOLDEN.rglob("*.ff"))]
    for data in whole:
        decode(data)
    kinds = {
        "cut or one bit flipped": cut_or_flipped(whole),
        "mutated": (data for data in mutated(whole, options.n) if data not in whole),
        "damaged under valid checksums": repaired(whole, options.n // 20),
    }
    for name, files in kinds.items():
        before, n, n_refused, longest = peak(), 0, 0, 0.0
        for data in files:
            started = time.perf_counter()
            try:
                decode(data)
            except BitstreamError:
                n_refused += 1
            n, longest = n + 1, max(longest, time.perf_counter() - started)
        out.print(f"{name}: {n:,} files, {n_refused:,} refused")
        out.print(Asked("  longest", longest, 2.0, "{:.3f} s", at_most=True).line())
        out.print(Asked("  memory grew by", (peak() - before) / 1e6, 256, "{:.0f} MB", at_most=True).line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
