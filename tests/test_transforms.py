"""Readers of posed photographs: conventions, and every spelling of intrinsics, splits and names."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_captures import (
    ANGLE,
    cameras_of,
    frame,
    load,
    look_at,
    names_of,
    pixel_rays,
    ring,
    single,
    sky,
    write_blender,
    write_json,
    write_picture,
    write_transforms,
)
from tolerances import EIGHT_BIT, EXACT, PIXELS, POSES

from scenes import InputError, InputWarning, LoadOptions
from scenes.transforms import read_transforms

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_edge_of_a_painted_picture_is_half_the_field_of_view_from_its_axis():
    _, directions = pixel_rays(np.eye(4), 1000, 2)
    edge = math.atan2(directions[0, -1, 0], -directions[0, -1, 2])
    assert abs(edge - ANGLE / 2) < 1e-3


# Conventions


def test_opengl_poses_become_opencv(tmp_path):
    """The identity looks along -z with y up: what lies right is seen right, what lies up is seen up (smaller y)."""
    camera = cameras_of(single(tmp_path, np.eye(4), fl_x=8.0))
    points = torch.tensor([[0.0, 0.0, -2.0], [0.5, 0.0, -2.0], [0.0, 0.5, -2.0]])
    xy, seen = camera.project(0, points)
    assert seen.all()
    PIXELS.check(xy, torch.tensor([[4.0, 4.0], [6.0, 4.0], [4.0, 2.0]]))
    assert not camera.project(0, -points)[1].any()


def test_rays_see_what_the_pictures_were_painted_from(tmp_path):
    """The pictures hold 0.5 + 0.5 * direction, computed from the matrices by the definition of a camera."""
    capture = load(write_transforms(tmp_path, ring(5), sky, (9, 6)), LoadOptions())
    rays, colour = capture.sample(2000, torch.Generator().manual_seed(0))
    EIGHT_BIT.check(colour, 0.5 + 0.5 * rays.directions)


def test_angle_is_the_horizontal_field_of_view(tmp_path):
    camera = cameras_of(single(tmp_path, size=(12, 6), camera_angle_x=math.pi / 2))
    EXACT.check(camera.focal.round(decimals=4), torch.tensor([[6.0, 6.0]]))
    EXACT.check(camera.centre, torch.tensor([[6.0, 3.0]]))
    both = cameras_of(single(tmp_path, size=(12, 6), camera_angle_x=math.pi / 2, camera_angle_y=2 * math.atan(0.25)))
    EXACT.check(both.focal.round(decimals=4), torch.tensor([[6.0, 12.0]]))


def test_focal_lengths_win_over_angles_and_frames_over_the_file(tmp_path):
    fields: dict[str, Any] = {
        "fl_x": 10.0,
        "fl_y": 11.0,
        "cx": 3.0,
        "cy": 5.0,
        "k1": 0.1,
        "p2": 0.01,
        "camera_angle_x": 1.0,
    }
    camera = cameras_of(single(tmp_path, **fields))
    EXACT.check(camera.focal, torch.tensor([[10.0, 11.0]]))
    EXACT.check(camera.centre, torch.tensor([[3.0, 5.0]]))
    EXACT.check(camera.distortion, torch.tensor([[0.1, 0, 0, 0, 0, 0.01]]))
    own = cameras_of(single(tmp_path, in_frame={"fl_x": 20.0, "k1": -0.05, "cy": 2.0}, **fields))
    EXACT.check(own.focal, torch.tensor([[20.0, 11.0]]))
    EXACT.check(own.centre, torch.tensor([[3.0, 2.0]]))
    EXACT.check(own.distortion, torch.tensor([[-0.05, 0, 0, 0, 0, 0.01]]))
    angle = cameras_of(single(tmp_path, in_frame={"camera_angle_x": math.pi / 2}, **fields))
    EXACT.check(angle.focal.round(decimals=4), torch.tensor([[4.0, 4.0]]))


@pytest.mark.parametrize("fields", [{"is_fisheye": True}, {"camera_model": "opencv_fisheye"}])
def test_fisheye_by_either_name(tmp_path, fields):
    assert cameras_of(single(tmp_path, fl_x=5.0, **fields)).fisheye
    assert not cameras_of(single(tmp_path, fl_x=5.0, camera_model="OPENCV", is_fisheye=False)).fisheye


def test_printed_matrices_are_made_orthonormal(tmp_path):
    matrix = look_at((1, -4, 2), (0, 0.3, 0))
    camera = cameras_of(single(tmp_path, np.round(matrix, 4), fl_x=8.0))
    rotation = camera.T_world_camera[0, :, :3]
    POSES.check(rotation @ rotation.T, torch.eye(3))
    assert np.abs(rotation.numpy() - matrix[:3, :3] * (1, -1, -1)).max() < 2e-4


def test_three_rows_are_enough(tmp_path):
    matrix = look_at((1, -4, 2), (0, 0, 0))
    whole = cameras_of(single(tmp_path, matrix, fl_x=8.0))
    EXACT.check(cameras_of(single(tmp_path, matrix[:3], fl_x=8.0)).T_world_camera, whole.T_world_camera)


def test_time(tmp_path):
    frames = [frame(f"{i}.png", m, time=i / 2) for i, m in enumerate(ring(3))]
    for entry in frames:
        write_picture(tmp_path / entry["file_path"], np.zeros((8, 8, 3), np.uint8))
    path = write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": frames})
    time = cameras_of(path).time
    assert time is not None
    assert time.tolist() == [0.0, 0.5, 1.0]


# Splits


def test_every_nth_view_in_order_of_names_is_held_out(tmp_path):
    path = write_transforms(tmp_path, ring(10))
    data = json.loads(path.read_text())
    data["frames"].reverse()
    write_json(path, data)
    names = names_of(load(tmp_path, LoadOptions(hold_out_every=4)))
    assert names["test"] == ["images/000.png", "images/004.png", "images/008.png"]
    assert names["train"] == [f"images/{i:03}.png" for i in range(10) if i % 4]
    assert names_of(load(path, LoadOptions(hold_out_every=0)))["test"] == []


def test_splits_named_in_the_file(tmp_path):
    path = write_transforms(
        tmp_path,
        ring(6),
        train_filenames=["images/005.png", "./images/001.png"],
        val_filenames=["images\\002.png"],
        test_filenames=["images/003"],
    )
    capture = load(path)
    assert names_of(capture) == {
        "train": ["images/005.png", "images/001.png"],
        "val": ["images/002.png"],
        "test": ["images/003.png"],
    }
    assert capture.pixels.shape == (4 * 64, 3), "frames of no split are not decoded"


def test_what_is_not_held_out_by_name_trains(tmp_path):
    names = names_of(load(write_transforms(tmp_path, ring(4), test_filenames=["images/002.png"])))
    assert names["train"] == ["images/000.png", "images/001.png", "images/003.png"]


def test_blender_folder(tmp_path):
    write_blender(tmp_path, {"train": ring(3), "val": ring(2), "test": ring(4, height=1)}, sky)
    capture = load(tmp_path)
    assert {split: len(cameras) for split, cameras in capture.splits.items()} == {"train": 3, "val": 2, "test": 4}
    assert names_of(capture)["test"][3] == "test/r_3.png"
    assert load(tmp_path / "transforms_train.json").fingerprint() == capture.fingerprint()


def test_validation_views_stand_in_for_test_views(tmp_path):
    write_blender(tmp_path, {"train": ring(3), "val": ring(2)}, sky)
    assert names_of(load(tmp_path))["test"] == ["val/r_0.png", "val/r_1.png"]


def test_views_that_train_are_no_test(tmp_path):
    write_blender(tmp_path, {"train": ring(3)}, sky)
    (tmp_path / "transforms_test.json").write_bytes((tmp_path / "transforms_train.json").read_bytes())
    with pytest.warns(InputWarning, match="3 of its views train too"):
        load(tmp_path)


def test_all_views_of_a_json_can_be_evaluated(tmp_path):
    write_blender(tmp_path, {"train": ring(3), "test": ring(4)}, sky)
    for split, n in (("train", 3), ("test", 4)):
        capture = load(tmp_path / f"transforms_{split}.json", LoadOptions(evaluation_only=True))
        assert {name: len(cameras) for name, cameras in capture.splits.items()} == {"train": 0, "val": 0, "test": n}
    whole = load(tmp_path, LoadOptions(evaluation_only=True))
    assert len(whole.splits["test"]) == 4


# Names of files


@pytest.mark.parametrize(
    "name", ["pics/A.png", "./pics/A.png", "pics\\A.png", ".\\pics\\A", "pics/A", "PICS/a.PNG", "pics/a", "x/../pics/A"]
)
def test_names_are_found_as_people_write_them(tmp_path, name):
    write_picture(tmp_path / "pics" / "A.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "x").mkdir()
    path = write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [frame(name, np.eye(4))]})
    assert read_transforms(path).frames[0].name == "pics/A.png"


def outside(tmp_path, name):
    """A JSON in a folder of its own that names a picture; one picture lies beside the folder."""
    write_picture(tmp_path / "secret.png", np.zeros((8, 8, 3), np.uint8))
    folder = tmp_path / "capture"
    folder.mkdir(exist_ok=True)
    if not (folder / "link.png").is_symlink():
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        (folder / "door").symlink_to(tmp_path)
    name = name.replace("ABSOLUTE", str(tmp_path))
    return write_json(folder / "transforms.json", {"fl_x": 8.0, "frames": [frame(name, np.eye(4))]})


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "..\\secret",
        "./x/../../secret.png",
        "ABSOLUTE/secret.png",
        "link.png",
        "door/secret.png",
        "LINK",
    ],
)
def test_names_that_leave_the_folder_are_refused_unless_allowed(tmp_path, name):
    path = outside(tmp_path, name)
    with pytest.raises(InputError, match=r"frames\[0\].file_path.*--allow-outside"):
        read_transforms(path)
    if "x/.." not in name:
        found = read_transforms(path, allow_outside=True).frames[0].picture
        assert found.read_bytes() == (tmp_path / "secret.png").read_bytes()


@pytest.mark.parametrize("name", ["../nothing.png", "/etc/passwd", "C:\\secret.png", "door/nothing.png"])
def test_names_that_leave_the_folder_do_not_tell_what_exists(tmp_path, name):
    with pytest.raises(InputError, match="--allow-outside"):
        read_transforms(outside(tmp_path, name))


def test_masks_are_held_to_the_same_rule(tmp_path):
    path = outside(tmp_path, "link.png")
    write_picture(path.parent / "a.png", np.zeros((8, 8, 3), np.uint8))
    entry = frame("a.png", np.eye(4))
    write_json(path, {"fl_x": 8.0, "frames": [entry | {"mask_path": "../secret.png"}]})
    with pytest.raises(InputError, match=r"frames\[0\].mask_path.*--allow-outside"):
        read_transforms(path)
    (path.parent / "dynamic_mask_a.png").symlink_to(tmp_path / "secret.png")
    write_json(path, {"fl_x": 8.0, "frames": [entry]})
    with pytest.raises(InputError, match="--allow-outside"):
        read_transforms(path)
