"""Pictures as scenes: where samples lie, how values relate to light, and how a fit is judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from skimage.metrics import structural_similarity
from tolerances import EXACT, MONTE_CARLO, VALUES

import scenes
from scenes.image import MU, Image, PixelFormat
from scenes.metrics import PSNR_CEILING

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8)
RGBA = np.dstack((RGB, RNG.integers(0, 255, (21, 34), dtype=np.uint8)))
DEEP = RNG.integers(0, 65536, (21, 34, 4), dtype=np.uint16)
LINEAR = (RNG.random((21, 34, 4), dtype=np.float32) * 30) ** 2


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("height", "width"), [(7, 200), (201, 5), (1, 1)])
def test_samples_are_pixels_where_they_belong(depth: type, height: int, width: int, generator: torch.Generator):
    y, x = np.mgrid[0:height, 0:width]
    image = Image.of(np.stack((x, y, x + y), -1).astype(depth), "grid")
    at, values = image.sample(4000, generator)
    if depth == np.float32:
        found = image.to_linear(values)
    else:
        found = values * {np.uint8: 255, np.uint16: 65535}[depth]
    VALUES.check(at, image.box.to_unit(found[:, :2] + 0.5))
    VALUES.check(found[:, 2], found[:, :2].sum(-1))
    assert float(at.min()) >= 0
    assert float(at.max()) <= 1
    counts = torch.bincount((found[:, 0] + width * found[:, 1]).round().long(), minlength=height * width)
    assert len(counts) == height * width
    assert (counts > 0).float().mean() > 0.9


def test_samples_are_uniform(generator: torch.Generator):
    image = Image.of(np.arange(4, dtype=np.uint8).reshape(2, 2, 1), "four")
    _, values = image.sample(200_000, generator)
    for i in range(4):
        assert MONTE_CARLO.allows(float((values * 255).round().eq(i).float().mean()), 0.25)


def test_srgb_is_linearised_as_the_standard_says():
    image = Image.of(RGB, "rgb")
    known = torch.tensor([[0.0, 1.0, 0.5], [0.04045, 0.02, 0.735357]])
    truth = torch.tensor([[0.0, 1.0, 0.2140411], [0.0031308, 0.0015480, 0.5]])
    VALUES.check(image.to_linear(known), truth)
    VALUES.check(image.from_linear(truth), known)


def test_the_log_curve_is_the_stated_one():
    image = Image.of(np.array([[[-1.0], [0.0], [0.5], [274.0]]], np.float32), "hdr")
    truth = torch.tensor([-np.log1p(MU / 274), 0.0, np.log1p(MU * 0.5 / 274), np.log1p(MU)]) / np.log1p(MU)
    found = image.from_linear(image.pixels)
    VALUES.check(found[0, :, 0], truth)
    VALUES.check(image.to_linear(found), image.pixels)


def test_alpha_is_not_curved():
    image = Image.of(np.array([[[274.0, 0.5]]], np.float32), "hdr")
    VALUES.check(image.from_linear(image.pixels), torch.tensor([[[1.0, 0.5]]]))
    assert image.format.peak == 274.0


@pytest.mark.parametrize("array", [RGB, RGBA, DEEP, LINEAR[..., :3], np.zeros((2, 3, 1), np.float32)])
def test_decoding_inverts_encoding(array: np.ndarray):
    image = Image.of(array, "any")
    decoded = image.decode(image.format.to_values(image.pixels))
    assert decoded.dtype == array.dtype
    (VALUES if array.dtype == np.float32 else EXACT).check(
        torch.from_numpy(decoded.astype(np.float64)), torch.from_numpy(array.astype(np.float64))
    )


def test_decoding_clamps():
    image = Image.of(RGB, "rgb")
    assert image.decode(torch.tensor([[[-0.5, 1.5, 0.5]]])).tolist() == [[[0, 255, 128]]]


def nearest(image: Image, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A field that looks its value up."""
    column, row = (image.box.from_unit(x) - 0.5).round().long().unbind(-1)
    return values[row, column]


@pytest.mark.parametrize("array", [RGB, RGBA, DEEP, LINEAR[..., :1], RGB[:5, :7]])
def test_a_perfect_field_scores_the_ceiling(array: np.ndarray):
    image = Image.of(np.ascontiguousarray(array), "any")
    values = image.format.to_values(image.pixels)
    found = image.evaluate(lambda x: nearest(image, values, x))
    assert found.results["psnr"] == PSNR_CEILING
    assert found.results.keys() == found.definitions.keys() == found.per_item.keys()
    assert ("ssim" in found.results) == (min(array.shape[:2]) >= 11)
    assert all(VALUES.allows(ssim, 1.0) for ssim in found.per_item.get("ssim", []))
    json.dumps(found.to_json(), allow_nan=False)


def test_scores_are_those_of_the_clamped_picture(generator: torch.Generator):
    image = Image.of(np.tile(RGB, (5, 1, 1)), "rgb")  # several bands
    values = image.format.to_values(image.pixels)
    wrong = values + 0.2 * torch.randn(values.shape, generator=generator)
    most = 0

    def predict(x: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, len(x))
        return nearest(image, wrong, x)

    found = image.evaluate(predict).results
    clamped = wrong.clamp(0, 1)
    mse = float((clamped - values).double().square().mean())
    assert VALUES.allows(found["psnr"], -10 * np.log10(mse))
    truth = structural_similarity(
        clamped.double().numpy(),
        values.double().numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    assert isinstance(truth, float)
    assert VALUES.allows(found["ssim"], truth)
    assert most <= len(values) * values.shape[1]


def test_a_large_picture_is_asked_for_in_bands():
    image = Image.of(np.zeros((600, 1500, 3), np.uint8), "large")
    asked = []
    image.evaluate(lambda x: asked.append(len(x)) or torch.zeros(len(x), 3))
    assert sum(asked) == 600 * 1500
    assert max(asked) < 600 * 1500 / 8


def test_the_loss_is_the_mean_square():
    image = Image.of(RGB, "rgb")
    assert VALUES.allows(float(image.loss(torch.full((4, 3), 0.1), torch.zeros(4, 3))), 0.01)


def test_the_description_rebuilds_the_format():
    image = Image.of(LINEAR, "a.exr")
    described = json.loads(json.dumps(image.describe()))
    assert described["kind"] == "image"
    assert described["size"] == [34, 21]
    assert described["box"] == [[0.0, 0.0], [34.0, 21.0]]
    assert PixelFormat.from_json(described["format"]) == image.format
    with pytest.raises(ValueError, match="depth"):
        PixelFormat.from_json(described["format"] | {"depth": "int4"})
    assert isinstance(image, scenes.Scene)


def test_the_fingerprint_is_of_the_pixels(tmp_path: Path):
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    Pillow.fromarray(RGB).save(tmp_path / "b.tif")
    assert scenes.load(tmp_path / "a.png").fingerprint() == scenes.load(tmp_path / "b.tif").fingerprint()
    changed = RGB.copy()
    changed[0, 0, 0] ^= 1
    prints = {Image.of(array, "x").fingerprint() for array in (RGB, changed, RGB.reshape(34, 21, 3))}
    assert len(prints) == 3


def test_arrays_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="float64"):
        Image.of(np.zeros((2, 2, 3)), "double")
