"""What kernels take: structures as the sources have them, and arrays that are checked once, here."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from fields.kernels.nvrtc import Argument, Machine, Program

MAX_LEVELS = 32
MAX_LAYERS = 16

MachineOf: TypeAlias = Callable[[Tensor], Machine]


class GridLevel(ctypes.Structure):
    """`GridLevel` of cuda/grid.h."""

    _fields_ = [(name, ctypes.c_uint32) for name in ("offset", "entries", "resolution", "hashed")] + [
        ("scale", ctypes.c_float)
    ]


class GridLevels(ctypes.Structure):
    """`GridLevels` of cuda/gpu/grid.cuh."""

    _fields_ = [("n", ctypes.c_int32), ("level", GridLevel * MAX_LEVELS)]


class MlpLayers(ctypes.Structure):
    """`MlpLayers` of cuda/gpu/mlp_block.cuh."""

    _fields_ = [
        ("layers", ctypes.c_int32),
        ("dims", ctypes.c_int32 * (MAX_LAYERS + 1)),
        ("activation", ctypes.c_int32),
        ("output_activation", ctypes.c_int32),
        ("bias", ctypes.c_int32),
    ]


class MarchSteps(ctypes.Structure):
    """`MarchSteps` of cuda/gpu/march.cuh."""

    _fields_ = [("resolution", ctypes.c_int32), ("contracted", ctypes.c_int32)] + [
        (name, ctypes.c_float) for name in ("near", "far", "step", "cone_angle")
    ]


class AdamRule(ctypes.Structure):
    """`AdamRule` of cuda/adam.h."""

    _fields_ = [
        (name, ctypes.c_float) for name in ("learning_rate", "beta1", "beta2", "eps", "correction1", "correction2")
    ]


def expect(condition: bool, what: str) -> None:
    """Raise ValueError with `what`."""
    if not condition:
        raise ValueError(f"fieldfit CUDA kernels: {what}")


def expect_tensor(name: str, t: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
    """Raise ValueError unless a tensor is contiguous and of this shape and type, and rows can be read as vectors.

    Called for every array of every launch: messages are written only when they are needed.
    """
    if t.shape != tuple(shape) or t.dtype != dtype or not t.is_contiguous():
        expect(False, f"{name} must be contiguous {dtype} {list(shape)}, got {t.dtype} {list(t.shape)}")
    row = shape[-1] * t.element_size() if len(shape) == 2 else 4
    if t.data_ptr() % (row & -row if row & 15 else 16) != 0:
        expect(False, f"{name} begins in the middle of a row's vectors")
    if shape and shape[0] >= 2**31:
        expect(False, f"{name} has too many rows")


def blocks(n: int, threads: int) -> int:
    """Blocks that have a thread for each of n."""
    return (n + threads - 1) // threads


def each(machine: Machine, program: str, kernel: str, n: int, arguments: Sequence[Argument]) -> None:
    """Launch a kernel with a thread for each of n."""
    if n > 0:
        machine.launch(Program(program), kernel, (blocks(n, 256), 1), 256, 0, arguments)


def each_warp(machine: Machine, program: str, kernel: str, n: int, arguments: Sequence[Argument]) -> None:
    """Launch a kernel with a warp for each of n."""
    if n > 0:
        machine.launch(Program(program), kernel, (blocks(n, 4), 1), 128, 0, arguments)
