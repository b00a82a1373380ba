"""The CUDA kernels as host programs: compiled by g++ through cuda/gpu/shim, one fiber for each CUDA thread.

`Shim` stands where a GPU stands in `fields.kernels.cuda`: what is tested is the kernels and how they are launched.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from fields.kernels.nvrtc import Argument, Program, as_value

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = {
    "address": ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-fsanitize=thread"),
}
"""What each takes least time with, to compile and to run."""


class ShimError(Exception):
    """A program that a sanitizer stopped, or whose threads wait for each other; the message is what it said."""


def kernels_of(source: Path) -> dict[str, str]:
    """The kernels of a source, and the most threads of their blocks, as they are written there."""
    found = re.findall(r"FF_KERNEL\((\w+),[^)]*\)\s*(\w+)\(", source.read_text())
    return {name: threads for threads, name in found}


@dataclass
class Shim:
    """A machine of two small multiprocessors whose threads are fibers of the host."""

    sanitizer: str
    folder: Path
    cuda: Path = ROOT / "cuda"
    environment: dict[str, str] = field(default_factory=dict)
    timeout: float = 300.0
    architecture: int = 80
    processors: int = 2
    shared_limit: int = 99 * 1024
    side: int = 8

    def build(self, program: Program) -> Path:
        """The host program of a source with its constants."""
        name = (
            f"{program.source}-{self.sanitizer}-{hashlib.sha256(repr((program, self.cuda)).encode()).hexdigest()[:12]}"
        )
        path = self.folder / name
        if path.exists():
            return path
        text = f'#include "gpu/{program.source}"\n#include "gpu/shim/driver.h"\nint main(int, char** argv) {{\n'
        text += "".join(f"  SHIM_KERNEL({kernel});\n" for kernel in kernels_of(self.cuda / "gpu" / program.source))
        source = path.with_suffix(".cpp")
        source.write_text(text + "  return 2;\n}\n")
        defines = [f"-D{name}={value}" for name, value in program.defines]
        line = ["g++", "-std=c++20", "-g1", "-DFF_SHIM", "-ffp-contract=off", "-Wall", "-Wextra"]
        line += ["-Werror", "-Wno-psabi", "-Wno-maybe-uninitialized", *SANITIZERS[self.sanitizer], *defines]
        done = subprocess.run([*line, f"-I{self.cuda}", str(source), "-o", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return path

    def launch(
        self,
        program: Program,
        kernel: str,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        arguments: Sequence[Argument],
    ) -> None:
        """Run a kernel on CPU tensors, in a process of its own; raise what a sanitizer found."""
        most = kernels_of(self.cuda / "gpu" / program.source)[kernel]
        assert most == "kThreads" or threads <= int(most), f"{kernel} takes {most} threads, not {threads}"
        fewer = 4 if threads == 256 else 1  # kernels with a thread for each item run in blocks of any size
        request = struct.pack("<5I", grid[0] * fewer, grid[1], 1, threads // fewer, shared)
        for argument in arguments:
            if isinstance(argument, Tensor):
                data = ctypes.string_at(argument.data_ptr(), argument.numel() * argument.element_size())
                request += struct.pack("<q", len(data)) + data
            else:
                request += struct.pack("<q", -1) if argument is None else bytes(as_value(argument))
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            asked, answered = Path(folder) / "request", Path(folder) / "answer"
            asked.write_bytes(request)
            line = [str(self.build(program)), kernel, str(asked), str(answered)]
            try:
                done = subprocess.run(
                    line, capture_output=True, text=True, timeout=self.timeout, env={**os.environ, **self.environment}
                )
            except subprocess.TimeoutExpired as error:
                raise ShimError(f"{kernel}: threads wait for each other") from error
            if done.returncode != 0:
                raise ShimError(f"{kernel}: {done.stderr}")
            answer, at = answered.read_bytes(), 0
        for argument in arguments:
            if isinstance(argument, Tensor):
                size = argument.numel() * argument.element_size()
                ctypes.memmove(argument.data_ptr(), answer[at : at + size], size)
                at += size
        assert at == len(answer)
