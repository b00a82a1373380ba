"""Meshes as signed distances, against closed forms; what is wrong with a mesh; files that cannot be used."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from tolerances import DISTANCES, EXACT, MONTE_CARLO, QUADRATURE, VALUES

import scenes
from scenes import signed_distance
from scenes.errors import InputError, InputWarning
from scenes.mesh import Mesh, PoolOptions
from scenes.mesh_report import mend

SMALL = PoolOptions(uniform=4000, near=4000, surface=2000)
CUBE = trimesh.creation.box(extents=(2.0, 1.0, 0.5))
OPEN_CUBE = trimesh.Trimesh(CUBE.vertices, CUBE.faces[CUBE.triangles_center[:, 2] < 0.249], process=False)


def scene(mesh: trimesh.Trimesh, seed: int = 0) -> Mesh:
    """Any warning is an error here, as in the rest of the suite."""
    return Mesh.of(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64), "shape", SMALL, seed)


def join(*parts: object) -> trimesh.Trimesh:
    mesh = trimesh.util.concatenate(list(parts))
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def test_both_searchers_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open3D, where it loads, and libigl, which stands in for it; .ci/run installs what Open3D needs of the system."""
    if not signed_distance.open3d_loads():
        pytest.skip("Open3D does not load: apt install libegl1 libgl1 libusb-1.0-0")
    knot = trimesh.creation.icosphere(3)
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (2000, 3))
    by_open3d = signed_distance.Surface(knot.vertices, knot.faces).closest(points)
    monkeypatch.setattr(signed_distance, "open3d_loads", lambda: False)
    by_igl = signed_distance.Surface(knot.vertices, knot.faces).closest(points)
    DISTANCES.check(torch.from_numpy(by_open3d.distance), torch.from_numpy(by_igl.distance))
    DISTANCES.check(torch.from_numpy(by_open3d.point).norm(dim=1), torch.from_numpy(by_igl.point).norm(dim=1))


def world(mesh: Mesh, x: torch.Tensor) -> np.ndarray:
    return mesh.box.from_unit(x.double()).numpy()


def brick_distance(p: np.ndarray, half: np.ndarray) -> np.ndarray:
    q = np.abs(p) - half
    return np.linalg.norm(q.clip(0), axis=-1) + q.max(-1).clip(max=0)


def torus_distance(p: np.ndarray, major: float, minor: float) -> np.ndarray:
    return np.hypot(np.hypot(p[:, 0], p[:, 1]) - major, p[:, 2]) - minor


def test_samples_of_a_box_are_exact(generator: torch.Generator):
    mesh = scene(CUBE)
    x, d = mesh.sample(20_000, generator)
    truth = brick_distance(world(mesh, x), np.array([1.0, 0.5, 0.25])) / mesh.box.side
    DISTANCES.check(d[:, 0], torch.from_numpy(truth))
    assert (d < 0).any()
    assert (d > 0).any()
    assert MONTE_CARLO.allows(float((d == 0).float().mean()), 0.2)


@pytest.mark.parametrize(
    ("mesh", "distance"),
    [
        (trimesh.creation.icosphere(subdivisions=6, radius=0.7), lambda p: np.linalg.norm(p, axis=1) - 0.7),
        (trimesh.creation.torus(1.0, 0.3, 256, 128), lambda p: torus_distance(p, 1.0, 0.3)),
    ],
)
def test_samples_of_round_shapes(mesh, distance, generator: torch.Generator):
    made = scene(mesh)
    x, d = made.sample(20_000, generator)
    QUADRATURE.check(d[:, 0], torch.from_numpy(distance(world(made, x)) / made.box.side))


def test_samples_reach_the_whole_box(generator: torch.Generator):
    mesh = scene(CUBE)
    x, _ = mesh.sample(50_000, generator)
    p = world(mesh, x)
    assert (p >= np.array(mesh.box.lo) - 1e-6).all()
    assert (p <= np.array(mesh.box.hi) + 1e-6).all()
    assert (p.min(0) < np.array(mesh.bounds.lo)).all(), "the margin is sampled too"
    assert (p.max(0) > np.array(mesh.bounds.hi)).all()


