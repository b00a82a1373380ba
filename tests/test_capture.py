"""Captures: what is sampled is what was photographed, and what is evaluated."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tiny_captures import (
    frame,
    load,
    ring,
    sky,
    write_json,
    write_picture,
    write_solid,
    write_transforms,
)
from tolerances import EXACT, METRICS, ROUNDED_PSNR, VALUES

from scenes import Box, Cameras, InputError, LoadOptions, Scene

WHOLE = LoadOptions(hold_out_every=0)
pytestmark = pytest.mark.usefixtures("one_thread")


# Sampling


def test_is_a_scene(tmp_path):
    assert isinstance(load(write_transforms(tmp_path, ring(2))), Scene)


def test_samples_are_spread_evenly_over_all_training_views(tmp_path, generator):
    """Views of different sizes and colours: each pixel is as likely as any other; the held-out view never comes."""
    sizes, frames = [(8, 8), (4, 4), (16, 4), (8, 2)], []
    for i, (width, height) in enumerate(sizes):
        write_picture(tmp_path / f"{i}.png", np.full((height, width, 3), 60 * i, np.uint8))
        frames.append(frame(f"{i}.png", ring(4)[i]))
    write_json(tmp_path / "transforms.json", {"camera_angle_x": 0.8, "frames": frames})
    n = 40_000
    rays, colour = load(tmp_path).sample(n, generator)
    assert len(rays) == n
    views = (colour[:, 0] * 255 / 60).round().long()
    share = torch.bincount(views, minlength=4) / n
    expected = torch.tensor([0, 16, 64, 16]) / 96
    deviation = 5 * (expected * (1 - expected) / n).sqrt()
    assert ((share - expected).abs() <= deviation).all()


def test_every_pixel_is_drawn_with_the_ray_through_its_centre(tmp_path, generator):
    matrices = ring(2)
    capture = load(write_transforms(tmp_path, matrices, sky, (5, 3)), WHOLE)
    rays, _ = capture.sample(2000, generator)
    seen = set()
    for origin, direction in zip(rays.origins, rays.directions, strict=True):
        view = int((capture.cameras.position - origin).norm(dim=-1).argmin())
        xy, _ = capture.cameras.project(view, (origin + direction)[None])
        seen.add((view, *(2 * xy[0]).round().int().tolist()))
    assert seen == {(v, 2 * x + 1, 2 * y + 1) for v in range(2) for x in range(5) for y in range(3)}


def test_samples_repeat_with_the_generator(tmp_path):
    capture = load(write_solid(tmp_path, [(1, 2, 3, 40)] * 3))
    draws = [capture.sample(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    EXACT.check(draws[0][1], draws[1][1])
    EXACT.check(draws[0][0].directions, draws[1][0].directions)
    assert not torch.equal(draws[0][0].directions, draws[2][0].directions)


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparent_pixels_are_composited_over_a_random_background(tmp_path, generator, alpha):
    """Beside a transparent picture, so that even opaque ones keep their alpha."""
    capture = load(write_solid(tmp_path, [(102, 0, 255, alpha), (0, 0, 0, 0)]), WHOLE)
    rays, colour = capture.sample(4000, generator)
    first = (capture.cameras.position[:1] - rays.origins).norm(dim=-1) < 1e-3
    assert first.any()
    a = alpha / 255
    VALUES.check(colour[first], a * torch.tensor([0.4, 0.0, 1.0]) + (1 - a) * rays.background[first])
    assert abs(rays.background.mean() - 0.5) < 0.02
    assert rays.background.std() > 0.25


def test_plain_photographs_have_no_background(tmp_path, generator):
    capture = load(write_solid(tmp_path, [(10, 20, 30)] * 2))
    rays, colour = capture.sample(20, generator)
    EXACT.check(rays.background, torch.zeros(20, 3))
    VALUES.check(colour, (torch.tensor([10, 20, 30]) / 255).expand(20, 3))
    assert capture.unbounded


def test_opaque_pictures_with_alpha_are_plain_photographs(tmp_path):
    capture = load(write_solid(tmp_path, [(10, 20, 30, 255)] * 2))
    assert not capture.has_alpha
    assert capture.unbounded
    assert capture.pixels.shape == (128, 3)


def test_loss_is_the_mean_squared_error(tmp_path):
    capture = load(write_solid(tmp_path, [(0, 0, 0)] * 2))
    assert capture.loss(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])) == pytest.approx(5 / 3)


# Masks


def mask_left_half(folder, name, value):
    pixels = np.full((8, 8), 255 - value, np.uint8)
    pixels[:, :4] = value
    write_picture(folder / name, pixels)


@pytest.mark.parametrize("kind", ["mask_path", "dynamic_mask"])
def test_masked_pixels_are_never_drawn(tmp_path, generator, kind):
    """The left half is masked and white, the right half black. A mask keeps white, a dynamic mask keeps black."""
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4] = 255
    frames = []
    for i, matrix in enumerate(ring(3)):
        write_picture(tmp_path / f"{i}.png", half)
        frames.append(frame(f"{i}.png", matrix, **({"mask_path": f"m/{i}"} if kind == "mask_path" else {})))
        (tmp_path / "m").mkdir(exist_ok=True)
        name, value = (f"m/{i}.png", 0) if kind == "mask_path" else (f"dynamic_mask_{i}.png", 255)
        mask_left_half(tmp_path, name, value)
    capture = load(write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": frames}))
    _, colour = capture.sample(3000, generator)
    assert len(colour) == 3000
    assert colour.max() == 0
    # a prediction that is wrong only where masked is perfect
    assert capture.evaluate(lambda rays: torch.zeros(len(rays), 3)).results["psnr"] == 100
    wrong = capture.evaluate(lambda rays: torch.full((len(rays), 3), 0.1))
    assert METRICS.allows(wrong.results["psnr"], 20.0)
    assert "masked" in wrong.definitions["psnr"]


def test_a_mask_over_everything_leaves_nothing_to_train_on(tmp_path, generator):
    frames = [frame(f"{i}.png", matrix, mask_path="m.png") for i, matrix in enumerate(ring(2))]
    for i in range(2):
        write_picture(tmp_path / f"{i}.png", np.zeros((8, 8, 3), np.uint8))
    write_picture(tmp_path / "m.png", np.zeros((8, 8), np.uint8))
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": frames})
    with pytest.raises(InputError, match="no pixels to train on"):
        load(tmp_path, WHOLE).sample(1, generator)


def test_a_mask_of_another_size_is_refused(tmp_path):
    write_picture(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    write_picture(tmp_path / "m.png", np.zeros((8, 9), np.uint8))
    entry = frame("0.png", np.eye(4), mask_path="m.png")
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [entry]})
    with pytest.raises(InputError, match=r"m.png: the mask is 9 x 8, but its picture is 8 x 8"):
        load(tmp_path, WHOLE)


# Evaluation


def test_the_truth_gives_what_is_left_by_rounding_to_bytes(tmp_path):
    """Rounding to 1/255 leaves a mean squared error of 1 / (12 * 255^2): 58.9 dB."""
    capture = load(write_transforms(tmp_path, ring(9), sky, (24, 16)))
    evaluation = capture.evaluate(lambda rays: 0.5 + 0.5 * rays.directions)
    assert evaluation.names == ["images/000.png", "images/008.png"]
    assert ROUNDED_PSNR.allows(evaluation.results["psnr"], 10 * math.log10(12 * 255**2))
    assert evaluation.results["ssim"] > 0.99
    assert evaluation.background is None
    assert evaluation.results["psnr"] == pytest.approx(sum(evaluation.per_item["psnr"]) / 2)
    train = capture.evaluate(lambda rays: 0.5 + 0.5 * rays.directions, "train")
    assert len(train.names) == 7
    json.dumps(evaluation.to_json())


@pytest.mark.parametrize("background", ["white", "black"])
def test_evaluation_composites_over_its_background(tmp_path, background):
    path = write_solid(tmp_path, [(255, 0, 0, 51)] * 2)
    capture = load(path, LoadOptions(background=background))
    behind = 1.0 if background == "white" else 0.0
    EXACT.check(capture.image_rays(0).background, torch.full((64, 3), behind))
    truth = 0.2 * torch.tensor([1.0, 0.0, 0.0]) + 0.8 * behind
    evaluation = capture.evaluate(lambda rays: truth.expand(len(rays), 3))
    assert evaluation.results["psnr"] == 100
    assert evaluation.background == background


def test_predictions_are_clamped(tmp_path):
    capture = load(write_solid(tmp_path, [(255, 255, 255)] * 2))
    assert capture.evaluate(lambda rays: torch.full((len(rays), 3), 7.0)).results["psnr"] == 100


def test_pictures_smaller_than_the_window_have_no_ssim(tmp_path):
    capture = load(write_solid(tmp_path, [(0, 0, 0)] * 2, size=(8, 8)))
    assert set(capture.evaluate(lambda rays: torch.zeros(len(rays), 3)).results) == {"psnr"}


def test_a_split_without_views(tmp_path):
    capture = load(write_solid(tmp_path, [(0, 0, 0)] * 3), WHOLE)
    with pytest.raises(InputError, match=r"no test views, only train \(3\)"):
        capture.evaluate(lambda rays: torch.zeros(len(rays), 3))


def test_fingerprint_is_of_content(tmp_path):
    first = load(write_transforms(tmp_path / "a", ring(4))).fingerprint()
    assert load(write_transforms(tmp_path / "b", ring(4))).fingerprint() == first
    others = [
        load(write_transforms(tmp_path / "c", ring(4, height=2.1))),
        load(write_transforms(tmp_path / "d", ring(4), lambda *a: sky(*a) // 2)),
        load(tmp_path / "a", LoadOptions(hold_out_every=2)),
        load(tmp_path / "a", LoadOptions(downscale=2)),
    ]
    assert len({first} | {other.fingerprint() for other in others}) == 5


def test_a_description_is_enough_to_render_from(tmp_path):
    applied = np.eye(4)[:3].tolist()
    capture = load(write_transforms(tmp_path, ring(5), applied_transform=applied))
    description = json.loads(json.dumps(capture.describe()))
    assert description["kind"] == "capture"
    assert description["applied_transform"] == applied
    assert Box.from_json(description["box"]) == capture.box
    cameras = Cameras.from_json(description["cameras"]["test"])
    EXACT.check(cameras.image_rays(0).directions, capture.image_rays(capture.views["test"][0]).directions)
    assert len(description["names"]["train"]) == 4
