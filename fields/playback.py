"""The film that a run of a film holds, played at any width, rate and number of frames: a field has time between frames.

Frame k of n lies at the time (k + 0.5) T / n of the T frames that were fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fields.field import Field, RadianceField
from fields.rendering.render import CHUNK_POINTS, predictor
from scenes.box import Box
from scenes.video import points


@dataclass(frozen=True)
class Playback:
    """Which frames are shown."""

    box: Box
    size: tuple[int, int]
    """Width and height in pixels."""
    times: list[float]
    """Of the frames, in world units."""
    fps: float
    """Frames a second."""

    def frames(self, field: Field | RadianceField) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The frames as 8-bit pictures, one after another."""
        for t in self.times:
            yield (self.values(field, t) * 255).round().to(torch.uint8).numpy()

    @torch.no_grad()
    def values(self, field: Field | RadianceField, t: float) -> Float[Tensor, "H W 3"]:
        """The frame at a time, in [0, 1], computed in bands of rows."""
        (width, height), (wide, high, _) = self.size, self.box.size
        predict = predictor(field)
        x = (torch.arange(width) + 0.5) * (wide / width)
        y = (torch.arange(height) + 0.5) * (high / height)
        bands = [predict(self.box.to_unit(points(x, rows, t))) for rows in y.split(max(CHUNK_POINTS // width, 1))]
        return torch.cat(bands).view(height, width, 3).clamp(0, 1)


def playback(
    described: Mapping[str, Any], width: int | None = None, n_frames: int | None = None, fps: float | None = None
) -> Playback:
    """The film that `described` (of `Video.describe`) tells of, or another number of frames of it, or another rate.

    Its duration stays as it was, unless both the number of frames and their rate are given.
    """
    box, (full_width, full_height) = Box.from_json(described["box"]), described["size"]
    duration = described["frames"] / described["fps"]
    n: int = n_frames or (described["frames"] if fps is None else max(round(duration * fps), 1))
    across = width or full_width
    size = across, max(round(full_height * across / full_width), 1)
    times = [(k + 0.5) * box.size[2] / n for k in range(n)]
    return Playback(box, size, times, n / duration if fps is None else fps)