def test_the_box_is_the_bounding_box_with_a_margin():
    mesh = scene(CUBE)
    assert mesh.bounds.lo == (-1.0, -0.5, -0.25)
    assert mesh.bounds.hi == (1.0, 0.5, 0.25)
    VALUES.check(torch.tensor(mesh.box.lo), torch.tensor([-1.1, -0.6, -0.35]))
    VALUES.check(torch.tensor(mesh.box.hi), torch.tensor([1.1, 0.6, 0.35]))


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e4), (1e-3, 0.0), (1e-3, 10.0), (1e6, 0.0)])
def test_neither_size_nor_place_matters(scale: float, offset: float, generator: torch.Generator):
    moved = CUBE.copy()
    moved.apply_scale(scale)
    moved.apply_translation([offset, -offset, offset])
    mesh = scene(moved)
    x, d = mesh.sample(5000, generator)
    p = (world(mesh, x) - np.array([offset, -offset, offset])) / scale
    truth = brick_distance(p, np.array([1.0, 0.5, 0.25])) * scale / mesh.box.side
    DISTANCES.check(d[:, 0], torch.from_numpy(truth))


def test_the_seed_decides(generator: torch.Generator):
    assert torch.equal(scene(CUBE, seed=3).pool, scene(CUBE, seed=3).pool)
    assert not torch.equal(scene(CUBE, seed=3).pool, scene(CUBE, seed=4).pool)
    mesh = scene(CUBE)
    first, second = mesh.sample(100, generator), mesh.sample(100, generator)
    assert not torch.equal(first[0], second[0])
    again = mesh.sample(100, torch.Generator().manual_seed(20))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_faces_that_point_inward_are_turned(generator: torch.Generator):
    inward = trimesh.Trimesh(CUBE.vertices, CUBE.faces[:, ::-1], process=False)
    with pytest.warns(InputWarning, match="all faces pointed inward"):
        mesh = scene(inward)
    assert mesh.report.turned_faces == 12
    x, d = mesh.sample(5000, generator)
    truth = brick_distance(world(mesh, x), np.array([1.0, 0.5, 0.25])) / mesh.box.side
    DISTANCES.check(d[:, 0], torch.from_numpy(truth))


def test_faces_of_mixed_orientation_are_made_to_agree(generator: torch.Generator):
    sphere = trimesh.creation.icosphere(subdivisions=3)
    faces = sphere.faces.copy()
    faces[::3] = faces[::3, ::-1]
    with pytest.warns(InputWarning, match=f"{len(faces[::3])} of {len(faces)} faces pointed inward"):
        mesh = scene(trimesh.Trimesh(sphere.vertices, faces, process=False))
    assert mesh.report.watertight
    x, d = mesh.sample(5000, generator)
    outside = np.linalg.norm(world(mesh, x), axis=1) > 1
    assert ((d[:, 0].numpy() > 0) == outside)[d[:, 0].abs() > 0.01].all()


def test_a_cavity_is_outside(generator: torch.Generator):
    hole = trimesh.creation.box(extents=(0.2, 0.2, 0.2))
    hole.invert()
    mesh = scene(join(trimesh.creation.box(extents=(1, 1, 1)), hole))
    assert mesh.report.components == 2
    x, d = mesh.sample(20_000, generator)
    p = world(mesh, x)
    outer, inner = (brick_distance(p, np.full(3, half)) / mesh.box.side for half in (0.5, 0.1))
    DISTANCES.check(d[:, 0], torch.from_numpy(np.maximum(outer, -inner)))


def test_parts_that_overlap_count_as_one(generator: torch.Generator):
    a, b = trimesh.creation.box(extents=(1, 1, 1)), trimesh.creation.box(extents=(1, 1, 1))
    b.apply_translation([0.5, 0, 0])
    mesh = scene(join(a, b))
    x, d = mesh.sample(20_000, generator)
    p = world(mesh, x)
    union = np.minimum(*(brick_distance(p - [dx, 0, 0], np.full(3, 0.5)) for dx in (0.0, 0.5)))
    clear = np.abs(union) > 1e-4
    assert ((d[:, 0].numpy() < 0) == (union < 0))[clear & (d[:, 0].numpy() != 0)].all()


