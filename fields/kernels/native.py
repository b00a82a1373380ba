"""The native core: one compiled module per instruction set, the best that this processor runs, loaded on first use.

`FIELDFIT_ISA` (baseline, avx2, avx512, avx512bf16 or amx) forces one, for tests.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from pathlib import Path
from types import ModuleType

import torch

NAMES = ("amx", "avx512bf16", "avx512", "avx2", "baseline")


def _load_openmp() -> None:
    """Make the OpenMP runtime that torch brought visible to our modules, which are linked against none of their own."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*.so*")):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        return
    ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"fields.kernels.native_{name}")
    except ModuleNotFoundError:
        return None


def available() -> list[str]:
    """Instruction sets that were built and that this processor runs, best first."""
    return [name for name in _runnable() if _module(name) is not None]


def not_built() -> str | None:
    """The best instruction set that this processor runs, if the package was built without it, as on another machine."""
    best = next(iter(_runnable()), None)
    return best if best is not None and _module(best) is None else None


def _runnable() -> list[str]:
    """What the baseline says that the processor runs: a module for more must not even be loaded where it is missing."""
    _load_openmp()
    baseline = _module("baseline")
    return [] if baseline is None else [name for name in NAMES if baseline.processor_runs(name)]


@functools.cache
def core() -> ModuleType:
    """The compiled module in use.

    Raises:
        ImportError: no module was built, or `FIELDFIT_ISA` names one that cannot run here.
    """
    names = available()
    forced = os.environ.get("FIELDFIT_ISA")
    if forced is not None and forced not in names:
        raise ImportError(f"FIELDFIT_ISA={forced}: expected one of {', '.join(names)} on this machine")
    if not names:
        raise ImportError("the native core of fieldfit is not built: install the package again with `pip install .`")
    module = _module(forced or names[0])
    assert module is not None
    return module


def isa() -> str:
    """Name of the instruction set in use."""
    return core().__name__.removeprefix("fields.kernels.native_")
