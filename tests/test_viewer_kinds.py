"""Images, films, meshes and captures that move in the browser, and a fit that is looked at while it runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Look, changed, chromium, looking, psnr, serving, started, wait_until
from moving import moving_ball, views
from PIL import Image
from playwright.sync_api import Browser
from program import Program
from tiny_captures import write_dynamic
from tiny_clips import disc, write_lossless

from fields.run import Run
from scenes.demo import write_demo, write_demo_mesh
from viewer.live.window import Window
from viewer.serving import Door

TINY = (600, 300)
"""Of a window, for what takes long."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def fieldfit(browser: Browser) -> Iterator[Program]:
    with Program() as program:
        yield program


def fitted(fieldfit: Program, data: Path, steps: int) -> Path:
    """The run of some data."""
    done = fieldfit(data.parent, "fit", data.name, "--steps", steps, "--fit.batch", "16384")
    assert done.code == 0, done.stderr
    return data.parent / "runs" / data.stem


def checks(height: int, width: int) -> np.ndarray:
    """[H, W, 3] bytes: red squares of 12 pixels, over green that grows downward and blue to the right."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * ((x // 12 + y // 12) % 2), 255 * y // height, 255 * x // width], -1).astype(np.uint8)


def borders(picture: np.ndarray) -> int:
    """Of squares, along the middle row."""
    red = picture[len(picture) // 2, :, 0] > 128
    return int((red[1:] != red[:-1]).sum())


def test_an_image(browser: Browser, fieldfit: Program, tmp_path: Path):
    Image.fromarray(checks(66, 44)).save(tmp_path / "checks.png")
    run = fitted(fieldfit, tmp_path / "checks.png", 200)
    with serving(tmp_path, "view", run, "--port", "0") as served, looking(browser, served.url) as look:
        whole = look.settled()
        assert (whole[[4, -4]].min() > 235) and (whole[:, [4, -12]].min() > 235)  # all of it is seen
        look.until(lambda: look.options("Channel") == ["colour", "original", "difference"], "the original is there")
        look.choose("Channel", "original")
        look.until(lambda: not np.array_equal(look.settled(), whole), "the original")
        original = look.settled()
        assert psnr(original, whole) > 25
        look.choose("Channel", "difference")
        difference = look.settled(unlike=original)
        width, height = look.canvas
        assert np.median(difference[height // 4 : -height // 4, width // 3 : -width // 3]) < 32
        look.choose("Channel", "colour")
        look.settled(unlike=difference)
        assert borders(whole) >= 3
        look.page.mouse.move(width / 2, height / 2)
        look.page.mouse.wheel(0, -1500)
        nearer = look.settled(unlike=whole)
        assert 1 <= borders(nearer) < borders(whole)
        look.page.mouse.down(button="right")
        look.page.mouse.move(width / 2 + 80, height / 2 + 40, steps=5)
        look.page.mouse.up(button="right")
        look.settled(unlike=nearer)


@pytest.mark.filterwarnings("ignore:.control_layout. is deprecated:DeprecationWarning")  # in viser of today
def test_no_coarse_picture_comes_after_the_one_at_rest(
    browser: Browser, fieldfit: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two changes, the second while the first one's coarse picture stands, which here is for longer than rest takes."""
    monkeypatch.setattr("viewer.live.session.FIRST_STANDS", 1.5)
    run = Run.open(fitted(fieldfit, write_lossless(tmp_path / "disc.mkv", disc()), 50))
    window = Window(run, run.field(), Door(port=0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            window.serve(0.2)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with looking(browser, window.served.url) as look:
            first = look.settled()
            for frame in (4, 8):
                look.write("Frame", frame)
            last = look.settled(unlike=first)
            look.page.wait_for_timeout(2500)
            assert np.array_equal(look.settled(), last)
    finally:
        ended.set()
        thread.join()
        window.close()


def test_a_film(browser: Browser, fieldfit: Program, tmp_path: Path):
    """The disc moves from left to right."""
    run = fitted(fieldfit, write_lossless(tmp_path / "disc.mkv", disc()), 200)
    with serving(tmp_path, "view", run, "--port", "0", "--no-data") as served, looking(browser, served.url) as look:
        first = look.settled()
        look.slide("Frame", 1.0)
        last = look.settled(unlike=first)
        middle = first.shape[1] // 2
        red = [[float(half[..., 0].mean()) for half in (seen[:, :middle], seen[:, middle:])] for seen in (first, last)]
        assert red[0][0] > red[0][1] and red[1][0] < red[1][1]
        look.write("Frame", 0)
        assert psnr(look.settled(unlike=last), first) > 40
        look.tick("Play")
        look.until(lambda: int(look.control("Frame").input_value()) > 6, "half of the film is over")
        look.tick("Play", on=False)
        stopped, frame = look.settled(), int(look.control("Frame").input_value())
        look.write("Frame", 4 if frame == 8 else 8)
        other = look.settled(unlike=stopped)
        look.write("Frame", frame)
        assert psnr(look.settled(unlike=other), stopped) > 40


def test_a_mesh(browser: Browser, fieldfit: Program, tmp_path: Path):
    write_demo_mesh(tmp_path / "knot.obj")
    run = fitted(fieldfit, tmp_path / "knot.obj", 200)
    with serving(tmp_path, "view", run, "--port", "0") as served, looking(browser, served.url, TINY) as look:
        shaded = look.settled()
        look.choose("Channel", "slice")
        at_middle = look.settled(unlike=shaded)
        look.choose("Slice across", "x")
        look.slide("Slice at", 0.3)
        elsewhere = look.settled(unlike=at_middle)
        look.choose("Channel", "normal")
        normal = look.settled(unlike=elsewhere)
        look.unfold("Around the field")
        look.until(lambda: look.control("Original mesh beside").is_enabled(), "the original is loaded")
        look.tick("Original mesh beside")
        beside = look.settled(unlike=normal)
        right = beside.shape[1] * 3 // 4
        assert changed(beside[:, right:], normal[:, right:]) > 0.05
        look.tick("Original mesh beside", on=False)
        look.write("Mesh resolution", 48)
        look.tick("Mesh of the field")
        said = look.sees(re.compile("a mesh of [0-9,]+ vertices and [0-9,]+ triangles"))
        assert int(said.split()[3].replace(",", "")) > 500
        mesh = look.still(unlike=normal)
        look.turn(100)
        look.still(unlike=mesh)


def test_a_capture_that_moves(browser: Browser, fieldfit: Program, tmp_path: Path):
    """A ball goes along x, so it is elsewhere at another time."""
    write_dynamic(tmp_path / "ball", {"train": views(24), "test": views(6)}, moving_ball, (24, 24))
    run = fitted(fieldfit, tmp_path / "ball", 150)
    with serving(tmp_path, "view", run, "--port", "0") as served, looking(browser, served.url, TINY) as look:
        first = look.settled()
        look.slide("Time", 1.0)
        last = look.settled(unlike=first)
        assert np.abs(np.subtract(centre(first), centre(last))).max() > 40


def centre(picture: np.ndarray) -> np.ndarray:
    """(row, column) of what is red."""
    red = (picture[..., 0] > 150) & (picture[..., 1:].max(-1) < 130)
    assert red.sum() > 100
    return np.argwhere(red).mean(0)


# A fit that is looked at ----------------------------------------------------------------------------------------------


def step_of(look: Look) -> int:
    """As the panel says."""
    found = re.search(r"step ([0-9,]+),", look.sees(re.compile("step [0-9,]+")))
    assert found is not None
    return int(found[1].replace(",", ""))


def test_a_fit_is_paused_saved_and_stopped(browser: Browser, tmp_path: Path):
    write_demo(tmp_path / "toy", size=100, n_train=24)
    run = tmp_path / "runs" / "toy"
    arguments = ("fit", "toy", "--view", "--port", "0", "--steps", "100000")
    with started(tmp_path, *arguments) as served, looking(browser, served.url, TINY) as look:
        look.tab("Fit")
        before = step_of(look)
        look.until(lambda: step_of(look) > before, "another step")
        look.press("Pause")
        look.sees("paused")
        paused = step_of(look)
        logged = (run / "metrics.jsonl").read_bytes()
        assert not (run / "field.safetensors").exists()
        look.press("Save now")
        look.until((run / "field.safetensors").exists, "a checkpoint")
        assert Run.open(run).step() == paused
        first = look.settled()
        look.turn(150)
        turned = look.settled(unlike=first)
        assert (step_of(look), (run / "metrics.jsonl").read_bytes()) == (paused, logged)
        look.press("Resume")
        look.until(lambda: step_of(look) > paused, "another step")
        look.press("Save now")
        look.until(lambda: Run.open(run).step() > paused, "another checkpoint")
        saved = Run.open(run).step()
        look.settled(unlike=turned)  # the field is another one by now
        assert served.interrupt() == 130
        assert "stopped and saved; go on with: fieldfit fit runs/toy --resume" in served.out.read_text()
        assert "Traceback" not in served.said()
        assert Run.open(run).step() > saved


def test_a_fit_that_is_over_can_still_be_looked_at(browser: Browser, tmp_path: Path):
    Image.fromarray(checks(48, 48)).save(tmp_path / "checks.png")
    arguments = ("fit", "checks.png", "--view", "--port", "0", "--steps", "100", "--fit.batch", "16384")
    with started(tmp_path, *arguments) as served:
        wait_until(lambda: "Ctrl-C ends the viewer" in served.out.read_text(), "the fit is over")
        with looking(browser, served.url) as look:
            look.tab("Fit")
            look.sees("done 100%, step 100")
            fitted = look.settled()
            assert (fitted.max(-1).astype(int) - fitted.min(-1) > 100).mean() > 0.2  # colours
            assert not look.page.get_by_role("button", name="Pause").is_enabled()
        assert served.interrupt() == 0
        assert "Traceback" not in served.said()
        assert Run.open(tmp_path / "runs" / "checks").step() == 100
