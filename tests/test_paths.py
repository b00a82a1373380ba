"""Camera paths against circles, hulls and nerfstudio's format written by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from scipy.spatial import Delaunay
from tolerances import PATHS, PIXELS, POSES

from scenes import InputError
from scenes.box import Box
from scenes.cameras import Cameras
from viewer.orbits import look_at, orbit
from viewer.paths import CameraPath, interpolate, read_camera_path, write_camera_path

UP = torch.tensor([0.0, 0.0, 1.0])


def cameras_at(position, target, up=UP, focal=500.0, size=(640, 480), time=None):
    position, n = torch.as_tensor(position).float(), len(position)
    T = look_at(position, torch.as_tensor(target).float().expand(n, 3), up)
    centre = torch.tensor([0.5 * size[0], 0.5 * size[1]]).expand(n, 2)
    return Cameras(T, torch.full((n, 2), focal), centre, torch.tensor([size] * n), torch.zeros(n, 6), time=time)


def ring(n, radius, height, around=(0.0, 0.0, 0.0), part=1.0):
    """`n` cameras on a part of a circle about the z axis, all looking at its foot."""
    a = torch.arange(n) * (2 * math.pi * part / n)
    position = torch.stack([radius * a.cos(), radius * a.sin(), torch.full_like(a, height)], -1) + torch.tensor(around)
    return cameras_at(position, around)


def described(cameras, box=((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), unbounded=False):
    return {
        "kind": "capture",
        "box": [list(b) for b in box],
        "unbounded": unbounded,
        "up": UP.tolist(),
        "cameras": {"train": cameras.to_json()},
    }


def steps(path):
    """Distances between neighbouring frames, the last and the first included."""
    p = path.cameras.position
    return (p - p.roll(-1, 0)).norm(dim=-1)


def test_a_mesh_is_wholly_in_every_picture_and_fills_it():
    box = Box((10.0, 0.0, -3.0), (11.0, 4.0, -2.0))
    path = orbit({"kind": "mesh", "box": box.padded(0.05).to_json(), "bounds": box.to_json()}, n_frames=24)
    corners = torch.cartesian_prod(*[torch.tensor(side) for side in zip(box.lo, box.hi, strict=True)])
    outermost = 0.0
    for view in range(24):
        xy, seen = path.cameras.project(view, corners)
        assert bool(seen.all())
        outermost = max(outermost, float((xy / path.cameras.size[view] - 0.5).abs().max()))
    assert 0.44 < outermost < 0.5
    assert PATHS.allows(float(steps(path).min()), float(steps(path).max()))
    assert (path.cameras.up[:, 1] > 0.9).all()  # meshes stand along y
    assert path.loop


def test_a_mesh_may_say_which_way_is_up():
    path = orbit({"kind": "mesh", "box": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "up": [0.0, 0.0, 1.0]}, n_frames=5)
    assert (path.cameras.up[:, 2] > 0.9).all()


def test_an_object_is_circled_at_the_distance_of_its_photographs():
    around = (5.0, 6.0, 7.0)
    below, above = ring(40, 4.0, 0.5, around), ring(40, 3.0, 2.7, around)
    position = torch.cat([below.position, above.position])
    cameras = cameras_at(position, around, focal=700.0, size=(800, 600))
    path = orbit(described(cameras, ((4.0, 5.0, 6.0), (6.0, 7.0, 8.0))), n_frames=36)
    offset = path.cameras.position - torch.tensor(around)
    radius = offset.norm(dim=-1)
    assert PATHS.allows(float(radius.min()), float(radius.max()))
    assert 4.0 < float(radius[0]) < 4.1  # of 40 at 4.031 and 40 at 4.036
    elevation = torch.asin(offset[:, 2] / radius)
    assert math.atan2(0.5, 4.0) < float(elevation[0]) < math.atan2(2.7, 3.0)
    for view in (0, 17):
        xy, _ = path.cameras.project(view, torch.tensor([around]))
        PIXELS.check(xy, torch.tensor([[400.0, 300.0]]))
    assert path.cameras.focal[0].tolist() == [700.0, 700.0]
    assert path.cameras.size[0].tolist() == [800, 600]


def test_cameras_that_go_around_a_room_are_followed():
    """An elongated ring, high on one side: the path keeps to it."""
    a = torch.arange(60) * (2 * math.pi / 60)
    position = torch.stack([3 * a.cos(), 2 * a.sin(), 1 + 0.4 * a.sin()], -1)
    path = orbit(described(cameras_at(position, (0.0, 0.0, 0.0)), unbounded=True), n_frames=50)
    away = torch.cdist(path.cameras.position, position).amin(1)
    assert float(away.max()) < 0.35
    assert float(steps(path).max()) < 0.6


def test_cameras_on_an_arc_are_not_left():
    cameras = ring(25, 4.0, 1.0, part=0.3)
    path = orbit(described(cameras, unbounded=True), n_frames=40)
    away = torch.cdist(path.cameras.position, cameras.position).amin(1)
    assert float(away.max()) < 0.4  # of an arc 7.5 long
    assert float((path.cameras.position - path.cameras.position[0]).norm(dim=-1).max()) > 3
    assert float(steps(path).max()) < 1.0


def test_forward_facing_cameras_span_the_path(generator):
    """Twenty cameras in a plane that all look along -z with y upward: the path is inside of their hull, seen from in
    front."""
    flat = torch.rand(20, 2, generator=generator) * torch.tensor([4.0, 2.0])
    position = torch.cat([flat, torch.zeros(20, 1)], -1)
    up = torch.tensor([0.0, 1.0, 0.0])
    cameras = cameras_at(position, position + torch.tensor([0.0, 0.0, -1.0]), up=up)
    described_ = described(cameras, unbounded=True) | {"up": up.tolist()}
    path = orbit(described_, n_frames=30)
    # seen from the point that is looked at, since the path lies on a sphere about it
    inside = Delaunay(flat.numpy()).find_simplex(
        path.cameras.position[:, :2].numpy() * 0.999 + 0.001 * flat.mean(0).numpy()
    )
    assert (inside >= 0).mean() > 0.9
    assert float(path.cameras.position[:, 2].abs().max()) < 0.5
    span = path.cameras.position.amax(0) - path.cameras.position.amin(0)
    assert 1.0 < float(span[0]) < 4.0
    assert 0.3 < float(span[1]) < 2.0
    assert (path.cameras.forward[:, 2] < -0.95).all()
    assert (path.cameras.up[:, 1] > 0.95).all()


def test_cameras_that_look_outward_are_turned_amidst():
    inward = ring(12, 0.3, 0.0)
    outward = cameras_at(inward.position, 10 * inward.position)
    path = orbit(described(outward, unbounded=True), n_frames=16)
    assert float(path.cameras.position.norm(dim=-1).max()) < 0.31
    PATHS.check(path.cameras.forward.mean(0), torch.zeros(3))


@pytest.mark.parametrize("n", [1, 2])
def test_few_cameras(n):
    path = orbit(described(ring(n, 4.0, 1.0, part=0.1), unbounded=True), n_frames=6)
    assert torch.isfinite(path.cameras.T_world_camera).all()
    R = path.cameras.T_world_camera[:, :, :3]
    POSES.check(R @ R.mT, torch.eye(3).expand(6, 3, 3))


def test_cameras_straight_above():
    """The direction from the middle is the up axis itself."""
    position = torch.tensor([[0.0, 0.0, 5.0], [0.3, 0.0, 5.0], [0.0, 0.3, 5.0], [0.3, 0.3, 5.0]])
    up = torch.tensor([0.0, 1.0, 0.0])
    path = orbit(described(cameras_at(position, (0.15, 0.15, 0.0), up=up), unbounded=True), n_frames=8)
    R = path.cameras.T_world_camera[:, :, :3]
    POSES.check(R @ R.mT, torch.eye(3).expand(8, 3, 3))
    assert (path.cameras.position[:, 2] > 4.5).all()


def test_time_runs_along_the_path():
    cameras = ring(20, 4.0, 1.0)
    moving = cameras_at(cameras.position, (0.0, 0.0, 0.0), time=torch.linspace(0, 1, 20))
    time = orbit(described(moving), n_frames=5).cameras.time
    assert time is not None
    assert time.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_an_image_has_no_orbit():
    with pytest.raises(InputError, match="image"):
        orbit({"kind": "image", "box": [[0.0, 0.0], [1.0, 1.0]]})


def test_a_width_scales_the_whole_camera():
    path = orbit(described(ring(20, 4.0, 1.0)), n_frames=3)
    small = path.resized(320)
    assert small.cameras.size[0].tolist() == [320, 240]
    a, b = (p.cameras.project(1, torch.tensor([[0.3, 0.2, 0.1]]))[0] for p in (path, small))
    PIXELS.check(b, 0.5 * a)


def test_interpolation_passes_through_its_keyframes():
    keys = ring(7, 4.0, 1.0, part=0.6)
    path = interpolate(keys, 301)
    away = torch.cdist(keys.position, path.position)
    assert float(away.amin(1).max()) < 0.03
    PATHS.check(path.T_world_camera[0], keys.T_world_camera[0])
    PATHS.check(path.T_world_camera[-1], keys.T_world_camera[-1])
    R = path.T_world_camera[:, :, :3]
    POSES.check(R @ R.mT, torch.eye(3).expand(301, 3, 3))


def test_a_loop_of_keyframes_on_a_circle_is_the_circle():
    path = interpolate(ring(8, 4.0, 0.0), 80, loop=True)
    radius = path.position.norm(dim=-1)
    assert float((radius - 4).abs().max()) < 0.01
    towards = -path.position / radius[:, None]
    assert float((path.forward * towards).sum(-1).min()) > 0.9999
    pace = steps(CameraPath(path))
    assert float(pace.max() / pace.min()) < 1.05


def test_interpolation_of_lens_and_time():
    a = cameras_at([[0.0, -4.0, 0.0], [1.0, -4.0, 0.0]], (0.0, 0.0, 0.0), time=torch.tensor([0.0, 1.0]))
    keys = Cameras(
        a.T_world_camera, torch.tensor([[100.0, 100], [400, 400]]), a.centre, a.size, a.distortion, False, a.time
    )
    path = interpolate(keys, 3)
    PATHS.check(path.focal[1], torch.tensor([200.0, 200.0]))
    assert path.time is not None
    PATHS.check(path.time, torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("loop", [False, True])
def test_keyframes_that_repeat(loop):
    keys = cameras_at([[0.0, -4.0, 0.0]] * 3 + [[1.0, -4.0, 0.0]] * 2, (0.0, 0.0, 0.0))
    assert torch.isfinite(interpolate(keys, 20, loop=loop).T_world_camera).all()
    one = interpolate(keys[0], 4, loop=loop)
    assert torch.equal(one.T_world_camera, keys.T_world_camera[[0] * 4])


def test_what_was_written_is_read_again(tmp_path):
    cameras = ring(30, 4.0, 1.0)
    moving = cameras_at(cameras.position, (0.0, 0.0, 0.0), time=torch.linspace(0, 1, 30))
    write_camera_path(tmp_path / "p.json", CameraPath(moving, 24.0, loop=True))
    back = read_camera_path(tmp_path / "p.json")
    assert (back.fps, back.loop, back.seconds) == (24.0, True, 1.25)
    PATHS.check(back.cameras.T_world_camera, moving.T_world_camera)
    PATHS.check(back.cameras.focal, moving.focal)
    assert torch.equal(back.cameras.size, moving.size)
    assert back.cameras.time is not None
    PATHS.check(back.cameras.time, torch.linspace(0, 1, 30))
    keyframes = json.loads((tmp_path / "p.json").read_text())["keyframes"]
    assert 2 <= len(keyframes) <= 12
    assert len(keyframes[0]["matrix"]) == 16


# At (1, 2, 3), as OpenGL has it: x right, y up, looking along -z; then turned by 90 degrees to look along -x.
AHEAD = [1, 0, 0, 1, 0, 1, 0, 2, 0, 0, 1, 3, 0, 0, 0, 1]
LEFT = [0, 0, 1, 1, 0, 1, 0, 2, -1, 0, 0, 3, 0, 0, 0, 1]


def nerfstudio(**changes):
    frames = [{"camera_to_world": m, "fov": 90.0, "aspect": 2.0} for m in (AHEAD, LEFT)]
    base = {"camera_type": "perspective", "render_height": 100, "render_width": 200, "fps": 10, "seconds": 0.2}
    return base | {"is_cycle": False, "keyframes": [], "camera_path": frames} | changes


def written(folder, content):
    (folder / "p.json").write_text(json.dumps(content))
    return folder / "p.json"


def test_nerfstudio_axes_and_lens(tmp_path):
    path = read_camera_path(written(tmp_path, nerfstudio()))
    cameras = path.cameras
    POSES.check(cameras.position, torch.tensor([[1.0, 2, 3], [1, 2, 3]]))
    POSES.check(cameras.forward, torch.tensor([[0.0, 0, -1], [-1, 0, 0]]))
    POSES.check(cameras.up, torch.tensor([[0.0, 1, 0], [0, 1, 0]]))
    xy, _ = cameras.project(0, torch.tensor([[1.0, 2, 2], [1.5, 2, 2], [1.0, 2.5, 2]]))
    PIXELS.check(xy, torch.tensor([[100.0, 50], [125, 50], [100, 25]]))
    assert path.fps == 10
    assert cameras.time is None


def test_rows_and_numbers_are_the_same(tmp_path):
    rows = [AHEAD[i : i + 4] for i in range(0, 16, 4)]
    frame = {"camera_to_world": rows, "fov": 90.0, "render_time": 0.5}
    cameras = read_camera_path(written(tmp_path, nerfstudio(camera_path=[frame]))).cameras
    POSES.check(cameras.forward, torch.tensor([[0.0, 0, -1]]))
    assert cameras.time is not None
    assert cameras.time.tolist() == [0.5]


def test_keyframes_alone_are_interpolated(tmp_path):
    keys = [{"matrix": m, "fov": 90.0, "aspect": 2.0} for m in (AHEAD, LEFT)]
    path = read_camera_path(written(tmp_path, nerfstudio(camera_path=[], keyframes=keys, seconds=0.5)))
    assert len(path.cameras) == 5
    half = math.sqrt(0.5)
    PATHS.check(path.cameras.forward[2], torch.tensor([-half, 0, -half]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"camera_path": []}, "camera_path"),
        ({"camera_path": 3}, "camera_path"),
        ({"camera_path": [3]}, r"camera_path\[0\]"),
        ({"camera_path": [{"fov": 50}]}, r"camera_path\[0\].camera_to_world"),
        ({"camera_path": [{"camera_to_world": AHEAD[:15], "fov": 50}]}, "16"),
        ({"camera_path": [{"camera_to_world": [0] * 16, "fov": 50}]}, "camera_to_world"),
        ({"camera_path": [{"camera_to_world": [2 * v for v in AHEAD[:15]] + [1], "fov": 50}]}, "not rigid"),
        ({"camera_path": [{"camera_to_world": [math.nan] + AHEAD[1:], "fov": 50}]}, "finite"),
        ({"camera_path": [{"camera_to_world": AHEAD}]}, "fov"),
        ({"camera_path": [{"camera_to_world": AHEAD, "fov": 180}]}, "below 180"),
        ({"render_width": 0}, "render_width"),
        ({"render_height": 1e9}, "render_height"),
        ({"render_height": "100"}, "render_height"),
        ({"fps": 0}, "fps"),
        ({"seconds": -1}, "seconds"),
        ({"camera_type": "equirectangular"}, "camera_type"),
        ({"camera_type": 1}, "camera_type"),
    ],
)
def test_a_bad_file_is_named_with_the_field(tmp_path, changes, said):
    path = written(tmp_path, nerfstudio(**changes))
    with pytest.raises(InputError, match=said) as raised:
        read_camera_path(path)
    assert str(path) in str(raised.value)


def test_a_path_into_nowhere(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_camera_path(tmp_path / "none" / "p.json", CameraPath(ring(2, 1.0, 0.0)))
    with pytest.raises(InputError, match="cannot be read"):
        read_camera_path(tmp_path / "none.json")
