"""Loading CUDA kernels where there is a GPU: compiled by NVRTC on first use, kept in a cache, launched by the driver.

No toolkit, no compiler and no headers are needed: NVRTC comes with torch's CUDA wheels (or as `nvidia-cuda-nvrtc`), the
driver with the GPU. Nothing here runs, and no library is looked for, until a CUDA tensor reaches a kernel.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from scenes.errors import InputError

Argument: TypeAlias = Tensor | int | float | ctypes.Structure | None
"""What a kernel takes: arrays, `int`, `float`, structures by value, null."""

OLDEST_DRIVER = 12000
OLDEST_ARCHITECTURE = 75
SHARED_WITHOUT_ASKING = 48 * 1024


@dataclass(frozen=True)
class Program:
    """One source file with the constants that it is compiled for."""

    source: str
    defines: tuple[tuple[str, int], ...] = ()


@runtime_checkable
class Machine(Protocol):
    """What runs kernels: a GPU, or its stand-in under test."""

    architecture: int
    """Compute capability, 90 for 9.0."""
    processors: int
    """Multiprocessors."""
    shared_limit: int
    """Bytes of shared memory that one block may have."""
    side: int
    """Square root of the threads of a block in the kernels that work by whole blocks."""

    def launch(
        self,
        program: Program,
        kernel: str,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        arguments: Sequence[Argument],
    ) -> None:
        """Run a kernel in the order of torch's current stream."""
        ...


@functools.cache
def sources() -> Path:
    """The folder of the native sources: beside this file where installed, in the checkout otherwise."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "cuda_source", here.parents[2] / "cuda"):
        if (folder / "gpu" / "device.cuh").is_file():
            return folder
    raise InputError(f"{here.parent}: the CUDA sources are missing from this installation; install fieldfit again")


@functools.cache
def source_hash() -> str:
    """Of every file that a kernel may include."""
    digest = hashlib.sha256()
    root = sources()
    for path in sorted([*root.glob("*.h"), *root.glob("gpu/*.cuh"), *root.glob("gpu/*.cu")]):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def options(program: Program, architecture: int) -> list[str]:
    """What NVRTC is told. Multiply-adds contract only where the source says `fma`, as on the CPU."""
    defines = [f"-D{name}={value}" for name, value in program.defines]
    return ["-std=c++17", "-fmad=false", f"-arch=sm_{architecture}", *defines]


def _libraries() -> list[str]:
    """Where NVRTC may be, that of torch's own CUDA version first."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    found = [str(p) for folder in folders for p in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    found += [f"libnvrtc.so.{version}" for version in (13, 12)]
    major = (torch.version.cuda or "").partition(".")[0]
    return sorted(found, key=lambda name: not name.endswith(f".so.{major}"))


