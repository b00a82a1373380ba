"""The codec's model in plain torch: what the native kernels are held to.

A picture is a pyramid of latents, level i with ceil(H / 2^i) rows. A *context network* says how each latent is
distributed, given those that come before it; a *synthesis network* makes pixels of the pyramid, doubled until all
levels are as large as the picture. The idea is that of Cool-Chic (Ladune et al. 2023) and C3 (Kim et al. 2024); what is
new is the context of the coarser level's values around a latent, those below and to the right of it included.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int32
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.nn import functional

from fields.codec.shape import CAUSAL, CONTEXT, CONTEXT_HIDDEN, LEVELS, SCALE, TAPS, CodecShape

LOG_SCALES = (-3.0, 4.875)
"""Bounds of the logarithm of a latent's scale."""
LEAST_PROBABILITY = 1e-7
"""What the coder gives to every value, however unlikely."""


def levels_of(shape: CodecShape, latents: Float[Tensor, "N"]) -> list[Float[Tensor, "H W"]]:
    """The pyramid of a flat vector, finest level first."""
    sizes = shape.levels
    parts = latents.split([h * w for h, w in sizes])
    return [part.view(size) for part, size in zip(parts, sizes, strict=True)]


def context_of(own: Float[Tensor, "H W"], coarser: Float[Tensor, "h w"] | None) -> Float[Tensor, "N X"]:
    """What is known of each latent of a level before it: neighbours above and to the left, and the four values of the
    coarser level that are nearest to it. Zero where there is none."""
    height, width = own.shape
    padded = functional.pad(own, (3, 3, 3, 0))
    known = [padded[3 + dy : 3 + dy + height, 3 + dx : 3 + dx + width] for dy, dx in CAUSAL]
    if coarser is None:
        known += [torch.zeros_like(own)] * (CONTEXT - len(CAUSAL))
    else:
        spread = coarser.repeat_interleave(2, 0).repeat_interleave(2, 1)[:height, :width]
        around = functional.pad(spread, (1, 1, 1, 1))
        rows, columns = torch.arange(height), torch.arange(width)
        other_row, other_column = rows + (rows % 2) * 2, columns + (columns % 2) * 2  # in padded indices
        for row in (rows + 1, other_row):
            for column in (columns + 1, other_column):
                known.append(around[row][:, column])
    return torch.stack(known, -1).view(height * width, CONTEXT)


