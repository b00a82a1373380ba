"""What people see of a capture in the browser: the field at rest and in motion, its channels, clips and photographs."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from chromium import LARGE, MOVING, Look, Served, changed, chromium, fit_toy, looking, psnr, serving, started
from PIL import Image
from playwright.sync_api import Browser
from program import Program
from tolerances import TWO_DIGITS, TYPED

from fields.crop import read_crop
from fields.run import Run
from scenes.box import Box


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def fieldfit(browser: Browser) -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def folder(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_toy(fieldfit, tmp_path_factory.getbasetemp() / "looking")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder, "view", "runs/toy", "--port", "0") as served:
        yield served


@pytest.fixture
def look(browser: Browser, served: Served) -> Iterator[Look]:
    with looking(browser, served.url) as look:
        yield look


def pictures(folder: Path) -> list[np.ndarray]:
    """All PNG files of a folder, by name."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


@pytest.fixture
def large(browser: Browser, served: Served) -> Iterator[Look]:
    with looking(browser, served.url, LARGE) as look:
        yield look


def test_the_picture_at_rest_is_what_the_field_renders(large: Look, fieldfit: Program, folder: Path, tmp_path: Path):
    look = large
    first = look.settled()
    assert look.status.startswith("956 x 720 in ")
    look.turn(150, 40)
    seen = look.settled(unlike=first)
    look.tab("Path")
    width, height = look.canvas
    for label, value in (("Width", width), ("Height", height), ("Seconds", 0.1)):
        look.write(label, value)
    for n in (1, 2):
        look.press("Add what I see as a keyframe")
        look.sees(f"{n} keyframes")
    path = look.download("Save camera_path.json")
    look.press("Remove all keyframes")
    done = fieldfit(folder, "render", "runs/toy", "--path", path, "--out", tmp_path / "frames")
    assert done.code == 0, done.stderr
    rendered = pictures(tmp_path / "frames")
    assert len(rendered) == 3  # of a path that stands still
    for one in rendered:
        assert psnr(seen, one) > 40


def test_a_drag_turns_the_proxy_and_the_field_comes_when_it_ends(look: Look):
    first = look.settled()
    look.turn(150, 40, until=lambda: look.status == MOVING)
    turned = look.settled(unlike=first)
    assert changed(turned, first) > 0.1
    look.press("Back to the first view")
    assert psnr(look.settled(unlike=turned), first) > 35


def test_the_page_shows_the_proxy_by_itself(look: Look, served: Served):
    """While the program stands still; then it takes it back, as nothing else will."""
    first = look.settled()
    look.turn(100, until=lambda: look.status == MOVING)  # the proxy is there
    still = look.settled(unlike=first)
    served.process.send_signal(signal.SIGSTOP)
    try:
        look.turn(150, until=lambda: changed(look.picture(), still) > 0.05)
        assert look.status != MOVING
        look.until(lambda: changed(look.picture(), still) == 0, "the picture that was there")
    finally:
        served.process.send_signal(signal.SIGCONT)
    assert changed(look.settled(unlike=still), still) > 0.05


def test_a_wheel_brings_it_nearer(look: Look):
    first = look.settled()
    width, height = look.canvas
    look.page.mouse.move(width / 2, height / 2)
    look.page.mouse.wheel(0, -600)
    nearer = look.settled(unlike=first)
    white = [float((picture.min(-1) > 250).mean()) for picture in (first, nearer)]
    assert white[1] < 0.8 * white[0]


def test_the_proxy_alone(look: Look):
    """With no field at rest the proxy stays, and looks like the field."""
    field = look.settled()
    look.turn(100, until=lambda: look.status == MOVING)  # the proxy is there
    field = look.settled(unlike=field)
    look.tick("Field at rest", on=False)
    look.until(lambda: look.status == MOVING, "the proxy")
    proxy = look.still(unlike=field)
    assert 12 < psnr(proxy, field) < 40
    look.turn(150)
    assert changed(look.still(unlike=proxy), proxy) > 0.05
    assert look.status == MOVING
    look.tick("Field at rest")
    look.settled(unlike=proxy)


def test_the_field_alone(look: Look):
    """Without a proxy, coarse pictures of the field come while it moves."""
    first = look.settled()
    look.turn(100, until=lambda: look.status == MOVING)
    first = look.settled(unlike=first)
    look.tick("Proxy while moving", on=False)
    said: set[str] = set()

    def coarse() -> bool:
        said.add(look.status)
        return any(re.fullmatch(r"moving: 1/\d+ of the resolution", line) for line in said)

    look.turn(100, until=coarse)
    look.settled(unlike=first)
    assert MOVING not in said


def test_every_channel_is_another_picture(look: Look):
    found = [look.settled()]
    channels = look.options("Channel")
    assert channels == ["colour", "depth", "normal", "opacity"]
    for channel in channels[1:]:
        look.choose("Channel", channel)
        picture = look.settled(unlike=found[-1])
        for other in found:
            assert changed(picture, other) > 0.05
        found.append(picture)
    opacity = found[-1].astype(int)
    assert (opacity.max(-1) - opacity.min(-1)).max() <= 2  # grey
    look.turn(200)  # there is no proxy of these
    look.settled(unlike=found[-1])


def test_another_background(look: Look):
    first = look.settled()
    look.write("Background", "rgb(20, 60, 200)")
    blue = look.settled(unlike=first)
    corner = blue[-40:, :40].reshape(-1, 3).mean(0)
    assert np.abs(corner - (20, 60, 200)).max() < 4


