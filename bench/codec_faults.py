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
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests"))

from damage import cut_or_flipped, mutated, repaired
from report import Asked, console, machine

from fields.codec.bitstream import BitstreamError
from fields.codec.description import kind_of
from fields.codec.film_file import FILMS, decoded_frames, open_film
from fields.codec.image_file import read_image

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
LIMIT = 200_000_000


def decode(data: bytes) -> None:
    """All samples. Raises BitstreamError."""
    if kind_of(data) not in FILMS:
        read_image(data, LIMIT)
        return
    header, container = open_film(data, LIMIT)
    for _ in decoded_frames(header, container, 0, header.frames):
        pass


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
        "cut or one bit flipped": (damaged for data in whole for damaged in cut_or_flipped(data)),
        "mutated": mutated(whole, options.n),
        "damaged under valid checksums": (damaged for _, damaged in repaired(whole, options.n // 5, seed=1)),
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
