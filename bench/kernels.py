"""The native core against this machine's limits, against torch and against other programs, in one interleaved run.

    python bench/kernels.py [--quick] [--only mlp grid ...] [--threads N] [--json FILE]

Every number is measured here and now, the limits of the machine too (`limits.cpp`, compiled by the system's C++
compiler); only the figures asked for are typed in, beside the rows that they belong to.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from limits import Limits, accesses
from operations import LARGE_GRID, Bench, bfloat16_rows, build_rows, grid_rows, mlp_rows, preset_grid
from peers import peer_rows
from radiance import radiance_rows
from report import Row, console, machine, plain_table, table, tally, to_json
from rounds import Rounds

NAMES = ("mlp", "bfloat16", "grid", "builds", "radiance", "memory", "inference", "peers")


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter fits, and no torch.compile")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of ours, torch and the others")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values of all rounds there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, whatever figures are met."""
    given = options(argv)
    started, shown = time.perf_counter(), console()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            limits = Limits(folder, given.threads)
        except RuntimeError as error:
            sys.exit(str(error))
        n_rounds, n_slow = (3, 1) if given.quick else (7, 3)
        bench = Bench(limits, given.threads, n_rounds, n_slow, not given.quick and compiles())
        shown.print(machine(given.threads))
        measured = limit_values(bench)
        shown.print(plain_table("limits of this machine", *limit_table(measured, given.threads)))
        rows: list[Row] = []
        for found in all_rows(bench, given.only, folder):
            print(f"{time.perf_counter() - started:4.0f} s  {found.name}: {found.ours}", file=sys.stderr, flush=True)
            rows.append(found)
        shown.print(table(rows, given.threads))
        peers = list(peer_rows(folder, given.threads, 4.0 if given.quick else 10.0)) if "peers" in given.only else []
        for peer in peers:
            shown.print(peer.table())
    shown.print(f"{tally(rows)}; {time.perf_counter() - started:.0f} s in all")
    if given.json is not None:
        content = {
            "machine": machine(given.threads),
            "limits": measured,
            "rows": to_json(rows),
            "peers": [peer.to_json() for peer in peers],
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


def compiles() -> bool:
    """Whether torch.compile works here; it needs a C++ compiler and Python's headers."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(4))
    except RuntimeError as error:
        print(f"torch.compile is left out, since it fails here: {str(error).strip().splitlines()[0]}")
        return False
    return True


def all_rows(bench: Bench, names: Sequence[str], folder: Path) -> Iterator[Row]:
    """Rows as they are measured."""
    kinds = {"mlp": mlp_rows, "bfloat16": bfloat16_rows, "grid": grid_rows, "builds": build_rows}
    for name, kind in kinds.items():
        if name in names:
            yield from kind(bench)
    yield from radiance_rows(bench, names, folder)


def limit_values(bench: Bench) -> dict[str, list[Any]]:
    """Rates per second by name, medians over rounds: on one thread and on all."""
    limits, counts = bench.limits, sorted({1, bench.threads})
    asked = {
        "float32 multiply-adds, operations": limits.fma,
        "the same in 256 bits (AVX2)": limits.fma256,
        "bfloat16 dot products (AVX512_BF16), operations": limits.bfloat16,
        "bfloat16 tiles (AMX), operations": limits.tiles,
        "copying memory, bytes read and written": limits.copy,
        "reading memory, bytes": limits.read,
    }
    rounds = Rounds(bench.n_rounds, bench.n_rounds)
    for threads in counts:
        for name, rate in asked.items():
            rounds.ask(f"{name}/{threads}", lambda rate=rate, threads=threads: rate(threads), threads)
        for access in accesses(LARGE_GRID, preset_grid()):
            place = f"{access.features * 4} bytes at random in {access.bytes / 2**20:.2f} MiB"
            for verb, rate in (("read", limits.reads), ("add", limits.adds)):
                rounds.ask(
                    f"{verb} {place}/{threads}",
                    lambda rate=rate, threads=threads, access=access: rate(threads, access),
                    threads,
                )
    rounds.run()
    limits.release_streams()
    names = dict.fromkeys(name.rpartition("/")[0] for name in rounds.values)
    return {name: [rounds.median(f"{name}/{threads}") for threads in counts] for name in names}


def limit_table(values: dict[str, list[Any]], threads: int) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, in thousands of millions per second."""
    headings = ["G / s", "1 thread", *([f"{threads} threads"] if threads > 1 else [])]
    return headings, [[name, *(f"{v / 1e9:.3g}" if v else "none" for v in rates)] for name, rates in values.items()]


if __name__ == "__main__":
    sys.exit(main())
