"""What stands in for the native core while a contender has its turn: the torch reference, or another build of the core.

The reference is put where `fields.kernels.ops` chooses, so that everything above runs as it is.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import ModuleType
from unittest.mock import patch

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.kernels import native, ops, reference
from fields.kernels.bits import pack_bits, unpack_bits
from fields.kernels.shapes import MarchShape, MlpShape
from fields.rendering import occupancy

COMPILED = {"grid_encode": (0,), "mlp": (0, 3, 4), "harmonics": (0,), "composite": (0, 1, 2, 3, 4), "adam": ()}
"""Functions of the reference that torch.compile takes, and which of their arguments differ in length from step to step.
Marching is a loop over data, and stays eager."""


@functools.cache
def compiled_reference() -> dict[str, Callable[..., object]]:
    """Each of them, compiled for any number of points."""
    functions = vars(reference) | {"mlp": torch_mlp(reference.mlp, native.core().has_bfloat16)}
    return {name: _compiled(functions[name], varying) for name, varying in COMPILED.items()}


def torch_mlp(exact: Callable[..., Tensor], has_bfloat16: bool) -> Callable[..., Tensor]:
    """The perceptron as one would write it for speed: where ours has factors in bfloat16, so have torch's tensors.

    The reference itself, `exact`, rounds float32 tensors as bfloat16 would, which is right and slow.
    """

    def call(
        x: Tensor, params: Tensor, shape: MlpShape, aux: Tensor | None = None, index: Tensor | None = None
    ) -> Tensor:
        plain = replace(shape, precision="float32")
        if shape.precision == "float32" or not has_bfloat16:
            return exact(x, params, plain, aux, index)
        half = torch.bfloat16
        return exact(x.to(half), params.to(half), plain, None if aux is None else aux.to(half), index).to(x.dtype)

    return call


def _compiled(function: Callable[..., object], varying: Sequence[int]) -> Callable[..., object]:
    compiled = torch.compile(function)

    def call(*arguments: object) -> object:
        for i in varying:
            argument = arguments[i] if i < len(arguments) else None
            if isinstance(argument, Tensor):
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        return compiled(*arguments)

    return call


@contextmanager
def torch_reference(*, compiled: bool, march: bool) -> Iterator[None]:
    """Every operation by the torch reference; marching and its bits too if `march`, else those by the native core."""
    is_native, native_march = ops.is_native, ops.march

    def march_natively(
        origins: Tensor, directions: Tensor, jitter: Tensor | None, occupancy: Int[Tensor, " W"], shape: MarchShape
    ) -> ops.Samples:
        with patch.object(ops, "is_native", is_native):
            return native_march(origins, directions, jitter, occupancy, shape)

    with ExitStack() as stack:
        stack.enter_context(patch.object(ops, "is_native", lambda *_: False))
        if march:
            stack.enter_context(patch.object(occupancy, "set_bits", set_bits))
            stack.enter_context(patch.object(occupancy, "visit_cells", visit_cells))
        else:
            stack.enter_context(patch.object(ops, "march", march_natively))
        plain = {"mlp": torch_mlp(reference.mlp, native.core().has_bfloat16)}
        for name, function in (compiled_reference() if compiled else plain).items():
            stack.enter_context(patch.object(reference, name, function))
        yield


def set_bits(words: Int[Tensor, " W"], resolution: int) -> Int[Tensor, " N"]:
    """As `fields.kernels.bits`, by torch on a CPU too."""
    return unpack_bits(words, resolution).view(-1).nonzero()[:, 0]


def visit_cells(
    cells: Int[Tensor, " N"],
    found: Float[Tensor, " N"],
    decay: float,
    threshold: float,
    allowed: Int[Tensor, " W"],
    density: Float[Tensor, " C"],
    bits: Int[Tensor, " W"],
) -> None:
    """The same."""
    n = round(len(density) ** (1 / 3))
    above = reference.visit_cells(cells, found, decay, threshold, density)
    bits.copy_(pack_bits(above.view(n, n, n)) & allowed)


@contextmanager
def build_for(name: str) -> Iterator[None]:
    """The native core as it was built for an instruction set."""
    module: ModuleType = importlib.import_module(f"fields.kernels.native_{name}")
    with patch.object(native, "core", lambda: module):
        _forget_specs()
        yield
    _forget_specs()


def _forget_specs() -> None:
    """Descriptions of grids and networks belong to the build that made them."""
    for function in vars(ops).values():
        if isinstance(function, functools._lru_cache_wrapper):
            function.cache_clear()
