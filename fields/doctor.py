"""What this machine offers, what fieldfit would use of it, and one line of advice for each thing that is wrong."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from scenes.errors import InputError

PACKAGES = (
    "torch",
    "numpy",
    "imageio",
    "av",
    "pillow",
    "viser",
    "tyro",
    "rich",
    "safetensors",
    "trimesh",
    "scikit-image",
    "scipy",
    "jaxtyping",
)
OPEN3D = ("open3d-cpu", "open3d")
ENOUGH_MEMORY = 4 * 2**30
ENOUGH_DISK = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    value: str
    advice: str = ""
    """Empty when all is well."""


def examine() -> list[Finding]:
    """Look at the machine. Never raises: what cannot be found out is itself a finding."""
    parts: tuple[Callable[[], list[Finding]], ...] = (
        _versions,
        _open3d,
        _processor,
        _memory,
        _gpu,
        _gpu_libraries,
        _folders,
    )
    findings: list[Finding] = []
    for part in parts:
        try:
            findings += part()
        except Exception as error:  # noqa: BLE001  a broken installation is what this command is run for
            findings.append(
                Finding(part.__name__.strip("_"), f"could not be examined ({error})", "please report this line")
            )
    return findings


def _versions() -> list[Finding]:
    found = {name: _installed(name) for name in PACKAGES}
    found["open3d"] = next((v for name in OPEN3D if (v := _installed(name))), None)
    missing = [name for name, number in found.items() if number is None]
    reinstall = f"pip install {' '.join(missing)}" if missing else ""
    return [
        Finding(
            "fieldfit",
            _installed("fieldfit") or "not installed",
            "" if _installed("fieldfit") else "run `pip install .` in its folder",
        ),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        Finding("packages", ", ".join(f"{name} {number or 'MISSING'}" for name, number in found.items()), reinstall),
    ]


def _open3d() -> list[Finding]:
    from scenes.signed_distance import open3d_loads

    if open3d_loads():
        return [Finding("Open3D", "loads, and finds distances to meshes", "")]
    advice = "for the usual one: `apt install libegl1 libgl1 libusb-1.0-0`"
    return [Finding("Open3D", "does not load here, so that libigl finds distances to meshes", advice)]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> list[Finding]:
    import torch

    usable, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    variable = os.environ.get("OMP_NUM_THREADS")
    few = f"OMP_NUM_THREADS={variable} leaves cores idle: unset it" if variable and threads < usable else ""
    return [
        Finding("cores", f"{usable} usable of {os.cpu_count()}, {threads} threads", few),
        _kernels(),
    ]


def _kernels() -> Finding:
    forced = os.environ.get("FIELDFIT_ISA")
    try:
        from fields.kernels import native

        isa = native.isa()
    except ImportError as error:
        return Finding(
            "CPU kernels", f"missing ({error})", "install again with a C++ compiler: `pip install --force-reinstall .`"
        )
    advice = ""
    if forced:
        advice = f"FIELDFIT_ISA={forced} chose it: unset it for the fastest"
    elif better := native.not_built():
        advice = f"this processor runs {better} too, which was not built: `pip install --force-reinstall --no-deps .`"
    return Finding("CPU kernels", isa, advice)


def _memory() -> list[Finding]:
    total, available = memory()
    advice = "" if available >= ENOUGH_MEMORY else "close other programs, or use --downscale for large captures"
    return [Finding("memory", f"{available / 2**30:.1f} GiB free of {total / 2**30:.1f}", advice)]


def memory() -> tuple[int, int]:
    """Bytes in all and bytes free, the limit of the container included."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    for limit, usage in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        text = Path(limit).read_text().strip() if Path(limit).exists() else "max"
        if text != "max" and int(text) < total:
            total, available = int(text), min(available, int(text) - int(Path(usage).read_text()))
    return total, available


def _gpu() -> list[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        driver = (_nvidia_smi() or ["unknown driver"])[0].partition(", ")[2]
        return [
            Finding("GPU", f"{', '.join(names)} (CUDA {torch.version.cuda}, driver {driver or 'unknown'})"),
            _gpu_kernels(),
        ]
    cards = _nvidia_smi()
    if cards:
        reason = "this torch is a CPU build" if torch.version.cuda is None else "torch cannot use it"
        advice = f"{reason}: install a CUDA build of torch for this driver to use the GPU"
        return [Finding("GPU", f"{'; '.join(cards)}, not used", advice)]
    return [Finding("GPU", "none: everything runs on the CPU")]


def _gpu_libraries() -> list[Finding]:
    from fields.kernels.gpu_libraries import INSTALL, obstacle

    found = {name: obstacle(name) for name in INSTALL}
    return [Finding(name, f"optional; not usable: {why}" if why else "optional; usable") for name, why in found.items()]


def _gpu_kernels() -> Finding:
    from fields.kernels import nvrtc

    try:
        return Finding("GPU kernels", f"compiled on first use by {nvrtc.ready()}, kept in {nvrtc.cache_folder()}")
    except InputError as error:
        return Finding("GPU kernels", "cannot be compiled or loaded", str(error))


def _nvidia_smi() -> list[str]:
    """`name, driver` of each card that the driver knows of."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _folders() -> list[Finding]:
    free = shutil.disk_usage(".").free
    here = os.access(".", os.W_OK)
    space = "" if free >= ENOUGH_DISK else "free some space, or choose another disk with --out"
    cache = cache_folder()
    return [
        Finding(
            "this folder",
            f"{free / 2**30:.1f} GiB free{'' if here else ', read-only'}",
            space if here else "choose a folder that can be written with --out",
        ),
        Finding("cache", str(cache)),
    ]


def cache_folder() -> Path:
    """Where what can be made again is kept: `$XDG_CACHE_HOME/fieldfit`, or a temporary folder when home is
    read-only."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "fieldfit"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.gettempdir()) / f"fieldfit-{os.getuid()}"
