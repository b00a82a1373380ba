"""Keyframes and films, photographs held against fields, curves of a fit: what the panels of the viewer stand on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_rendering import lively
from tiny_captures import load
from tiny_runs import write_ball
from tolerances import EXACT, PATHS, POSES

from fields.fitting import Step
from viewer import read_camera_path, read_video
from viewer.live.desk import Desk, Urgency
from viewer.live.fitting import MOST_POINTS, Fitting
from viewer.live.path import Keyframes, film, resized, save_path
from viewer.live.photographs import Comparison, fitted, held_against, truth
from viewer.live.radiance import Radiance
from viewer.live.subject import Look
from viewer.paths import CameraPath

SIZE = (32, 24)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Radiance:
    capture = load(write_ball(tmp_path_factory.mktemp("ball") / "ball"))
    return Radiance(lively(), capture.describe() | {"unbounded": False})


def keyframes(subject: Radiance) -> Keyframes:
    found = Keyframes()
    found.add(subject.home, None)
    moved = subject.home.T_world_camera.clone()
    moved[0, 2, 3] += 1
    found.add(replace(subject.home, T_world_camera=moved), None)
    return found


def test_a_path_begins_and_ends_at_its_keyframes(subject: Radiance) -> None:
    frames = keyframes(subject).path(2.0, 10.0, SIZE, loop=False)
    assert frames is not None
    assert len(frames.cameras) == 20
    assert frames.cameras.size.unique(dim=0).tolist() == [list(SIZE)]
    PATHS.check(frames.cameras.T_world_camera[0], subject.home.T_world_camera[0])
    assert PATHS.allows(float(frames.cameras.position[-1, 2]), float(subject.home.position[0, 2]) + 1)


def test_keyframes_come_and_go(subject: Radiance) -> None:
    frames = keyframes(subject)
    frames.remove()
    assert frames.path(1.0, 10.0, SIZE, loop=False) is None
    frames.remove()
    frames.remove()
    assert frames.cameras == []


def test_another_size_keeps_the_vertical_field_of_view(subject: Radiance) -> None:
    other = resized(subject.home, (100, 50))

    def slope(cameras: object) -> float:
        return float(cameras.size[0, 1] / cameras.focal[0, 1])  # pyright: ignore[reportAttributeAccessIssue]

    assert POSES.allows(slope(other), slope(subject.home))
    assert other.centre.tolist() == [[50.0, 25.0]]


def test_a_saved_path_is_read_back(subject: Radiance, tmp_path: Path) -> None:
    path = keyframes(subject).path(1.0, 12.0, SIZE, loop=True)
    assert path is not None
    data = save_path(path, tmp_path / "camera_path.json")
    assert data == (tmp_path / "camera_path.json").read_bytes()
    found = read_camera_path(tmp_path / "camera_path.json")
    POSES.check(found.cameras.T_world_camera, path.cameras.T_world_camera)
    assert (found.fps, found.loop) == (12.0, True)


def short(subject: Radiance, n: int) -> CameraPath:
    path = keyframes(subject).path(n / 10, 10.0, SIZE, loop=False)
    assert path is not None
    return path


def test_a_film_is_rendered_bit_by_bit(subject: Radiance, tmp_path: Path) -> None:
    desk, shares, done = Desk(), [], []
    steps = film(subject, short(subject, 4), Look("depth"), tmp_path / "a.mp4", shares.append, lambda: done.append(1))
    desk.submit("film", steps, Urgency.ASKED)
    while desk.advance():
        pass
    frames = list(read_video(tmp_path / "a.mp4"))
    assert [frame.shape for frame in frames] == [(SIZE[1], SIZE[0], 3)] * 4
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert done == [1]


def test_a_film_that_is_stopped_leaves_nothing(subject: Radiance, tmp_path: Path) -> None:
    desk, shares, done = Desk(), [], []
    steps = film(subject, short(subject, 400), Look(), tmp_path / "a.mp4", shares.append, lambda: done.append(1))
    desk.submit("film", steps, Urgency.ASKED)
    while not shares:
        desk.advance()
    desk.drop("film")
    while desk.advance():
        pass
    for _ in range(600):
        if not list(tmp_path.iterdir()):
            break
        desk.wait(0.1)
    assert list(tmp_path.iterdir()) == []
    assert done == []


def test_a_photograph_is_held_against_the_field(tmp_path: Path) -> None:
    capture = load(write_ball(tmp_path / "ball"))
    camera = fitted(capture.cameras, 0, (48, 24))
    assert camera.size.tolist() == [[24, 24]]
    photograph, rgb = torch.zeros(24, 24, 3), torch.ones(24, 24, 3) * 0.5
    picture = held_against(photograph, rgb, Comparison(0, "wipe", 0.25), (48, 24))
    assert picture.shape == (24, 48, 3)
    assert picture[0, :, 0].tolist()[:12] == [255] * 12  # beside it
    assert picture[0, 12:17, 0].tolist() == [0] * 5
    assert picture[0, 19:36, 0].tolist() == [128] * 17
    assert held_against(photograph, rgb, Comparison(0, "photograph"), (24, 24)).max() == 0
    assert held_against(rgb, rgb, Comparison(0, "difference"), (24, 24)).max() == 0
    width, height = capture.cameras.size[0].tolist()
    EXACT.check(truth(capture, 0, (width, height)), capture.image(0)[0].view(height, width, 3))


def steps(n: int) -> Iterator[Step]:
    for i in range(n):
        loss = math.inf if i == 3 else 1 / (i + 1)
        yield Step(i + 1, (i + 1) / n, float(i), loss, float(i), 100, 0, {}, dict)


def test_curves_stay_short_and_keep_their_ends() -> None:
    fitting, n = Fitting(), 20 * MOST_POINTS
    for step in steps(n):
        fitting.took(step)
    seconds, loss, psnr = fitting.curves()
    assert MOST_POINTS // 2 <= len(seconds) <= MOST_POINTS
    assert bool((np.diff(seconds) > 0).all())
    assert seconds[-1] > 0.99 * n
    assert bool(np.isfinite(loss).all())
    np.testing.assert_allclose(psnr, seconds)
    assert fitting.index == n


def test_a_save_is_asked_for_once() -> None:
    fitting = Fitting()
    assert not fitting.take_save()
    fitting.save_asked = True
    assert [fitting.take_save(), fitting.take_save()] == [True, False]
