"""Which machine a command runs on: chosen once, said once, never silently another."""

from __future__ import annotations

from typing import Literal, assert_never

import torch

from fields.kernels import native, nvrtc
from scenes.errors import InputError

DeviceName = Literal["auto", "cpu", "cuda"]


def choose_device(name: DeviceName) -> torch.device:
    """`auto` is the GPU where torch can use one.

    Raises:
        InputError: a GPU is asked for and there is none, or it is there and what compiles kernels for it is not.
    """
    match name:
        case "auto":
            return choose_device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        case "cpu":
            return torch.device("cpu")
        case "cuda":
            if not torch.cuda.is_available():
                build = "this torch is a CPU build" if torch.version.cuda is None else "torch finds no usable GPU"
                raise InputError(f"--device cuda: {build}; use --device cpu, and see `fieldfit doctor`")
            nvrtc.ready()
            return torch.device("cuda", torch.cuda.current_device())
        case _:
            assert_never(name)


def where(device: torch.device) -> str:
    """One line: what runs where."""
    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}, {nvrtc.ready()}"
    threads = torch.get_num_threads()
    return f"on the CPU, {threads} thread{'s' * (threads != 1)}, {native.isa()} kernels"
