"""What the viewer shows of each kind of field, against what the program renders, and what is cut away."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from program import Program
from test_rendering import lively
from tiny_runs import WIDE, fit_each
from tolerances import EXACT, POSES, RENDERED

from fields.commands.render import image_values
from fields.crop import read_crop, write_crop
from fields.field import RadianceField
from fields.rendering.clipping import Clip, clipped, crop_mask
from fields.rendering.render import render_view
from fields.rendering.shading import render_surface
from fields.run import Run
from scenes import load
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.errors import InputError
from scenes.image import Image
from viewer.live.flat import Flat
from viewer.live.frames import Frame, Pace, refine, whole
from viewer.live.proxies import MOST_TRIANGLES, cached, keep, proxy_glb
from viewer.live.radiance import occupied_points
from viewer.live.space import Space, quaternion, rotation
from viewer.live.subject import Look, Seen, Subject, paint
from viewer.live.surface import slice_colours
from viewer.live.window import subject_of
from viewer.paths import pinholes

SIZE = (48, 36)


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def runs(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    found = fit_each(fieldfit, tmp_path_factory.mktemp("runs"))
    return {kind: Run.open(path) for kind, path in found.items()}


def small(camera: Cameras) -> Cameras:
    width, height = SIZE
    factor = height / int(camera.size[0, 1])
    return pinholes(camera.T_world_camera, camera.focal[0] * factor, torch.tensor([width, height]))


def shown(subject: Subject, look: Look) -> Seen:
    found: list[Seen] = []
    for _ in whole(subject, small(subject.home), look, Pace(), found.append):
        pass
    return found[0]


def handle(**changes: object) -> SimpleNamespace:
    usual = {"wxyz": np.array([1.0, 0, 0, 0]), "position": np.array([0.5, 1.0, 2.0]), "fov": 0.8}
    return SimpleNamespace(**(usual | {"image_width": 640, "image_height": 360} | changes))


def test_the_browsers_space_and_back() -> None:
    space = Space(Box((1.0, 2.0, 3.0), (5.0, 4.0, 4.0)), (0.0, 0.0, 1.0))
    corners = np.array([[1.0, 2.0, 3.0], [5.0, 4.0, 4.0]])
    np.testing.assert_allclose(space.to_browser(corners), [[-1, -0.5, -0.25], [1, 0.5, 0.25]])
    np.testing.assert_allclose(space.from_browser(space.to_browser(corners)), corners)
    turn = rotation(np.array([0.5, -0.5, 0.5, 0.5]))
    camera = space.camera(handle(wxyz=np.array(quaternion(turn))))  # pyright: ignore[reportArgumentType]
    assert camera is not None
    assert camera.size.tolist() == [[640, 360]]
    pose = space.pose(camera)
    POSES.check(torch.tensor(pose.position), torch.tensor([0.5, 1.0, 2.0]))
    POSES.check(torch.tensor(rotation(np.array(pose.wxyz))), torch.tensor(turn))
    assert POSES.allows(pose.fov, 0.8)


@pytest.mark.parametrize(
    "changes",
    [
        {"fov": 0.0},
        {"fov": math.pi},
        {"fov": math.nan},
        {"image_width": 0},
        {"position": np.array([0, np.inf, 0])},
        {"wxyz": np.array([np.nan, 0, 0, 0])},
    ],
)
def test_a_browser_without_a_usable_camera_has_none(changes: dict[str, object]) -> None:
    space = Space(Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), (0.0, 0.0, 1.0))
    assert space.camera(handle(**changes)) is None  # pyright: ignore[reportArgumentType]


def test_a_huge_window_gets_a_picture_that_can_be_made() -> None:
    space = Space(Box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), (0.0, 0.0, 1.0))
    camera = space.camera(handle(image_width=16384, image_height=16384))  # pyright: ignore[reportArgumentType]
    assert camera is not None
    assert int(camera.size.prod()) <= 1 << 23


def test_a_radiance_field_looks_as_it_renders(runs: dict[str, Run]) -> None:
    run = runs["capture"]
    field = run.field()
    subject = subject_of(run, field)
    assert isinstance(field, RadianceField)
    expected = render_view(field, small(subject.home), 0, (1.0, 1.0, 1.0))
    found = shown(subject, Look())
    RENDERED.check(found.rgb, expected.rgb)
    RENDERED.check(found.opacity, expected.opacity)
    for channel in subject.channels:
        assert paint(shown(subject, Look(channel)), Look(channel)).shape == (SIZE[1], SIZE[0], 3)


def test_a_surface_looks_as_it_renders(runs: dict[str, Run]) -> None:
    run = runs["mesh"]
    subject = subject_of(run, run.field())
    expected = render_surface(run.field(), small(subject.home), 0, Box.from_json(run.scene["box"]))
    found = shown(subject, Look())
    RENDERED.check(found.rgb, expected.rgb)
    assert float(expected.opacity.mean()) > 0.05


def test_an_image_looks_as_it_renders(runs: dict[str, Run]) -> None:
    run = runs["image"]
    field = run.field()
    scene = load(Path(run.data.path))
    assert isinstance(scene, Image)
    subject = Flat(field, run.scene, scene)  # pyright: ignore[reportArgumentType]
    height, width = WIDE.shape[:2]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.stack([x, y], -1).view(-1, 2)
    EXACT.check(subject.colours(centres, Look()).view(height, width, 3), image_values(run.scene, field).clamp(0, 1))
    original = (subject.colours(centres, Look("original")) * 255).round().view(height, width, 3)
    assert (original.numpy() == WIDE).all()
    seen = shown(subject, Look(background=(1.0, 0.0, 0.0)))
    assert bool((seen.rgb[0, 0] == torch.tensor([1.0, 0.0, 0.0])).all())  # beside the picture
    assert bool(seen.opacity[SIZE[1] // 2, SIZE[0] // 2] == 1)


def test_pictures_get_finer_and_only_the_last_is_the_last(runs: dict[str, Run]) -> None:
    subject = subject_of(runs["mesh"], runs["mesh"].field())
    camera, frames = small(subject.home), list[Frame]()
    for _ in refine(subject, camera, Look(), Pace(), frames.append):
        pass
    assert [frame.done for frame in frames] == [False] * (len(frames) - 1) + [True]
    sizes = [frame.seen.depth.numel() for frame in frames]
    assert sizes == sorted(sizes)
    assert tuple(frames[-1].seen.depth.shape) == (SIZE[1], SIZE[0])


@pytest.mark.parametrize("unbounded", [False, True])
def test_a_crop_shows_what_it_touches_and_nothing_else(unbounded: bool) -> None:
    field = lively(unbounded)
    lo, hi = field.box.lo, field.box.hi
    middle = tuple(0.5 * (a + b) for a, b in zip(lo, hi, strict=True))
    crop = Box(tuple(0.5 * (a + b) for a, b in zip(lo, middle, strict=True)), middle)
    part = clipped(field, Clip(crop))
    kept = part.occupancy.occupied
    everything = field.occupancy.occupied
    assert 0 < int(kept.sum()) < int(everything.sum())
    points = occupied_points(part, 10**9, torch.Generator().manual_seed(0))
    cell = 4 * field.box.side / field.occupancy.config.resolution  # an outer cell of an unbounded one, in the middle
    assert bool((points >= torch.tensor(crop.lo) - cell).all() & (points <= torch.tensor(crop.hi) + cell).all())
    inside = field.from_world(torch.tensor([crop.lo, crop.hi]).mean(0, keepdim=True))
    index = (inside[0] * field.occupancy.config.resolution).long()
    assert bool(kept[index[2], index[1], index[0]] == everything[index[2], index[1], index[0]])
    assert field.occupancy.occupied.equal(everything)  # the field itself is as it was
    EXACT.check(clipped(field, Clip(crop), crop_mask(field, crop)).occupancy.bits, part.occupancy.bits)


def test_near_and_far_cut_depth(runs: dict[str, Run]) -> None:
    for kind in ("capture", "mesh"):
        subject = subject_of(runs[kind], runs[kind].field())
        depth = shown(subject, Look()).depth
        seen = depth[torch.isfinite(depth)]
        cut = float(seen.median())
        near = shown(subject, Look(near=cut)).depth
        far = shown(subject, Look(far=cut)).depth
        assert bool((near >= cut).all()), kind
        assert bool((far[torch.isfinite(far)] <= cut * 1.01).all()), kind
        assert 0 < int(torch.isfinite(far).sum()) < len(seen)


def test_a_slice_has_its_lines_where_the_distance_is_round() -> None:
    distance = torch.tensor([0.0, 0.0125, 0.025, -0.0125, -0.2])
    rgb = slice_colours(distance, torch.full_like(distance, 1e-3))
    darkness = 1 - rgb.mean(-1)
    assert darkness.argmax() == 0  # the surface itself
    assert darkness[2] > darkness[1]  # a line every fortieth
    assert rgb[1, 0] > rgb[1, 2]
    assert rgb[3, 0] < rgb[3, 2]


def test_a_proxy_is_a_small_mesh_in_the_browsers_space(runs: dict[str, Run], tmp_path: Path) -> None:
    for kind in ("capture", "mesh"):
        subject = subject_of(runs[kind], runs[kind].field())
        data = proxy_glb(subject, Look())
        assert data is not None
        mesh = trimesh.load_scene(trimesh.util.wrap_as_stream(data), file_type="glb").to_geometry()
        assert 0 < len(mesh.faces) <= MOST_TRIANGLES  # pyright: ignore[reportAttributeAccessIssue]
        assert float(np.abs(mesh.bounds).max()) <= 1.01
    run = runs["capture"].path
    assert cached(run, Look()) is None
    keep(run, Look(), b"proxy")
    assert cached(run, Look()) == b"proxy"
    assert cached(run, Look(time=0.5)) is None
    keep(run, Look(time=0.5), b"other")
    assert len(list((run / "viewer").iterdir())) == 1


def test_a_crop_is_kept_and_used_by_export_and_render(fieldfit: Program, runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["mesh"]
    box = Box.from_json(run.scene["box"])
    crop = Box(box.lo, (box.centre[0], *box.hi[1:]))
    assert read_crop(run.path) is None
    before = fieldfit(tmp_path, "render", run.path, "--out", "all.png", "--width", 64)
    try:
        write_crop(run.path, crop)
        assert read_crop(run.path) == crop
        assert fieldfit(tmp_path, "render", run.path, "--out", "part.png", "--width", 64).code == 0
        done = fieldfit(tmp_path, "export", run.path, "part.ply", "--resolution", 48)
        assert done.code == 0, done.stderr
        part = trimesh.load_mesh(tmp_path / "part.ply")
        assert float(part.bounds[1][0]) <= crop.hi[0] + 1e-3 * box.side
        assert part.is_watertight
    finally:
        write_crop(run.path, None)
    assert before.code == 0
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "part.png").read_bytes()
    assert read_crop(run.path) is None


@pytest.mark.parametrize("text", ["[]", '{"crop": [[0, 0, 0], [1, 0, 1]]}', '{"crop": [[0, 0], [1, 1]]}', '{"a": 1}'])
def test_a_crop_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "crop.json").write_text(text)
    with pytest.raises(InputError, match="expected"):
        read_crop(tmp_path)
