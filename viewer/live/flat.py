"""Images and films to look at: a plane in space that rays cross, its pixels as large as a world unit.

The x of the world runs along the rows and y down the columns, as the scenes' do; the plane lies at z = 0 and is seen
along z. Far beyond the pixels, the field goes on between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fields.field import Field
from fields.rendering.render import predictor
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.image import Image, PixelFormat
from scenes.rays import Rays
from scenes.video import Video
from viewer.live.space import Space
from viewer.live.subject import Look, Seen
from viewer.live.turns import Turns
from viewer.paths import pinholes

if TYPE_CHECKING:
    import trimesh

HOME_FOV = math.radians(40)
HOME_SIZE = (956, 720)
"""Of what is seen beside the panel, in a window of 1280 x 720."""
MARGIN = 1.06
"""Of a window around the whole picture."""
GAIN = 4.0
"""Of differences."""


class Flat:
    """A `Subject`; with the scene, the original can be shown too."""

    def __init__(self, field: Field, described: Mapping[str, Any], scene: Image | Video | None = None) -> None:
        self.field, self.described = field, described
        self.field_box = Box.from_json(described["box"])
        self.width, self.height = (int(v) for v in described["size"])
        half = 0.5 * max(self.width, self.height)
        box = Box((0.0, 0.0, -half), (float(self.width), float(self.height), half))
        self.space = Space(box, (0.0, -1.0, 0.0))
        self.scene = scene

    @property
    def kind(self) -> str:
        """As `Scene`."""
        return str(self.described["kind"])

    @property
    def channels(self) -> tuple[str, ...]:
        """What needs the original only where there is one."""
        return ("colour",) if self.scene is None else ("colour", "original", "difference")

    @property
    def moves(self) -> bool:
        """Whether it is a film."""
        return self.kind == "video"

    @property
    def home(self) -> Cameras:
        """All of it, face on."""
        wide, high = HOME_SIZE
        slope = math.tan(HOME_FOV / 2)
        away = MARGIN * max(self.height, self.width * high / wide) / 2 / slope
        T = torch.eye(3, 4)
        T[:, 3] = torch.tensor([self.width / 2, self.height / 2, -away])
        return pinholes(T[None], torch.full((2,), 0.5 * high / slope), torch.tensor([wide, high]))

    def see(self, camera: Cameras, rays: Rays, look: Look) -> Seen:
        """As `Subject`."""
        t = -rays.origins[:, 2] / rays.directions[:, 2]
        xy = (rays.origins + t[:, None] * rays.directions)[:, :2]
        size = xy.new_tensor([self.width, self.height])
        inside = (t > 0) & ((xy >= 0) & (xy < size)).all(-1)
        rgb = xy.new_tensor(look.background).repeat(len(rays), 1)
        rgb[inside] = self.colours(xy[inside], look)
        return Seen(rgb, inside.float(), torch.where(inside, t, math.inf))

    def polish(self, camera: Cameras, seen: Seen, look: Look) -> Iterator[Seen]:
        """Nothing."""
        yield from ()

    def mesh(self, resolution: int, look: Look, turns: Turns | None = None) -> trimesh.Trimesh | None:
        """None: it has no surface."""
        return None

    def surface_colours(
        self,
        points: Float[np.ndarray, "N 3"],
        normal: Float[np.ndarray, "N 3"],
        look: Look,
        turns: Turns | None = None,
    ) -> Float[np.ndarray, "N 3"]:
        """The channel's, wherever the points lie along z."""
        return self.colours(torch.from_numpy(points[:, :2]).float(), look).double().numpy()

    def colours(self, xy: Float[Tensor, "N 2"], look: Look) -> Float[Tensor, "N 3"]:
        """Display colours of the channel at pixel coordinates."""
        match look.channel:
            case "original":
                return self._original(xy, look)
            case "difference":
                return ((self._own(xy, look) - self._original(xy, look)).abs() * GAIN).clamp(0, 1)
            case _:
                return self._own(xy, look)

    @property
    def n_frames(self) -> int:
        """1 for an image."""
        return int(self.described.get("frames", 1))

    def _own(self, xy: Float[Tensor, "N 2"], look: Look) -> Float[Tensor, "N 3"]:
        values = predictor(self.field)(self.field_box.to_unit(self._with_time(xy, look)))
        return self._display(values, look)

    def _original(self, xy: Float[Tensor, "N 2"], look: Look) -> Float[Tensor, "N 3"]:
        column, row = xy.long().unbind(-1)
        column, row = column.clamp(0, self.width - 1), row.clamp(0, self.height - 1)
        match self.scene:
            case Image():
                pixels: Shaped[Tensor, "N C"] = self.scene.pixels[row, column]
                return self._display(self.scene.format.to_values(pixels), look)
            case Video():
                at = self._with_time(xy[:1], look)[0, 2] if len(xy) else torch.zeros(())
                frame = int((self.scene.times - at).abs().argmin())
                return self.scene.frames[frame, row, column].float() / 255
            case _:
                return torch.zeros(len(xy), 3)

    def _with_time(self, xy: Float[Tensor, "N 2"], look: Look) -> Float[Tensor, "N D"]:
        if not self.moves:
            return xy
        lo, hi = self.field_box.lo[2], self.field_box.hi[2]
        frame = (hi - lo) / self.n_frames  # the first and last moments are the middles of frames
        t = lo + frame / 2 + look.time * (hi - lo - frame)
        return torch.cat([xy, torch.full_like(xy[:, :1], t)], 1)

    def _display(self, values: Float[Tensor, "N C"], look: Look) -> Float[Tensor, "N 3"]:
        """Values as a display shows them, over the background where they are transparent."""
        if self.kind == "video":
            return values.clamp(0, 1)
        form = PixelFormat.from_json(self.described["format"])
        if form.transfer == "log":
            values = PixelFormat(form.channels, "uint8").from_linear(form.to_linear(values).clamp(0, 1))
        values = values.clamp(0, 1)
        if form.alpha:
            alpha = values[:, -1:]
            values = values[:, :-1] * alpha + values.new_tensor(look.background) * (1 - alpha)
        return values.expand(-1, 3).contiguous()
