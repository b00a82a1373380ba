"""Exported meshes against spheres and tori whose volume, box, topology and colour are known."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import EIGHT_BIT, EXACT, EXPORTED, POSES

from fields.export import export_mesh, occupancy_bound, seen_colours, surface_mesh, write_mesh
from fields.surface import Grid, SurfaceConfig, distance_bound, extract, without_specks
from scenes import InputError
from scenes.box import Box

BOX = Box((10.0, -3.0, 100.0), (14.0, -1.0, 103.0))
CENTRE, RADIUS = (12.3, -2.1, 101.4), 0.8
UNIT = Grid.over((0.0,) * 3, (1.0,) * 3, 40)
CLOSED = SurfaceConfig(closed=True)


def world_sphere(x):
    """Distance to the sphere in edges of the unit cube, as a fitted field gives it."""
    return ((BOX.from_unit(x) - torch.tensor(CENTRE)).norm(dim=-1, keepdim=True) - RADIUS) / BOX.side


def torus(x):
    p = x - 0.5
    ring = torch.hypot(p[:, 0], p[:, 1]) - 0.3
    return torch.hypot(ring, p[:, 2]) - 0.11


def noise(seed, n=14):
    grid = torch.randn(1, 1, n, n, n, generator=torch.Generator().manual_seed(seed))
    return lambda x: torch.nn.functional.grid_sample(grid, (x * 2 - 1)[None, None, None], align_corners=True).flatten()


def canonical(vertices, faces):
    """Faces as triples of rows of coordinates: each starts at its least vertex, and they are sorted."""
    order = np.lexsort(np.rint(vertices * 1e6).T)
    rank = np.empty(len(vertices), int)
    rank[order] = np.arange(len(vertices))
    f = rank[faces]
    f = np.stack([np.roll(row, -row.argmin()) for row in f])
    return vertices[order], f[np.lexsort(f.T)]


class Ball:
    """A radiance field: density 400 inside a ball of the inner box; red above, green below, blue from inside."""

    def __init__(self, inner=1.0):
        self.inner = inner

    def to_world(self, x):
        return BOX.from_unit((x - 0.5) / self.inner + 0.5)

    def density(self, x):
        return torch.where((self.to_world(x) - torch.tensor(CENTRE)).norm(dim=-1) < RADIUS, 400.0, 0.0)

    def __call__(self, x, d):
        above = self.to_world(x)[:, 2] > CENTRE[2]
        rgb = torch.where(above[:, None], torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.5, 0.1]))
        away = (d * (self.to_world(x) - torch.tensor(CENTRE))).sum(-1) > 0
        return torch.where(away[:, None], torch.tensor([0.0, 0.0, 1.0]), rgb), self.density(x)


def described(kind="mesh"):
    return {"kind": kind, "box": BOX.to_json()}


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb"])
def test_sphere_comes_back_in_the_users_coordinates(tmp_path, ending):
    path = tmp_path / f"sphere{ending}"
    export_mesh(world_sphere, described(), path, resolution=75)
    mesh = trimesh.load_mesh(path)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert EXPORTED.allows(mesh.volume, 4 / 3 * math.pi * RADIUS**3)
    expected = np.array([CENTRE]) + np.array([[-RADIUS], [RADIUS]])
    assert np.abs(mesh.bounds - expected).max() <= EXPORTED.rtol * 2 * RADIUS
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_normals_point_outward_also_at_slivers(tmp_path):
    mesh = export_mesh(world_sphere, described(), tmp_path / "s.obj", resolution=75)
    assert ((mesh.vertices - CENTRE) / RADIUS * mesh.vertex_normals).sum(axis=1).min() > 0.99
    lines = (tmp_path / "s.obj").read_text().splitlines()
    v = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    n = np.array([line.split()[1:] for line in lines if line.startswith("vn ")], float)
    assert ((v - CENTRE) / RADIUS * n).sum(axis=1).min() > 0.99


def test_vertices_lie_on_the_surface():
    vertices, _ = extract(lambda x: world_sphere(x)[:, 0], UNIT, 2 * UNIT.cell, CLOSED)
    off = np.linalg.norm(BOX.from_unit(torch.from_numpy(vertices)).numpy() - CENTRE, axis=1) - RADIUS
    assert np.abs(off).max() < 2e-3 * UNIT.cell * BOX.side


@pytest.mark.parametrize(("shape", "euler"), [(torus, 0), (lambda x: (x - 0.5).norm(dim=-1) - 0.4, 2)])
def test_topology(shape, euler):
    mesh = trimesh.Trimesh(*extract(shape, UNIT, 2 * UNIT.cell, CLOSED), process=False)
    assert mesh.is_watertight and mesh.euler_number == euler


@settings(max_examples=12)
@given(seed=st.integers(0, 99), block=st.sampled_from([3, 5, 8]))
def test_noise_is_watertight_and_the_same_in_blocks_of_any_size(seed, block):
    """The hardest surface there is: every case of marching cubes, on every face between blocks."""
    grid = Grid.over((0.0,) * 3, (1.0,) * 3, 13)
    whole = extract(noise(seed), grid, 1.0, replace(CLOSED, block=64))
    parts = extract(noise(seed), grid, 1.0, replace(CLOSED, block=block, chunk=1000))
    mesh = trimesh.Trimesh(*parts, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    for a, b in zip(canonical(*whole), canonical(*parts), strict=True):
        POSES.check(torch.from_numpy(b), torch.from_numpy(a))


def test_no_crack_where_a_field_rounds_differently_in_each_batch(generator):
    """Blocks share the values of their common nodes, even where those are zero up to rounding."""

    def level(x):
        return (x - 0.5).norm(dim=-1) - 0.25 + 1e-7 * torch.randn(len(x), generator=generator)

    grid = Grid.over((0.0,) * 3, (1.0,) * 3, 32)  # nodes at distance 8 cells lie on the sphere
    mesh = trimesh.Trimesh(*extract(level, grid, 2 * grid.cell, replace(CLOSED, block=4, refine=0)), process=False)
    assert mesh.is_watertight


def test_a_bound_changes_nothing_but_the_work():
    calls = [0, 0]

    def count(slot):
        def distance(x):
            calls[slot] += len(x)
            return torus(x)

        return distance

    grid = Grid.over((0.0,) * 3, (1.0,) * 3, 100)
    config = replace(CLOSED, block=30)
    whole = extract(count(0), grid, 2 * grid.cell, config)
    bound = distance_bound(count(1), config.safety, 2 * grid.cell)
    pruned = extract(count(1), grid, 2 * grid.cell, config, bound)
    assert calls[1] < 0.5 * calls[0]
    for a, b in zip(canonical(*whole), canonical(*pruned), strict=True):
        POSES.check(torch.from_numpy(b), torch.from_numpy(a))


def test_occupancy_bounds_a_density():
    """Cells of [z, y, x] that touch the torus, by brute force at random points of them."""
    r = 16
    z, y, x = torch.meshgrid(*[torch.arange(r)] * 3, indexing="ij")
    corner = torch.stack([x, y, z], -1).reshape(-1, 1, 3)
    inside = (
        torus(((corner + torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(1))) / r).reshape(-1, 3)) < 0
    )
    occupied = inside.reshape(r**3, 200).any(1).reshape(r, r, r)
    visited = [0]

    def level(x):
        visited[0] += len(x)
        return torus(x)

    grid = Grid.over((0.0,) * 3, (1.0,) * 3, 60)
    config = replace(CLOSED, refine=0)
    whole = extract(torus, grid, 2 * grid.cell, config)
    pruned = extract(level, grid, 2 * grid.cell, config, occupancy_bound(occupied))
    assert visited[0] < 0.7 * 61**3
    for a, b in zip(canonical(*whole), canonical(*pruned), strict=True):
        POSES.check(torch.from_numpy(b), torch.from_numpy(a))


def test_a_wrong_bound_leaves_no_crack():
    """A field that overstates its distances tenfold where its surface is not."""
    grid = Grid.over((0.0,) * 3, (1.0,) * 3, 50)
    bound = distance_bound(lambda x: 10 * torus(x), 1.0, 0.0)
    mesh = trimesh.Trimesh(*extract(torus, grid, 2 * grid.cell, replace(CLOSED, block=16), bound), process=False)
    assert len(mesh.faces) and mesh.is_watertight


def test_closed_and_open_at_the_box():
    def level(x):
        return x[:, 2] - 0.3

    open_mesh = trimesh.Trimesh(*extract(level, UNIT, 2 * UNIT.cell, SurfaceConfig(closed=False)), process=False)
    closed = trimesh.Trimesh(*extract(level, UNIT, 2 * UNIT.cell, CLOSED), process=False)
    assert not open_mesh.is_watertight and closed.is_watertight
    assert np.abs(closed.bounds - [[0, 0, 0], [1, 1, 0.3]]).max() <= EXPORTED.rtol


def test_memory_does_not_grow_with_the_volume():
    """A small ball at 320^3: a full grid of float32 alone takes 131 MB."""

    def level(x):
        return (x - 0.37).norm(dim=-1) - 0.05

    grid = Grid.over((0.0,) * 3, (1.0,) * 3, 320)
    config = replace(CLOSED, block=32)
    tracemalloc.start()
    vertices, _ = extract(level, grid, 2 * grid.cell, config, distance_bound(level, config.safety, 2 * grid.cell))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(vertices) > 1000
    assert peak < 48e6


def test_nothing_crosses_zero():
    vertices, faces = extract(lambda x: torch.ones(len(x)), UNIT, 0.1, CLOSED)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_values_that_are_not_numbers_are_outside():
    def level(x):
        d = (x - 0.5).norm(dim=-1) - 0.3
        return torch.where(x[:, 0] > 0.9, torch.nan, d)

    mesh = trimesh.Trimesh(*extract(level, UNIT, 2 * UNIT.cell, CLOSED), process=False)
    assert mesh.is_watertight and np.isfinite(mesh.vertices).all()


def test_radiance_field_with_colours_seen_from_outside():
    mesh = surface_mesh(Ball(), described("capture"), resolution=64)
    assert mesh is not None
    assert mesh.is_watertight
    assert EXPORTED.allows(mesh.volume, 4 / 3 * math.pi * RADIUS**3)
    colours = mesh.visual.vertex_colors[:, :3] / 255  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    height = mesh.vertices[:, 2] - CENTRE[2]
    clear = np.abs(height) > 0.3
    expected = np.where(height[clear, None] > 0, [0.8, 0.1, 0.1], [0.1, 0.5, 0.1])
    EIGHT_BIT.check(torch.from_numpy(colours[clear]), torch.from_numpy(expected))


def test_a_capture_that_contracts_what_lies_outside():
    mesh = surface_mesh(Ball(inner=0.5), described("capture"), resolution=64)
    assert mesh is not None
    expected = np.array([CENTRE]) + np.array([[-RADIUS], [RADIUS]])
    assert np.abs(mesh.bounds - expected).max() <= EXPORTED.rtol * 2 * RADIUS


def test_a_colour_behind_the_surface_is_not_seen():
    """Opaque white over black: what lies six steps inside is hidden."""

    class Layers:
        def density(self, x):
            return torch.full((len(x),), 1e4)

        def to_world(self, x):
            return x

        def __call__(self, x, d):
            return (x[:, 2:] > 0.45).float().expand(-1, 3), self.density(x)

    up = np.array([[0.0, 0.0, 1.0]])
    colour = seen_colours(
        Layers(), np.array([[0.5, 0.5, 0.5]]), up, Grid.over((0.0,) * 3, (1.0,) * 3, 100), SurfaceConfig()
    )
    EXACT.check(torch.from_numpy(colour).round(decimals=3), torch.ones(1, 3, dtype=torch.float64))


def test_specks_are_dropped():
    def level(x):
        big = (x - 0.4).norm(dim=-1) - 0.25
        return torch.minimum(big, (x - 0.85).norm(dim=-1) - 0.02)

    vertices, faces = extract(level, UNIT, 2 * UNIT.cell, CLOSED)
    assert vertices.max() > 0.8
    kept, kept_faces = without_specks(vertices, faces, 0.01)
    assert kept.max() < 0.7 and trimesh.Trimesh(kept, kept_faces, process=False).is_watertight
    both, _ = without_specks(vertices, faces, 1e-4)
    assert len(both) == len(vertices)
    none, _ = without_specks(np.zeros((0, 3)), np.zeros((0, 3), np.int64), 0.5)
    assert len(none) == 0


def test_glb_holds_linear_colours_and_no_light(tmp_path):
    box = trimesh.creation.box()
    display = np.tile(np.array([[128, 10, 255, 255]], np.uint8), (len(box.vertices), 1))
    mesh = trimesh.Trimesh(box.vertices, box.faces, vertex_colors=display)
    write_mesh(mesh, tmp_path / "box.glb")
    data = (tmp_path / "box.glb").read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + length])
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    view = tree["bufferViews"][accessor["bufferView"]]
    stored = np.frombuffer(data, "<u2", 4, offset=28 + length + view["byteOffset"]) / 65535
    assert accessor["componentType"] == 5123 and tree["extensionsUsed"] == ["KHR_materials_unlit"]
    expected = [0.21586050011389926, 0.003035269835488375, 1.0, 1.0]  # IEC 61966-2-1
    EIGHT_BIT.check(torch.tensor(stored), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "said"), [("a.stl", ".ply, .obj, .glb"), ("a", ".ply"), ("none/a.ply", "does not exist")]
)
def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path, name, said):
    def never(x):
        raise AssertionError

    with pytest.raises(InputError, match=said):
        export_mesh(never, described(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_surface_writes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"a\.ply.*no surface"):
        export_mesh(lambda x: torch.ones(len(x), 1), described(), tmp_path / "a.ply", resolution=16)
    assert list(tmp_path.iterdir()) == []