def laplace_bits(y: Tensor, mu: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of the interval of width 1 around y under a Laplace distribution."""
    scale = log_scale.exp()
    d = (y - mu).abs()
    far = -(d - 0.5) / scale + torch.log(0.5 * -torch.expm1(-1 / scale))
    near = torch.clamp(d, max=0.5)
    inside = 1 - 0.5 * (torch.exp(-(0.5 - near) / scale) + torch.exp(-(0.5 + near) / scale))
    return -torch.where(d >= 0.5, far, torch.log(inside + LEAST_PROBABILITY)) / math.log(2)


def rate(shape: CodecShape, latents: Float[Tensor, "N"], context: Float[Tensor, "P"]) -> Float[Tensor, "L"]:
    """Bits of each level."""
    k, c = CONTEXT_HIDDEN, CONTEXT
    w1, b1, w2, b2, w3, b3 = context.split([k * c, LEVELS * k, k * k, k, 2 * k, 2])
    levels = levels_of(shape, latents)
    bits = []
    for i, own in enumerate(levels):
        x = context_of(own, levels[i + 1] if i + 1 < LEVELS else None)
        h = torch.relu(x @ w1.view(k, c).T + b1.view(LEVELS, k)[i])
        h = torch.relu(h @ w2.view(k, k).T + b2)
        mu, log_scale = (h @ w3.view(2, k).T + b3).unbind(-1)
        bits.append(laplace_bits(own.reshape(-1), mu, log_scale.clamp(*LOG_SCALES)).sum())
    return torch.stack(bits)


def doubled(plane: Float[Tensor, "H W"], taps: Float[Tensor, "K"], height: int, width: int) -> Float[Tensor, "h w"]:
    """Twice as large, by the same short filter in both directions, edges repeated; the last row and column may be
    cut."""

    def along(x: Tensor) -> Tensor:  # the last dimension
        padded = functional.pad(x[None], (2, 2), mode="replicate")[0]
        windows = padded.unfold(-1, TAPS, 1)
        even, odd = windows[..., :-1, :] @ taps, windows[..., 1:, :] @ taps.flip(0)
        return torch.stack((even, odd), -1).flatten(-2)

    return along(along(plane.T)[:, :height].T)[:, :width]


def synthesis(
    shape: CodecShape,
    latents: Float[Tensor, "N"],
    parameters: Float[Tensor, "P"],
    known: Float[Tensor, "C H W"] | None = None,
) -> Float[Tensor, "C H W"]:
    """Pixels, on the scale of `SCALE`; with a prediction of each channel, what is added to it."""
    m, c = shape.hidden, shape.channels
    n_inputs = LEVELS + shape.known
    sizes = [(LEVELS - 1) * TAPS, m * n_inputs, m, c * m, c, 9 * c * c, c, 9 * c * c, c]
    taps, w1, b1, w2, b2, k1, c1, k2, c2 = parameters.split(sizes)
    levels = levels_of(shape, latents)
    planes = [levels[-1]]
    for i in reversed(range(LEVELS - 1)):
        height, width = levels[i].shape
        planes = [levels[i], *(doubled(p, taps.view(-1, TAPS)[i], height, width) for p in planes)]
    if known is not None:
        planes += list(known)
    s = torch.stack(planes, -1)
    o = (torch.relu(s @ w1.view(m, n_inputs).T + b1) @ w2.view(c, m).T + b2).permute(2, 0, 1)[None]
    if known is not None:
        o = o + known

    def filtered(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        return x + functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel.view(c, c, 3, 3), bias)

    return filtered(torch.relu(filtered(o, k1, c1)), k2, c2)[0]


def soft_round(x: Tensor, temperature: float) -> Tensor:
    """Rounding that lets gradients through; small temperatures are hard (Agustsson & Theis 2020)."""
    whole = x.detach().floor()
    r = x - whole - 0.5
    return whole + 0.5 + 0.5 * torch.tanh(r / temperature) / math.tanh(0.5 / temperature)


BLOCK = 8
"""Samples along an edge of a block of `predicted`."""
CUBIC = np.array([[0, 64, 0, 0], [-4, 54, 16, -2], [-4, 36, 36, -4], [-2, 16, 54, -4]], np.int32)
"""Weights, in 64ths, of the sample before, the two around and the one behind a place, for each quarter between two."""
WHITE = int(SCALE) << 8
"""Frames are in 256ths of the scale of `SCALE`: integers from 0 to this."""


def displaced(
    frame: Int32[np.ndarray, "C H W"], rows: range, columns: range, dy: int, dx: int
) -> Int32[np.ndarray, "C h w"]:
    """The frame `dy` quarters of a sample below and `dx` to the right of some rows and columns, by cubic interpolation
    along rows, then along columns, each rounded to an integer; edges are repeated."""
    _, height, width = frame.shape
    y = np.arange(rows.start - 1, rows.stop + 2) + dy // 4
    x = np.arange(columns.start - 1, columns.stop + 2) + dx // 4
    around = frame[:, y.clip(0, height - 1)][:, :, x.clip(0, width - 1)]  # one more before, two more behind
    along = sliding_window_view(around, 4, 2) @ CUBIC[dx % 4]
    along = (along + 32) // 64
    down = sliding_window_view(along, 4, 1) @ CUBIC[dy % 4]
    return ((down + 32) // 64).clip(0, WHITE)


def predicted(
    first: Int32[np.ndarray, "C H W"],
    second: Int32[np.ndarray, "C H W"] | None,
    motion: Int32[np.ndarray, "rows columns 5"],
) -> Int32[np.ndarray, "C H W"]:
    """What blocks of 8 x 8 samples that moved make of one or two frames, from 0 to `WHITE`. A block's numbers are its
    source (0 the first frame, 1 the second, 2 their mean, rounded up), then how many quarters of a sample it comes from
    further down and to the right, in the first frame and in the second."""
    frame = np.empty_like(first)
    _, height, width = frame.shape
    for row, column in np.ndindex(motion.shape[:2]):
        rows = range(BLOCK * row, min(BLOCK * row + BLOCK, height))
        columns = range(BLOCK * column, min(BLOCK * column + BLOCK, width))
        source, *by = motion[row, column].tolist()
        made = []
        if source != 1:
            made.append(displaced(first, rows, columns, by[0], by[1]))
        if source != 0:
            assert second is not None, f"block {row}, {column} comes from a second frame, and there is none"
            made.append(displaced(second, rows, columns, by[2], by[3]))
        block = made[0] if len(made) == 1 else (made[0] + made[1] + 1) // 2
        frame[:, rows.start : rows.stop, columns.start : columns.stop] = block
    return frame
