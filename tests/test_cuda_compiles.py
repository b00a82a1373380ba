"""Every CUDA source compiles for every architecture that we name, within its budget, whatever the machine.

Compiling shows that the text is CUDA and what a kernel costs in registers, stack and spills. It shows nothing about how
the kernel runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "cuda/gpu").glob("*.cu"))
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
REGISTERS = 128
"""At 256 threads in a block two blocks still fit on a multiprocessor with 65,536 registers."""


class Cost(NamedTuple):
    """What ptxas reports of one kernel on one architecture; registers in words, the rest in bytes."""

    kernel: str
    architecture: int
    registers: int
    stack: int
    spilled: int


def costs(report: str) -> list[Cost]:
    """The kernels of a report by `ptxas -v`."""
    found = []
    for entry in re.split(r"Compiling entry function ", report)[1:]:
        name = re.match(r"'(\w+)' for 'sm_(\d+)", entry)
        used = re.search(r"Used (\d+) registers", entry)
        memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", entry)
        assert name and used and memory, f"ptxas reports in a form that this test does not know: {entry}"
        stack, stores, loads = map(int, memory.groups())
        found.append(Cost(name[1], int(name[2]), int(used[1]), stack, stores + loads))
    return found


@pytest.fixture(scope="module")
def nvcc() -> str:
    found = shutil.which("nvcc")
    if found is None:
        pytest.skip("nvcc is not on the PATH: install a CUDA toolkit (12.8 or later) to compile cuda/gpu/*.cu here")
    return found


def compile_all(nvcc: str, source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    targets = [f"-gencode=arch=compute_{sm},code=sm_{sm}" for sm in ARCHITECTURES]
    line = [nvcc, "-std=c++17", "-fatbin", "-Xptxas=-v", "-Werror=all-warnings", "--threads=2", f"-I{ROOT / 'cuda'}"]
    output = f"-o={folder / source.stem}.fatbin"
    return subprocess.run([*line, *targets, output, str(source)], capture_output=True, text=True, timeout=600)


def test_there_are_sources():
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_compiles_within_its_budget(source, nvcc, tmp_path):
    done = compile_all(nvcc, source, tmp_path)
    assert done.returncode == 0, done.stderr
    found = costs(done.stdout + done.stderr)
    assert {cost.architecture for cost in found} == set(ARCHITECTURES), (
        "a source without a kernel for some architecture"
    )
    assert [cost for cost in found if cost.registers > REGISTERS or cost.stack or cost.spilled] == []


def test_costs_are_read(nvcc, tmp_path):
    """A kernel with an array that it indexes freely has a stack frame, and the report says so."""
    source = tmp_path / "stack.cu"
    source.write_text(
        'extern "C" __global__ void walk(const int* at, int* out, int n) {\n'
        "  int seen[64];\n"
        "  for (int i = 0; i < 64; ++i) seen[i] = at[i] * n;\n"
        "  for (int i = 0; i < n; ++i) seen[at[i] & 63] += at[seen[i & 63] & 63];\n"
        "  out[threadIdx.x] = seen[at[n] & 63];\n"
        "}\n"
    )
    done = compile_all(nvcc, source, tmp_path)
    assert done.returncode == 0, done.stderr
    found = costs(done.stdout + done.stderr)
    assert sorted((cost.kernel, cost.architecture) for cost in found) == [("walk", sm) for sm in ARCHITECTURES]
    assert all(cost.stack >= 256 for cost in found)


def test_warnings_stop_the_compilation(nvcc, tmp_path):
    source = tmp_path / "warning.cu"
    source.write_text('extern "C" __global__ void one(float* out) { int unused = 1; out[0] = 1.0f; }\n')
    done = compile_all(nvcc, source, tmp_path)
    assert done.returncode != 0
    assert "unused" in done.stderr
