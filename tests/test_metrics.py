"""Metrics against scikit-image, literal values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tolerances import EXACT, QUADRATURE, VALUES

from scenes.metrics import (
    PSNR_CEILING,
    WINDOW,
    compare_bands,
    compare_pictures,
    compare_surfaces,
    iou,
    psnr,
    ssim,
)
from scenes.signed_distance import Surface


def pictures(height: int, width: int, channels: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.rand((height, width, channels), generator=generator)
    noise = torch.randn((height, width, channels), generator=generator)
    return (target + 0.1 * noise).clamp(0, 1), target


def skimage_ssim(predicted: torch.Tensor, target: torch.Tensor) -> float:
    found = structural_similarity(
        predicted.double().numpy(),
        target.double().numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    assert isinstance(found, float)
    return found


@pytest.mark.parametrize("shape", [(11, 11, 1), (12, 300, 3), (97, 61, 3), (120, 700, 2), (130, 300, 4)])
def test_scores_agree_with_skimage(shape: tuple[int, int, int], generator: torch.Generator):
    predicted, target = pictures(*shape, generator)
    assert VALUES.allows(ssim(predicted, target), skimage_ssim(predicted, target))
    truth = peak_signal_noise_ratio(target.double().numpy(), predicted.double().numpy(), data_range=1.0)
    assert VALUES.allows(psnr(predicted, target), truth)


def test_ssim_of_flat_pictures_is_the_luminance_term():
    predicted, target = torch.full((20, 20, 3), 0.25), torch.full((20, 20, 3), 0.75)
    assert VALUES.allows(ssim(predicted, target), (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4))


def test_a_tenth_everywhere_is_20_db():
    target = torch.full((5, 7, 3), 0.5, dtype=torch.float64)
    assert VALUES.allows(psnr(target + 0.1, target), 20.0)


def test_equal_pictures_get_the_ceiling_and_one(generator: torch.Generator):
    _, target = pictures(30, 40, 3, generator)
    scores = compare_pictures(target, target)
    assert scores.psnr == PSNR_CEILING
    assert VALUES.allows(scores.ssim or math.nan, 1.0)


@pytest.mark.parametrize("rows", [1, 3, WINDOW, 16, 64])
def test_bands_of_any_height_score_like_the_whole(rows: int, generator: torch.Generator):
    predicted, target = pictures(50, 30, 3, generator)
    banded = compare_bands(zip(predicted.split(rows), target.split(rows), strict=True))
    whole = compare_bands([(predicted, target)])
    assert VALUES.allows(banded.psnr, whole.psnr)
    assert banded.ssim is not None
    assert whole.ssim is not None
    assert VALUES.allows(banded.ssim, whole.ssim)


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 40, 3), (40, 10, 1)])
def test_pictures_smaller_than_the_window_have_no_ssim(shape: tuple[int, int, int], generator: torch.Generator):
    predicted, target = pictures(*shape, generator)
    assert compare_pictures(predicted, target).results().keys() == {"psnr"}
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(predicted, target)


def test_pictures_of_different_sizes_are_refused():
    with pytest.raises((ValueError, TypeCheckError)):  # the second by the checks of shapes that only tests have
        psnr(torch.zeros(3, 4, 3), torch.zeros(4, 3, 3))
    with pytest.raises(ValueError, match="at least one pixel"):
        compare_bands([])


def test_iou_of_small_sets():
    a = torch.tensor([True, True, False, False])
    assert iou(a, torch.tensor([True, False, True, False])) == 1 / 3
    assert iou(a, a) == 1.0
    assert iou(a, ~a) == 0.0
    assert iou(torch.zeros(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)) == 1.0


def sphere(radius: float) -> Surface:
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Surface(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))


def test_concentric_spheres_are_as_far_apart_as_their_radii():
    found = compare_surfaces(sphere(1.1), sphere(1.0), 20_000, seed=0)
    assert QUADRATURE.allows(found["chamfer"], 0.1)
    assert QUADRATURE.allows(found["normal_consistency"], 1.0)


def test_a_surface_is_no_distance_from_itself():
    found = compare_surfaces(sphere(2.0), sphere(2.0), 20_000, seed=0)
    assert VALUES.allows(found["chamfer"], 0.0)
    assert VALUES.allows(found["normal_consistency"], 1.0)


def test_perpendicular_squares():
    """A square against one that stands on its middle line: distances have mean 1/4 both ways, normals are square."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    lying = Surface(corners, faces)
    standing = Surface(corners[:, [0, 2, 1]] - np.array([0, -0.5, 0.5]), faces)
    found = compare_surfaces(lying, standing, 20_000, seed=0)
    assert QUADRATURE.allows(found["chamfer"], 0.25)
    assert EXACT.allows(found["normal_consistency"], 0.0)
