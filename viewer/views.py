"""What several fields of one scene show, beside the truth where there is one: rows of pictures with titles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fields.field import Field, RadianceField
from fields.probe import held_out_split
from fields.rendering.render import look, predictor
from fields.rendering.shading import render_surface
from scenes.capture import Capture
from scenes.image import Image, PixelFormat
from scenes.mesh import Mesh
from scenes.metrics import psnr
from scenes.video import Video, points
from viewer.orbits import orbit
from viewer.pictures import Picture, error_colours, to_bytes

Fields: TypeAlias = Mapping[str, Field | RadianceField]
Row: TypeAlias = tuple[str, Mapping[str, Picture], bool]

WHOLE, DETAIL = 480, 120
"""Pixels along the longest edge of a whole picture, and along the edge of a part of it."""
VIEW_WIDTH = 360


def image_pictures(scene: Image, fields: Fields) -> list[Row]:
    """The whole picture, the part of it with the most contrast pixel by pixel, and the errors there."""
    height, width, _ = scene.pixels.shape
    rows, columns = _spread(height, width)
    whole = _of_image(scene, fields, rows, columns)
    top, left = _busiest(whole["truth"], rows, columns, height, width)
    rows = torch.arange(top, min(top + DETAIL, height)).float()
    columns = torch.arange(left, min(left + DETAIL, width)).float()
    detail = _of_image(scene, fields, rows, columns)
    where = f"columns {left} to {left + len(columns) - 1}, rows {top} to {top + len(rows) - 1}"
    return [
        ("The picture", {name: to_bytes(rgb) for name, rgb in whole.items()}, False),
        (f"A part of it: {where}", {name: to_bytes(rgb) for name, rgb in detail.items()}, True),
        ("Four times the error there", _errors(detail), True),
    ]


@torch.no_grad()
def video_pictures(scene: Video, fields: Fields) -> list[Row]:
    """The frame in the middle, and the errors in it."""
    n_frames, height, width, _ = scene.frames.shape
    frame = n_frames // 2
    rows, columns = _spread(height, width)
    at = scene.box.to_unit(points(columns + 0.5, rows + 0.5, float(scene.times[frame])))
    seen = {"truth": scene.frames[frame][rows.long()][:, columns.long()].float() / 255}
    for name, field in fields.items():
        seen[name] = predictor(field)(at).view(len(rows), len(columns), 3).clamp(0, 1)
    return [
        (f"Frame {frame} of {n_frames}", {name: to_bytes(rgb) for name, rgb in seen.items()}, False),
        ("Four times the error there", _errors(seen), False),
    ]


def capture_pictures(scene: Capture, fields: Fields) -> list[Row]:
    """A held-out view, and the errors in it."""
    split = held_out_split(scene)
    view = scene.views[split][0]
    width, height = scene.cameras.size[view].tolist()
    truth = scene.image(view)[0].view(height, width, 3)
    cameras = scene.cameras[[view]].scaled(min(VIEW_WIDTH / width, 1.0))
    n_across, n_down = cameras.size[0].tolist()
    shrunk = torch.nn.functional.interpolate(truth.permute(2, 0, 1)[None], (n_down, n_across), mode="area")
    seen = {"truth": shrunk[0].permute(1, 2, 0)}
    rays = cameras.image_rays(0)
    rays = replace(rays, background=scene.image_rays(view).background[:1].expand(len(rays), 3))
    for name, field in fields.items():
        assert isinstance(field, RadianceField)
        rgb = look(field, rays.to(next(field.parameters()).device)).rgb
        seen[name] = rgb.view(n_down, n_across, 3).cpu().clamp(0, 1)
    return [
        (f"A {split} view", {name: to_bytes(rgb) for name, rgb in seen.items()}, False),
        ("Four times the error there", _errors(seen), False),
    ]


def mesh_pictures(scene: Mesh, fields: Fields) -> list[Row]:
    """The surfaces from one side, the mesh's own among them."""
    cameras = orbit(scene.describe(), 8).resized(VIEW_WIDTH).cameras
    distances: dict[str, Callable[[Tensor], Tensor]] = {"truth": lambda x: _distance(scene, x)}
    distances |= {name: predictor(field) for name, field in fields.items()}
    pictures = {
        name: to_bytes(render_surface(distance, cameras, 1, scene.box).rgb) for name, distance in distances.items()
    }
    return [("The surface", pictures, False)]


def _spread(height: int, width: int) -> tuple[Float[Tensor, " H"], Float[Tensor, " W"]]:
    """Rows and columns of a whole picture, evenly spread where it is too large to be shown."""
    step = max(max(height, width) / WHOLE, 1.0)
    rows, columns = (((torch.arange(max(int(n / step), 1)) + 0.5) * step).floor() for n in (height, width))
    return rows, columns


@torch.no_grad()
def _of_image(
    scene: Image, fields: Fields, rows: Float[Tensor, " H"], columns: Float[Tensor, " W"]
) -> dict[str, Float[Tensor, "H W 3"]]:
    """Display colours of the truth and of fields at the centres of pixels."""
    y, x = torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")
    coordinates = scene.box.to_unit(torch.stack([x, y], -1).view(-1, 2))
    pixels = scene.pixels.numpy()[rows.long().numpy()][:, columns.long().numpy()]
    seen = {"truth": _display(scene.format, scene.format.to_values(torch.from_numpy(pixels)))}
    for name, field in fields.items():
        values = predictor(field)(coordinates).view(len(rows), len(columns), -1)
        seen[name] = _display(scene.format, values)
    return seen


def _display(form: PixelFormat, values: Float[Tensor, "H W C"]) -> Float[Tensor, "H W 3"]:
    """Values as a display shows them, over white where they are transparent."""
    if form.transfer == "log":
        values = PixelFormat(form.channels, "uint8").from_linear(form.to_linear(values).clamp(0, 1))
    values = values.clamp(0, 1)
    rgb = (values[..., :-1] * values[..., -1:] + 1 - values[..., -1:]) if form.alpha else values
    return rgb.expand(*rgb.shape[:2], 3).contiguous()


def _busiest(
    truth: Float[Tensor, "H W 3"], rows: Float[Tensor, " H"], columns: Float[Tensor, " W"], height: int, width: int
) -> tuple[int, int]:
    """The corner of the part whose neighbouring pixels differ most."""
    change = torch.zeros(truth.shape[:2])
    change[:, 1:] += (truth[:, 1:] - truth[:, :-1]).abs().sum(-1)
    change[1:] += (truth[1:] - truth[:-1]).abs().sum(-1)
    pitch = float(rows[1] - rows[0]) if len(rows) > 1 else 1.0
    window = [min(max(int(DETAIL / pitch), 1), n) for n in change.shape]
    sums = torch.nn.functional.avg_pool2d(change[None, None], window, stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return min(int(rows[top]), max(height - DETAIL, 0)), min(int(columns[left]), max(width - DETAIL, 0))


def _errors(seen: Mapping[str, Float[Tensor, "H W 3"]]) -> dict[str, Picture]:
    """Of all but the truth, each with its PSNR in this picture."""
    truth = seen["truth"]
    return {
        f"{name}, {psnr(rgb, truth):.2f} dB here": to_bytes(error_colours(truth, rgb))
        for name, rgb in seen.items()
        if name != "truth"
    }


def _distance(scene: Mesh, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
    """Signed distance to the mesh, in the unit cube."""
    points = x.double().cpu().numpy()
    away = scene.surface.closest(points).distance
    signed = np.where(scene.surface.inside(points), -away, away)
    return torch.from_numpy(signed).float()[:, None].to(x.device)
