"""tiny-cuda-nn and nerfacc as a user meets them: chosen by a switch, missed with one line, and a run like any other.

There is no GPU here, and no tiny-cuda-nn: stand-ins take their places (pretend_gpu.py, pretend_tinycudann.py,
pretend_nerfacc_cuda.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import device_fits
import pretend_nerfacc_cuda
import pretend_tinycudann
import pytest
import torch
from pretend_gpu import Kernels, pretend_kernels
from program import environment
from safetensors.torch import load_file
from tiny_runs import write_ball, write_image

from fields import cli
from fields.configuration import from_json
from fields.doctor import examine
from fields.encodings import TcnnHash
from fields.field import MarchConfig, RadianceFieldConfig
from fields.kernels import gpu_libraries
from fields.kernels.gpu_libraries import Library, library, obstacle
from fields.networks import MLP, TcnnMLP
from fields.presets import Config, preset
from fields.rendering import nerfacc_march
from fields.rendering.occupancy import OccupancyConfig
from fields.run import Run
from scenes.errors import InputError
from scenes.scene import Scene

pytestmark = pytest.mark.usefixtures("one_thread")

TCNN = ("--encoding", "tcnn-hash", "--network", "tcnn-mlp")
SMALL = ("--steps", "20", "--fit.batch", "2048", "--field.encoding.finest-resolution", "64")
SMALL += ("--field.encoding.log2-table-size", "12", "--field.encoding.levels", "4")
COARSE = ("--field.occupancy.resolution", "16", "--field.occupancy.update-cells", "512", "--field.march.steps", "64")
NERFACC = ("--field.march.marcher", "nerfacc")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """A GPU, both libraries, and nvcc."""
    monkeypatch.setitem(sys.modules, "tinycudann", pretend_tinycudann)
    monkeypatch.setattr(gpu_libraries.shutil, "which", lambda name, **_: f"/somewhere/{name}")
    pretend_nerfacc_cuda.put_in(monkeypatch)
    nerfacc_march._estimator.cache_clear()
    nerfacc_march._try_kernels.cache_clear()
    with pretend_kernels(monkeypatch) as kernels:
        yield kernels
    nerfacc_march._estimator.cache_clear()
    nerfacc_march._try_kernels.cache_clear()


def fieldfit(*arguments: str | Path) -> None:
    assert cli.main(["--debug", *map(str, arguments)]) == 0


def refused(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a command ends with."""
    capfd.readouterr()
    assert cli.main([*map(str, arguments)]) == 1
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


