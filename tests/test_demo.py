"""The built-in examples: their files, their cameras, and the ray tracer's geometry."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tolerances import POSES, VALUES

import scenes
from scenes.demo import knot, write_demo, write_demo_image, write_demo_mesh
from scenes.demo_render import FAR, Ball, Brick, Cone, Solid, photograph
from scenes.demo_toy import toy


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, size=48, n_train=5)
    return folder


def test_photographs_are_posed_as_blender_does(demo: Path):
    for split, n in (("train", 5), ("val", 2), ("test", 4)):
        data = json.loads((demo / f"transforms_{split}.json").read_text())
        assert data.keys() == {"camera_angle_x", "frames"}
        assert len(data["frames"]) == n
        for frame in data["frames"]:
            assert not Path(frame["file_path"]).suffix
            T = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
            POSES.check(T[:3, :3] @ T[:3, :3].T, torch.eye(3))
            POSES.check(torch.linalg.det(T[:3, :3]), torch.tensor(1.0))
            assert T[2, 3] > 0, "cameras stand above the board"
            picture = np.asarray(Pillow.open(demo / f"{frame['file_path']}.png"))
            assert picture.shape == (48, 48, 4)
            assert picture[24, 24, 3] == 255, "the toy is in the middle"
            assert not picture[[0, 0, -1, -1], [0, -1, 0, -1], 3].any(), "and nothing is in the corners"


def test_the_same_files_every_time(demo: Path, tmp_path: Path):
    write_demo(tmp_path, size=48, n_train=5)
    files = sorted(path.relative_to(demo) for path in demo.rglob("*.*"))
    assert len(files) == 14
    for file in files:
        assert (tmp_path / file).read_bytes() == (demo / file).read_bytes()


def test_no_two_views_are_alike(demo: Path):
    pictures = [path.read_bytes() for path in demo.rglob("*.png")]
    assert len(set(pictures)) == len(pictures)


def test_a_ball_is_seen_where_its_centre_projects():
    """A camera at (0, -4, 1) that looks along +y: Blender's axes are x, z and -y of the world."""
    T_world_camera = np.eye(4)
    T_world_camera[:3] = [[1, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 1]]
    ball = Solid(Ball((0.5, 0.0, 1.25), 0.1), lambda p, n: np.ones_like(p))
    alpha = photograph([ball], T_world_camera, focal=64.0, size=64)[..., 3]
    column, row = 32 + 64 * 0.5 / 4, 32 - 64 * 0.25 / 4
    y, x = np.mgrid[0:64, 0:64] + 0.5
    distance = np.hypot(x - column, y - row)
    assert (alpha[distance < 64 * 0.1 / 4 - 1] == 255).all()
    assert (alpha[distance > 64 * 0.1 / 3.9 + 1] == 0).all()
    assert ((alpha > 0) & (alpha < 255)).any(), "edges are smooth"


def test_a_solid_in_the_way_of_the_light_casts_a_shadow():
    T_world_camera = np.eye(4)
    T_world_camera[2, 3] = 4.0  # looks straight down
    floor = Solid(Brick((0.0, 0.0, -0.1), (1.0, 1.0, 0.1)), lambda p, n: np.full_like(p, 0.5), shine=0.0)
    lid = Solid(Brick((0.4, -0.6, 1.0), (0.25, 0.25, 0.01)), lambda p, n: np.full_like(p, 0.5), shine=0.0)
    bare = photograph([floor], T_world_camera, 64.0, 64)[..., :3].astype(int)
    shaded = photograph([floor, lid], T_world_camera, 64.0, 64)[..., :3].astype(int)
    at = np.array([0.4, -0.6, 1.0]) - np.array([0.42, -0.62, 0.66]) / 0.66
    row, column = int(32 - 64 * at[1] / 4), int(32 + 64 * at[0] / 4)
    assert (shaded[row, column] < 0.7 * bare[row, column]).all(), "where the light's path to the floor meets the lid"
    assert (shaded[44, 20] > 0.95 * bare[44, 20]).all(), "and nowhere else"


