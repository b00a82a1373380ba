"""Colour maps against known values, and pictures whose every part can be looked up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_paths import described, ring
from tolerances import EIGHT_BIT, TURBO_FIT

from scenes import InputError
from viewer.orbits import orbit
from viewer.pictures import (
    GAP,
    PATH_COLOUR,
    SPLIT_COLOURS,
    comparison,
    depth_colours,
    depth_span,
    error_colours,
    frusta,
    normal_colours,
    save_png,
    side_by_side,
    to_bytes,
    turbo,
)


def test_turbo_is_turbo():
    """Against the polynomial of degree 5 that its author published beside the table (constant term first)."""
    published = torch.tensor(
        [
            [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
            [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
            [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
        ]
    )
    t = torch.linspace(0, 1, 300)
    TURBO_FIT.check(turbo(t), (t[:, None] ** torch.arange(6)) @ published.T)
    assert (turbo(torch.tensor([-1.0, 2.0])) == turbo(torch.tensor([0.0, 1.0]))).all()


def test_depth_is_near_red_and_far_blue():
    depth = torch.linspace(1, 5, 100).expand(4, 100)
    colour = depth_colours(depth)
    assert colour[0, 2, 0] > 2 * colour[0, 2, 2]
    assert colour[0, 97, 2] > 1.3 * colour[0, 97, 0]
    assert 0 <= float(colour.min()) <= float(colour.max()) <= 1


@pytest.mark.parametrize(("invalid", "grey"), [(1.0, 1.0), (0.0, 0.0)])
def test_depth_that_is_not_there_is_white_or_black(invalid, grey):
    depth = torch.tensor([[2.0, 3.0, math.inf, math.nan, 0.0, -1.0]])
    colour = depth_colours(depth, invalid=invalid)
    assert (colour[0, 2:] == grey).all()
    assert torch.isfinite(colour).all()
    assert (colour[0, :2] != grey).any(-1).all()


def test_depth_fades_with_opacity():
    depth = torch.tensor([[2.0, 4.0, 4.0, 4.0]])
    colour = depth_colours(depth, torch.tensor([[1.0, 1.0, 0.5, 0.0]]))
    EIGHT_BIT.check(colour[0, 2], 0.5 * colour[0, 1] + 0.5)
    EIGHT_BIT.check(colour[0, 3], torch.ones(3))


@pytest.mark.parametrize("depth", [torch.full((3, 4), 2.5), torch.full((3, 4), math.inf), torch.zeros(0, 4)])
def test_depth_without_any_range(depth):
    colour = depth_colours(depth)
    assert colour.shape == (*depth.shape, 3)
    assert torch.isfinite(colour).all()


def test_a_span_keeps_colours_over_frames():
    near, far = torch.linspace(1, 3, 50).expand(2, 50), torch.linspace(2, 5, 49).expand(2, 49)
    span = (1.0, 5.0)
    a, b = depth_colours(near, span=span), depth_colours(far, span=span)
    EIGHT_BIT.check(a[0, 49], b[0, 16])  # both are 3 away
    low, high = depth_span(near)
    assert 1.0 <= low < 1.1
    assert 2.9 < high <= 3.0


def test_normals_as_colours():
    normal = torch.tensor([[[1.0, 0, 0], [0, -1, 0], [0, 0, 0]]])
    EIGHT_BIT.check(normal_colours(normal), torch.tensor([[[1.0, 0.5, 0.5], [0.5, 0, 0.5], [1, 1, 1]]]))


def test_comparison_shows_truth_render_error_and_depth(generator):
    truth = torch.rand(120, 80, 3, generator=generator)
    render = (truth + 0.1).clamp(max=1)
    depth = torch.rand(120, 80, 3, generator=generator)
    picture = comparison(truth, render, depth)
    top = picture.shape[0] - 120
    assert picture.shape[1] == 4 * 80 + 3 * GAP
    parts = [picture[top:, i * (80 + GAP) : i * (80 + GAP) + 80] for i in range(4)]
    for part, expected in zip(parts, (truth, render, error_colours(truth, render), depth), strict=True):
        assert np.array_equal(part, to_bytes(expected))
    assert (picture[top:, 80 : 80 + GAP] == 255).all()
    labels = [picture[:top, i * (80 + GAP) : i * (80 + GAP) + 80] for i in range(4)]
    assert all((label < 128).any() for label in labels)


def test_error_is_four_times_the_difference():
    a, b = torch.full((1, 1, 3), 0.5), torch.tensor([[[0.5, 0.6, 0.1]]])
    EIGHT_BIT.check(error_colours(a, b), torch.tensor([[[0.0, 0.4, 1.0]]]))


def test_equal_pictures_and_tiny_ones():
    tiny = torch.zeros(1, 1, 3)
    assert comparison(tiny, tiny).shape[1] == 3 + 2 * GAP
    assert side_by_side([to_bytes(tiny)], [""]).shape[1] == 1


def painted(picture, colour):
    """Pixels on the line from white to a colour, at least a third of the way."""
    ink, full = 255.0 - picture, 255.0 - np.array(colour)
    share = ink @ full / (full @ full)
    return (share > 0.33) & (np.abs(ink - share[..., None] * full).max(-1) < 12)


def test_frusta_show_cameras_box_and_path():
    data = described(ring(20, 4.0, 1.5))
    data["cameras"]["test"] = ring(3, 4.0, 0.5).to_json()
    data["cameras"]["val"] = ring(3, 4.0, 0.5)[[]].to_json()
    data["box"] = [[-1.0, -1.0, -0.5], [1.0, 1.0, 0.5]]

    def shown(picture, colour):
        return int(painted(picture[:640], colour).sum())

    plain = frusta(data)
    assert plain.shape == (640 + 640 // 14, 1280, 3)
    assert shown(plain, SPLIT_COLOURS["train"]) > 100
    assert shown(plain, SPLIT_COLOURS["test"]) > 20
    assert shown(plain, PATH_COLOUR) == 0
    assert shown(frusta(data, orbit(data).cameras), PATH_COLOUR) > 500
    assert (plain[:, :8] == 255).all()
    assert (plain[:, -8:] == 255).all()


def test_from_above_a_camera_stands_below_the_box_that_it_looks_at():
    picture = frusta(described(ring(1, 4.0, 0.0)))[:640, 640:]
    blue = painted(picture, SPLIT_COLOURS["train"])
    assert blue.any()
    row, column = np.argwhere(blue).mean(0)
    assert row > 500  # the camera looks up in the picture, at the box above it
    assert abs(column - 320) < 12


def test_one_camera_in_the_middle_of_its_box():
    inside = ring(1, 1e-6, 0.0)
    assert frusta(described(inside)).shape[1] == 1280


def test_png_is_whole_or_not_there(tmp_path, generator):
    for channels in (1, 3, 4):
        picture = torch.randint(0, 256, (5, 7, channels), generator=generator).to(torch.uint8).numpy()
        save_png(tmp_path / f"{channels}.png", picture)
        back = np.asarray(Image.open(tmp_path / f"{channels}.png"))
        assert np.array_equal(back.reshape(picture.shape), picture)
    with pytest.raises(InputError, match=r"a\.png: the picture cannot be written"):
        save_png(tmp_path / "none" / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert len(list(tmp_path.iterdir())) == 3
