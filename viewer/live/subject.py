"""What the viewer looks at: a field of any signal, as something that rays meet.

A radiance field composites them, a surface is traced, an image or a film is a plane that they cross. The rest of the
viewer knows no more of a field than this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scenes.box import Box
from scenes.cameras import Cameras
from scenes.rays import Rays
from viewer.live.space import Space
from viewer.live.turns import Turns
from viewer.pictures import Picture, depth_colours, to_bytes

if TYPE_CHECKING:
    import trimesh


@dataclass(frozen=True)
class Look:
    """What somebody wants to see."""

    channel: str = "colour"
    """One of the subject's."""
    time: float = 0.0
    """From first to last, in [0, 1]."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Display colour behind what has none of its own."""
    near: float = 0.0
    """Nothing nearer is shown, world units."""
    far: float = math.inf
    """Nothing beyond is shown, world units."""
    crop: Box | None = None
    """Nothing outside is shown, world units."""
    axis: int = 2
    """Of a slice: the coordinate that is the same all over it."""
    at: float = 0.5
    """Where the slice lies along that, as a share of the box."""


@dataclass
class Seen:
    """What N rays meet, or the pixels [H, W] of a picture."""

    rgb: Float[Tensor, "*N 3"]
    """The channel in display colours; for depth that of the field, which `paint` replaces."""
    opacity: Float[Tensor, "*N"]
    depth: Float[Tensor, "*N"]
    """Along the ray, world units; infinity where it meets nothing."""
    normal: Float[Tensor, "*N 3"] | None = None
    """Outward in the world, of surfaces."""

    @staticmethod
    def joined(parts: list[Seen], height: int, width: int) -> Seen:
        """A picture from its pixels, row by row."""
        normals = [part.normal for part in parts if part.normal is not None] or None
        return Seen(
            torch.cat([part.rgb for part in parts]).view(height, width, 3),
            torch.cat([part.opacity for part in parts]).view(height, width),
            torch.cat([part.depth for part in parts]).view(height, width),
            None if normals is None else torch.cat(normals).view(height, width, 3),
        )


@runtime_checkable
class Subject(Protocol):
    """Something to look at."""

    @property
    def kind(self) -> str:
        """What it is of, as `Scene.kind`."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """What can be shown, the usual one first."""
        ...

    @property
    def space(self) -> Space:
        """Where it is."""
        ...

    @property
    def home(self) -> Cameras:
        """One camera that shows it well."""
        ...

    @property
    def moves(self) -> bool:
        """Whether it changes with `Look.time`."""
        ...

    def see(self, camera: Cameras, rays: Rays, look: Look) -> Seen:
        """What some rays of one camera meet."""
        ...

    def polish(self, camera: Cameras, seen: Seen, look: Look) -> Iterator[Seen]:
        """Make a whole picture better once it is complete, bit by bit, giving it each time and at once before anything
        is done; nothing where it is good as it is."""
        ...

    def mesh(self, resolution: int, look: Look, turns: Turns | None = None) -> trimesh.Trimesh | None:
        """Its surface in the world, with colours where it has some; None where it has none. With turns, the field is
        called in those."""
        ...

    def surface_colours(
        self,
        points: Float[np.ndarray, "N 3"],
        normal: Float[np.ndarray, "N 3"],
        look: Look,
        turns: Turns | None = None,
    ) -> Float[np.ndarray, "N 3"]:
        """Display colours in [0, 1] of points of its surface in the world, seen along the outward normals."""
        ...


def paint(seen: Seen, look: Look, span: tuple[float, float] | None = None) -> Picture:
    """The channel as a picture; `span` of depth makes pictures of a film alike."""
    if look.channel == "depth":
        return to_bytes(depth_colours(seen.depth, seen.opacity, sum(look.background) / 3, span))
    return to_bytes(seen.rgb)


def with_times(rays: Rays, look: Look) -> Rays:
    """The rays, over the background and at the time that is asked for."""
    n = len(rays)
    background = rays.origins.new_tensor(look.background).expand(n, 3)
    return Rays(rays.origins, rays.directions, background, rays.origins.new_full((n,), look.time))
