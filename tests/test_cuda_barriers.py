"""Every barrier in the CUDA kernels is there for a reason: without any one of them, a test fails."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from cuda_shim import ROOT, Shim, ShimError
from kernel_table import Case, run_both
from test_cuda_layers import computed_by, named
from test_cuda_shim import SMALL, WIDE, core_of, run_mlp, run_render

from fields.kernels.shapes import MlpShape

BARRIER = re.compile(r"\b__(sync\w+)\((\)?)")
OPTIONAL_BARRIERS = """
namespace shim {
inline bool left_out(int barrier) {
  static const char* s = getenv("LEFT_OUT");
  return s && atoi(s) == barrier;
}
inline void syncthreads(int barrier) { if (!left_out(barrier)) __syncthreads(); }
inline void syncwarp(int barrier) { if (!left_out(barrier)) __syncwarp(); }
inline int syncthreads_or(int barrier, int predicate) {
  return left_out(barrier) ? unordered_vote(predicate) != 0 : __syncthreads_or(predicate);
}
}  // namespace shim
"""
"""For every kind of barrier in the sources, what has a number and can be left out; without it, a vote still counts."""


def mutated(folder: Path) -> tuple[Path, list[str]]:
    """A copy of the sources in which an environment variable names a barrier to leave out; the file that each is in."""
    cuda_folder, files = folder / "cuda", list[str]()
    shutil.copytree(ROOT / "cuda", cuda_folder)
    for path in sorted([*cuda_folder.glob("gpu/*.cuh"), *cuda_folder.glob("gpu/*.cu")]):

        def numbered(barrier: re.Match[str], name: str = path.name) -> str:
            files.append(name)
            return f"shim::{barrier[1]}({len(files) - 1}{barrier[2] or ', '}"

        path.write_text(BARRIER.sub(numbered, path.read_text()))
    header = cuda_folder / "gpu/shim/shim.h"
    header.write_text(header.read_text() + OPTIONAL_BARRIERS)
    return cuda_folder, files


def of_fixed_points(case: Case) -> Case:
    """The same, without gradients of the points."""
    return replace(
        case,
        native=lambda x, *others: case.native(x.detach(), *others),
        reference=lambda x, *others: case.reference(x.detach(), *others),
    )


LAYERS_OF = {
    "cam.cu": named("8-16-3-5-aux0", "20-33-33-5-5-4w-5-silu-each-aux3"),
    "kan.cu": named("rational-24-3", "rbf-24-16-8-alone"),
    "rbf.cu": [case for layer in named("rbf-7-5-2") for case in (layer, of_fixed_points(layer))],
}
"""By source, layers whose kernels between them need every barrier there."""


def exercise(shim: Shim, file: str) -> None:
    """The kernels of a file, on inputs that take more than one tile of each block."""
    core, half = core_of(shim), core_of(shim, half=True)
    match file:
        case "mlp.cu" | "mlp_block.cuh":
            run_mlp(core, SMALL, 150)
            run_mlp(core, MlpShape((20, 5), "relu", "identity", bias=False), 150)
            run_mlp(core, MlpShape((20, 8, 5), "relu", "identity", bias=False), 1100, with_d_x=False)
        case "mlp_tensor.cu":
            run_mlp(half, SMALL, 40)
        case "render.cu":
            run_render(core, 40, 0.05, WIDE)
        case "render_tensor.cu":
            run_render(half, 100, 0.05)
        case _:
            with computed_by(core):
                for case in LAYERS_OF[file]:
                    run_both(case, 300)


def test_every_barrier_is_needed(tmp_path: Path) -> None:
    """Leave out any one barrier, and ThreadSanitizer sees the race or a result is wrong."""
    sources, files = mutated(tmp_path)
    assert len(files) >= 10
    shim = Shim("thread", tmp_path, sources)
    for file in sorted(set(files)):
        exercise(shim, file)
    unneeded = []
    for barrier, file in enumerate(files):
        shim.environment["LEFT_OUT"] = str(barrier)
        try:
            exercise(shim, file)
        except (ShimError, AssertionError):
            continue
        unneeded.append(f"number {files[:barrier].count(file) + 1} of {file}")
    assert unneeded == []
