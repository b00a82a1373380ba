"""Fused layers of learned functions against this machine's limits and against torch, in one interleaved run.

python bench/kan.py [--quick] [--threads N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from limits import Limits
from report import Asked, Row, console, machine, row, share, table, tally, to_json
from rounds import Rounds
from torch import Tensor

from fields.kernels import kan, reference_kan
from fields.kernels import reference_bases as bases
from fields.kernels.shapes import KAN_BASES, KanBasis

N = 65536
CHANNELS, GROUPS = 64, 8
FUNCTIONS = 8


def passes(op: Callable[..., Tensor], inputs: Sequence[Tensor], backward: bool) -> Callable[[], object]:
    """One pass, or one forward and one backward."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    with torch.no_grad():
        d_out = torch.ones_like(op(*leaves))

    def both() -> None:
        for leaf in leaves:
            leaf.grad = None
        op(*leaves).backward(d_out)

    def forward() -> None:
        with torch.no_grad():
            op(*leaves)

    return both if backward else forward


def rational_rows(limits: Limits, threads: int, n_rounds: int, n_slow: int) -> Iterator[Row]:
    """The activation of N x 64 values; its limit is memory: values, cotangents and results once each."""
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(N, CHANNELS, generator=g), torch.rand(6, generator=g), torch.rand(GROUPS, 4, generator=g)]
    for backward in (False, True):
        rounds = Rounds(n_rounds, n_slow)
        rounds.time("ours", passes(kan.rational, inputs, backward), threads)
        if threads > 1:
            rounds.time("ours on 1 thread", passes(kan.rational, inputs, backward), 1)
        rounds.time("eager", passes(reference_kan.rational, inputs, backward), threads)
        streams = 5 if backward else 2
        rounds.ask("limit", lambda s=streams: s * 4.0 * N * CHANNELS / limits.copy(threads), threads)
        rounds.run()
        name = f"rational {N} x {CHANNELS}, {'forward + backward' if backward else 'forward'}"
        asked = [Asked("eager", rounds.ratio("eager", "ours"), 8.0)] if backward else []
        yield row(rounds, name, [*asked, share("limit", rounds.ratio("limit", "ours"), 0.6)])


def basis_rows(limits: Limits, threads: int, n_rounds: int, n_slow: int) -> Iterator[Row]:
    """Layers of functions with a basis, and SiLU; the limit is the multiply-adds of their products alone."""
    g = torch.Generator().manual_seed(0)
    gaussians: list[tuple[KanBasis, int, int]] = [("rbf", *sizes) for sizes in ((32, 64), (32, 16), (16, 3))]
    for kind, n_in, n_out in [*gaussians, *((kind, 32, 16) for kind in KAN_BASES if kind != "rbf")]:
        terms = n_in * (FUNCTIONS + 1)
        knots = bases.even_knots(FUNCTIONS).repeat(n_in, 1) if kind == "spline" else None
        inputs = [
            torch.randn(N, n_in, generator=g),
            torch.randn(n_out, terms, generator=g) / terms**0.5,
            torch.zeros(n_out),
        ]
        for backward in (False, True):
            ours, theirs = (
                lambda x, w, b, op=op, kind=kind, knots=knots: op(x, w, b, kind, FUNCTIONS, knots)
                for op in (kan.basis_layer, reference_kan.basis_layer)
            )
            rounds = Rounds(n_rounds, n_slow)
            rounds.time("ours", passes(ours, inputs, backward), threads)
            if threads > 1:
                rounds.time("ours on 1 thread", passes(ours, inputs, backward), 1)
            rounds.time("eager", passes(theirs, inputs, backward), threads)
            work = 2.0 * N * terms * n_out * (3 if backward else 1)
            rounds.ask("limit", lambda w=work: w / limits.fma256(threads), threads)
            rounds.run()
            name = f"{kind} layer {N} x {n_in}-{n_out}, {'forward + backward' if backward else 'forward'}"
            yield row(rounds, name, [Asked("eager", rounds.ratio("eager", "ours"), 3.0)])


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, whatever figures are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of ours and torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values of all rounds there")
    given = parser.parse_args(argv)
    started, shown = time.perf_counter(), console()
    n_rounds, n_slow = (3, 1) if given.quick else (7, 3)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            limits = Limits(Path(folder), given.threads)
        except RuntimeError as error:
            sys.exit(str(error))
        shown.print(machine(given.threads))
        for kind in (rational_rows, basis_rows):
            for found in kind(limits, given.threads, n_rounds, n_slow):
                print(
                    f"{time.perf_counter() - started:4.0f} s  {found.name}: {found.ours}", file=sys.stderr, flush=True
                )
                rows.append(found)
        limits.release_streams()
    shown.print(table(rows, given.threads))
    shown.print(f"{tally(rows)}; {time.perf_counter() - started:.0f} s in all")
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(given.threads), "rows": to_json(rows)}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