def test_near_and_far(look: Look):
    whole = look.settled()
    look.unfold("Clip")
    look.slide("Near, far", 0.42)
    near = look.settled(unlike=whole)
    look.slide("Near, far", 0.0)
    assert psnr(look.settled(unlike=near), whole) > 35
    look.slide("Near, far", 0.42, thumb=1)
    far = look.settled(unlike=whole)
    assert changed(near, far) > 0.05


def test_a_crop_is_kept_in_the_run_and_used_by_the_program(look: Look, fieldfit: Program, folder: Path, tmp_path: Path):
    whole = look.settled()
    run = folder / "runs" / "toy"
    look.unfold("Clip")
    look.tick("Crop")
    look.slide("Crop z", 0.5, thumb=1)
    cropped = look.settled(unlike=whole)
    assert not (run / "crop.json").exists()
    look.press("Keep the crop in the run")
    look.until((run / "crop.json").exists, "crop.json")
    crop = read_crop(run)
    assert crop is not None
    box = Box.from_json(Run.open(run).scene["box"])
    assert crop.lo == pytest.approx(box.lo, abs=TYPED.atol)
    assert crop.hi[:2] == pytest.approx(box.hi[:2], abs=TYPED.atol)
    assert box.lo[2] < crop.hi[2] < box.centre[2] + 0.1 * box.size[2]
    done = fieldfit(folder, "export", run, tmp_path / "part.ply", "--resolution", "48")
    assert done.code == 0, done.stderr
    mesh = trimesh.load_mesh(tmp_path / "part.ply")
    cell = crop.side / 48  # whole cells cover the crop, so the outermost may stand out by half of one
    assert (mesh.bounds[0] >= np.subtract(crop.lo, 0.5 * cell + 1e-4)).all()
    assert (mesh.bounds[1] <= np.add(crop.hi, 0.5 * cell + 1e-4)).all()
    assert mesh.bounds[1][2] == pytest.approx(crop.hi[2], abs=cell)  # cut through
    look.tick("Crop", on=False)
    look.settled(unlike=cropped)
    look.press("Keep the crop in the run")
    look.until(lambda: not (run / "crop.json").exists(), "no crop.json any more")


def test_what_is_drawn_around_the_field(look: Look):
    bare = look.settled()
    look.unfold("Around the field")
    for label in ("Box", "Occupancy"):
        look.tick(label)
        drawn = look.settled(unlike=bare)
        assert changed(drawn, bare) < 0.6  # the field is still there
        look.tick(label, on=False)
        assert psnr(look.settled(unlike=drawn), bare) > 35
    look.tab("Photographs")
    look.tick("Cameras: train (24)")
    look.settled(unlike=bare)


def test_looking_through_a_camera(look: Look, fieldfit: Program, folder: Path):
    """The PSNR of what is shown is that of `fieldfit eval`; ways to compare differ."""
    report = json.loads(fieldfit(folder, "eval", "runs/toy", "--json").stdout)
    first = look.settled()
    look.tab("Photographs")

    look.press("Look through this camera")
    expected = report["per_item"]["psnr"]
    said = look.sees(re.compile("over 100 x 100 pixels"))
    found = re.search(r"(\S+): ([0-9.]+) dB over 100 x 100 pixels", said)
    assert found is not None
    assert float(found[2]) == pytest.approx(
        dict(zip(report["names"], expected, strict=True))[found[1]], abs=TWO_DIGITS.atol
    )
    shown = [look.settled(unlike=first)]
    for style in ("difference", "photograph", "field"):
        look.choose("Compare by", style)
        shown.append(look.settled(unlike=shown[-1]))
    wiped, difference, photograph, field = shown
    assert psnr(photograph, field) > psnr(difference, field)
    middle = wiped.shape[1] // 2
    assert psnr(wiped[:, : middle - 4], photograph[:, : middle - 4]) > 45
    assert psnr(wiped[:, middle + 4 :], field[:, middle + 4 :]) > 45
    look.choose("Compare by", "wipe")
    look.settled(unlike=field)
    look.slide("Wipe", 1.0)
    assert psnr(look.settled(unlike=wiped), photograph) > 45
    look.turn(100)
    look.sees("The camera has moved on.")


# Several browsers, and none -------------------------------------------------------------------------------------------


def test_two_browsers_have_cameras_of_their_own(browser: Browser, look: Look, served: Served):
    before = look.settled()
    with looking(browser, served.url) as other:
        first = other.settled()
        assert psnr(first, before) > 45
        other.turn(200)
        other.settled(unlike=first)
        assert psnr(look.settled(), before) > 45
        other.choose("Channel", "depth")
        other.settled(unlike=first)
        assert psnr(look.settled(), before) > 45


def test_the_page_recovers_when_the_program_is_started_again(browser: Browser, folder: Path):
    arguments = ("view", "runs/toy", "--port", "0", "--no-data")
    with started(folder, *arguments) as served, looking(browser, served.url) as look:
        first = look.settled()
        assert served.interrupt() == 0
        before = look.panel()
        with serving(folder, "view", "runs/toy", "--port", served.port) as again:
            assert again.url == served.url
            look.until(lambda: look.panel() != before, "the panel of the program that came")
            assert psnr(look.settled(), first) > 45
            look.choose("Channel", "normal")
            normal = look.settled(unlike=first)
            look.turn(150)
            look.settled(unlike=normal)
