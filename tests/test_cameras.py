"""Cameras against the projection formulas, written once more in numpy and float64."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_captures import look_at
from tolerances import EXACT, PIXELS, POSES, VALUES

from scenes import Cameras

LENSES = {
    "pinhole": ((0.0,) * 6, False),
    "phone": ((0.0578, -0.0805, 0.0, 0.0, -0.00098, 0.00016), False),
    "all six": ((-0.12, 0.05, -0.01, 0.004, 0.003, -0.002), False),
    "equidistant fisheye": ((0.0,) * 6, True),
    "fisheye": ((0.02, -0.005, 0.003, -0.001, 0.0, 0.0), True),
}


def rig(distortion=(0.0,) * 6, fisheye=False, n=3):
    """Cameras around the origin, of three sizes, focal lengths and centres."""
    poses = [look_at((3 * np.cos(i), 3 * np.sin(i), 1 + 0.3 * i), (0.1, 0, 0.2)) for i in range(n)]
    opencv = np.stack(poses)[:, :3] * np.array((1, -1, -1, 1))
    sizes = torch.tensor([[64, 48], [50, 70], [33, 21]])[:n]
    scale = 0.45 if fisheye else 1.1
    return Cameras(
        T_world_camera=torch.tensor(opencv, dtype=torch.float32),
        focal=sizes.float() * scale * torch.tensor([[1.0, 1.3], [1.1, 0.9], [1.0, 1.6]])[:n],
        centre=sizes * torch.tensor([[0.5, 0.5], [0.47, 0.53], [0.55, 0.4]])[:n],
        size=sizes,
        distortion=torch.tensor([distortion]).repeat(n, 1),
        fisheye=fisheye,
    )


def project(cameras, view, points):
    """The formulas of OpenCV's documentation (calib3d: camera model; fisheye), in float64, k4 as in nerfstudio."""
    T = cameras.T_world_camera[view].double().numpy()
    X, Y, Z = ((points - T[:, 3]) @ T[:, :3]).T
    k1, k2, k3, k4, p1, p2 = cameras.distortion[view].double().tolist()
    fx, fy = cameras.focal[view].double().tolist()
    cx, cy = cameras.centre[view].double().tolist()
    if cameras.fisheye:
        r = np.sqrt(X**2 + Y**2)
        theta = np.arctan2(r, Z)
        theta_d = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
        u, v = theta_d * X / r, theta_d * Y / r
    else:
        x, y = X / Z, Y / Z
        r2 = x**2 + y**2
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)
        v = y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y
    return np.stack((fx * u + cx, fy * v + cy), -1)


def pixels_of(cameras, view):
    width, height = cameras.size[view].tolist()
    return torch.tensor([(x + 0.5, y + 0.5) for y in range(height) for x in range(width)])


def square_camera(size=10, k1=0.0, fisheye=False):
    """At the origin of the world, along its z axis, with a focal length of 10 pixels."""
    return Cameras(
        T_world_camera=torch.eye(3, 4)[None],
        focal=torch.full((1, 2), 10.0),
        centre=torch.full((1, 2), size / 2),
        size=torch.tensor([[size, size]]),
        distortion=torch.tensor([[k1, 0.0, 0.0, 0.0, 0.0, 0.0]]),
        fisheye=fisheye,
    )


@pytest.mark.parametrize("lens", LENSES)
def test_points_along_a_ray_are_seen_in_its_pixel(lens, generator):
    cameras = rig(*LENSES[lens])
    for view in range(len(cameras)):
        rays = cameras.image_rays(view)
        t = 0.5 + 5 * torch.rand(len(rays), 1, generator=generator)
        seen_at = project(cameras, view, (rays.origins + t * rays.directions).double().numpy())
        PIXELS.check(torch.tensor(seen_at), pixels_of(cameras, view))


@pytest.mark.parametrize("lens", LENSES)
def test_project_agrees_with_the_formulas(lens, generator):
    cameras = rig(*LENSES[lens])
    points = torch.rand(200, 3, generator=generator) - 0.5
    for view in range(len(cameras)):
        xy, seen = cameras.project(view, points)
        truth = torch.tensor(project(cameras, view, points.double().numpy()))
        inside = ((truth >= 0) & (truth <= cameras.size[view])).all(-1)
        assert torch.equal(seen, inside)
        assert inside.any()
        PIXELS.check(xy[inside], truth[inside])


@pytest.mark.parametrize("lens", LENSES)
def test_rays_of_chosen_pixels_are_those_of_the_picture(lens, generator):
    cameras = rig(*LENSES[lens])
    view = torch.randint(3, (100,), generator=generator)
    index = torch.stack([torch.randint(int(cameras.size[v].prod()), (), generator=generator) for v in view])
    rays = cameras.rays(view, torch.stack([pixels_of(cameras, v)[i] for v, i in zip(view, index, strict=True)]))
    for k in range(len(view)):
        picture = cameras.image_rays(int(view[k]))[index[k : k + 1]]
        POSES.check(rays.directions[k], picture.directions[0])
        POSES.check(rays.origins[k], picture.origins[0])


