"""Photographs become bytes: every kind of file, shrunk, damaged, too large."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_captures import (
    frame,
    load,
    ring,
    sky,
    write_json,
    write_picture,
    write_transforms,
)
from tolerances import EIGHT_BIT, POSES

from scenes import InputError, LoadOptions

WHOLE = LoadOptions(hold_out_every=0)
pytestmark = pytest.mark.usefixtures("one_thread")


def test_shrinking_averages_and_keeps_rays(tmp_path):
    """9 x 7 by 2: the last column and row are cut; transparent pixels do not bleed their colour."""
    pixels = np.zeros((7, 9, 4), np.uint8)
    pixels[0:2, 0:2] = [[(200, 0, 0, 255), (0, 200, 0, 255)], [(0, 0, 90, 0), (0, 0, 90, 0)]]
    write_picture(tmp_path / "0.png", pixels)
    write_json(tmp_path / "transforms.json", {"fl_x": 9.0, "cx": 4.2, "frames": [frame("0.png", ring(1)[0])]})
    whole = load(tmp_path, WHOLE)
    small = load(tmp_path, LoadOptions(hold_out_every=0, downscale=2))
    assert small.cameras.size.tolist() == [[4, 3]]
    assert small.pixels.shape == (12, 4)
    EIGHT_BIT.check(small.pixels[0] / 255, torch.tensor([100, 100, 0, 127.5]) / 255)
    corners = torch.tensor([[2.0, 4.0], [6.0, 2.0]])
    view = torch.zeros(2, dtype=torch.int64)
    POSES.check(small.cameras.rays(view, corners / 2).directions, whole.cameras.rays(view, corners).directions)


def test_shrinking_keeps_only_what_no_mask_touches(tmp_path):
    mask = np.full((4, 4), 255, np.uint8)
    mask[0, 1] = 0
    write_picture(tmp_path / "0.png", np.zeros((4, 4, 3), np.uint8))
    write_picture(tmp_path / "m.png", mask)
    entry = frame("0.png", np.eye(4), mask_path="m.png")
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [entry]})
    capture = load(tmp_path, LoadOptions(hold_out_every=0, downscale=2))
    assert capture.keep is not None
    assert capture.keep.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("factor", "message"), [(0, "--downscale is 0"), (9, "too small to be shrunk 9 times")])
def test_shrinking_to_nothing(tmp_path, factor, message):
    with pytest.raises(InputError, match=message):
        load(write_transforms(tmp_path, ring(2)), LoadOptions(downscale=factor))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16", "RGBA", "CMYK"])
def test_every_kind_of_picture_becomes_bytes_of_colour(tmp_path, mode):
    name = "0.tif" if mode == "CMYK" else "0.png"
    write_picture(tmp_path / "grey.png", np.full((8, 8), 255, np.uint8))
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / name)
    else:
        Image.open(tmp_path / "grey.png").convert("RGB").convert(mode).save(tmp_path / name)
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [frame(name, np.eye(4))]})
    capture = load(tmp_path, WHOLE)
    assert capture.pixels.shape == (64, 3)
    assert int(capture.pixels.min()) == 255


def test_damaged_pictures(tmp_path):
    path = write_transforms(tmp_path, ring(3), sky, (64, 64))
    picture = tmp_path / "images" / "001.png"
    whole = picture.read_bytes()
    draw = np.random.default_rng(3)
    refused = 0
    cuts = [whole[:n] for n in (0, 10, 30, 60, len(whole) // 2, len(whole) - 100)]
    for data in cuts + [flipped(whole, draw) for _ in range(60)]:
        picture.write_bytes(data)
        try:
            load(path)
        except InputError as error:
            refused += 1
            one_line = str(error)
            assert "001.png" in one_line
            assert "\n" not in one_line
        else:
            assert len(data) == len(whole)
    assert refused > len(cuts)
    picture.write_bytes(whole)
    load(path)


def flipped(data, draw):
    """The bytes with a few of them changed."""
    changed = bytearray(data)
    for i in draw.integers(8, len(data), 3):
        changed[i] ^= int(draw.integers(1, 256))
    return bytes(changed)


def test_too_much_memory_is_refused_before_decoding(tmp_path):
    path = write_transforms(tmp_path, ring(3), sky, (64, 64))
    for picture in (tmp_path / "images").iterdir():
        picture.write_bytes(picture.read_bytes()[:60])  # the size can be read, the pixels cannot
    with pytest.raises(InputError, match=r"transforms.json: the photographs need 0.00 GB.*--downscale"):
        load(path, LoadOptions(max_ram_gb=1e-6))
    with pytest.raises(InputError, match="damaged"):
        load(path)


def test_too_large_a_picture_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\d.png: 8 x 8 is more than 60 pixels; raise --max-pixels"):
        load(write_transforms(tmp_path, ring(2)), LoadOptions(max_pixels=60))
