"""A photograph and what the field shows from where it was taken, in one picture as large as the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from scenes.cameras import Cameras
from scenes.capture import Capture
from viewer.pictures import Picture, error_colours, to_bytes

Style = Literal["wipe", "difference", "photograph", "field"]
STYLES: tuple[Style, ...] = ("wipe", "difference", "photograph", "field")
LINE = 0.15
"""Grey of the line between the two halves."""


@dataclass(frozen=True)
class Comparison:
    """Which photograph, and how it is held against the field."""

    view: int
    """Of the scene."""
    style: Style = "wipe"
    wipe: float = 0.5
    """From the left, the share of the picture that is the photograph's."""


def fitted(cameras: Cameras, view: int, window: tuple[int, int]) -> Cameras:
    """The photograph's camera, as large as the window has room for."""
    width, height = cameras.size[view].tolist()
    return cameras[[view]].scaled(min(window[0] / width, window[1] / height))


def truth(scene: Capture, view: int, size: tuple[int, int]) -> Float[Tensor, "H W 3"]:
    """The photograph in another size, over the background of evaluation."""
    width, height = scene.cameras.size[view].tolist()
    picture = scene.image(view)[0].view(height, width, 3).permute(2, 0, 1)[None]
    if size == (width, height):
        return picture[0].permute(1, 2, 0)
    smaller = size[0] < width
    mode = "area" if smaller else "bilinear"
    found = torch.nn.functional.interpolate(picture, (size[1], size[0]), mode=mode)
    return found[0].permute(1, 2, 0)


def held_against(
    photograph: Float[Tensor, "H W 3"], rgb: Float[Tensor, "H W 3"], how: Comparison, window: tuple[int, int]
) -> Picture:
    """The picture in the middle of the window, white around it."""
    height, width = rgb.shape[:2]
    match how.style:
        case "difference":
            shown = error_colours(photograph, rgb)
        case "photograph":
            shown = photograph
        case "field":
            shown = rgb
        case "wipe":
            column = round(min(max(how.wipe, 0.0), 1.0) * width)
            shown = torch.cat([photograph[:, :column], rgb[:, column:]], 1)
            if 0 < column < width:
                shown[:, max(column - 1, 0) : column + 1] = LINE
    wide, high = max(window[0], width), max(window[1], height)
    canvas = torch.ones(high, wide, 3)
    top, left = (high - height) // 2, (wide - width) // 2
    canvas[top : top + height, left : left + width] = shown
    return to_bytes(canvas)
