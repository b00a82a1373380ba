"""tiny-cuda-nn and nerfacc, with which fields can be built on NVIDIA GPUs. Neither is needed, and neither is imported
before a configuration asks for it: `import tinycudann` fails where there is no GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from types import ModuleType
from typing import Literal

import torch

from scenes.errors import InputError

Library = Literal["tinycudann", "nerfacc"]

INSTALL: dict[Library, str] = {
    "tinycudann": "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch",
    "nerfacc": "pip install nerfacc, and the CUDA toolkit of torch's version",
}


def obstacle(name: Library) -> str:
    """Why a library cannot be used here, or nothing."""
    missing = [] if importlib.util.find_spec(name) else [f"no package {name}"]
    if not torch.cuda.is_available():
        missing.append("a CPU build of torch" if torch.version.cuda is None else "no GPU that torch can use")
    if missing:
        return " and ".join(missing)
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:  # tinycudann raises OSError where it was built for another GPU
        return f"one that does not load ({' '.join(str(error).split())})"
    if name == "nerfacc" and not importlib.util.find_spec("nerfacc.csrc") and not shutil.which("nvcc"):
        return "no nvcc, with which it compiles its kernels on first use"
    return ""


def library(name: Library, instead: str) -> ModuleType:
    """The library, imported; `instead` are the options that do without it.

    Raises:
        InputError: it is not installed, does not load, or finds no GPU.
    """
    found = obstacle(name)
    if found:
        advice = f"install it ({INSTALL[name]})" if torch.cuda.is_available() else "run this on a machine with both"
        raise InputError(
            f"{name}: expected this package and an NVIDIA GPU, found {found}; {advice}, or fit with {instead}"
        )
    return importlib.import_module(name)