class Compiler:
    """NVRTC."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.functions = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    @classmethod
    @functools.cache
    def load(cls) -> Compiler:
        """The first NVRTC that loads.

        Raises:
            InputError: there is none.
        """
        for name in _libraries():
            try:
                for builtins in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")):
                    ctypes.CDLL(str(builtins))  # which it looks for by its name alone
                return cls(ctypes.CDLL(name))
            except OSError:
                continue
        raise InputError(
            "CUDA tensors need NVRTC to compile fieldfit's kernels, and it was not found: "
            "install a CUDA build of torch, or `pip install nvidia-cuda-nvrtc`, or use --device cpu"
        )

    def compile(self, program: Program, architecture: int) -> tuple[bytes, str]:
        """(cubin, what the compiler said)."""
        nvrtc, handle = self.functions, ctypes.c_void_p()
        root = sources()
        text = (root / "gpu" / program.source).read_bytes()
        nvrtc.nvrtcCreateProgram(ctypes.byref(handle), text, program.source.encode(), 0, None, None)
        lines = [*options(program, architecture), f"-I{root / 'gpu'}", "-Xptxas=-v"]
        array = (ctypes.c_char_p * len(lines))(*[line.encode() for line in lines])
        status = nvrtc.nvrtcCompileProgram(handle, len(lines), array)
        log = self._text(handle, "ProgramLog").decode(errors="replace").strip("\0\n ")
        if status != 0:
            raise InputError(
                f"{program.source}: NVRTC {self.version} cannot compile it for sm_{architecture} "
                f"(a GPU newer than that needs a newer nvidia-cuda-nvrtc): {' | '.join(log.splitlines()[:3]) or status}"
            )
        cubin = self._text(handle, "CUBIN")
        nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))
        return cubin, log

    def _text(self, handle: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self.functions[f"nvrtcGet{what}Size"](handle, ctypes.byref(size))
        text = ctypes.create_string_buffer(max(size.value, 1))
        self.functions[f"nvrtcGet{what}"](handle, text)
        return text.raw[: size.value]


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldfit" / "cuda"


def read_cached(path: Path) -> bytes | None:
    """A kept kernel, or None where there is none or the file is not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def write_cached(path: Path, cubin: bytes) -> None:
    """Keep a kernel, where the folder can be written. The file appears whole or not at all, whoever else writes it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(cubin).digest() + cubin)
        os.replace(name, path)
    except OSError:
        return


def cubin_of(program: Program, architecture: int, driver: int) -> bytes:
    """The kernels of a program, from the cache or compiled now."""
    compiler = Compiler.load()
    key = [source_hash(), program.source, *options(program, architecture), compiler.version, str(driver)]
    path = cache_folder() / f"{hashlib.sha256(' '.join(key).encode()).hexdigest()}.cubin"
    kept = read_cached(path)
    if kept is None:
        kept, _ = compiler.compile(program, architecture)
        write_cached(path, kept)
    return kept


class Driver:
    """NVIDIA's driver."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.functions = library
        self._found: dict[str, Callable[..., int]] = {}  # the library looks for a name anew each time it is asked
        version = ctypes.c_int()
        self.call("cuInit", 0)
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.version = version.value
        if self.version < OLDEST_DRIVER:
            raise InputError(
                f"CUDA tensors need an NVIDIA driver for CUDA {cuda_version(OLDEST_DRIVER)} or later, and this one is "
                f"for {cuda_version(self.version)}: update the driver, or use --device cpu"
            )

    @classmethod
    @functools.cache
    def load(cls) -> Driver:
        """The driver of this machine.

        Raises:
            InputError: there is none, or it is too old.
        """
        try:
            return cls(ctypes.CDLL("libcuda.so.1"))
        except OSError as error:
            raise InputError(
                f"CUDA tensors need NVIDIA's driver, and it was not found ({error}): install it, or use --device cpu"
            ) from error

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver; raise what it reports."""
        function = self._found.get(name)
        if function is None:
            function = self._found[name] = self.functions[name]
        status = function(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self.functions.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError(f"fieldfit CUDA: {name}: {(text.value or b'unknown error').decode()} ({status})")


class Gpu:
    """One GPU, in the context that torch uses on it."""

    side = 16

    def __init__(self, index: int) -> None:
        self.device = torch.device("cuda", index)
        self.driver = Driver.load()
        device, self.context = ctypes.c_int(), ctypes.c_void_p()
        torch.cuda.init()
        self.driver.call("cuDeviceGetByPCIBusId", ctypes.byref(device), _bus(index).encode())
        self.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        major, minor, self.processors, self.shared_limit = (self._attribute(device, a) for a in (75, 76, 16, 97))
        self.architecture = 10 * major + minor
        if self.architecture < OLDEST_ARCHITECTURE:
            raise InputError(
                f"{torch.cuda.get_device_name(index)} is of compute capability {major}.{minor}, and fieldfit's kernels "
                f"need {OLDEST_ARCHITECTURE // 10}.{OLDEST_ARCHITECTURE % 10} (Turing) or later: use --device cpu"
            )
        self._kernels: dict[tuple[Program, str], ctypes.c_void_p] = {}

    def _attribute(self, device: ctypes.c_int, attribute: int) -> int:
        value = ctypes.c_int()
        self.driver.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value

    def _kernel(self, program: Program, name: str) -> ctypes.c_void_p:
        found = self._kernels.get((program, name))
        if found is None:
            module, found = ctypes.c_void_p(), ctypes.c_void_p()
            cubin = cubin_of(program, self.architecture, self.driver.version)
            try:
                self.driver.call("cuModuleLoadData", ctypes.byref(module), cubin)
            except RuntimeError as error:
                raise InputError(
                    f"{program.source}: the driver, for CUDA {cuda_version(self.driver.version)}, cannot load what "
                    f"NVRTC {Compiler.load().version} made ({error}): update the driver, or install an older NVRTC"
                ) from error
            self.driver.call("cuModuleGetFunction", ctypes.byref(found), module, name.encode())
            self._kernels[program, name] = found
        return found

    def launch(
        self,
        program: Program,
        kernel: str,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        arguments: Sequence[Argument],
    ) -> None:
        """Run a kernel in the order of torch's current stream on this GPU. Every array has to lie there."""
        stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
        for argument in arguments:
            if isinstance(argument, Tensor) and argument.device != self.device:
                raise ValueError(f"{kernel} runs on {self.device}, and was given an array on {argument.device}")
        values = [as_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        call, current = self.driver.call, ctypes.c_void_p()
        call("cuCtxGetCurrent", ctypes.byref(current))
        elsewhere = current.value != self.context.value
        if elsewhere:
            call("cuCtxPushCurrent_v2", self.context)
        try:
            function = self._kernel(program, kernel)
            if shared > SHARED_WITHOUT_ASKING:
                call("cuFuncSetAttribute", function, 8, shared)
            call("cuLaunchKernel", function, *grid, 1, threads, 1, 1, shared, stream, pointers, None)
        finally:
            if elsewhere:
                call("cuCtxPopCurrent_v2", ctypes.byref(current))


def cuda_version(number: int) -> str:
    """12040 as 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"


def ready() -> str:
    """What compiles and loads kernels here.

    Raises:
        InputError: a part of it is missing or too old.
    """
    driver, compiler = Driver.load(), Compiler.load()
    return f"NVRTC {compiler.version}, driver for CUDA {cuda_version(driver.version)}"


def as_value(argument: Argument) -> ctypes._SimpleCData | ctypes.Structure:
    """An argument as it lies in a kernel's parameters."""
    if isinstance(argument, int):
        return ctypes.c_int32(argument)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return ctypes.c_void_p(None)
    return argument if isinstance(argument, ctypes.Structure) else ctypes.c_float(argument)


def _bus(index: int) -> str:
    """The PCI address of torch's device: torch's numbering may leave devices out."""
    p = torch.cuda.get_device_properties(index)
    return f"{p.pci_domain_id:04x}:{p.pci_bus_id:02x}:{p.pci_device_id:02x}.0"


@functools.cache
def gpu(index: int) -> Gpu:
    """The GPU of a torch device index."""
    return Gpu(index)


def machine_of(tensor: Tensor) -> Machine:
    """The GPU that a tensor lies on.

    Raises:
        ValueError: the tensor lies elsewhere.
        InputError: the driver is missing or too old.
    """
    if tensor.device.type != "cuda":
        raise ValueError(f"the CUDA kernels take tensors on a GPU, got one on {tensor.device}")
    return gpu(tensor.device.index)
