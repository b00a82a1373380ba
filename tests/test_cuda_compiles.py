"""Every CUDA source compiles for every architecture that we name, and costs no more than the table beside this says.

NVRTC compiles, as it does for users; it comes from PyPI (nvidia-cuda-nvrtc), so that no toolkit is needed. Compiling
shows that the text is CUDA and what a kernel costs in registers, stack and spills; what shared memory and the occupancy
are follows from how it is launched. It shows nothing about how the kernel runs. After a change that is meant,
`PYTHONPATH=. python tests/test_cuda_compiles.py` writes the table anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fields.kernels import cuda, cuda_march, cuda_render, nvrtc
from fields.kernels.cuda_arguments import blocks
from fields.kernels.nvrtc import Argument, Compiler, Program
from scenes.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("cuda_costs.json")
SOURCES = sorted((ROOT / "cuda/gpu").glob("*.cu"))
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
REGISTERS = 168
"""At 128 threads in a block three blocks still fit on a multiprocessor with 65,536 registers."""
OTHER_COMPILER = 16
"""Registers by which another version of the compiler than the table's may differ."""


class Multiprocessor(NamedTuple):
    """What the blocks of one multiprocessor share (CUDA C++ Programming Guide, compute capabilities)."""

    threads: int
    blocks: int
    shared: int
    reserved: int
    """Bytes of shared memory that the system takes of each block."""


MULTIPROCESSORS = {
    75: Multiprocessor(1024, 16, 64 * 1024, 0),
    80: Multiprocessor(2048, 32, 164 * 1024, 1024),
    86: Multiprocessor(1536, 16, 100 * 1024, 1024),
    89: Multiprocessor(1536, 24, 100 * 1024, 1024),
    90: Multiprocessor(2048, 32, 228 * 1024, 1024),
    100: Multiprocessor(2048, 32, 228 * 1024, 1024),
    120: Multiprocessor(1536, 24, 100 * 1024, 1024),
}


class Cost(NamedTuple):
    """What ptxas reports of one kernel on one architecture; registers in words, the rest in bytes."""

    kernel: str
    architecture: int
    registers: int
    stack: int
    spilled: int


class Launch(NamedTuple):
    """How a kernel is launched, by its own launcher."""

    program: Program
    kernel: str
    threads: int
    shared: int


class Recorder:
    """A machine that notes what it is asked to launch."""

    architecture, processors, shared_limit, side = 90, 4, 227 * 1024, 16

    def __init__(self) -> None:
        self.launches: list[Launch] = []

    def launch(
        self,
        program: Program,
        kernel: str,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        arguments: Sequence[Argument],
    ) -> None:
        self.launches.append(Launch(program, kernel, threads, shared))


