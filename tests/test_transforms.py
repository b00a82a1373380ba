"""Readers of posed photographs: conventions, every spelling of intrinsics and names, one line for all that is bad."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from tiny_captures import (
    ANGLE,
    frame,
    load,
    look_at,
    names_of,
    pixel_rays,
    ring,
    sky,
    write_blender,
    write_json,
    write_picture,
    write_transforms,
)
from tolerances import EIGHT_BIT, EXACT, PIXELS, POSES

from scenes import InputError, InputWarning, LoadOptions
from scenes.photographs import Photograph, read_header
from scenes.transforms import read_transforms, to_cameras


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    """Arrays are small here: a second thread costs more than it brings, above all on a busy machine."""
    torch.set_num_threads(1)


def cameras_of(path):
    """The cameras of a JSON, by the sizes of its pictures."""
    frames = read_transforms(path).frames
    headers = [read_header(Photograph(f.where, f.picture), 10**6) for f in frames]
    return to_cameras(frames, [(h.width, h.height) for h in headers])


def single(folder, matrix=None, size=(8, 8), in_frame=None, **fields):
    """One photograph with these fields in the file and in its frame."""
    write_picture(folder / "a.png", np.zeros((size[1], size[0], 3), np.uint8))
    matrix = look_at((0, -4, 0), (0, 0, 0)) if matrix is None else matrix
    return write_json(folder / "transforms.json", {**fields, "frames": [frame("a.png", matrix, **(in_frame or {}))]})


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
    fields = {"fl_x": 10.0, "fl_y": 11.0, "cx": 3.0, "cy": 5.0, "k1": 0.1, "p2": 0.01, "camera_angle_x": 1.0}
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


# Bad input


SCALED = look_at((0, -4, 0), (0, 0, 0)) * np.array([[1.1], [1.1], [1.1], [1]])
SHEARED = look_at((0, -4, 0), (0, 0, 0)) @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
MIRRORED = look_at((0, -4, 0), (0, 0, 0)) * np.array([1, -1, 1, 1])
BAD_FRAMES = {
    "no picture named": ({"file_path": None}, "file_path: is missing"),
    "picture is a number": ({"file_path": 3}, "file_path: expected a string, got 3"),
    "empty name": ({"file_path": ""}, "file_path: expected the name of a file"),
    "name with a null": ({"file_path": "a\0.png"}, "file_path: expected the name of a file"),
    "picture is missing": ({"file_path": "b.png"}, "file_path: there is no file 'b.png'"),
    "very long name": ({"file_path": "b" * 5000}, "file_path: there is no file"),
    "no matrix": ({"transform_matrix": None}, "transform_matrix: is missing"),
    "matrix of text": ({"transform_matrix": "identity"}, 'transform_matrix: expected a 4 x 4 matrix .*got "identity"'),
    "two rows": ({"transform_matrix": [[1, 0, 0, 0]] * 2}, "transform_matrix: expected a 4 x 4 .*got a list of 2"),
    "short row": ({"transform_matrix": [[1, 0, 0]] * 4}, r"transform_matrix\[0\]: expected a list of 4 numbers"),
    "text in a row": ({"transform_matrix": [[1, 0, "0", 0]] * 4}, r"transform_matrix\[0\]\[2\]: expected a number"),
    "NaN": ({"transform_matrix": [[1, 0, 0, math.nan]] * 4}, r"transform_matrix\[0\]\[3\]: expected a finite .*NaN"),
    "infinity": ({"transform_matrix": [[math.inf, 0, 0, 0]] * 4}, r"transform_matrix\[0\]\[0\]: .*finite"),
    "last row": ({"transform_matrix": np.ones((4, 4)).tolist()}, r"transform_matrix\[3\]: expected the row 0 0 0 1"),
    "zeros": ({"transform_matrix": np.diag([0, 0, 0, 1]).tolist()}, "transform_matrix: is singular"),
    "scaled": ({"transform_matrix": SCALED.tolist()}, "transform_matrix: is not rigid .*length 1.1"),
    "sheared": ({"transform_matrix": SHEARED.tolist()}, "transform_matrix: is not rigid"),
    "mirrored": ({"transform_matrix": MIRRORED.tolist()}, "transform_matrix: is a mirror image"),
    "too far": (
        {"transform_matrix": (np.eye(4) + np.eye(4, k=3) * 1e9).tolist()},
        "transform_matrix: the camera is 1e",
    ),
    "focal length zero": ({"fl_x": 0}, "fl_x: expected a positive number, got 0"),
    "focal length true": ({"fl_x": True}, "fl_x: expected a number, got true"),
    "tiny focal length": ({"fl_x": 1e-5}, "are not those of a picture of 8 x 8"),
    "centre elsewhere": ({"cx": 1e9}, "are not those of a picture of 8 x 8"),
    "angle too wide": ({"fl_x": None, "camera_angle_x": 3.2}, "camera_angle_x: expected a value below 3.142"),
    "angle next to zero": ({"fl_x": None, "camera_angle_x": 5e-324}, "are not those of a picture"),
    "no focal length": ({"fl_x": None}, "neither the frame nor the file has fl_x or camera_angle_x"),
    "angle of a fisheye": ({"fl_x": None, "camera_angle_x": 1, "is_fisheye": True}, "neither .* has fl_x;"),
    "unknown lens": ({"camera_model": "EQUIRECTANGULAR"}, "camera_model: expected one of OPENCV, .*'EQUIRECTANGULAR'"),
    "rational lens": ({"k5": 0.1}, "k5: this lens model is not supported"),
    "fisheye of text": ({"is_fisheye": "yes"}, 'is_fisheye: expected true or false, got "yes"'),
    "lens explodes": ({"k4": 1e29, "k1": -1e29}, "the lens k1 -1e[+]29 k4 1e[+]29 has no inverse"),
    "size": ({"w": 16, "h": 8}, "w and h say 16 x 8, but the picture is 8 x 8"),
    "size below zero": ({"w": -8}, "w: expected a positive number"),
    "time after the end": ({"time": 2}, r"time: expected a value in \[0, 1\], got 2"),
    "mask is missing": ({"mask_path": "m.png"}, "mask_path: there is no file 'm.png'"),
    "frame is a list": ([1, 2], "expected an object with file_path and transform_matrix, got a list of 2"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_frame(tmp_path, case):
    fields, message = BAD_FRAMES[case]
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    entry = frame("a.png", look_at((0, -4, 0), (0, 0, 0)), fl_x=8.0)
    path = write_json(
        tmp_path / "transforms.json", {"frames": [entry | fields if isinstance(fields, dict) else fields]}
    )
    with pytest.raises(InputError, match=message) as caught:
        load(path, LoadOptions(hold_out_every=0))
    assert str(caught.value).startswith(f"{path}: frames[0]")
    assert "\n" not in str(caught.value)


BAD_FILES = {
    "empty file": ("", "is not valid JSON"),
    "cut": ('{"frames": [', "is not valid JSON"),
    "not text": (b"\xff\xfe\x00", "is not valid JSON"),
    "list": ("[]", "expected an object with frames, got a list of 0"),
    "no frames": ('{"fl_x": 1}', "frames is missing"),
    "zero frames": ('{"frames": []}', "frames is a list of 0; expected a list of at least one"),
    "frames is an object": ('{"frames": {}}', "frames is an object of 0"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "nested and closed": ('{"frames": ' + "[" * 900 + "]" * 900 + "}", "expected an object with file_path"),
    "1e999": ('{"fl_x": 1e999, "frames": FRAMES}', "fl_x: expected a finite number, got Infinity"),
    "many digits": ('{"fl_x": 1' + "0" * 400 + ', "frames": FRAMES}', "fl_x: .*finite.*very many digits"),
    "too many digits": ('{"fl_x": 1' + "0" * 9000 + ', "frames": FRAMES}', "is not valid JSON"),
    "aabb_scale": ('{"fl_x": 8, "aabb_scale": -1, "frames": FRAMES}', "aabb_scale: expected a positive"),
    "aabb": ('{"fl_x": 8, "aabb": [1], "frames": FRAMES}', "aabb: expected .*got a list of 1"),
    "aabb inside out": ('{"fl_x": 8, "aabb": [[1, 1, 1], [0, 0, 0]], "frames": FRAMES}', "expected a box with lo < hi"),
    "scale": ('{"fl_x": 8, "scale": 0, "frames": FRAMES}', "scale: expected a positive"),
    "offset": ('{"fl_x": 8, "offset": ["a", 1, 2], "frames": FRAMES}', r"offset\[0\]: expected a number"),
    "applied_transform": (
        '{"fl_x": 8, "applied_transform": 3, "frames": FRAMES}',
        "applied_transform: expected a 4 x 4",
    ),
    "split is no list": ('{"fl_x": 8, "test_filenames": "a", "frames": FRAMES}', "test_filenames: expected a list"),
    "split without a file": (
        '{"fl_x": 8, "test_filenames": ["b"], "frames": FRAMES}',
        r"test_filenames\[0\]: there is no",
    ),
    "split of no frame": (
        '{"fl_x": 8, "test_filenames": ["c.png"], "frames": FRAMES}',
        "not the file_path of any frame",
    ),
    "nothing trains": ('{"fl_x": 8, "test_filenames": ["a.png"], "frames": FRAMES}', "has no training views"),
    "one picture twice": (
        '{"fl_x": 8, "frames": [FRAME, FRAME]}',
        r"frames\[1\].file_path: .*also the picture of .*\[0\]",
    ),
    "some have time": ('{"fl_x": 8, "frames": [FRAME, TIMED]}', r"frames\[1\]: whether there is a time differs"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(tmp_path, case):
    text, message = BAD_FILES[case]
    for name in ("a.png", "c.png"):
        write_picture(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    entry = frame("a.png", np.eye(4))
    path = tmp_path / "transforms.json"
    if isinstance(text, str):
        timed = json.dumps(entry | {"file_path": "c.png", "time": 0.5})
        filled = text.replace("FRAMES", "[FRAME]").replace("FRAME", json.dumps(entry)).replace("TIMED", timed)
        text = filled.encode()
    path.write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        load(path, LoadOptions(hold_out_every=0))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_view_cannot_be_held_out_and_train(tmp_path):
    with pytest.raises(InputError, match=r"no training views.*--hold-out-every"):
        load(write_transforms(tmp_path, ring(1)))


def test_a_lens_that_bends_too_far_is_reported(tmp_path):
    with pytest.warns(InputWarning, match=r"frames\[0\]: the lens k1 -3 is .* pixels off at the edge"):
        cameras_of(single(tmp_path, fl_x=8.0, k1=-3.0))


def test_mixed_lenses_are_refused(tmp_path):
    path = write_transforms(tmp_path, ring(2), fl_x=8.0)
    data = json.loads(path.read_text())
    data["frames"][1]["is_fisheye"] = True
    with pytest.raises(InputError, match=r"frames\[1\]: the lens model differs"):
        load(write_json(path, data), LoadOptions(hold_out_every=0))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no transforms.json"),
        (["sparse/0/images.bin"], "COLMAP"),
        (["poses_bounds.npy"], "LLFF"),
        (["IMG_1.JPG"], "photographs without cameras"),
        (["transforms_test.json"], "no transforms_train.json"),
    ],
)
def test_a_folder_without_cameras(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path))}: .*{message}"):
        load(tmp_path)


ODD_VALUES = (
    None,
    True,
    -1,
    0,
    1e-9,
    1e308,
    -math.inf,
    math.nan,
    10**400,
    "",
    "x",
    "../x",
    "/",
    "\ud800",
    [],
    {},
    [[]],
    {"a": []},
)


def mutated(value, draw):
    """A JSON value with one thing in it changed at random."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = str(draw.choice(list(value)))
        action = draw.random()
        if action < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {k: mutated(v, draw) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and draw.random() < 0.85:
        i = int(draw.integers(len(value)))
        action = draw.random()
        if action < 0.1:
            return value[:i] + value[i + 1 :]
        if action < 0.15:
            return [*value, value[i]]
        return [mutated(v, draw) if j == i else v for j, v in enumerate(value)]
    if isinstance(value, float) and draw.random() < 0.3:
        return value * float(draw.choice([-1.0, 1.0001, 1.5, 1e3, 1e20, 1e-20]))
    if isinstance(value, str) and draw.random() < 0.3:
        i = int(draw.integers(len(value) + 1))
        return value[:i] + str(draw.choice(["/", "\\", "..", "\n", "é", " "])) + value[i:]
    return ODD_VALUES[int(draw.integers(len(ODD_VALUES)))]


def refusal(path):
    """The message with which a capture is refused, or None where it loads and gives finite samples."""
    try:
        rays, colour = load(path).sample(16, torch.Generator().manual_seed(0))
    except InputError as error:
        return str(error)
    assert rays.directions.isfinite().all(), path.read_text()
    assert colour.isfinite().all()
    return None


@pytest.mark.filterwarnings("ignore::scenes.errors.InputWarning")
def test_only_input_errors_escape_from_mutated_files(tmp_path):
    """Some hundred files with up to three things changed: they load, or give one line that names the file."""
    draw = np.random.default_rng(7)
    path = write_transforms(
        tmp_path,
        ring(3),
        size=(4, 4),
        fl_x=5.0,
        fl_y=5.0,
        cx=2.0,
        cy=2.0,
        w=4,
        h=4,
        k1=0.01,
        p1=0.001,
        camera_model="OPENCV",
        aabb_scale=4,
        scale=0.3,
        offset=[0.5, 0.5, 0.5],
        applied_transform=np.eye(4)[:3].tolist(),
        test_filenames=["images/001.png"],
    )
    write_picture(tmp_path / "mask.png", np.full((4, 4), 255, np.uint8))
    original = json.loads(path.read_text())
    for i, entry in enumerate(original["frames"]):
        entry |= {"time": i / 2, "mask_path": "mask.png"}
    loaded = refused = 0
    for _ in range(500):
        data = original
        for _ in range(int(draw.integers(1, 4))):
            data = mutated(data, draw)
        write_json(path, data)
        message = refusal(path)
        if message is None:
            loaded += 1
        else:
            assert str(path.parent) in message
            assert "\n" not in message
            refused += 1
    assert loaded > 20
    assert refused > 200


def test_the_edge_of_a_painted_picture_is_half_the_field_of_view_from_its_axis():
    _, directions = pixel_rays(np.eye(4), 1000, 2)
    edge = math.atan2(directions[0, -1, 0], -directions[0, -1, 2])
    assert abs(edge - ANGLE / 2) < 1e-3
