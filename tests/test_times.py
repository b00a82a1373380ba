"""Captures whose photographs have times: how they are loaded, fitted and shown by the program; the moving toy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from moving import moving_ball, moving_capture, views, where
from program import Program
from tiny_captures import load, names_of, ring, sky, write_dynamic, write_json, write_transforms
from tolerances import VALUES

from fields.dynamics import Deformation, Static
from fields.presets import preset, with_dynamics
from scenes import Capture, InputError, LoadOptions
from scenes.demo import write_dynamic_demo
from scenes.demo_motion import moving_toy
from scenes.demo_render import FAR


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return moving_capture(tmp_path_factory.mktemp("moving"))


# Data.


def test_times_of_dnerf_are_loaded_and_carried_by_rays(capture: Capture):
    assert capture.times is not None
    expected = [t for _, t in views(24)] + [t for _, t in views(6)]
    VALUES.check(capture.times, torch.tensor(expected, dtype=torch.float64))
    rays, _ = capture.sample(500, torch.Generator().manual_seed(0))
    assert rays.time is not None
    at = (rays.origins[:, None] - capture.cameras.position).norm(dim=-1)
    nearest = (at < 1e-5) & (capture.times == rays.time[:, None])
    assert bool(nearest[:, :24].any(1).all()), "each ray has its camera's time"
    test = capture.views["test"][2]
    of_view = capture.image_rays(test).time
    assert of_view is not None
    assert set(of_view.tolist()) == {float(capture.times[test])}
    assert rays[:7].to("cpu").time is not None
    described = capture.describe()
    assert described["dynamic"] is True
    assert described["time_span"] == [0.0, 1.0]


def test_times_in_seconds_are_spread_over_the_unit_interval(tmp_path: Path):
    seconds = [10.0, 14.0, 12.0, 11.0]
    poses = ring(4)
    folder = write_dynamic(
        tmp_path, {"train": [(poses[i], seconds[i]) for i in range(3)], "test": [(poses[3], seconds[3])]}, moving_ball
    )
    capture = load(folder)
    assert capture.times is not None
    assert capture.times.tolist() == [0.0, 1.0, 0.5, 0.25]
    assert capture.describe()["time_span"] == [10.0, 14.0]


def test_a_capture_of_one_time_does_not_move(tmp_path: Path):
    poses = ring(4)
    capture = load(write_dynamic(tmp_path, {"train": [(pose, 7.0) for pose in poses]}, moving_ball))
    assert capture.describe()["dynamic"] is False
    assert preset(capture).field == preset(replace(capture, cameras=replace(capture.cameras, time=None))).field


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, None, 1.0], r"transforms_train.json: frames\[1\]: whether there is a time differs from"),
        ([0.0, "noon", 1.0], r'frames\[1\].time: expected a number, got "noon"'),
        ([0.0, [0.5], 1.0], r"frames\[1\].time: expected a number, got a list of 1"),
        ([0.0, True, 1.0], r"frames\[1\].time: expected a number, got true"),
        ([0.0, float("nan"), 1.0], r"frames\[1\].time: expected a finite number, got NaN"),
    ],
)
def test_bad_times_are_one_line(tmp_path: Path, times: list[object], message: str):
    poses = ring(3)
    write_dynamic(tmp_path, {"train": list(zip(poses, times, strict=True))}, moving_ball)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("every", "expected"), [(4, [2, 6, 10]), (8, [4]), (100, [6]), (0, [])])
def test_monocular_views_are_held_out_by_time(tmp_path: Path, every: int, expected: list[int]):
    """Names are in another order than times; each time held out lies between others."""
    times = [(5 * i) % 12 / 11 for i in range(12)]
    path = write_transforms(tmp_path, ring(12), sky)
    data = json.loads(path.read_text())
    for entry, time in zip(data["frames"], times, strict=True):
        entry["time"] = time
    write_json(path, data)
    capture = load(path, LoadOptions(hold_out_every=every))
    held = sorted(times.index(t / 11) for t in expected)
    assert sorted(names_of(capture)["test"]) == [f"images/{i:03}.png" for i in held]
    assert len(capture.views["train"]) == 12 - len(expected)


def test_all_views_of_a_time_are_held_out_together(tmp_path: Path):
    """Of three cameras at four times each, no time held out is seen in training."""
    path = write_transforms(tmp_path, ring(12), sky)
    data = json.loads(path.read_text())
    for i, entry in enumerate(data["frames"]):
        entry["time"] = i % 4 / 3
    write_json(path, data)
    capture = load(path, LoadOptions(hold_out_every=4))
    assert capture.times is not None
    assert len(capture.views["test"]) == 3
    assert not set(capture.times[capture.views["test"]].tolist()) & set(
        capture.times[: len(capture.views["train"])].tolist()
    )


def test_the_box_of_a_moving_object_holds_it_at_all_times(capture: Capture):
    """A visual hull of all silhouettes together would be empty."""
    assert not capture.unbounded
    lo, hi = np.array(capture.box.lo), np.array(capture.box.hi)
    for time in (0.0, 1.0):
        assert (np.array(where(time)) - 0.5 >= lo).all()
        assert (np.array(where(time)) + 0.5 <= hi).all()
    assert capture.box.side < 5.5, "3.4 would do"


# The command line.


FITTED = ("--steps", "30", "--fit.batch", "2048", "--field.encoding.log2-table-size", "10")
FITTED += ("--field.encoding.finest-resolution", "32", "--field.occupancy.resolution", "32")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def run(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_dynamic(folder / "moving", {"train": views(12), "test": views(3)}, moving_ball, (12, 12))
    done = fieldfit(
        folder, "fit", "moving", "--dynamics", "time-features", "--field.dynamics.n-frequencies", "2", *FITTED
    )
    assert done.code == 0, done.stderr
    return folder / "runs" / "moving"


def test_a_run_says_that_it_is_dynamic(run: Path):
    content = json.loads((run / "config.json").read_text())
    assert content["config"]["field"]["dynamics"] == {"type": "TimeFeatures", "n_frequencies": 2}
    assert content["scene"]["dynamic"] is True
    assert json.loads((run / "eval.json").read_text())["results"]["psnr"] > 5
    assert (run / "renders" / "comparison.png").exists()


def test_films_sweep_through_time_or_stand_still(fieldfit: Program, run: Path):
    """From one place, frames differ by their time alone; with --time they do not differ."""
    path = run.parent / "path.json"
    matrix = np.array(ring(3)[0]).reshape(-1).tolist()
    frames = [{"camera_to_world": matrix, "fov": 50.0, "aspect": 1.0}] * 3
    write_json(path, {"render_width": 12, "render_height": 12, "fps": 3, "seconds": 1, "camera_path": frames})
    for name, extra in (("sweep", ()), ("still", ("--time", "0.5"))):
        done = fieldfit(run.parent, "render", run, "--out", run.parent / name, "--path", path, *extra)
        assert done.code == 0, done.stderr
    swept, still = ([p.read_bytes() for p in sorted((run.parent / n).glob("*.png"))] for n in ("sweep", "still"))
    assert len(set(swept)) == 3
    assert len(set(still)) == 1
    done = fieldfit(run.parent, "render", run, "--out", run.parent / "orbit.mp4", "--frames", "3", "--width", "16")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("render", "RUN", "--out", "o.png", "--time", "1.5"), "--time: expected a number from 0 to 1, got 1.5"),
        (("export", "RUN", "o.ply", "--time", "-1"), "--time: expected a number from 0 to 1, got -1"),
        (("fit", "RUN", "--resume", "--dynamics", "deformation"), "--dynamics are fixed once a run exists"),
        (("fit", "moving", "--dynamics", "wobble"), "--dynamics wobble: expected one of static, time-features"),
    ],
)
def test_what_cannot_be_done_is_one_line(fieldfit: Program, run: Path, command: tuple[str, ...], message: str):
    done = fieldfit(run.parent.parent, *[run if part == "RUN" else part for part in command])
    assert done.code != 0
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_other_data_need_the_same_times(fieldfit: Program, run: Path):
    views_in_seconds = [(ring(3)[0], 3.0), (ring(3)[1], 4.0)]
    folder = write_dynamic(run.parent.parent / "seconds", {"train": views_in_seconds}, moving_ball, (12, 12))
    done = fieldfit(run.parent.parent, "eval", run, "--data", folder / "transforms_train.json")
    assert done.code != 0
    assert "times: expected those of" in done.stderr
    assert "0 to 1, got 3 to 4" in done.stderr


# The built-in capture.


def test_the_moving_toy_keeps_within_the_bounds_of_the_still_one():
    rest = np.array([solid.shape.bounds() for solid in moving_toy(0.0)])
    for time in np.linspace(0, 1, 5):
        bounds = np.array([solid.shape.bounds() for solid in moving_toy(float(time))])
        assert np.hypot(*np.abs(bounds[..., :2]).max(1).max(0)) < 1.7
        assert bounds[:, 0, 2].min() >= -0.121
        assert bounds[:, 1, 2].max() < 1.3
        if 0 < time < 1:
            assert np.abs(bounds - rest).max() > 0.05, "something moves"


def test_moved_shapes_are_met_where_they_are():
    """A ray along +y through the hopping ball's middle enters a radius before it."""
    for time in (0.1, 0.35, 0.8):
        solid = next(s for s in moving_toy(time) if s.gloss == 120 and s.shine == 0.7 and _is_ball(s.shape.bounds()))
        lo, hi = solid.shape.bounds()
        middle = ((lo + hi) / 2).astype(np.float32)
        origin = (middle - np.array([0, 3, 0], np.float32))[None]
        t = solid.shape.enter(origin, np.array([[0, 1, 0]], np.float32))
        assert t[0] < FAR
        VALUES.check(torch.from_numpy(t), torch.tensor([3 - 0.17]))
        point = (origin + t[:, None] * np.array([[0, 1, 0]], np.float32)).astype(np.float32)
        VALUES.check(torch.from_numpy(solid.shape.normal(point)), torch.tensor([[0.0, -1.0, 0.0]]))


def _is_ball(bounds: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether these may be the bounds of a turned ball of radius 0.17: a cube's, grown by turning."""
    size = bounds[1] - bounds[0]
    return bool(np.isclose(size[1], 0.34))


def test_the_dynamic_demo_is_in_the_layout_of_dnerf(tmp_path: Path):
    write_dynamic_demo(tmp_path, size=16, n_train=3)
    times = {}
    for split, n in (("train", 3), ("val", 2), ("test", 6)):
        frames = json.loads((tmp_path / f"transforms_{split}.json").read_text())["frames"]
        assert len(frames) == n
        times[split] = {entry["time"] for entry in frames}
        assert len(times[split]) == n
        assert all(0 <= time <= 1 for time in times[split])
    assert not times["test"] & times["train"], "test views are of unseen times"
    capture = load(tmp_path)
    assert capture.is_dynamic
    assert preset(capture).field.dynamics != Static()  # pyright: ignore
    assert with_dynamics(preset(capture), "deformation").field.dynamics == Deformation()  # pyright: ignore
    assert capture.box.side > 2.2
    assert capture.box.side < 3.5