def inside(shape: Ball | Brick | Cone, p: np.ndarray) -> np.ndarray:
    q = p - np.array(shape.centre)
    match shape:
        case Ball():
            within = (q**2).sum(-1) < shape.radius**2
        case Brick():
            within = (np.abs(q) < shape.half).all(-1)
        case Cone():
            low, high = shape.radii
            h = q[..., shape.axis]
            radius = low + (high - low) * (h / shape.half + 1) / 2
            across = np.delete(q, shape.axis, axis=-1)
            within = (np.abs(h) < shape.half) & ((across**2).sum(-1) < radius**2)
    return np.asarray(within)


@pytest.mark.parametrize(
    "shape",
    [
        Ball((0.1, -0.2, 0.3), 0.5),
        Brick((0.1, -0.2, 0.3), (0.5, 0.2, 0.4)),
        Cone((0.1, -0.2, 0.3), 0, 0.4, (0.3, 0.3)),
        Cone((0.1, -0.2, 0.3), 1, 0.3, (0.1, 0.5)),
        Cone((0.1, -0.2, 0.3), 2, 0.5, (0.4, 0.02)),
    ],
)
def test_rays_enter_where_a_solid_begins(shape: Ball | Brick | Cone):
    """Against 800 steps along each ray, and against the step from outside to inside for the normal."""
    rng = np.random.default_rng(0)
    o = rng.normal(size=(2000, 3)).astype(np.float32)
    o *= (2 / np.linalg.norm(o, axis=1))[:, None]
    d = (rng.uniform(-0.5, 0.5, (2000, 3)) - o).astype(np.float32)
    d /= np.linalg.norm(d, axis=1)[:, None]
    t = shape.enter(o, d)
    hit = t < FAR
    assert 200 < hit.sum() < 1900

    steps = np.linspace(0, 4, 800)
    within = np.stack([inside(shape, o + s * d) for s in steps], 1)
    first = np.where(within.any(1), steps[within.argmax(1)], np.inf)
    seen = within.sum(1) > 2  # a graze may pass between two steps
    assert hit[seen].all()
    assert not within[~hit].any()
    late = first[seen] - t[seen]
    assert late.min() > -1e-5, "nothing lies before the entry"
    assert late.max() < steps[1] + 1e-5, "and the inside begins right behind it"

    p = o[hit] + t[hit, None] * d[hit]
    n = shape.normal(p)
    VALUES.check(torch.from_numpy(np.linalg.norm(n, axis=1)), torch.ones(len(n)))
    # Where a ray is within 1e-3 of an edge, the entry and the step aside may be on two faces.
    assert inside(shape, p - 1e-3 * n).mean() > 0.98
    assert not inside(shape, p + 1e-3 * n).any()


def test_solids_stay_within_the_stated_size():
    corners = np.array([solid.shape.bounds() for solid in toy()])
    assert np.abs(corners[..., :2]).max() <= 1.15 + 1e-9
    assert corners[..., 2].min() >= -0.12 - 1e-9
    assert corners[..., 2].max() <= 1.0


def test_the_picture_is_detailed(tmp_path: Path):
    write_demo_image(tmp_path / "demo.png")
    picture = Pillow.open(tmp_path / "demo.png")
    assert picture.size == (512, 384)
    assert picture.mode == "RGB"
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10_000


def test_the_mesh_is_sound(tmp_path: Path):
    write_demo_mesh(tmp_path / "demo.ply")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mesh = scenes.load(tmp_path / "demo.ply")
    assert isinstance(mesh, scenes.Mesh)
    assert mesh.report.watertight
    assert mesh.report.components == 1
    assert mesh.report.faces == 20_000
    assert mesh.report.turned_faces == 0


def test_the_knot_does_not_touch_itself():
    """Where two parts of a surface overlap its winding number is two."""
    import igl

    vertices, faces = knot()
    rng = np.random.default_rng(0)
    points = rng.uniform(vertices.min(0), vertices.max(0), (20_000, 3))
    winding = np.asarray(igl.fast_winding_number(vertices, faces, points))
    assert 0.5 < winding.max() < 1.5
    assert winding.min() > -0.5
