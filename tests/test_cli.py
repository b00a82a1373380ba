"""The command line as people run it, on tiny data."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_captures
import torch
import trimesh
from PIL import Image
from program import ROOT, Done, Program, assert_one_line, command, environment
from safetensors import safe_open
from tiny_runs import SMALL, WIDE, fit_each, write_ball, write_image, write_tetrahedron
from tolerances import EIGHT_BIT

from fields.run import Run
from viewer import orbit, read_video, write_camera_path

STEPS = ("--steps", "30", "--fit.batch", "1024")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def runs(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One fitted run of each kind; tests read them and never write there."""
    return fit_each(fieldfit, tmp_path_factory.mktemp("runs"))


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def folder(runs: dict[str, Path]) -> Path:
    """Where the data of the runs are."""
    return runs["image"].parent.parent


def test_help_is_a_table_of_commands_with_examples(fieldfit: Program, tmp_path: Path):
    started = time.perf_counter()
    process = subprocess.run(command("--help"), env=environment(), capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 1.5
    done = fieldfit(tmp_path, "--help")
    assert done.stdout == process.stdout
    for name in ("fit", "eval", "render", "export", "info", "doctor"):
        assert re.search(rf"^  {name} +\w", done.stdout, re.MULTILINE)
    assert "fieldfit fit demo" in done.stdout
    assert fieldfit(tmp_path).stdout == done.stdout


def test_fit_writes_a_run_and_prints_the_metrics(fieldfit: Program, runs: dict[str, Path]):
    for kind, metrics in {"image": ["psnr", "ssim"], "mesh": ["iou", "chamfer"], "capture": ["psnr", "ssim"]}.items():
        run, printed = runs[kind], (folder(runs) / f"{kind}.out").read_text()
        assert printed.startswith(f"runs/{run.name}: {kind}, ")
        files = {path.name for path in run.iterdir()}
        kept = {"config.json", "field.safetensors", "state.safetensors", "metrics.jsonl", "eval.json"}
        assert files == kept | {"renders", "exports"}
        results = json.loads((run / "eval.json").read_text())["results"]
        for metric in metrics:
            assert metric in results
            assert re.search(rf"^  {metric} +\d", printed, re.MULTILINE)


def test_progress_is_plain_lines_when_it_is_not_a_terminal(fieldfit: Program, tmp_path: Path):
    done = fieldfit(tmp_path, "fit", write_image(tmp_path / "a.png"), *STEPS, "--profile")
    lines = done.stderr.splitlines()
    assert re.fullmatch(r" *\d+%  step 1  ETA [\d:-]+  loss \S+  \S+ dB", lines[0])
    assert re.match(r"100%  step 30  ETA 0:00  loss \S+  \S+ dB  \S+ [kMG] samples/s$", lines[1])
    assert lines[2].split() == ["stage", "ms", "/", "step", "share"]
    assert {"forward", "backward"} <= {line.split()[0] for line in lines[3:]}
    assert lines[-1] == "the same over time: runs/a/profile.png"
    assert (tmp_path / "runs/a/profile.png").read_bytes().startswith(b"\x89PNG")
    assert "\x1b" not in done.stderr


def test_runs_get_numbers_and_never_overwrite(fieldfit: Program, tmp_path: Path):
    write_image(tmp_path / "a.png")
    for expected in ("a", "a-2", "a-3"):
        assert fieldfit(tmp_path, "fit", "a.png", "--steps", "2").stdout.startswith(f"runs/{expected}: ")
    resumed = fieldfit(tmp_path, "fit", "a.png", "--resume", "--steps", "3")
    assert resumed.stdout.startswith("runs/a-3: ")
    assert "step 3" in resumed.stderr
    finished = fieldfit(tmp_path, "fit", "runs/a-3")
    assert finished.code == 0
    assert finished.stderr == "step 3 was the last one already; fit longer with --steps or --minutes (in all)\n"
    assert_one_line(fieldfit(tmp_path, "fit", "a.png", "--out", "runs/a"), 1, "runs/a: holds a run already", "--resume")


def test_options_are_flat_and_in_any_order(fieldfit: Program, tmp_path: Path):
    write_image(tmp_path / "a.png")
    chosen = [
        "--fit.batch",
        "64",
        "--encoding",
        "dense",
        "--field.encoding.levels",
        "2",
        "--box",
        "-1",
        "-1",
        "-1",
        "1",
        "1",
        "1",
    ]
    done = fieldfit(tmp_path, "fit", *chosen, "a.png", "--seed=7", "--steps", "2", "--field.network.activation", "silu")
    assert done.code == 0, done.stderr
    content = json.loads((tmp_path / "runs" / "a" / "config.json").read_text())
    field, fit = content["config"]["field"], content["config"]["fit"]
    assert field["encoding"]["type"] == "Dense"
    assert (field["encoding"]["levels"], field["network"]["activation"]) == (2, "silu")
    assert (fit["batch"], fit["steps"], fit["minutes"], fit["seed"]) == (64, 2, None, 7)
    assert content["data"]["options"]["box"] == [-1, -1, -1, 1, 1, 1]


def test_help_of_fit_lists_the_options_of_the_preset(fieldfit: Program, tmp_path: Path):
    done = fieldfit(tmp_path, "fit", write_image(tmp_path / "a.png"), "--help")
    assert done.code == 0
    for option in ("--minutes", "--hold-out-every", "--field.encoding.levels", "--fit.batch"):
        assert option in done.stdout
    assert not (tmp_path / "runs").exists()


def test_eval_prints_json_with_names_definitions_and_seconds(fieldfit: Program, runs: dict[str, Path]):
    report = {}
    for kind, metrics in {"image": {"psnr", "ssim"}, "mesh": {"iou", "chamfer"}, "capture": {"psnr", "ssim"}}.items():
        report = json.loads(fieldfit(folder(runs), "eval", runs[kind], "--json").stdout)
        assert metrics <= report["results"].keys() == report["definitions"].keys()
        assert {"names", "background", "seconds", "split", "step", "run"} <= report.keys()
        stored = json.loads((runs[kind] / "eval.json").read_text())
        assert report["results"] == stored["results"], "evaluation is deterministic"
    assert report["names"] == ["test/r_0.png", "test/r_1.png"]
    assert report["background"] == "white"


def test_eval_takes_other_data_of_the_same_capture(fieldfit: Program, runs: dict[str, Path]):
    data = folder(runs) / "ball" / "transforms_train.json"
    report = json.loads(fieldfit(folder(runs), "eval", runs["capture"], "--data", data, "--json").stdout)
    own = json.loads(fieldfit(folder(runs), "eval", runs["capture"], "--split", "train", "--json").stdout)
    assert len(report["names"]) == 6
    assert report["results"] == own["results"]
    wrong = fieldfit(folder(runs), "eval", runs["capture"], "--data", "stripes.png")
    assert_one_line(wrong, 1, "stripes.png: kind image cannot be compared")


def test_render_of_an_image_is_the_field_at_pixel_centres(fieldfit: Program, runs: dict[str, Path], tmp_path: Path):
    assert fieldfit(tmp_path, "render", runs["image"], "--out", "a.png").code == 0
    seen = torch.from_numpy(picture(tmp_path / "a.png")).double() / 255
    height, width = WIDE.shape[:2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    unit = torch.stack([x, y + (width - height) / 2], -1) / width
    values = Run.open(runs["image"]).field()(unit.view(-1, 2))
    EIGHT_BIT.check(seen, values.detach().clamp(0, 1).view(height, width, 3))
    assert fieldfit(tmp_path, "render", runs["image"], "--out", "b.png", "--width", "9").code == 0
    assert picture(tmp_path / "b.png").shape == (6, 9, 3)


def test_render_of_the_test_views_is_what_eval_measures(fieldfit: Program, runs: dict[str, Path], tmp_path: Path):
    assert fieldfit(tmp_path, "render", runs["capture"], "--out", "views", "--path", "test").code == 0
    report = json.loads((runs["capture"] / "eval.json").read_text())
    for i, (name, psnr) in enumerate(zip(report["names"], report["per_item"]["psnr"], strict=True)):
        rgba = picture(folder(runs) / "ball" / name) / 255
        truth = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        render = picture(tmp_path / "views" / f"{i:05}.png") / 255
        error = float(np.sqrt(((truth - render) ** 2).mean()))
        assert EIGHT_BIT.allows(error, 10 ** (-psnr / 20)), "rounding moves an error by its own size at most"


def test_render_writes_films_and_single_pictures(fieldfit: Program, runs: dict[str, Path], tmp_path: Path):
    for kind in ("mesh", "capture"):
        done = fieldfit(
            tmp_path, "render", runs[kind], "--out", f"{kind}.mp4", "--frames", "3", "--width", "16", "--show", "depth"
        )
        assert done.code == 0, done.stderr
        assert done.stdout == f"{kind}.mp4: 3 pictures\n"
        frames = list(read_video(tmp_path / f"{kind}.mp4"))
        assert [frame.shape[1] for frame in frames] == [16] * 3
    path = orbit(Run.open(runs["mesh"]).scene, 2).resized(20)
    write_camera_path(tmp_path / "path.json", path)
    done = fieldfit(tmp_path, "render", runs["mesh"], "--path", "path.json", "--out", "frames", "--show", "normal")
    assert done.code == 0, done.stderr
    assert [picture(file).shape[1] for file in sorted((tmp_path / "frames").iterdir())] == [20, 20]


def test_export_is_in_the_users_coordinates(fieldfit: Program, runs: dict[str, Path], tmp_path: Path):
    done = fieldfit(tmp_path, "export", runs["mesh"], "a.ply", "--resolution", "24")
    assert done.code == 0, done.stderr
    mesh = trimesh.load_mesh(tmp_path / "a.ply")
    assert f"{len(mesh.faces):,} triangles, watertight" in done.stdout
    lo, hi = Run.open(runs["mesh"]).scene["box"]
    assert (mesh.bounds[0] >= np.array(lo) - 1e-6).all()
    assert (mesh.bounds[1] <= np.array(hi) + 1e-6).all()


def test_info_tells_what_runs_and_data_are(fieldfit: Program, runs: dict[str, Path], tmp_path: Path):
    for kind in ("image", "mesh", "capture"):
        done = fieldfit(tmp_path, "info", runs[kind])
        assert done.code == 0, done.stderr
        for word in (f"kind: +{kind}", "box: +", r"parameters: +\d", "steps: +60", "bytes: +", "held-out: +(psnr|iou)"):
            assert re.search(word, done.stdout)
    assert "6 train, 2 test; 12 x 12" in done.stdout
    assert (runs["capture"] / "renders" / "cameras.png").exists()
    done = fieldfit(tmp_path, "info", folder(runs) / "ball", "--picture", "frusta.png")
    assert done.stdout.splitlines()[-1].split() == ["picture:", "frusta.png"]
    assert picture(tmp_path / "frusta.png").std() > 1
    assert "3" in fieldfit(tmp_path, "info", folder(runs) / "stripes.png").stdout


def test_a_capture_without_held_out_views_is_fitted_but_not_evaluated(fieldfit: Program, tmp_path: Path):
    tiny_captures.write_transforms(tmp_path / "photos", tiny_captures.ring(3))
    done = fieldfit(tmp_path, "fit", "photos", "--hold-out-every", "0", *SMALL)
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("not evaluated: ")
    assert (tmp_path / "runs" / "photos" / "field.safetensors").exists()


def test_too_little_time_for_a_step_leaves_no_run(fieldfit: Program, tmp_path: Path):
    write_ball(tmp_path / "ball")
    done = fieldfit(tmp_path, "fit", "ball", "--minutes", "1e-30")
    assert done.code == 1
    assert done.stderr == ("fieldfit: runs/ball: 1e-30 minutes were over before the first step; give more --minutes\n")
    assert list((tmp_path / "runs").iterdir()) == []


def test_demo_shows_truth_beside_render_and_depth(fieldfit: Program, tmp_path: Path):
    done = fieldfit(tmp_path, "fit", "demo", "--downscale", "5", *SMALL)
    assert done.code == 0, done.stderr
    assert re.search(r"^  psnr +\d+\.\d\d dB", done.stdout, re.MULTILINE)
    path = Path(done.stdout.splitlines()[-1].rpartition(" ")[2])
    assert path == Path("runs/demo/renders/comparison.png")
    height, width, _ = picture(tmp_path / path).shape
    assert width > 4 * 40
    assert height > 40
    (made,) = (tmp_path / "cache" / "fieldfit").iterdir()
    assert (made / "transforms_train.json").exists()


def test_doctor_names_what_it_found(fieldfit: Program, tmp_path: Path):
    done = fieldfit(tmp_path, "doctor")
    assert done.code == 0
    for word in ("python:", "torch 2.", "cores:", "CPU kernels:", "memory:", "GPU:", "nerfacc"):
        assert word in done.stdout
    assert "! cores: OMP_NUM_THREADS=1" in done.stdout or len(os.sched_getaffinity(0)) == 1


@pytest.mark.parametrize(("asked", "found"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_threads_that_wait_leave_the_cores_to_others(asked: str | None, found: str, tmp_path: Path):
    """As OpenMP itself tells; two fits at once are several times slower where they do not."""
    surroundings = environment() | {"OMP_DISPLAY_ENV": "true", "OMP_WAIT_POLICY": asked or ""}
    if asked is None:
        del surroundings["OMP_WAIT_POLICY"]
    done = subprocess.run(command("doctor"), cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"OMP_WAIT_POLICY = '{found}'" in done.stderr


# Stopping and going on ------------------------------------------------------------------------------------------------


@contextmanager
def started_fit(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A fit, in a process of its own, that has done its first step."""
    line = command("fit", *arguments)
    with subprocess.Popen(line, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "step 1 " in process.stderr.readline()
        yield process


@pytest.mark.parametrize(
    ("write", "steps", "number", "code"),
    [(write_image, "100", signal.SIGINT, 130), (write_ball, "60", signal.SIGTERM, 143)],
    ids=["image", "capture"],
)
def test_a_stopped_fit_saves_and_resumes_to_the_bits_of_a_straight_one(
    fieldfit: Program, tmp_path: Path, write: Callable[[Path], Path], steps: str, number: signal.Signals, code: int
):
    data = write(tmp_path / "data.png")
    options = (*SMALL, "--fit.batch", "16384", "--steps", steps)
    with started_fit(tmp_path, data, *options, "--out", "stopped") as process:
        process.send_signal(number)
        assert process.wait(5) == code
    stopped = json.loads((tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 1 <= stopped < int(steps)
    assert fieldfit(tmp_path, "fit", "stopped", "--resume").code == 0
    assert fieldfit(tmp_path, "fit", data, *options, "--out", "straight").code == 0
    headers = []
    for name in ("stopped", "straight"):
        with safe_open(tmp_path / name / "field.safetensors", "pt") as file:
            headers.append(file.metadata())
    assert headers[0]["step"] == steps
    assert headers[0]["sha256"] == headers[1]["sha256"]


def test_a_second_ctrl_c_ends_the_program_at_once():
    program = (
        "import sys, time\nfrom fields.commands.stopping import StopSignals\n"
        "with StopSignals() as stop:\n"
        "    print('ready', flush=True)\n"
        "    while not stop.received: time.sleep(0.01)\n"
        "    print('noted', flush=True)\n"
        "    time.sleep(60)"
    )
    line = [sys.executable, "-c", program]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for expected in ("ready\n", "noted\n"):
            assert process.stdout.readline() == expected
            process.send_signal(signal.SIGINT)
        assert process.wait(5) == -signal.SIGINT


def test_a_full_disk_leaves_the_run_as_it_was(fieldfit: Program, tmp_path: Path):
    write_image(tmp_path / "a.png")
    new = fieldfit(tmp_path, "fit", "a.png", *STEPS, file_limit=5000)
    assert new.code == 1
    assert new.stderr.splitlines()[-1].startswith(
        "fieldfit: runs/a: step 30 could not be saved (File too large); nothing"
    )
    assert not (tmp_path / "runs" / "a").exists()
    assert fieldfit(tmp_path, "fit", "a.png", *STEPS).code == 0
    saved = (tmp_path / "runs" / "a" / "state.safetensors").read_bytes()
    again = fieldfit(tmp_path, "fit", "runs/a", "--steps", "40", file_limit=5000)
    assert again.code == 1
    assert again.stderr.splitlines()[-1].startswith("fieldfit: runs/a: step 40 could not be saved")
    assert "the save of step 30 is intact" in again.stderr
    assert (tmp_path / "runs" / "a" / "state.safetensors").read_bytes() == saved


def test_an_open_mesh_works_with_a_warning(fieldfit: Program, tmp_path: Path):
    done = fieldfit(tmp_path, "fit", write_tetrahedron(tmp_path / "open.obj", "1 3 2\n1 4 3\n1 2 4"), *SMALL)
    assert done.code == 0, done.stderr
    assert re.match(r"fieldfit: warning: \S*open.obj: .+\n", done.stderr)


def test_an_unexpected_error_keeps_its_traceback_for_debug(tmp_path: Path):
    program = (
        "import sys, fields.doctor\nfrom fields.cli import main\n"
        "def examine(): raise ZeroDivisionError('oh')\nfields.doctor.examine = examine\nsys.exit(main())"
    )
    line = [sys.executable, "-c", program, "doctor"]
    plain = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    told = Done(plain.returncode, plain.stdout, plain.stderr)
    assert_one_line(told, 1, "unexpected ZeroDivisionError: oh; run it again with --debug")
    debug = subprocess.run([*line, "--debug"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert "ZeroDivisionError: oh" in debug.stderr
