"""Whatever a command does with a field on a GPU, every operation gets its tensors in one place.

There is no GPU here: torch is made to believe in one (pretend_gpu.py), and the native core stands for the CUDA kernels,
which have the same interface (test_cuda_shim.py holds the kernels themselves to the references).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pretend_gpu import Kernels, pretend_kernels
from tiny_runs import SMALL, write_ball, write_image, write_tetrahedron

from fields import cli
from fields.commands import evaluate
from fields.kernels import nvrtc, ops
from fields.kernels.shapes import MlpShape
from scenes.errors import InputError


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    with pretend_kernels(monkeypatch) as kernels:
        yield kernels


def fieldfit(*arguments: str | Path) -> None:
    assert cli.main(["--debug", *map(str, arguments)]) == 0


COARSE = ("--field.occupancy.resolution", "16", "--field.occupancy.update-cells", "512", "--field.march.steps", "64")


@pytest.mark.parametrize("kind", ["image", "mesh", "capture"])
def test_every_command_runs_on_a_gpu(
    kind: str, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write = {"image": write_image, "mesh": write_tetrahedron, "capture": write_ball}[kind]
    data = write(tmp_path / {"image": "data.png", "mesh": "data.obj", "capture": "data"}[kind])
    monkeypatch.setattr(evaluate, "EVALUATION_RESOLUTION", 16)
    small = "--steps", "80", *SMALL[2:], *(COARSE if kind == "capture" else ())
    on_gpu = "--device", "cuda"
    fieldfit("fit", data, "--out", "run", *small, *on_gpu)
    assert "on a GPU, kernels" in capfd.readouterr().out
    fieldfit("fit", data, "--out", "run", "--resume", "--steps", "82", *on_gpu)
    fieldfit("eval", "run", *on_gpu)
    for show in {"image": ("colour",), "mesh": ("colour",), "capture": ("colour", "depth", "normal")}[kind]:
        fieldfit("render", "run", "--out", f"{show}.png", "--width", "16", "--show", show, *on_gpu)
    assert {"GridSpec.forward", "MlpSpec.forward", "adam", "adam_touched"} <= kernels.called
    if kind == "capture":
        assert "render" in kernels.called
    if kind != "image":
        fieldfit("export", "run", "out.ply", "--resolution", "16", *on_gpu)


LAYERS = {
    "cam": "CamSpec.forward",
    "rbf": "rbf_forward",
    "kan-rbf": "basis_layer_forward",
    "kan-rational": "rational_forward",
}


@pytest.mark.parametrize("network", LAYERS)
def test_layers_of_every_kind_run_on_a_gpu(
    network: str, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fieldfit(
        "fit", write_image(tmp_path / "data.png"), "--out", "run", "--network", network, *SMALL, "--device", "cuda"
    )
    fieldfit("eval", "run", "--device", "cuda")
    assert LAYERS[network] in kernels.called


def test_tensors_in_two_places_are_refused(kernels: Kernels) -> None:
    x, params = torch.zeros(2, 3), torch.zeros(6)
    shape = MlpShape((3, 2), "relu", "identity", bias=False)
    with pytest.raises(ValueError, match="expected tensors on one device, got cpu and cuda:0"):
        ops.mlp(x, params.to("cuda"), shape)
    with pytest.raises(ValueError, match="expected tensors on one device, got cpu and cuda:0"):
        ops.mlp(x[:, :2].to("cuda"), params.to("cuda"), shape, torch.zeros(2, 1))
    assert ops.mlp(x.to("cuda"), params.to("cuda"), shape).device == torch.device("cuda", 0)


def test_what_is_missing_ends_a_command_before_it_begins(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def missing() -> str:
        raise InputError("CUDA tensors need NVRTC; install it, or use --device cpu")

    monkeypatch.setattr(nvrtc, "ready", missing)
    data = write_image(tmp_path / "data.png")
    for name in ("auto", "cuda"):
        assert cli.main(["fit", str(data), "--out", str(tmp_path / "run"), "--device", name]) == 1
        assert capfd.readouterr().err.splitlines() == [
            "fieldfit: CUDA tensors need NVRTC; install it, or use --device cpu"
        ]
    assert not (tmp_path / "run").exists()