def launches() -> list[Launch]:
    """Every kernel once, in the sizes of the presets, and where sizes make other code, in others."""
    recorder = Recorder()
    core, half = cuda.Core(lambda _: recorder), cuda.Core(lambda _: recorder, half=True)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    for dim, features in ((3, 2), (3, 4), (4, 8)):
        spec = core.GridSpec(dim, features, [(6**dim // 16 * 16 + 16, 6, 0, 4.0)])
        x, table, out = zeros(4, dim), zeros(spec.entries, features), zeros(4, features)
        spec.forward(x, table, out)
        spec.backward(x, table, out, table, None, x)
    for of, dims, kinds in (
        (core, (32, 64, 64, 4), (1, 0)),
        (half, (32, 64, 64, 4), (1, 0)),
        (half, (32, 128, 16), (2, 0)),
    ):
        spec = of.MlpSpec(dims, *kinds, False)
        x, params, out = zeros(4, dims[0]), zeros(spec.size), zeros(4, dims[-1])
        spec.forward(x, params, None, None, out)
        spec.backward(x, params, None, None, out, x, params)
    for each in (False, True):
        spec = core.CamSpec((32, 64, 64, 3), 1, 0, [(32, False), (32, False)], each, True)
        inputs = zeros(4, 32), zeros(4, 2), zeros(spec.mlp.size), zeros(spec.grid_size), None, None
        spec.forward(*inputs, zeros(4, 3))
        spec.backward(*inputs, zeros(4, 3), *inputs[:4])
    x, weight, bias = zeros(4, 32), zeros(16, 32 * 9), zeros(16)
    form, knots = (0, 8, -1.0, 0.3), zeros(32, 4 * 12)
    core.basis_layer_forward(x, weight, bias, form, knots, zeros(4, 16))
    core.basis_layer_backward(x, weight, bias, form, knots, zeros(4, 16), x, weight, bias)
    coefficients = zeros(6), zeros(8, 4)
    core.rational_forward(x, *coefficients, x)
    core.rational_backward(x, *coefficients, x, x, *coefficients)
    neurons = zeros(64, 32), zeros(64, 32), zeros(4, 64), zeros(4)
    core.rbf_forward(x, *neurons, zeros(4, 4), None)
    core.rbf_backward(x, *neurons, zeros(4, 4), neurons, x, None)
    points, numbers = zeros(4, 3), zeros(4)
    core.harmonics(4, points, zeros(4, 16))
    core.frequency(2, points, zeros(4, 12))
    core.frequency_backward(2, points, zeros(4, 12), points)
    bits, steps = zeros(1, dtype=torch.int32), (1, False, 0.1, 1.0, 0.1, 0.0)
    core.march(points, points, None, bits, *steps, 10)
    offsets = zeros(5, dtype=torch.int64)
    rays = points, numbers, numbers
    core.composite_forward(offsets, numbers, *rays, *rays)
    core.composite_backward(offsets, numbers, *rays, *rays, *rays, numbers, points)
    core.adam(numbers, numbers, numbers, numbers, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, True)
    table, marks = zeros(16, 4), zeros(1, dtype=torch.uint8)
    core.adam_touched(table, table, marks, table, table, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1)
    outputs = points, numbers, numbers
    for of in (core, half):
        grid = of.GridSpec(3, 4, [(224, 6, 0, 4.0)] * 8)
        density, color = of.MlpSpec((32, 64, 16), 1, 0, False), of.MlpSpec((32, 64, 64, 3), 1, 4, False)
        networks = zeros(grid.entries, 4), density, zeros(density.size)
        of.render(grid, *networks, color, zeros(color.size), 4, points, points, None, bits, *steps, 0.1, *outputs)
        model = cuda_render.RadianceModel(grid, *networks)
        rays = cuda_march.prepare(recorder, points, points, None, bits, steps=steps)
        cuda_render.follow(model, rays, 0.1)
        samples = cuda_march.Samples(offsets, numbers, numbers, points, zeros(4, dtype=torch.int32))
        cuda_march.compact(recorder, samples, zeros(4, 32), zeros(4, 16), 0.1)
    return sorted(set(recorder.launches), key=lambda launch: (launch.program.source, repr(launch)))


LAUNCHES = launches()
PROGRAMS = list(dict.fromkeys(launch.program for launch in LAUNCHES))


def label(program: Program) -> str:
    """A program's name in the table."""
    return " ".join([program.source, *(f"{name.removeprefix('FF_')}={value}" for name, value in program.defines)])


def occupancy(launch: Launch, cost: Cost) -> int:
    """Theoretical, in percent of the threads that a multiprocessor holds."""
    m = MULTIPROCESSORS[cost.architecture]
    warps = launch.threads // 32
    by_registers = 65536 // (blocks(cost.registers * 32, 256) * 256) // warps
    by_shared = m.shared // (launch.shared + m.reserved) if launch.shared + m.reserved else m.blocks
    return 100 * min(by_registers, by_shared, m.blocks, m.threads // launch.threads) * launch.threads // m.threads


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


def compiled(program: Program) -> str:
    """What NVRTC says about a program, for all architectures."""
    compiler = Compiler.load()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return "\n".join(log for _, log in pool.map(lambda sm: compiler.compile(program, sm), ARCHITECTURES))


def measure(program: Program) -> dict[str, dict[str, dict[str, int]]]:
    """Kernel -> architecture -> registers, spilled, shared, occupancy."""
    report = compiled(program)
    assert "warning" not in report, report
    found = costs(report)
    assert {cost.architecture for cost in found} == set(ARCHITECTURES), (
        "a source without a kernel for some architecture"
    )
    rows: dict[str, dict[str, dict[str, int]]] = {}
    for launch in [launch for launch in LAUNCHES if launch.program == program]:
        for cost in sorted(cost for cost in found if cost.kernel == launch.kernel):
            row = {"registers": cost.registers, "spilled": cost.spilled + cost.stack, "shared": launch.shared}
            row["occupancy"] = occupancy(launch, cost)
            rows.setdefault(launch.kernel, {})[str(cost.architecture)] = row
    return rows


def test_every_kernel_is_launched():
    written = {name for source in SOURCES for name in re.findall(r"FF_KERNEL\([^)]*\)\s*(\w+)\(", source.read_text())}
    assert written == {launch.kernel for launch in LAUNCHES}


@pytest.mark.parametrize("program", PROGRAMS, ids=label)
def test_costs_no_more_than_the_table_says(program):
    table = json.loads(TABLE.read_text())
    slack = 0 if table["compiler"] == Compiler.load().version else OTHER_COMPILER
    rows = measure(program)
    known = table["costs"][label(program)]
    assert rows.keys() == known.keys()
    for kernel, by_architecture in rows.items():
        for architecture, now in by_architecture.items():
            before, where = known[kernel][architecture], f"{kernel} on sm_{architecture}"
            assert now["spilled"] == 0, f"{where} spills, or keeps an array in memory"
            assert now["registers"] <= min(before["registers"] + slack, REGISTERS), where
            assert now["shared"] <= before["shared"], where
            assert slack or now["occupancy"] >= before["occupancy"], where


def test_the_table_is_of_these_programs():
    assert sorted(json.loads(TABLE.read_text())["costs"]) == sorted(label(program) for program in PROGRAMS)


def of_source(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program of its own."""
    (folder / "gpu").mkdir()
    (folder / "gpu/own.cu").write_text(text)
    monkeypatch.setattr(nvrtc, "sources", lambda: folder)
    return Program("own.cu")


def test_costs_are_read(tmp_path, monkeypatch):
    """A kernel with an array that it indexes freely has a stack frame, and the report says so."""
    walk = (
        'extern "C" __global__ void walk(const int* at, int* out, int n) {\n'
        "  int seen[64];\n"
        "  for (int i = 0; i < 64; ++i) seen[i] = at[i] * n;\n"
        "  for (int i = 0; i < n; ++i) seen[at[i] & 63] += at[seen[i & 63] & 63];\n"
        "  out[threadIdx.x] = seen[at[n] & 63];\n"
        "}\n"
    )
    found = costs(compiled(of_source(walk, tmp_path, monkeypatch)))
    assert sorted((cost.kernel, cost.architecture) for cost in found) == [("walk", sm) for sm in ARCHITECTURES]
    assert all(cost.stack >= 256 for cost in found)


def test_warnings_and_errors_are_told(tmp_path, monkeypatch):
    text = 'extern "C" __global__ void one(float* out) { int unused = 1; out[0] = 1.0f; }\n'
    program = of_source(text, tmp_path, monkeypatch)
    assert "unused" in compiled(program)
    (tmp_path / "gpu/own.cu").write_text(text.replace("int unused", "integer unused"))
    with pytest.raises(InputError, match=r"own.cu: NVRTC .* cannot compile it for sm_75 .*integer"):
        compiled(program)


def test_occupancy_is_what_the_limits_give():
    """256 threads of 128 registers: two blocks; of 32 registers, as many as the threads allow; 100 KiB each: two."""
    program = Program("grid.cu")
    assert occupancy(Launch(program, "k", 256, 0), Cost("k", 90, 128, 0, 0)) == 25
    assert occupancy(Launch(program, "k", 256, 0), Cost("k", 90, 32, 0, 0)) == 100
    assert occupancy(Launch(program, "k", 256, 100 * 1024), Cost("k", 90, 32, 0, 0)) == 25


def write_table() -> None:
    """Measure all programs and write the table."""
    found = {label(program): measure(program) for program in PROGRAMS}
    text = json.dumps({"compiler": Compiler.load().version, "costs": found}, indent=1)
    text = re.sub(r"\{\s+(\"registers\"[^}]*?)\s+\}", lambda m: "{" + re.sub(r"\s+", " ", m[1]) + "}", text)
    TABLE.write_text(text + "\n")


if __name__ == "__main__":
    write_table()
