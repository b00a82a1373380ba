"""Loading CUDA kernels, without a GPU: what is kept and found, and what a person is told when something is missing."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fields.kernels import nvrtc
from fields.kernels.nvrtc import Compiler, Driver, Gpu, Program
from scenes.errors import InputError

ROOT = Path(__file__).resolve().parent.parent


class OldDriver(ctypes.CDLL):
    """A driver library that says it is for CUDA 11.4."""

    def __init__(self) -> None:
        pass

    def __getitem__(self, name: str) -> Callable[..., int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.answer if name == "cuDriverGetVersion" else lambda *arguments: 0

    @staticmethod
    def answer(version: ctypes.c_int) -> int:
        version._obj.value = 11040  # pyright: ignore[reportAttributeAccessIssue]
        return 0


class FakeCompiler:
    """Compiles everything to the same few bytes, and counts."""

    version, count = "1.2", 0

    def compile(self, program: Program, architecture: int) -> tuple[bytes, str]:
        self.count += 1
        return f"{program.source} for {architecture}".encode(), ""


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCompiler:
    fake = FakeCompiler()
    monkeypatch.setattr(Compiler, "load", lambda: fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return fake


def test_kernels_are_compiled_once_for_each_program_architecture_and_driver(compiler: FakeCompiler) -> None:
    for _ in range(2):
        for program in (Program("grid.cu"), Program("grid.cu", (("FF_DIM", 2),)), Program("march.cu")):
            for architecture, driver in ((80, 12040), (90, 12040), (90, 13000)):
                cubin = nvrtc.cubin_of(program, architecture, driver)
                assert cubin == f"{program.source} for {architecture}".encode()
    assert compiler.count == 9


def test_a_file_that_is_not_whole_is_compiled_again(compiler: FakeCompiler) -> None:
    nvrtc.cubin_of(Program("grid.cu"), 90, 12040)
    (kept,) = nvrtc.cache_folder().glob("*.cubin")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:-1], whole[:-1] + b"x"):
        kept.write_bytes(damaged)
        assert nvrtc.cubin_of(Program("grid.cu"), 90, 12040) == b"grid.cu for 90"
        assert kept.read_bytes() == whole
    assert compiler.count == 4


def test_a_cache_that_cannot_be_written_is_done_without(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert nvrtc.cubin_of(Program("grid.cu"), 90, 12040) == b"grid.cu for 90"


def test_processes_that_start_together_keep_the_cache_whole(tmp_path: Path) -> None:
    """Readers see a whole file or none, while writers replace it without a pause."""
    path = tmp_path / "kernel.cubin"
    code = (
        "import sys; from pathlib import Path; from fields.kernels.nvrtc import read_cached, write_cached\n"
        "path, mine = Path(sys.argv[1]), sys.argv[2].encode() * 100_000\n"
        "for _ in range(300):\n"
        "    write_cached(path, mine)\n"
        "    kept = read_cached(path)\n"
        "    assert kept in (b'a' * 100_000, b'b' * 100_000), 'torn'\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=ROOT) for name in "ab"]
    assert [process.wait(timeout=60) for process in running] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["kernel.cubin"]


def test_a_driver_that_is_too_old_is_named() -> None:
    with pytest.raises(
        InputError, match=r"driver for CUDA 12\.0 or later, and this one is for 11\.4: update the driver"
    ):
        Driver(OldDriver())


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ("Driver", "need NVIDIA's driver, and it was not found .*: install it, or use --device cpu"),
        ("Compiler", "need NVRTC .*pip install"),
    ],
)
def test_what_is_missing_is_named(load: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    of: type[Driver] | type[Compiler] = {"Driver": Driver, "Compiler": Compiler}[load]
    of.load.cache_clear()  # pyright: ignore[reportFunctionMemberAccess]
    with pytest.raises(InputError, match=message) as told:
        of.load()
    assert "\n" not in str(told.value)


def test_sources_are_found_and_hashed() -> None:
    assert (nvrtc.sources() / "gpu/grid.cu").is_file()
    assert (nvrtc.sources() / "lane.h").is_file()
    assert len(nvrtc.source_hash()) == 64


def test_nothing_is_looked_for_before_a_cuda_tensor_comes() -> None:
    code = (
        "import ctypes, sys; from fields.kernels import ops\n"
        "loaded = open('/proc/self/maps').read()\n"
        "assert 'libcuda.so' not in loaded and 'libnvrtc' not in loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


class NotingDriver:
    """A driver that notes what it is asked, in a process whose current context is `current`."""

    version = 13000

    def __init__(self, current: int) -> None:
        self.current, self.asked = current, list[str]()

    def call(self, name: str, *arguments: object) -> None:
        self.asked.append(name)
        if name == "cuCtxGetCurrent":
            arguments[0]._obj.value = self.current  # pyright: ignore[reportAttributeAccessIssue]


def gpu_with(driver: NotingDriver, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A GPU at address 7 whose arrays are the CPU's."""
    gpu = object.__new__(Gpu)
    gpu.device, gpu.driver, gpu.context = torch.device("cpu"), driver, ctypes.c_void_p(7)  # pyright: ignore
    gpu._kernels = {(Program("grid.cu"), "grid_forward"): ctypes.c_void_p(1)}

    class Stream:
        cuda_stream = 5

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    return gpu


@pytest.mark.parametrize(("current", "moves"), [(7, 0), (0, 2), (8, 2)])
def test_kernels_run_in_their_own_gpus_context(current: int, moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever GPU a thread was busy with last, and what it is busy with stays so."""
    driver = NotingDriver(current)
    gpu_with(driver, monkeypatch).launch(Program("grid.cu"), "grid_forward", (1, 1), 32, 0, (torch.zeros(1), 1, None))
    assert [name for name in driver.asked if "Push" in name or "Pop" in name] == (
        ["cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"] if moves else []
    )
    assert driver.asked.count("cuLaunchKernel") == 1


def test_an_array_of_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = NotingDriver(7)
    arrays = torch.zeros(1), torch.zeros(1, device="meta")
    with pytest.raises(ValueError, match=r"grid_forward runs on cpu, and was given an array on meta"):
        gpu_with(driver, monkeypatch).launch(Program("grid.cu"), "grid_forward", (1, 1), 32, 0, arrays)
    assert driver.asked == []


def test_a_cpu_tensor_is_not_for_the_kernels() -> None:
    with pytest.raises(ValueError, match="take tensors on a GPU, got one on cpu"):
        nvrtc.machine_of(torch.zeros(1))
