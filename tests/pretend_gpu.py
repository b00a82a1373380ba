"""A GPU to torch's eyes, without one: `PretendGpu` runs everything on the CPU and keeps account of which tensors would
lie on `cuda:0`. What torch refuses on a machine with a GPU, it refuses here: an operation on tensors of both places,
numpy's view of a GPU's memory, a CPU's generator for a GPU's numbers.

It sees what a program calls forward, and not what autograd does: there the tensors are the CPU's that they are.

`pretend_kernels` adds what our own kernels need: the native core stands for them, which has the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fields.kernels import cuda, native, nvrtc, ops

GPU = torch.device("cuda", 0)
GETTERS = {Tensor.device.__get__: GPU, Tensor.is_cuda.__get__: True}  # pyright: ignore[reportAttributeAccessIssue]
MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
BOTH_PLACES = {
    Tensor.copy_,
    Tensor.data.__set__,  # pyright: ignore[reportAttributeAccessIssue]
    torch._has_compatible_shallow_copy_type,  # pyright: ignore[reportPrivateImportUsage]
}
HOST_ONLY = {Tensor.numpy, Tensor.__array__}


class PretendGpu(TorchFunctionMode):
    """While this is entered, tensors can be moved to `cuda:0` and made there."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, Any] = {}  # kept alive, so that no other tensor is ever found at their addresses

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of those on the GPU."""
        with torch._C.DisableTorchFunction():
            place = tensor.untyped_storage().data_ptr()
            return place in self.storages if place else "on_gpu" in tensor.__dict__

    def put(self, tensor: Tensor) -> Tensor:
        """From now on the tensor, and whatever shares its memory, is on the GPU."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            if storage.data_ptr():
                self.storages[storage.data_ptr()] = storage
            else:  # of a tensor without elements
                tensor.__dict__["on_gpu"] = True  # pyright: ignore[reportIndexIssue]
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run a function of torch, as if on the device where it belongs."""
        kwargs = dict(kwargs or {})
        if func in MOVES:
            return self._move(func, *args, **kwargs)
        if func in GETTERS and self.holds(args[0]):
            return GETTERS[func]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        asked = kwargs.get("device")
        if asked is not None and func is not torch.device:
            kwargs["device"] = "cpu"
        on_gpu = [self.holds(t) for t in tensors]
        here = any(on_gpu) if asked is None else torch.device(asked).type == "cuda"
        if func not in BOTH_PLACES:
            if kwargs.get("generator") is not None and here:
                raise RuntimeError(f"{func}: expected a 'cuda' device type for the generator but found 'cpu'")
            self._refuse(func, tensors, on_gpu)
        result = func(*args, **kwargs)
        into_cpu = (func in INDEXING or func in BOTH_PLACES) and not on_gpu[0]
        for made in tree_leaves(result) if here and not into_cpu else ():
            if isinstance(made, Tensor):
                self.put(made)
        return result

    def _move(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        targets = [a for a in (*args, *kwargs.values()) if isinstance(a, (torch.device, str, Tensor))]
        from_gpu = to_gpu = self.holds(tensor)
        if func is not Tensor.to:
            to_gpu = func is Tensor.cuda
        elif targets:
            target = targets[0]
            to_gpu = self.holds(target) if isinstance(target, Tensor) else torch.device(target).type == "cuda"
        types = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)]
        types += [a.dtype for a in targets if isinstance(a, Tensor)]
        made = tensor.to(types[0]) if types else tensor
        if to_gpu != from_gpu and made is tensor:
            made = tensor.clone()
        return self.put(made) if to_gpu else made

    def _refuse(self, func: Any, tensors: list[Tensor], on_gpu: list[bool]) -> None:
        if func in HOST_ONLY and any(on_gpu):
            raise TypeError("cannot convert cuda:0 device type tensor to numpy; use Tensor.cpu()")
        if not any(on_gpu) or (func in INDEXING and on_gpu[0]):  # torch takes indices from either place
            return
        with torch._C.DisableTorchFunction():
            odd = [tuple(t.shape) for t, g in zip(tensors, on_gpu, strict=True) if not g and t.dim() > 0 and t.numel()]
        if odd:
            raise RuntimeError(f"{func}: expected all tensors on one device; on the CPU are those of shapes {odd}")


class Kernels:
    """The native core, for tensors that are believed to lie on a GPU."""

    def __init__(self, gpu: PretendGpu) -> None:
        self.gpu, self.called = gpu, set[str]()

    def __getattr__(self, name: str) -> Any:
        of_core = getattr(native.core(), name)
        if name.endswith("Spec"):
            return lambda *sizes: Spec(self, of_core(*sizes))
        return self.checked(name, of_core)

    def checked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.called.add(name)
            for i, argument in enumerate(arguments):
                if isinstance(argument, torch.Tensor):
                    assert self.gpu.holds(argument), f"argument {i} of {name} is on the CPU"
            with torch._C.DisableTorchFunction():
                given = [a.spec if isinstance(a, Spec) else a for a in arguments]
                result = function(*given)
            for made in result if isinstance(result, tuple) else ():
                self.gpu.put(made)
            return result

        return call


class Spec:
    """A grid or a perceptron of the native core."""

    def __init__(self, kernels: Kernels, spec: Any) -> None:
        self.kernels, self.spec = kernels, spec

    def __getattr__(self, name: str) -> Any:
        return self.kernels.checked(f"{type(self.spec).__name__}.{name}", getattr(self.spec, name))


@contextmanager
def pretend_kernels(patch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """A machine with one GPU, and our kernels for it."""
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "current_device", lambda: 0)
    patch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    patch.setattr(nvrtc, "ready", lambda: "kernels")
    ops._grid_spec.cache_clear()
    ops._mlp_spec.cache_clear()
    with PretendGpu() as gpu:
        kernels = Kernels(gpu)
        patch.setattr(cuda, "core", lambda: kernels)
        yield kernels
    ops._grid_spec.cache_clear()
    ops._mlp_spec.cache_clear()
