"""What this machine can do at most, measured in the same run as the kernels: `limits.cpp`, compiled here and now.

Rates are per second of all threads together, over about `SECONDS` each.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fields.kernels.shapes import GridShape

SECONDS = 0.015
SOURCE = Path(__file__).with_name("limits.cpp")
STREAMED_BYTES = 2**28
"""Of each array that is streamed."""


def compile_limits(folder: Path) -> Path:
    """Compile `limits.cpp` for this machine with the system's C++ compiler.

    Raises RuntimeError with what the compiler said, or when there is none.
    """
    compiler = shutil.which("c++")
    if compiler is None:
        raise RuntimeError("limits.cpp: there is no `c++` here; install a C++ compiler (on Debian: g++)")
    library = folder / "limits.so"
    flags = ["-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    line = [compiler, *flags, str(SOURCE), "-o", str(library)]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"limits.cpp does not compile:\n{done.stderr}")
    return library


@dataclass(frozen=True)
class Access:
    """Random accesses to one table."""

    entries: int
    features: int
    """float32 values of an entry."""

    @property
    def bytes(self) -> int:
        """Of the table."""
        return self.entries * self.features * 4


class Limits:
    """The compiled library, and the memory that it works on: tensors, since that is where fields keep theirs."""

    def __init__(self, folder: Path, most_threads: int) -> None:
        self._library = ctypes.CDLL(str(compile_limits(folder)))
        self._most_threads = most_threads
        self._memory = torch.ones(0)
        self._streamed: tuple[Tensor, Tensor] | None = None

    def fma(self, threads: int) -> float:
        """float32 operations per second, two for a multiply-add."""
        return self._rate("fma_rate", threads)

    def fma256(self, threads: int) -> float:
        """The same with the registers of AVX2; 0 without them."""
        return self._rate("fma256_rate", threads)

    def bfloat16(self, threads: int) -> float:
        """Operations per second of dot products of bfloat16 added to float32 (AVX512_BF16); 0 without them."""
        return self._rate("bfloat16_rate", threads)

    def tiles(self, threads: int) -> float:
        """The same by products of tiles (AMX); 0 without them."""
        return self._rate("tile_rate", threads)

    def copy(self, threads: int) -> float:
        """Bytes per second read and written by copying from memory to memory."""
        to, source = self._streams()
        pointers = ctypes.c_void_p(to.data_ptr()), ctypes.c_void_p(source.data_ptr())
        return self._rate("copy_rate", threads, *pointers, ctypes.c_int64(STREAMED_BYTES))

    def read(self, threads: int) -> float:
        """Bytes per second read from memory."""
        source = ctypes.c_void_p(self._streams()[1].data_ptr())
        return self._rate("read_rate", threads, source, ctypes.c_int64(STREAMED_BYTES))

    def reads(self, threads: int, access: Access) -> float:
        """Independent random reads of whole entries per second, all threads in one table."""
        return self._random("random_read_rate", threads, access, access.bytes)

    def adds(self, threads: int, access: Access) -> float:
        """Independent random adds to whole entries per second, every thread to a table of its own."""
        return self._random("random_add_rate", threads, access, access.bytes * self._most_threads)

    def release_streams(self) -> None:
        """Give back the memory that was streamed."""
        self._streamed = None

    def _random(self, function: str, threads: int, access: Access, needed: int) -> float:
        if self._memory.nbytes < needed:
            self._memory = torch.ones(needed // 4)
        table = ctypes.c_void_p(self._memory.data_ptr())
        return self._rate(function, threads, table, ctypes.c_int64(access.entries), ctypes.c_int(access.features))

    def _streams(self) -> tuple[Tensor, Tensor]:
        if self._streamed is None:
            self._streamed = torch.ones(STREAMED_BYTES // 4), torch.ones(STREAMED_BYTES // 4)
        return self._streamed

    def _rate(self, function: str, threads: int, *arguments: object) -> float:
        entry = self._library[function]
        entry.restype = ctypes.c_double
        return float(entry(ctypes.c_int(threads), ctypes.c_double(SECONDS), *arguments))


def accesses(*shapes: GridShape) -> list[Access]:
    """The tables of all levels of some grids, each size once, smallest first."""
    found = {Access(level.entries, shape.features) for shape in shapes for level in shape.levels}
    return sorted(found, key=lambda access: (access.features, access.bytes))


@dataclass(frozen=True)
class GridBound:
    """Seconds that the random accesses of a grid would take at the rates of this machine, n points at a time.

    Every corner of every level counts as one read, and for gradients as one add, in a table of that level's size.
    Corners that share a cache line cost less than that, so a grid can beat this; arithmetic is free.
    """

    limits: Limits
    shape: GridShape
    n: int

    def forward(self, threads: int) -> float:
        """Of reading all corners."""
        return self._seconds(threads, gradients=False)

    def forward_backward(self, threads: int) -> float:
        """Of reading all corners, and adding to their gradients."""
        return self._seconds(threads, gradients=True)

    def _seconds(self, threads: int, gradients: bool) -> float:
        seconds = 0.0
        for access in accesses(self.shape):
            n_levels = sum(level.entries == access.entries for level in self.shape.levels)
            count = n_levels * self.n * 2**self.shape.dim
            seconds += count / self.limits.reads(threads, access)
            if gradients:
                seconds += count / self.limits.adds(threads, access)
        return seconds
