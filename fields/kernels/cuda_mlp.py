"""Perceptrons on a GPU: in float32 for layers of any size, or on tensor cores where hidden layers are equal and fit."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fields.kernels.cuda_arguments import MAX_LAYERS, MachineOf, MlpLayers, blocks, expect, expect_tensor
from fields.kernels.nvrtc import Argument, Machine, Program

COMFORTABLE = 48 * 1024
"""Bytes of shared memory with which several blocks fit on a multiprocessor of any GPU."""
TENSOR_WIDTHS = (16, 32, 64, 128)
ROWS = 16
"""Samples of a tensor-core tile."""


def weight_tile_bytes(machine: Machine) -> int:
    """Shared memory of the tile that weights pass through: `kTileSize` of cuda/gpu/mlp_block.cuh."""
    return 16 * (4 * machine.side + 4) * 4


def sum_slices(machine: Machine, slices: Tensor, out: Tensor) -> None:
    """Write the sum over the slices into `out`, which is as large as one of them."""
    arguments = len(slices), out.numel(), slices, out
    machine.launch(Program("sum.cu"), "sum_slices", (blocks(out.numel(), 256), 1), 256, 0, arguments)


@dataclass(frozen=True)
class TensorLayout:
    """`Network` of cuda/gpu/network.cuh: sizes in tiles, and what they need."""

    n_in: int
    width: int
    hidden: int
    n_out: int
    bias: bool
    keep_z: bool

    @property
    def forward_bytes(self) -> int:
        """Shared memory of the weights, with biases, rounded to 8 bytes."""
        w, n = self.width // 16, blocks(self.n_out, 8)
        tiles = (blocks(self.n_in, 16) * w + (self.hidden - 1) * w * w) * 2 + w * n
        return tiles * 256 + blocks(self.hidden * self.width + n * 8, 2) * 8 * self.bias

    @property
    def backward_bytes(self) -> int:
        """The same, and the transposed weights."""
        w = self.width // 16
        turned = w * blocks(self.n_in, 16) + (self.hidden - 1) * w * w + blocks(self.n_out, 16) * w
        return self.forward_bytes + turned * 2 * 256

    @property
    def scratch(self) -> int:
        """Fragments of 512 bytes that the backward pass leaves for each tile of samples."""
        w = self.width // 16
        return blocks(self.n_in, 16) + (3 if self.keep_z else 2) * self.hidden * w + blocks(self.n_out, 16)

    @property
    def jobs(self) -> int:
        """Warps that the weight gradients of one share of the samples take."""
        w = self.width // 16
        outputs = [w] * self.hidden + [blocks(self.n_out, 16)]
        inputs = [blocks(self.n_in, 16)] + [w] * self.hidden
        return sum(blocks(i, 4) * o for i, o in zip(inputs, outputs, strict=True))


class MlpSpec:
    """A perceptron's layers, ready for kernels."""

    def __init__(
        self,
        machine_of: MachineOf,
        half: bool,
        dims: Sequence[int],
        activation: int,
        output_activation: int,
        bias: bool,
        bfloat16: bool = False,
    ) -> None:
        """With `half` or `bfloat16`, factors of products are 16-bit floats: halves, whose rounding is the finer one."""
        expect(2 <= len(dims) <= MAX_LAYERS + 1, f"a perceptron has 1 to {MAX_LAYERS} layers")
        expect(min(dims) > 0, "a layer has at least one value")
        self.machine_of, self.dims, self.half = machine_of, tuple(dims), half or bfloat16
        self.activation, self.output_activation, self.bias = activation, output_activation, bias
        padded = (ctypes.c_int32 * (MAX_LAYERS + 1))(*dims)
        self.layers = MlpLayers(len(dims) - 1, padded, activation, output_activation, int(bias))
        self.size = sum(b * (a + int(bias)) for a, b in itertools.pairwise(dims))
        self.keep_z = activation in (2, 3)  # silu and sine: their slopes need what went in

    def layout(self, machine: Machine) -> TensorLayout | None:
        """How tensor cores compute this perceptron, or None where they cannot, or were not asked to."""
        hidden = self.dims[1:-1]
        if not self.half or not hidden or len(set(hidden)) > 1 or hidden[0] not in TENSOR_WIDTHS or self.dims[-1] > 128:
            return None
        sizes = self.dims[0], hidden[0], len(hidden), self.dims[-1]
        layout = TensorLayout(*sizes, self.bias, self.keep_z)
        return layout if self.dims[0] <= 128 and layout.backward_bytes <= machine.shared_limit else None

    def program(self) -> Program:
        """The tensor-core kernels of these sizes."""
        sizes = self.dims[0], self.dims[1], len(self.dims) - 2, self.dims[-1]
        values = *sizes, self.activation, self.output_activation, int(self.bias)
        names = ("IN", "WIDTH", "HIDDEN", "OUT", "ACTIVATION", "OUTPUT_ACTIVATION", "BIAS")
        return Program("mlp_tensor.cu", tuple((f"FF_{n}", v) for n, v in zip(names, values, strict=True)))

    def tile(self, machine: Machine, features: int, source: str = "mlp.cu") -> tuple[Program, int, int]:
        """(program, samples of a tile, bytes of shared memory) where this many features of every sample are kept."""
        weights = weight_tile_bytes(machine)
        choices = [(rows, weights + features * (rows + 4) * 4) for rows in (64, 32, 16) if rows % machine.side == 0]
        fitting = [choice for choice in choices if choice[1] <= COMFORTABLE]
        rows, shared = fitting[0] if fitting else choices[-1]
        expect(
            shared <= machine.shared_limit,
            f"layers {self.dims} need {shared} bytes of shared memory, and a block of this GPU has "
            f"{machine.shared_limit}: use narrower layers",
        )
        return Program(source, (("FF_SIDE", machine.side), ("FF_ROWS", rows))), rows, shared

    def check(self, x: Tensor, params: Tensor, aux: Tensor | None, index: Tensor | None) -> tuple[Argument, ...]:
        """What kernels take of the inputs: x, x_dim, aux, aux_dim, aux_rows, index."""
        n, x_dim = x.shape
        aux_rows, aux_dim = (0, 0) if aux is None else aux.shape
        expect(x_dim + aux_dim == self.dims[0], f"the perceptron takes {self.dims[0]} values, got {x_dim + aux_dim}")
        expect_tensor("x", x, (n, x_dim))
        expect_tensor("params", params, (self.size,))
        if aux is not None:
            expect(aux_rows > 0 or n == 0, "aux has no rows")
            expect_tensor("aux", aux, (aux_rows if index is not None else n, aux_dim))
        if index is not None:
            expect_tensor("index", index, (n,), torch.int32)
        return x, x_dim, aux, aux_dim, aux_rows, index

    def forward(
        self, x: Tensor, params: Tensor, aux: Tensor | None, index: Tensor | None, out: Tensor, tape: None = None
    ) -> None:
        """Write [n, outputs] into `out`."""
        rows_of, n = self.check(x, params, aux, index), len(x)
        expect_tensor("out", out, (n, self.dims[-1]))
        if n == 0:
            return
        machine = self.machine_of(x)
        layout = self.layout(machine)
        if layout is not None:
            shape, arguments = self._warps(machine, n), (n, params, *rows_of, out)
            machine.launch(self.program(), "mlp_tensor_forward", shape, 128, layout.forward_bytes, arguments)
            return
        program, rows, shared = self.tile(machine, 2 * max(self.dims))
        shape = min(blocks(n, rows), 8 * machine.processors), 1
        arguments = n, self.layers, params, *rows_of, out
        machine.launch(program, "mlp_forward", shape, machine.side**2, shared, arguments)

    def _warps(self, machine: Machine, n: int) -> tuple[int, int]:
        return min(blocks(n, 4 * ROWS), 4 * machine.processors), 1

    def backward(
        self, x: Tensor, params: Tensor, aux: Tensor | None, index: Tensor | None, d_out: Tensor, *d: Tensor | None
    ) -> None:
        """Write `d = (d_x, d_params)`; d_x may be None, and so is a tape behind them. The same bits every time."""
        rows_of, n = self.check(x, params, aux, index), len(x)
        d_x, d_params = d[:2]
        assert d_params is not None
        expect_tensor("d_out", d_out, (n, self.dims[-1]))
        expect_tensor("d_params", d_params, (self.size,))
        if d_x is not None:
            expect_tensor("d_x", d_x, x.shape)
        if n == 0:
            d_params.zero_()
            return
        machine = self.machine_of(x)
        layout = self.layout(machine)
        if layout is not None:
            slices = self._tensor_backward(machine, layout, params, rows_of, d_out, d_x)
        else:
            kept = sum(self.dims[:-1]) * (2 if self.keep_z else 1)
            program, rows, shared = self.tile(machine, kept + 2 * max(self.dims))
            slices = params.new_empty(min(blocks(n, rows), 2 * machine.processors), self.size)
            arguments = n, self.layers, params, *rows_of, d_out, d_x, slices, self.size, int(self.keep_z)
            machine.launch(program, "mlp_backward", (len(slices), 1), machine.side**2, shared, arguments)
        sum_slices(machine, slices, d_params)

    def _tensor_backward(
        self,
        machine: Machine,
        layout: TensorLayout,
        params: Tensor,
        rows_of: tuple[Argument, ...],
        d_out: Tensor,
        d_x: Tensor | None,
    ) -> Tensor:
        """Write d_x; return the parameters' gradients in slices."""
        n, program = len(d_out), self.program()
        tiles = blocks(n, ROWS)
        largest = torch.linalg.vector_norm(d_out, ord=float("inf")).reshape(1)
        scratch = torch.empty(tiles * layout.scratch * 128, dtype=torch.int32, device=d_out.device)
        shape, shared = self._warps(machine, n), layout.backward_bytes
        arguments = n, params, *rows_of, d_out, largest, d_x, scratch
        machine.launch(program, "mlp_tensor_backward", shape, 128, shared, arguments)
        groups = blocks(layout.jobs, 4)
        slices = params.new_empty(min(blocks(tiles, 4), max(4 * machine.processors // groups, 1)), self.size)
        arguments = n, largest, scratch, slices
        machine.launch(program, "mlp_tensor_weights", (len(slices), groups), 128, 0, arguments)
        return slices
