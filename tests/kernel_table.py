"""Tables of kernels beside their references in float64: a row, how one is run, and a table on every instruction set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tolerances import VALUES, Tolerance
from torch import Tensor

COUNTS = (0, 1, 2, 17, 501)


@dataclass(frozen=True)
class Case:
    """One row of the table: how to draw the inputs, and what computes them in both ways."""

    name: str
    inputs: Callable[[int, torch.Generator], list[Tensor]]
    native: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    tolerance: Tolerance = VALUES


def run_both(case: Case, n: int) -> None:
    g = torch.Generator().manual_seed(n)
    drawn = case.inputs(n, g)
    results = []
    for call, dtype in ((case.native, torch.float32), (case.reference, torch.float64)):
        leaves = [x.detach().clone().to(dtype).requires_grad_() if x.is_floating_point() else x for x in drawn]
        out = call(*leaves)
        d_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        if out.requires_grad:
            out.backward(d_out)
        results.append((out.detach(), [x.grad for x in leaves if x.is_floating_point()]))
    (value, gradients), (expected, expected_gradients) = results
    case.tolerance.check(value, expected)
    for got, want in zip(gradients, expected_gradients, strict=True):
        assert (got is None) == (want is None)
        if got is not None and want is not None:
            scale = want.abs().amax().clamp(min=1) if want.numel() else torch.ones(())
            case.tolerance.check(got.double() / scale, want / scale)


def run_table_forced(isa: str, module: str, others: str = "") -> None:
    """All rows of `module.CASES`, and the calls in `others` on the module `t`, in a process forced to a set of
    instructions."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import {module} as t
from kernel_table import COUNTS, run_both
for case in t.CASES:
    for n in COUNTS: run_both(case, n)
{others}
from fields.kernels import native
print(native.isa())
"""
    environment = {"FIELDFIT_ISA": isa, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == isa
