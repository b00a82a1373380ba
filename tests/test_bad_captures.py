"""Captures that cannot be used: one line that names the file and the field, whatever is wrong with them."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from tiny_captures import (
    cameras_of,
    frame,
    load,
    look_at,
    ring,
    single,
    write_json,
    write_picture,
    write_transforms,
)

import scenes
from scenes import InputError, InputWarning, LoadOptions

pytestmark = pytest.mark.usefixtures("one_thread")


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
    "time of text": ({"time": "noon"}, 'time: expected a number, got "noon"'),
    "time is infinite": ({"time": math.inf}, "time: expected a finite number, got Infinity"),
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "does not exist; give an image, a mesh"),
        ("a.png/b", "cannot be opened"),
        ("x" * 300, "cannot be opened"),
        ("a\0b", "cannot be opened"),
        ("a.xyz", "is of no known kind; give a folder, or a file ending in"),
    ],
)
def test_a_path_that_holds_no_scene(tmp_path, name, message):
    write_picture(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(InputError, match=message):
        scenes.load(tmp_path / name)