@pytest.mark.parametrize("lens", LENSES)
def test_directions_have_unit_length(lens):
    lengths = rig(*LENSES[lens]).image_rays(0).directions.norm(dim=-1)
    VALUES.check(lengths, torch.ones_like(lengths))


def test_axes_are_opencv():
    camera = square_camera()
    points = torch.tensor([[0.0, 0.0, 1.0], [0.2, 0.0, 1.0], [0.0, 0.2, 1.0]])
    PIXELS.check(camera.project(0, points)[0], torch.tensor([[5.0, 5.0], [7.0, 5.0], [5.0, 7.0]]))
    EXACT.check(camera.forward, torch.tensor([[0.0, 0.0, 1.0]]))
    EXACT.check(camera.up, torch.tensor([[0.0, -1.0, 0.0]]))


def test_a_fisheye_sees_behind_itself():
    wide = square_camera(64, fisheye=True)
    side = wide.rays(torch.tensor([0]), torch.tensor([[32.0 + 10 * 2.0, 32.0]]))  # 2 radians off the axis
    cosine = (side.directions * wide.forward).sum()
    VALUES.check(cosine, torch.cos(torch.tensor(2.0)))
    xy, seen = wide.project(0, side.origins + side.directions)
    assert seen.all()
    PIXELS.check(xy, torch.tensor([[52.0, 32.0]]))


def test_what_is_behind_a_camera_is_not_seen():
    cameras = rig()
    behind = cameras.position[:1] - 2 * cameras.forward[:1]
    assert not cameras.project(0, behind)[1].any()


def test_what_a_lens_polynomial_folds_back_is_not_seen():
    """With k1 = -0.25 the distorted radius grows until r = 1.15, then falls: r = 2 lands on the axis."""
    camera = square_camera(k1=-0.25)
    points = torch.tensor([[1.95, 0.0, 1.0], [0.3, 0.0, 1.0]])
    assert np.abs(project(camera, 0, points.numpy())[0] - 5).max() < 1
    assert camera.project(0, points)[1].tolist() == [False, True]


def test_a_lens_without_an_inverse_stays_finite_and_is_found():
    good, bad = rig(*LENSES["phone"]), rig((-2.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert bad.image_rays(0).directions.isfinite().all()
    assert bad.inverse_error(0) > 1
    assert good.inverse_error(0) < 1e-2


@pytest.mark.parametrize("factor", [0.5, 1 / 3, 2.0])
def test_scaled_cameras_see_the_same_at_scaled_pixels(factor):
    cameras = rig(*LENSES["phone"])
    scaled = cameras.scaled(factor)
    xy = torch.tensor([[3.0, 7.5], [20.0, 1.0]])
    view = torch.tensor([0, 2])
    POSES.check(scaled.rays(view, xy * factor).directions, cameras.rays(view, xy).directions)
    assert scaled.size.tolist() == [[int(n * factor + 1e-6) for n in size] for size in cameras.size.tolist()]


def test_a_part_of_the_cameras_keeps_the_leading_axis():
    cameras = rig()
    assert len(cameras) == 3
    for index, chosen in ((1, [1]), (-1, [2]), (slice(0, 2), [0, 1]), ([2, 0], [2, 0]), ([], [])):
        part = cameras[index]
        assert len(part) == len(chosen)
        EXACT.check(part.focal, cameras.focal[chosen])
        EXACT.check(part.T_world_camera, cameras.T_world_camera[chosen])


def test_no_rays():
    rays = rig(*LENSES["phone"]).rays(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2))
    assert len(rays) == 0


def test_rays_carry_the_time_of_their_camera():
    still = rig()
    assert still.image_rays(0).time is None
    moving = replace(still, time=torch.tensor([0.0, 0.5, 1.0]))
    rays = moving.rays(torch.tensor([2, 1]), torch.zeros(2, 2))
    assert rays.time is not None
    assert rays.time.tolist() == [1.0, 0.5]
    part = moving[[1]].image_rays(0)
    assert part.time is not None
    assert set(part.time.tolist()) == {0.5}
    taken = rays[torch.tensor([1])]
    assert taken.time is not None
    assert taken.time.tolist() == [0.5]


@pytest.mark.parametrize("lens", LENSES)
def test_survive_json(lens):
    cameras = rig(*LENSES[lens])
    read = Cameras.from_json(json.loads(json.dumps(cameras.to_json())))
    for a, b in zip(cameras.to_json().values(), read.to_json().values(), strict=True):
        assert a == b
    EXACT.check(read.image_rays(1).directions, cameras.image_rays(1).directions)


def test_no_cameras_survive_json():
    assert len(Cameras.from_json(json.loads(json.dumps(rig()[[]].to_json())))) == 0
