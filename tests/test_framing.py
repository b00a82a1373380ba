"""The box holds what was photographed, tightly where it is cut out; and which way is up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_captures import (
    ball,
    load,
    look_at,
    rig,
    ring,
    write_blender,
    write_transforms,
)
from tolerances import FOCUS, POSES, VALUES

from scenes import Box, InputError, LoadOptions
from scenes.framing import find_focus, find_up
from scenes.hull import box_of_object

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("centre", "radius"), [((0, 0, 0), 0.5), ((1.1, -0.7, 0.4), 0.3), ((0.5, 0.5, -0.5), 0.8)])
def test_the_box_of_an_object_is_tight_and_holds_it(tmp_path, centre, radius):
    """A ball cut out, seen from 24 sides, not in the middle of the pictures. Its visual hull is hardly larger."""
    matrices = ring(12, radius=5, height=3) + ring(12, radius=5, height=-2)
    write_blender(tmp_path, {"train": matrices}, lambda m, w, h: ball(m, w, h, centre, radius), (160, 160))
    capture = load(tmp_path)
    assert capture.has_alpha
    assert not capture.unbounded
    lo, hi = np.array(capture.box.lo), np.array(capture.box.hi)
    assert (lo <= np.subtract(centre, radius)).all()
    assert (hi >= np.add(centre, radius)).all()
    assert capture.box.side < 2 * radius * 1.3


def test_an_empty_photograph_does_not_lose_the_box(tmp_path):
    matrices = ring(9, height=3) + ring(9, height=-1)
    blank = lambda m, w, h: ball(m, w, h, (0, 0, 0), 0.0 if m is matrices[3] else 0.5)  # noqa: E731
    write_blender(tmp_path, {"train": matrices}, blank, (64, 64))
    box = load(tmp_path).box
    assert max(box.lo) <= -0.5
    assert min(box.hi) >= 0.5
    assert box.side < 1.5


def test_the_box_of_nothing_is_what_the_cameras_see(tmp_path):
    write_blender(tmp_path, {"train": ring(5)}, lambda m, w, h: np.zeros((h, w, 4), np.uint8))
    box = load(tmp_path).box
    assert 1 < box.side < 8
    assert max(box.lo) < 0 < min(box.hi)


def test_a_box_in_the_file_bounds_the_object(tmp_path):
    """instant-ngp: x * scale + offset is in the unit cube, so scale 0.25 and offset 0.5 are [-2, 2]."""
    fields: dict[str, Any] = {"scale": 0.25, "offset": [0.5, 0.5, 0.5]}
    photographs = load(write_transforms(tmp_path / "a", ring(3), **fields, aabb_scale=8))
    assert photographs.box == Box((-2.0,) * 3, (2.0,) * 3)
    assert photographs.unbounded
    assert not load(write_transforms(tmp_path / "b", ring(3), **fields)).unbounded
    aabb = load(write_transforms(tmp_path / "c", ring(3), aabb=[[-1, -2, -3], [1, 2, 4]], aabb_scale=2))
    assert aabb.box == Box((-1.0, -2.0, -3.0), (1.0, 2.0, 4.0))


def test_a_box_of_the_users_wins(tmp_path):
    path = write_transforms(tmp_path, ring(3), scale=0.25)
    capture = load(path, LoadOptions(box=(0.0, 0.0, 0.0, 1.0, 2.0, 3.0)))
    assert capture.box == Box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    assert not capture.unbounded
    with pytest.raises(InputError, match="--box cannot be used"):
        load(path, LoadOptions(box=(0.0, 0.0, 0.0, 1.0, 2.0, 0.0)))


@pytest.mark.parametrize("target", [(0, 0, 0), (10, -20, 5)])
def test_the_focus_of_a_circle_of_cameras_is_its_middle(target):
    focus = find_focus(rig(ring(20, radius=4, height=3, target=target)))
    VALUES.check(focus.point, torch.tensor(target).float())
    assert focus.distance == pytest.approx(5)
    assert 1 < focus.radius <= 5


def test_a_few_cameras_that_look_elsewhere_do_not_move_the_focus():
    matrices = ring(20, radius=4, height=3)
    stray = [look_at((50, 50, 50), (60, 70, 80)), look_at((4, 0, 3), (9, 9, 9)), look_at((-300, 0, 0), (0, 500, 0))]
    focus = find_focus(rig(matrices + stray))
    assert focus.point.norm() < 0.1
    assert FOCUS.allows(focus.distance, 5)


def forward_facing(distance):
    """Cameras in a plane that look at a point so far in front of them, or straight ahead."""
    places = [(x, 0, z) for x in (-1, 0, 1) for z in (-0.5, 0, 0.5)]
    return [look_at(p, (0, distance, 0) if distance else (p[0], 1, p[2])) for p in places]


@pytest.mark.parametrize("distance", [3, 10, None])
def test_cameras_in_one_direction_get_a_box_in_front_of_them(distance):
    focus = find_focus(rig(forward_facing(distance)))
    assert focus.point[1] > 2
    assert abs(focus.point[0]) < 0.1
    assert abs(focus.point[2]) < 0.1
    if distance:
        assert FOCUS.allows(float(focus.point[1]), distance)
    assert 0.2 * focus.point[1] < focus.radius <= focus.point[1]


def test_cameras_that_look_outward_get_a_box_around_them():
    matrices = [
        look_at((np.cos(a), np.sin(a), 0), (9 * np.cos(a), 9 * np.sin(a), 0)) for a in np.arange(12) * np.pi / 6
    ]
    focus = find_focus(rig(matrices))
    assert focus.point.norm() < 0.1
    assert focus.radius > 1


@pytest.mark.parametrize(
    "matrices",
    [
        [np.eye(4)],
        [look_at((3, 2, 1), (0, 0, 0))],
        [np.eye(4)] * 5,
        [look_at((0, 0, 0), (np.cos(a), np.sin(a), 0)) for a in (0, 1, 2, 3, 4, 5)],
        [look_at((1e5, 0, 0), (1e5, 1e-3, 0)), look_at((1e5 + 1e-3, 0, 0), (1e5, 1e-3, 0))],
    ],
    ids=["one at the origin", "one", "five at one place", "turning on the spot", "far away"],
)
def test_degenerate_cameras_still_have_a_box(matrices):
    focus = find_focus(rig(matrices))
    assert focus.point.isfinite().all()
    assert 0 < focus.radius < 1e6
    assert 0 < focus.distance < 1e6
    assert find_up(rig(matrices)).norm() == pytest.approx(1)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 1, 0), (0.6, 0, -0.8)])
def test_up_is_where_level_cameras_agree(up):
    """Half a circle of cameras that look down: their mean upward direction leans, their horizons do not."""
    up = np.asarray(up, float)
    side = np.cross(up, (0.3, 0.5, 0.7))
    side = side / np.linalg.norm(side)
    ahead = np.cross(up, side)
    angles = np.linspace(0, np.pi, 9)
    matrices = [look_at(4 * np.cos(a) * side + 4 * np.sin(a) * ahead + 3 * up, (0, 0, 0), up) for a in angles]
    POSES.check(find_up(rig(matrices)), torch.tensor(up).float())


def test_up_of_cameras_side_by_side_is_that_of_their_pictures():
    POSES.check(find_up(rig(forward_facing(None))), torch.tensor([0.0, 0.0, 1.0]))


def test_an_object_larger_than_the_first_guess():
    """Cameras close to a long object, which look at points along it: each sees a part."""
    angles, places = np.arange(9) * 2 * np.pi / 9, np.linspace(-4, 4, 9)
    cameras = [look_at((4 * np.cos(a), y, 4 * np.sin(a)), (0, y, 0), (0, 1, 0)) for y in places for a in angles]
    rigged = rig(cameras, focal=110.0)

    def alpha(view):
        rays = rigged.image_rays(view)  # a rod along y of radius 0.3, for |y| < 4
        d, o = rays.directions, rays.origins
        a = d[:, 0] ** 2 + d[:, 2] ** 2
        b = d[:, 0] * o[:, 0] + d[:, 2] * o[:, 2]
        inside = b * b - a * (o[:, 0] ** 2 + o[:, 2] ** 2 - 0.09)
        y = o[:, 1] + (-b - inside.clamp(min=0).sqrt()) / a * d[:, 1]
        return ((inside > 0) & (y.abs() < 4)).view(80, 80).to(torch.uint8) * 255

    box = box_of_object(rigged, alpha)
    assert box.lo[1] < -3.9
    assert box.hi[1] > 3.9
    assert box.size[0] < 1.4
    assert box.size[2] < 1.4