def test_an_open_mesh_works_with_a_warning(generator: torch.Generator):
    """A box without its lid: far from the rim, inside is where the closed box has it."""
    with pytest.warns(InputWarning, match=r"not watertight \(1 hole, 4 boundary edges, 0 non-manifold edges\)"):
        mesh = scene(OPEN_CUBE)
    assert not mesh.report.watertight
    x, d = mesh.sample(20_000, generator)
    p = world(mesh, x)
    closed = brick_distance(p, np.array([1.0, 0.5, 0.25]))
    deep, away = (closed < 0) & (p[:, 2] < 0), (closed > 0.05) & (p[:, 2] < 0.2)
    on = d[:, 0].numpy() == 0
    assert deep.any()
    assert (d[:, 0].numpy() < 0)[deep & ~on].all()
    assert (d[:, 0].numpy() > 0)[away & ~on].all()


def test_triangles_that_share_no_vertices_are_joined():
    soup = CUBE.triangles.reshape(-1, 3)
    surface, report = mend(soup, np.arange(36).reshape(12, 3))
    assert report.watertight
    assert report.vertices == 8
    assert report.duplicate_vertices == 28
    assert EXACT.allows(surface.volume, 1.0)


def test_the_report_counts():
    two = join(CUBE, trimesh.creation.icosphere(subdivisions=1).apply_translation([5, 0, 0]))
    faces = np.concatenate([np.delete(two.faces, [20, 40], axis=0), [[0, 0, 1]]])
    surface, report = mend(np.asarray(two.vertices, np.float64), faces.astype(np.int64))
    assert report.components == 2
    assert report.holes == 2
    assert report.boundary_edges == 6
    assert report.degenerate_faces == 1
    assert report.faces == len(surface.faces) == len(two.faces) - 2
    assert report.non_manifold_edges == 0
    assert [line.split(" (")[0] for line in report.problems()] == ["not watertight", "1 degenerate face dropped"]


def test_two_boxes_that_share_an_edge_are_watertight_but_not_manifold():
    b = trimesh.creation.box(extents=(1, 1, 1))
    a = b.copy().apply_translation([1, 1, 0])
    joined = join(a, b)
    _, report = mend(np.asarray(joined.vertices, np.float64), np.asarray(joined.faces, np.int64))
    assert report.watertight
    assert report.non_manifold_edges == 1
    assert report.problems() == ["1 non-manifold edge"]


