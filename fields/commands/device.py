"""Which machine a command runs on: chosen once, said once, never silently another."""

from __future__ import annotations

from typing import Literal, assert_never

import torch

from scenes.errors import InputError

DeviceName = Literal["auto", "cpu", "cuda"]


def choose_device(name: DeviceName) -> torch.device:
    """`auto` is the GPU where torch can use one. Raises InputError when a GPU is asked for and there is none."""
    match name:
        case "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        case "cpu":
            return torch.device("cpu")
        case "cuda":
            if not torch.cuda.is_available():
                build = "this torch is a CPU build" if torch.version.cuda is None else "torch finds no usable GPU"
                raise InputError(f"--device cuda: {build}; use --device cpu, and see `fieldfit doctor`")
            return torch.device("cuda")
        case _:
            assert_never(name)


def where(device: torch.device) -> str:
    """One line: what runs where."""
    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}"
    from fields.kernels import native

    threads = torch.get_num_threads()
    return f"on the CPU, {threads} thread{'s' * (threads != 1)}, {native.isa()} kernels"
