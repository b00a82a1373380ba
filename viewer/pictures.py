"""Pictures that explain: truth beside render and error, depth and normals as colours, where the cameras stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fields.files import write_whole
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.errors import InputError

if TYPE_CHECKING:
    from PIL import ImageDraw

Picture = UInt8[np.ndarray, "_ _ 3"]
Colour = tuple[int, int, int]

INK, PALE, PAPER = (40, 44, 52), (208, 212, 218), (255, 255, 255)
SPLIT_COLOURS = {"train": (38, 105, 190), "val": (52, 150, 80), "test": (222, 110, 20)}
PATH_COLOUR = (190, 40, 110)
AXIS_COLOURS = ((205, 60, 50), (70, 155, 60), (50, 100, 205))
GAP = 6  # pixels between pictures side by side
TURBO = (  # A. Mikhailov, "Turbo, an improved rainbow colormap" (2019), at 15 even steps
    "30123b 4145ab 4675ed 39a2fc 1bcfd4 24eca6 61fc6c a4fc3b d1e834 f3c63a fe9b2d f36315 d93806 b11901 7a0402"
)


def to_bytes(rgb: Float[Tensor, "H W 3"]) -> Picture:
    """Display values in [0, 1], clipped, as 8-bit."""
    return (rgb.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def turbo(t: Float[Tensor, "*N"]) -> Float[Tensor, "*N 3"]:
    """Turbo colours of values in [0, 1]: dark blue, green, dark red."""
    table = torch.tensor([list(bytes.fromhex(colour)) for colour in TURBO.split()]) / 255
    at = t.clamp(0, 1) * (len(table) - 1)
    low = at.long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], (at - low)[..., None])


def depth_colours(
    depth: Float[Tensor, "H W"],
    opacity: Float[Tensor, "H W"] | None = None,
    invalid: float = 1.0,
    span: tuple[float, float] | None = None,
) -> Float[Tensor, "H W 3"]:
    """Near red, far blue, in equal steps of inverse depth over `span` (nearest, farthest), or the picture's own.

    What is not finite, or not positive, or transparent, is grey of the value `invalid` (1 white, 0 black).
    """
    span = span or depth_span(depth, opacity)
    valid = torch.isfinite(depth) & (depth > 0)
    nearness = 1 / torch.where(valid, depth, 1.0)
    high, low = 1 / span[0], 1 / span[1]
    t = (nearness - low) / (high - low) if high - low > 1e-6 * high else torch.full_like(nearness, 0.5)
    weight = (valid.float() if opacity is None else opacity.clamp(0, 1) * valid)[..., None]
    return turbo(0.05 + 0.9 * t.clamp(0, 1)) * weight + invalid * (1 - weight)


def depth_span(depth: Float[Tensor, "H W"], opacity: Float[Tensor, "H W"] | None = None) -> tuple[float, float]:
    """The 1st and 99th percentile of what is opaque. The frames of a film share one, or their colours flicker."""
    valid = torch.isfinite(depth) & (depth > 0)
    values = depth[valid if opacity is None else valid & (opacity > 0.5)].double().numpy()
    if len(values) == 0:
        return 1.0, 1.0
    near, far = np.quantile(values, (0.01, 0.99))
    return float(near), float(far)


def normal_colours(normal: Float[Tensor, "*N 3"], invalid: float = 1.0) -> Float[Tensor, "*N 3"]:
    """Components -1 to 1 as red, green and blue from 0 to 1; where there is no normal, the grey `invalid`."""
    valid = normal.norm(dim=-1, keepdim=True) > 0.5
    return torch.where(valid, 0.5 + 0.5 * normal, invalid)


def error_colours(truth: Float[Tensor, "H W 3"], render: Float[Tensor, "H W 3"], gain: float = 4.0) -> Tensor:
    """[H, W, 3]: the absolute difference times `gain`, on black."""
    return ((truth - render).abs() * gain).clamp(0, 1)


def comparison(truth: Float[Tensor, "H W 3"], render: Float[Tensor, "H W 3"], depth: Tensor | None = None) -> Picture:
    """Truth, render and error side by side, and the depth colours [H, W, 3] if there are any."""
    mse = float((truth.clamp(0, 1) - render.clamp(0, 1)).square().mean())
    psnr = f"{-10 * np.log10(mse):.2f} dB" if mse > 0 else "exact"
    parts = [("truth", truth), (f"render, {psnr}", render), ("error x4", error_colours(truth, render))]
    parts += [] if depth is None else [("depth", depth)]
    return side_by_side([to_bytes(picture) for _, picture in parts], [label for label, _ in parts])


def side_by_side(pictures: Sequence[Picture], labels: Sequence[str]) -> Picture:
    """Pictures of one height on white, each under its label."""
    from PIL import Image, ImageDraw

    height = pictures[0].shape[0]
    size = float(np.clip(height / 28, 11, 28))
    top = round(size * 1.7)
    width = sum(p.shape[1] for p in pictures) + GAP * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height + top), PAPER)
    draw, x = ImageDraw.Draw(canvas), 0
    for picture, label in zip(pictures, labels, strict=True):
        canvas.paste(Image.fromarray(picture), (x, top))
        draw.text((x + 3, top / 2), label, INK, font=font(size), anchor="lm")
        x += picture.shape[1] + GAP
    return np.asarray(canvas)


def save_png(path: str | Path, picture: UInt8[np.ndarray, "H W C"]) -> None:
    """Grey, RGB or RGBA, written under a temporary name until complete. Raises InputError."""
    from PIL import Image

    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    try:
        write_whole(Path(path), lambda temporary: image.save(temporary, format="PNG"))
    except OSError as error:
        raise InputError(f"{path}: the picture cannot be written ({error.strerror}); choose another path") from error


def frusta(describe: Mapping[str, Any], path: Cameras | None = None, height: int = 640) -> Picture:
    """The cameras and the box of a capture (what the scene said of itself), from an angle and from above.

    Cameras are coloured by split; a camera path is drawn as a line.
    """
    from PIL import Image, ImageDraw

    splits = {name: Cameras.from_json(data) for name, data in describe["cameras"].items()}
    splits = {name: cameras for name, cameras in splits.items() if len(cameras)}
    box, up = Box.from_json(describe["box"]), np.array(describe["up"], np.float64)
    pyramids = {name: _pyramids(cameras, _pyramid_depth(splits, box)) for name, cameras in splits.items()}
    line = None if path is None else path.position.double().numpy()
    scale = 3  # drawn three times too large: Pillow's lines are jagged
    size = height * scale
    panels = []
    for title, view in (("from an angle", _view(up, splits, 25.0)), ("from above", _view(up, splits, 90.0))):
        panel = Image.new("RGB", (size, size), PAPER)
        _draw_capture(ImageDraw.Draw(panel), size, view, box, pyramids, line)
        ImageDraw.Draw(panel).text((0.03 * size, 0.03 * size), title, INK, font=font(0.027 * size))
        panels.append(panel.reduce(scale))
    canvas = Image.new("RGB", (2 * height, height + height // 14), PAPER)
    for i, panel in enumerate(panels):
        canvas.paste(panel, (i * height, 0))
    draw = ImageDraw.Draw(canvas)
    draw.line([(height, 0.04 * height), (height, 0.96 * height)], PALE)
    _legend(draw, height, splits, box, path)
    return np.asarray(canvas)


def _legend(draw: ImageDraw.ImageDraw, height: int, splits: Mapping[str, Cameras], box: Box, path: Any) -> None:
    x, y, size = 0.03 * height, height * 1.03, 0.027 * height
    parts = [(f"{name} {len(cameras)}", SPLIT_COLOURS[name]) for name, cameras in splits.items()]
    parts += [("path", PATH_COLOUR)] if path is not None else []
    parts.append(("box " + " x ".join(f"{edge:.3g}" for edge in box.size), INK))
    for text, colour in parts:
        draw.rectangle([x, y - 0.008 * height, x + 0.016 * height, y + 0.008 * height], colour)
        draw.text((x + 0.026 * height, y), text, INK, font=font(size), anchor="lm")
        x += draw.textlength(text, font=font(size)) + 0.075 * height
    for name, colour in zip("xyz", AXIS_COLOURS, strict=True):
        draw.text((x, y), name, colour, font=font(size), anchor="lm")
        x += 0.03 * height


def _pyramid_depth(splits: Mapping[str, Cameras], box: Box) -> float:
    """So long that the pyramids of neighbours hardly overlap."""
    positions = torch.cat([cameras.position for cameras in splits.values()]).double()
    far = float((positions - positions.new_tensor(box.centre)).norm(dim=-1).median())
    between = torch.cdist(positions, positions).fill_diagonal_(torch.inf).amin(1)
    near = float(between[torch.isfinite(between)].median()) if len(positions) > 1 else far
    return min(max(0.7 * near, 0.05 * far), 0.15 * far) or 0.1 * box.side


def _pyramids(cameras: Cameras, depth: float) -> Float[np.ndarray, "V 5 3"]:
    """Apex and the picture's corners of each camera, `depth` in front of it; upper left first, clockwise."""
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    plane = (corner * cameras.size[:, None] - cameras.centre[:, None]) / cameras.focal[:, None]
    plane = plane / torch.sqrt(4 * (cameras.size / cameras.focal).prod(-1) / 1.6)[:, None, None]  # alike in size
    local = torch.cat([plane, torch.ones_like(plane[..., :1])], -1) * depth
    world = local @ cameras.T_world_camera[:, :, :3].mT + cameras.position[:, None]
    return torch.cat([cameras.position[:, None], world], 1).double().numpy()