def test_unused_vertices_do_not_enlarge_the_box():
    vertices = np.concatenate([np.asarray(CUBE.vertices), [[100.0, 0, 0]]])
    mesh = Mesh.of(vertices, np.asarray(CUBE.faces, np.int64), "shape", SMALL)
    assert mesh.bounds.hi == (1.0, 0.5, 0.25)


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3), np.int64), "holds no vertices"),
        (np.zeros((5, 3)), np.zeros((0, 3), np.int64), "no faces"),
        (np.array([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]]), np.array([[0, 1, 2]]), "1 of 3 vertices are not finite"),
        (np.array([[0, 0, 0], [1, 0, 0], [0, np.inf, 0]]), np.array([[0, 1, 2]]), "not finite"),
        (np.eye(3), np.array([[0, 1, 3]]), "names vertex 3"),
        (np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]), "no area"),
        (np.ones((3, 3)), np.array([[0, 1, 2]]), "no area"),
    ],
)
def test_what_cannot_be_fitted_is_refused(vertices: np.ndarray, faces: np.ndarray, message: str):
    with pytest.raises(InputError, match=message) as caught:
        Mesh.of(vertices, faces, "broken.ply", SMALL)
    assert str(caught.value).startswith("broken.ply: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["ply", "obj", "off", "stl", "glb"])
def test_every_format_is_read(suffix: str, tmp_path: Path):
    shape = trimesh.creation.icosphere(subdivisions=2, radius=3.0)
    shape.apply_translation([1, 2, 3])
    shape.export(tmp_path / f"shape.{suffix}")
    mesh = scenes.load(tmp_path / f"shape.{suffix}")
    assert isinstance(mesh, Mesh)
    assert isinstance(mesh, scenes.Scene)
    assert mesh.name == f"shape.{suffix}"
    assert mesh.report.watertight
    assert mesh.report.faces == 320
    for bound, truth in ((mesh.bounds.lo, shape.bounds[0]), (mesh.bounds.hi, shape.bounds[1])):
        VALUES.check(torch.tensor(bound), torch.tensor(truth))


def test_parts_of_a_scene_keep_their_places(tmp_path: Path):
    placed = trimesh.Scene()
    placed.add_geometry(trimesh.creation.box(extents=(1, 1, 1)))
    placed.add_geometry(
        trimesh.creation.box(extents=(1, 1, 1)), transform=trimesh.transformations.translation_matrix([4, 0, 0])
    )
    placed.export(tmp_path / "two.glb")
    mesh = scenes.load(tmp_path / "two.glb")
    assert isinstance(mesh, Mesh)
    assert mesh.report.components == 2
    assert mesh.bounds.hi == (4.5, 0.5, 0.5)


@pytest.mark.parametrize("suffix", ["ply", "obj", "off", "stl", "glb"])
@pytest.mark.parametrize("keep", [0, 20, 0.5])
def test_a_truncated_file_is_refused(suffix: str, keep: float, tmp_path: Path):
    path = tmp_path / f"cut.{suffix}"
    trimesh.creation.icosphere(subdivisions=2).export(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(InputError) as caught:
        scenes.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_perfect_field_has_an_iou_of_one():
    mesh = scene(CUBE)
    half = np.array([1.0, 0.5, 0.25])

    def predict(x: torch.Tensor) -> torch.Tensor:
        p = world(mesh, x)
        # the corner beyond the plane x + y = 0.5 is missing: half of a square of edge 1, of 2
        cut = (p[:, 0] + p[:, 1] - 0.5) / np.sqrt(2)
        return torch.from_numpy(np.maximum(brick_distance(p, half), cut))[:, None]

    perfect = mesh.evaluate(lambda x: torch.from_numpy(brick_distance(world(mesh, x), half))[:, None])
    assert MONTE_CARLO.allows(perfect.results["iou"], 1.0)
    assert mesh.evaluate(lambda x: torch.ones(len(x), 1)).results == {"iou": 0.0}
    assert MONTE_CARLO.allows(mesh.evaluate(predict).results["iou"], 0.75)
    assert perfect.definitions.keys() == {"iou"}
    assert perfect.per_item == {"iou": [perfect.results["iou"]]}


def test_a_surface_is_compared_in_world_units():
    mesh = scene(CUBE)
    grown = CUBE.copy()
    grown.apply_translation([0.01, 0, 0])
    same = mesh.evaluate(lambda x: torch.ones(len(x), 1), surface=CUBE)
    assert VALUES.allows(same.results["chamfer"], 0.0)
    assert VALUES.allows(same.results["normal_consistency"], 1.0)
    moved = mesh.evaluate(lambda x: torch.ones(len(x), 1), surface=grown).results["chamfer"]
    # Faces across x, of area 1 in 7, move by 0.01 against the others, whose rims alone come free.
    assert QUADRATURE.allows(moved, 0.01 / 7)
    empty = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    assert mesh.evaluate(lambda x: torch.ones(len(x), 1), surface=empty).results.keys() == {"iou"}


def test_the_loss_is_relative():
    mesh = scene(CUBE)
    predicted, target = torch.tensor([[0.0], [0.02]]), torch.tensor([[0.01], [0.0]])
    assert VALUES.allows(float(mesh.loss(predicted, target)), (0.01 / 0.02 + 0.02 / 0.01) / 2)
    assert EXACT.allows(float(mesh.loss(target, target)), 0.0)


def test_the_description_is_json_and_the_fingerprint_is_of_the_content(tmp_path: Path):
    CUBE.export(tmp_path / "a.ply")
    CUBE.export(tmp_path / "b.ply")
    a, b = scenes.load(tmp_path / "a.ply"), scenes.load(tmp_path / "b.ply")
    assert a.fingerprint() == b.fingerprint()
    assert len(a.fingerprint()) == 64
    other = CUBE.copy()
    other.vertices[0] *= 1.001
    assert scene(other).fingerprint() != scene(CUBE).fingerprint()
    described = json.loads(json.dumps(a.describe()))
    assert described["kind"] == "mesh"
    assert described["bounds"] == [[-1.0, -0.5, -0.25], [1.0, 0.5, 0.25]]
    assert described["report"]["watertight"] is True


def test_options_are_obeyed(generator: torch.Generator):
    mesh = Mesh.of(
        np.asarray(CUBE.vertices, np.float64), np.asarray(CUBE.faces, np.int64), "shape", replace(SMALL, surface=0)
    )
    _, d = mesh.sample(1000, generator)
    assert len(mesh.pool) == 8000
    assert (d != 0).all()


def test_a_sound_mesh_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scene(CUBE).report.problems() == []