@pytest.mark.parametrize("kind", ["image", "capture"])
def test_every_command_takes_such_a_run(
    kind: str, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An image by tiny-cuda-nn, a capture by both libraries."""
    monkeypatch.chdir(tmp_path)
    data = write_image(tmp_path / "data.png") if kind == "image" else write_ball(tmp_path / "data")
    fieldfit("fit", data, "--out", "run", *TCNN, *SMALL, *((*COARSE, *NERFACC) if kind == "capture" else ()))
    assert "on a GPU, kernels" in capfd.readouterr().out
    opened = Run.open("run")
    assert isinstance(opened.config.field.encoding, TcnnHash)
    learned = {f"{part}network.mlp.params" for part in (("density_", "color_") if kind == "capture" else ("",))}
    learned |= {"encoding.grid.params"}
    first, *_, last = opened.metrics()
    assert last["loss"] < first["loss"]
    assert last["skipped"] == 0
    before = load_file("run/field.safetensors")
    assert all(before[name].dtype == torch.float32 and before[name].dim() == 1 for name in learned)
    fieldfit("fit", "run", "--resume", "--steps", "21")
    after = load_file("run/field.safetensors")
    assert learned <= {name for name in after if not torch.equal(after[name], before[name])}
    fieldfit("render", "run", "--out", "view.png", "--width", "8")
    capfd.readouterr()
    fieldfit("eval", "run", "--json")
    assert json.loads(capfd.readouterr().out)["step"] == 21


def test_whole_fits_are_compared(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """bench/device_fits.py, in small; what is missing is a line in its table."""

    def small(scene: Scene, **switches: Any) -> Config:
        config = preset(scene, **switches)
        assert isinstance(config.field, RadianceFieldConfig)
        field = replace(config.field, march=MarchConfig(steps=32), occupancy=OccupancyConfig(resolution=8))
        return replace(config, field=field, fit=replace(config.fit, batch=512))

    monkeypatch.setattr(device_fits, "preset", small)
    monkeypatch.setattr(device_fits, "WARM_UP", 1)
    data = str(write_ball(tmp_path / "ball"))
    assert device_fits.main([data, "--steps", "3"]) == 0
    head, _, *rows = capfd.readouterr().out.splitlines()
    assert head.startswith("a GPU, torch ") and head.endswith("; ball, 3 steps each")
    names = ["fieldfit", "tiny-cuda-nn", "fieldfit, marched by nerfacc", "tiny-cuda-nn, marched by nerfacc"]
    assert [row[:38].strip() for row in rows] == names
    assert all(len(row[38:].split()) == 5 and float(row[38:].split()[0]) > 5 for row in rows)
    monkeypatch.delitem(sys.modules, "tinycudann")
    assert device_fits.main([data, "--steps", "3"]) == 0
    _, _, ours, missing, *_ = capfd.readouterr().out.splitlines()
    assert len(ours[38:].split()) == 5
    assert missing[38:].startswith("not run: tinycudann: expected this package and an NVIDIA GPU, found no package")


def test_there_is_nothing_to_compare_without_a_gpu() -> None:
    done = subprocess.run([sys.executable, device_fits.__file__], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "this measures an NVIDIA GPU, and torch finds none here; `fieldfit doctor` says why\n"


WITHOUT_GPU = "and a CPU build of torch; run this on a machine with both, or fit with "


@pytest.mark.parametrize(
    ("switches", "line"),
    [
        (("--encoding", "tcnn-hash"), f"no package tinycudann {WITHOUT_GPU}--encoding hash"),
        (("--network", "tcnn-mlp"), f"no package tinycudann {WITHOUT_GPU}--network mlp"),
        (NERFACC, "found a CPU build of torch; run this on a machine with both, or fit with --field.march.marcher fie"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(
    switches: tuple[str, ...],
    line: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = write_ball(tmp_path / "ball")
    said = refused(capfd, "fit", data, "--out", tmp_path / "run", *switches)
    assert line in said
    assert said.startswith(
        ("fieldfit: tinycudann: expected this package and an", "fieldfit: nerfacc: expected this pac")
    )
    assert not (tmp_path / "run").exists()


def test_a_run_opened_without_the_library_says_what_is_missing(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_image(tmp_path / "data.png")
    run = tmp_path / "run"
    fieldfit("fit", data, "--out", run, *TCNN, *SMALL[2:], "--steps", "2")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.delitem(sys.modules, "tinycudann")
    for command in (("eval", run), ("render", run, "--out", "a.png"), ("fit", run, "--steps", "4"), ("info", run)):
        said = refused(capfd, *command)
        assert said.startswith(
            "fieldfit: tinycudann: expected this package and an NVIDIA GPU, found no package tinycud"
        )
        assert "; install it (pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/tor" in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_cpu_is_refused_where_the_gpu_is_needed(
    kernels: Kernels, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, run = write_ball(tmp_path / "ball"), tmp_path / "run"
    for switches, names in ((TCNN, "tiny-cuda-nn"), (NERFACC, "nerfacc"), (TCNN + NERFACC, "tiny-cuda-nn and nerfacc")):
        said = refused(capfd, "fit", data, "--out", run, *switches, "--device", "cpu")
        assert said == f"fieldfit: --device cpu: {names} computes on an NVIDIA GPU only; take --device cuda"
    assert not run.exists()
    fieldfit("fit", data, "--out", run, *TCNN, *NERFACC, *SMALL[2:], *COARSE, "--steps", "2")
    for command, *rest in (("fit", "--steps", "3"), ("eval",), ("render", "--out", "a.png")):
        assert "computes on an NVIDIA GPU only" in refused(capfd, command, run, "--device", "cpu", *rest)


@pytest.mark.parametrize(
    ("name", "cuda", "found"),
    [
        ("tinycudann", False, "no package tinycudann and no GPU that torch can use"),
        ("tinycudann", True, "no package tinycudann"),
        ("nerfacc", False, "no GPU that torch can use"),
        ("nerfacc", True, "no nvcc, with which it compiles its kernels on first use"),
    ],
)
def test_obstacles(name: Library, cuda: bool, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(gpu_libraries.shutil, "which", lambda name, **_: None)
    assert obstacle(name) == found
    with pytest.raises(InputError, match=f"^{name}: expected this package and an NVIDIA GPU, found {found}; "):
        library(name, "--network mlp")
    (line,) = [finding.value for finding in examine() if finding.what == name]
    assert line == f"optional; not usable: {found}"


def test_a_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tinycudann.py").write_text("raise OSError('built for compute capability 75,\\n not 90')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert obstacle("tinycudann") == "one that does not load (built for compute capability 75, not 90)"


def test_both_can_be_used_on_a_machine_that_has_them(kernels: Kernels) -> None:
    states = {finding.what: finding.value for finding in examine()}
    assert states["tinycudann"] == states["nerfacc"] == "optional; usable"


def test_networks_of_runs_from_before_there_was_a_choice_are_perceptrons() -> None:
    old = {"density": {"hidden_dim": 32}, "color": {"type": "TcnnMLP", "hidden_dim": 16}}
    config = from_json(RadianceFieldConfig, old, "config.json")
    assert (config.density, config.color) == (MLP(hidden_dim=32), TcnnMLP(hidden_dim=16))
