"""How close a result is to the truth: pictures by PSNR and SSIM, occupancies by IoU, surfaces by chamfer distance.

Pictures are [H, W, C] with values whose range is one. They are compared in bands of whole rows, so that two pictures of
any size need the memory of one band. Everything is summed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scenes.signed_distance import Surface

WINDOW = 11
"""Edge of the window of SSIM, in pixels: a Gaussian of standard deviation 1.5, cut off at 3.5 of them."""
TILE_VALUES = 1 << 16
"""SSIM is computed in tiles of about this many values, whose dozen temporaries stay in the cache: 3 times as fast."""
PSNR_CEILING = 100.0
"""dB. What equal pictures get: infinity has no place in JSON."""

DEFINITIONS: dict[str, str] = {
    "psnr": (
        f"PSNR in dB, 10 log10(1 / MSE), mean squared error over all pixels and channels, data range 1, at most "
        f"{PSNR_CEILING:g}"
    ),
    "ssim": (
        "SSIM of Wang et al. 2004: Gaussian window 11 x 11 of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, "
        "population covariance, mean over channels and all pixels whose window lies inside the picture"
    ),
    "iou": "intersection over union of the two insides, by points drawn uniformly in the true bounding box",
    "chamfer": (
        "mean distance from points of either surface to the other surface, averaged over the two directions, in the "
        "mesh's own units"
    ),
    "normal_consistency": (
        "mean absolute cosine between the normal at points of either surface and the normal at the closest point of "
        "the other, averaged over the two directions"
    ),
}


@dataclass(frozen=True)
class PictureScores:
    """How close one picture is to another."""

    psnr: float
    """dB, data range 1."""
    ssim: float | None
    """None for a picture that is smaller than the window."""

    def results(self) -> dict[str, float]:
        """By the names of `DEFINITIONS`, without what is not defined."""
        return {"psnr": self.psnr} if self.ssim is None else {"psnr": self.psnr, "ssim": self.ssim}


def compare_bands(bands: Iterable[tuple[Float[Tensor, "_ W C"], Float[Tensor, "_ W C"]]]) -> PictureScores:
    """Scores of two pictures that come as bands of rows from the top to the bottom, each a pair (predicted, target)."""
    squared = similarity = 0.0
    n = n_windows = 0
    above: tuple[Tensor, Tensor] | None = None
    for predicted, target in bands:
        x, y = predicted.double(), target.double()
        squared += float((x - y).square_().sum())
        n += x.numel()
        if above is not None:
            x, y = torch.cat((above[0], x)), torch.cat((above[1], y))
        above = x[1 - WINDOW :], y[1 - WINDOW :]  # a window that is centred further down begins in these rows
        if x.shape[0] >= WINDOW and x.shape[1] >= WINDOW:
            total, count = _ssim_sum(x, y)
            similarity += total
            n_windows += count
    if n == 0:
        raise ValueError("expected pictures with at least one pixel, got none")
    mse = squared / n
    psnr = PSNR_CEILING if mse <= 10 ** (-PSNR_CEILING / 10) else -10 * math.log10(mse)
    return PictureScores(psnr, similarity / n_windows if n_windows else None)


def compare_pictures(predicted: Float[Tensor, "H W C"], target: Float[Tensor, "H W C"]) -> PictureScores:
    """PSNR and SSIM of two pictures."""
    if predicted.shape != target.shape:
        raise ValueError(f"expected two pictures of one size, got {tuple(predicted.shape)} and {tuple(target.shape)}")
    rows = band_rows(predicted.shape[1] * predicted.shape[2])
    return compare_bands(zip(predicted.split(rows), target.split(rows), strict=True))


def band_rows(row_values: int) -> int:
    """How many rows of `row_values` values to compare at once: few enough for the cache, many for a small overlap."""
    return max(4 * WINDOW, (1 << 17) // max(row_values, 1))


def psnr(predicted: Float[Tensor, "H W C"], target: Float[Tensor, "H W C"]) -> float:
    """See `DEFINITIONS`."""
    return compare_pictures(predicted, target).psnr


def ssim(predicted: Float[Tensor, "H W C"], target: Float[Tensor, "H W C"]) -> float:
    """See `DEFINITIONS`. Raises ValueError for pictures that are smaller than the window."""
    value = compare_pictures(predicted, target).ssim
    if value is None:
        raise ValueError(f"SSIM needs {WINDOW} x {WINDOW} pixels, got {predicted.shape[0]} x {predicted.shape[1]}")
    return value


def _ssim_sum(x: Float[Tensor, "H W C"], y: Float[Tensor, "H W C"]) -> tuple[float, int]:
    """Sum of the similarity index over all whole windows and channels, and their number."""
    height, width, channels = x.shape
    tile = max(4 * WINDOW, TILE_VALUES // (height * channels))
    total, n = 0.0, width - WINDOW + 1
    for left in range(0, n, tile):
        right = min(left + tile, n) + WINDOW - 1
        total += float(_ssim_map(x[:, left:right], y[:, left:right]).sum())
    return total, (height - WINDOW + 1) * n * channels


def _ssim_map(x: Float[Tensor, "H W C"], y: Float[Tensor, "H W C"]) -> Float[Tensor, "_ _ C"]:
    """The similarity index of every whole window, Wang et al. 2004, equation 13."""
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _blur(x), _blur(y)
    mean_xy, mean_squares = mean_x * mean_y, mean_x.square_().add_(mean_y.square_())
    covariance = _blur(x * y).sub_(mean_xy)
    variances = _blur((x * x).addcmul_(y, y)).sub_(mean_squares)
    luminance = mean_xy.mul_(2).add_(c1).div_(mean_squares.add_(c1))
    return covariance.mul_(2).add_(c2).div_(variances.add_(c2)).mul_(luminance)


def _blur(x: Float[Tensor, "H W C"]) -> Float[Tensor, "_ _ C"]:
    """The Gaussian mean over every whole window: one row and one column shorter by `WINDOW - 1`."""
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / 1.5) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        size = x.shape[axis] - WINDOW + 1
        blurred = x.narrow(axis, 0, size) * float(weights[0])
        for i in range(1, WINDOW):
            blurred.add_(x.narrow(axis, i, size), alpha=float(weights[i]))
        x = blurred
    return x


def iou(predicted: Bool[Tensor, " N"], target: Bool[Tensor, " N"]) -> float:
    """Intersection over union of two sets of points; two empty sets are equal."""
    union = int((predicted | target).sum())
    return int((predicted & target).sum()) / union if union else 1.0


def compare_surfaces(predicted: Surface, target: Surface, n: int, seed: int) -> dict[str, float]:
    """Chamfer distance and normal consistency, with `n` points drawn uniformly on each surface.

    The distance is to the other surface itself, not to the nearest of points drawn on it, which would add about half of
    the spacing of those points. It is in the units of the surfaces.
    """
    rng = np.random.default_rng(seed)
    distances, cosines = [], []
    for a, b in ((predicted, target), (target, predicted)):
        points, faces = a.draw(n, rng)
        nearest = b.closest(points)
        distances.append(nearest.distance.mean())
        cosines.append(np.abs((a.normals[faces] * b.normals[nearest.face]).sum(-1)).mean())
    return {"chamfer": float(np.mean(distances)), "normal_consistency": float(np.mean(cosines))}