def _view(up: np.ndarray, splits: Mapping[str, Cameras], elevation: float) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up and towards the viewer, who stands beside where most cameras stand."""
    up = up / np.linalg.norm(up)
    back = -np.concatenate([c.forward.numpy() for c in splits.values()]).astype(np.float64).mean(0)
    back = back - (back @ up) * up
    if np.linalg.norm(back) < 0.05:
        back = np.eye(3)[np.abs(up).argmin()]
    back = back - (back @ up) * up
    back /= np.linalg.norm(back)
    if elevation < 90:
        turn = np.radians(40)
        back = np.cos(turn) * back + np.sin(turn) * np.cross(up, back)
    right, tilt = np.cross(up, back), np.radians(elevation)
    towards = np.cos(tilt) * back + np.sin(tilt) * up
    return np.stack([right, np.cross(towards, right), towards])


def _draw_capture(
    draw: ImageDraw.ImageDraw,
    size: int,
    view: Float[np.ndarray, "3 3"],
    box: Box,
    pyramids: Mapping[str, Float[np.ndarray, "V 5 3"]],
    line: Float[np.ndarray, "T 3"] | None,
) -> None:
    corners = np.array(np.meshgrid(*zip(box.lo, box.hi, strict=True), indexing="ij")).reshape(3, 8).T
    everything = [corners, *(p.reshape(-1, 3) for p in pyramids.values()), *([] if line is None else [line])]
    seen = np.concatenate(everything) @ view.T
    middle, extent = 0.5 * (seen.max(0) + seen.min(0)), (seen.max(0) - seen.min(0)).clip(1e-9)
    scale = 0.86 * size / extent[:2].max()

    def flat(points: np.ndarray) -> list[tuple[float, float]]:
        p = (points @ view.T - middle) * scale
        return [(float(x), float(y)) for x, y in np.stack([0.5 * size + p[:, 0], 0.5 * size - p[:, 1]], 1)]

    width = max(2, round(size / 640))
    for i in range(8):
        for axis in range(3):
            if not i >> (2 - axis) & 1:
                colour = AXIS_COLOURS[axis] if i == 0 else INK
                draw.line(flat(corners[[i, i | 1 << (2 - axis)]]), colour, 2 * width if i == 0 else width)
    items = [(SPLIT_COLOURS[name], p) for name, group in pyramids.items() for p in group]
    for colour, p in sorted(items, key=lambda item: float(item[1][0] @ view[2])):
        distance = (middle[2] + 0.5 * extent[2] - float(p[0] @ view[2])) / extent[2]
        paled = tuple(round(c + (255 - c) * 0.6 * min(max(distance, 0.0), 1.0)) for c in colour)
        apex, *picture = flat(p)
        draw.line([*picture, picture[0]], paled, width)
        for corner in picture:
            draw.line([apex, corner], paled, width)
        draw.line(picture[:2], paled, 2 * width)  # the picture's upper edge
    if line is not None:
        draw.line(flat(np.concatenate([line, line[:1]])), PATH_COLOUR, 2 * width)


def font(size: float) -> Any:
    """Pillow's own, in pixels."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
