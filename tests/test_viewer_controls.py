"""What people take from the viewer: paths, films, meshes, points and screenshots, by the buttons of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from chromium import Look, Served, chromium, fit_toy, looking, psnr, serving
from PIL import Image
from playwright.sync_api import Browser
from program import Program
from tolerances import PATHS

from fields.run import Run
from scenes.box import Box
from viewer import orbit, read_camera_path, read_video


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
def run(folder: Path) -> Path:
    return folder / "runs" / "toy"


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder, "view", "runs/toy", "--port", "0") as served:
        yield served


@pytest.fixture
def look(browser: Browser, served: Served) -> Iterator[Look]:
    with looking(browser, served.url) as look:
        yield look


@pytest.fixture
def two(look: Look) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What is seen from two keyframes, that which is seen now the last; afterwards there are none."""
    first = look.settled()
    look.tab("Path")
    look.press("Add what I see as a keyframe")
    look.sees("1 keyframes")
    look.turn(150, 30)
    turned = look.settled(unlike=first)
    look.press("Add what I see as a keyframe")
    look.sees("2 keyframes")
    yield first, turned
    look.press("Remove all keyframes")
    look.sees("0 keyframes")


def ask(look: Look, **values: object) -> None:
    """Say what the path is to be."""
    for label, value in values.items():
        look.write(label.replace("_", " ").capitalize(), value)


def test_a_path_is_saved_and_its_film_rendered(
    look: Look, two: tuple[np.ndarray, np.ndarray], fieldfit: Program, folder: Path, run: Path, tmp_path: Path
):
    ask(look, seconds=0.6, frames_a_second=10, width=160, height=120)
    saved = look.download("Save camera_path.json")
    path = read_camera_path(saved)
    assert len(path.cameras) == 6
    assert (path.fps, path.loop, path.cameras.size[0].tolist()) == (10, False, [160, 120])
    PATHS.check(path.cameras.T_world_camera[0], orbit(Run.open(run).scene, 8).cameras.T_world_camera[0])
    assert saved.read_bytes() == (run / "camera_path.json").read_bytes()
    film = list(read_video(look.download("Render the film (mp4)")))
    assert (len(film), film[0].shape) == (6, (120, 160, 3))
    look.sees("6 frames")
    done = fieldfit(folder, "render", run, "--path", saved, "--out", tmp_path / "frames")
    assert done.code == 0, done.stderr
    for frame, path in zip(film, sorted((tmp_path / "frames").iterdir()), strict=True):
        assert psnr(np.asarray(frame), np.asarray(Image.open(path))) > 25


def test_a_path_is_previewed(look: Look, two: tuple[np.ndarray, np.ndarray]):
    _, turned = two
    look.tab("View")
    look.press("Back to the first view")
    back = look.settled(unlike=turned)
    look.tab("Path")
    ask(look, seconds=1)
    look.press("Preview")
    look.settled(unlike=back)
    look.until(lambda: psnr(look.settled(), turned) > 25, "the last keyframe")


def test_a_film_that_is_stopped_leaves_nothing(look: Look, two: tuple[np.ndarray, np.ndarray], run: Path):
    (run / "renders" / "viewer.mp4").unlink(missing_ok=True)
    before = sorted(run.rglob("*"))
    ask(look, seconds=60, width=96, height=72)
    look.press("Render the film (mp4)")
    look.until(lambda: sorted(run.rglob("*")) != before, "a film that is written")
    look.press("Stop rendering")
    look.until(lambda: look.page.get_by_role("button", name="Render the film (mp4)").is_enabled(), "it can begin again")
    look.until(lambda: sorted(run.rglob("*")) == before, "nothing of the film")


def test_a_path_without_keyframes_is_an_orbit(look: Look):
    look.settled()
    look.tab("Path")
    look.sees("0 keyframes: the path is an orbit until there are two")
    ask(look, seconds=0.5, frames_a_second=24, width=320)
    path = read_camera_path(look.download("Save camera_path.json"))
    assert len(path.cameras) == 12
    assert path.cameras.size[0, 0] == 320
    away = path.cameras.position.norm(dim=-1)
    assert float(away.max() - away.min()) < 0.1 * float(away.max())


def test_keyframes_are_there_after_a_reload(look: Look, two: tuple[np.ndarray, np.ndarray]):
    look.page.reload()
    look.settled()
    look.tab("Path")
    look.sees("2 keyframes")
    look.press("Remove the last keyframe")
    look.sees("1 keyframes")


def inside(points: np.ndarray, box: Box, slack: float) -> bool:
    """Whether all points lie in a box; whole cells cover it, so a mesh may stand out by half of one."""
    return bool((points >= np.subtract(box.lo, slack)).all() and (points <= np.add(box.hi, slack)).all())


def test_a_mesh_and_one_of_a_part(look: Look, run: Path):
    whole = look.settled()
    box = Box.from_json(Run.open(run).scene["box"])
    look.tab("Export")
    look.write("Mesh resolution", 32)
    path = look.download("Export the mesh")
    assert path.suffix == ".glb"
    mesh = trimesh.load_mesh(path)
    look.sees(f"{len(mesh.faces):,} triangles")
    assert inside(mesh.vertices, box, 0.51 * box.side / 32)
    assert (mesh.extents > 0.5 * np.array(box.size)).all()
    look.tab("View")
    look.unfold("Clip")
    look.tick("Crop")
    look.slide("Crop x", 0.5)
    look.settled(unlike=whole)
    look.tab("Export")
    look.choose("Mesh format", ".ply")
    path = look.download("Export the mesh")
    assert path.suffix == ".ply"
    half = trimesh.load_mesh(path)
    middle = box.centre[0]
    assert inside(half.vertices, box, 0.51 * box.side / 32)
    assert abs(half.bounds[0][0] - middle) < 0.1 * box.side
    assert not (run / "crop.json").exists()


def test_a_point_cloud(look: Look, run: Path):
    look.settled()
    box = Box.from_json(Run.open(run).scene["box"])
    look.tab("Export")
    look.write("Mesh resolution", 32)
    look.write("Points", 1200)
    path = look.download("Export a point cloud (ply)")
    assert path.suffix == ".ply"
    cloud = trimesh.load(path)
    assert isinstance(cloud, trimesh.PointCloud)
    assert cloud.vertices.shape == (1200, 3)
    assert inside(cloud.vertices, box, 0.51 * box.side / 32)
    assert len(np.unique(cloud.colors, axis=0)) > 100


def test_a_screenshot_has_the_width_that_was_asked(look: Look):
    seen = look.settled()
    height, width = seen.shape[:2]
    look.tab("Export")
    look.write("Screenshot width", width)
    picture = np.asarray(Image.open(look.download("Screenshot (png)")))
    assert psnr(picture, seen) > 40
    look.write("Screenshot width", 2 * width)
    twice = Image.open(look.download("Screenshot (png)"))
    assert twice.size == (2 * width, 2 * height)
    assert psnr(np.asarray(twice.reduce(2)), seen) > 30
