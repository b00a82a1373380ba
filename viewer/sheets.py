"""Pictures of many frames: a contact sheet, and frames of a video beside what a field shows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from viewer.pictures import GAP, PAPER, comparison, side_by_side

Picture = UInt8[np.ndarray, "_ _ 3"]

SHEET_FRAMES = 12
SHEET_WIDTH = 320  # pixels of a frame in a sheet at most


def spread(n_frames: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers of frames, evenly spread, the first and the last among them."""
    n = min(n_frames, wanted)
    return [round(i * (n_frames - 1) / max(n - 1, 1)) for i in range(n)]


def contact_sheet(frames: Sequence[UInt8[np.ndarray, "H W 3"]], labels: Sequence[str]) -> Picture:
    """Frames in rows, from the upper left on, each under its label, at most `SHEET_WIDTH` wide."""
    from PIL import Image

    height, width, _ = frames[0].shape
    scale = min(1.0, SHEET_WIDTH / width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in frames]
    columns = min(len(small), max(round(math.sqrt(len(small) * 1.5 * size[1] / size[0])), 1))
    starts = range(0, len(small), columns)
    return _stacked([side_by_side(small[i : i + columns], labels[i : i + columns]) for i in starts])


def compared_frames(pairs: Sequence[tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W 3"]]]) -> Picture:
    """Pairs (truth, render), one below the other, each side by side with its error."""
    return _stacked([comparison(truth, render) for truth, render in pairs])


def _stacked(rows: Sequence[Picture]) -> Picture:
    """One below the other on white, from the left edge."""
    height, width = sum(row.shape[0] for row in rows) + GAP * (len(rows) - 1), max(row.shape[1] for row in rows)
    canvas, top = np.full((height, width, 3), PAPER, np.uint8), 0
    for row in rows:
        canvas[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + GAP
    return canvas
