"""The CUDA kernels of layers, run by the host through a thread shim under sanitizers: the tables that the native core
is held to, forward and backward, with the shim in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from cuda_shim import Shim
from kernel_table import Case, run_both
from test_cam import CASES as CAM_CASES
from test_cuda_shim import core_of
from test_kan import CASES as KAN_CASES
from test_rbf import CASES as RBF_CASES

from fields.kernels import ops
from fields.kernels.cuda import Core


def named(*names: str) -> list[Case]:
    """Rows of the tables that the native core is held to."""
    cases = {case.name: case for case in (*CAM_CASES, *KAN_CASES, *RBF_CASES)}
    return [cases[name] for name in names]


LAYERS = named(
    "8-16-3-5-aux0", "5-17-17-17-3-4w-5-silu-sigmoid-aux0", "20-33-33-5-5-4w-5-silu-each-aux3",
    "6-48-1-5-each-plain-aux0", "3-128-128-130-silu-aux0", "4-24-24-2-2-2-2-2-2-2-plain-silu-aux0",
    "rational-24-3", "rational-33-11", "rbf-1-1-8-silu", "rbf-13-66-11-silu", "rbf-24-16-8-alone",
    "spline-1-1-4-silu", "spline-13-66-11-silu", "chebyshev-13-66-12-silu", "chebyshev-3-2-1-silu",
    "fourier-13-66-12-silu", "dog-24-16-8-alone", "mexican-hat-13-66-12-silu",
    "rbf-1-1-1", "rbf-7-5-2", "rbf-19-33-17",
)  # fmt: skip


@contextmanager
def computed_by(core: Core) -> Iterator[None]:
    """Layers on a CPU go to this core."""
    with patch.object(ops, "core_for", lambda *_: core):
        yield


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_layer(shim: Shim, case: Case) -> None:
    with computed_by(core_of(shim)):
        for n in (0, 1, 77):
            run_both(case, n)
