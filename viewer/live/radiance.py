"""Radiance fields to look at: colour, depth, normals and opacity of what rays composite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fields.export import Density, Moment, occupancy_bound, surface_mesh
from fields.field import RadianceField
from fields.rendering.clipping import Clip, clipped, crop_mask
from fields.rendering.render import look as render
from fields.rendering.render import ray_normals
from fields.surface import SurfaceConfig
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.rays import Rays
from viewer.live.space import Space
from viewer.live.subject import Look, Seen, with_times
from viewer.live.turns import Turns
from viewer.pictures import normal_colours

if TYPE_CHECKING:
    import trimesh


BEFORE, BEHIND = 0.02, 0.04
"""Edges of the cube before and behind a point of a coarse mesh in which the surface's colour is looked for."""
COLOURS_AT_ONCE = 1 << 14
"""Points whose colours are computed before somebody else may have a turn."""


class Radiance:
    """A `Subject`."""

    channels = ("colour", "depth", "normal", "opacity")

    def __init__(self, field: RadianceField, described: Mapping[str, Any]) -> None:
        from viewer.orbits import orbit

        self.field, self.described = field, described
        x, y, z = described["up"]
        self.space = Space(Box.from_json(described["box"]), (x, y, z))
        self.home = orbit(described, 8).cameras[[0]]
        self._mask: tuple[Box, Tensor] | None = None

    @property
    def kind(self) -> str:
        """As `Scene`."""
        return "capture"

    @property
    def moves(self) -> bool:
        """Whether the field is dynamic."""
        return self.field.dynamics is not None

    def see(self, camera: Cameras, rays: Rays, look: Look) -> Seen:
        """As `Subject`."""
        shown = self._part(look)
        rays = with_times(rays, look).to(self.field.occupancy.bits.device)
        found = render(shown, rays)
        rgb, opacity, depth = found.rgb, found.opacity, found.depth
        if look.channel == "normal":
            weight = opacity[:, None]
            normal = normal_colours(ray_normals(shown, rays, depth, opacity))
            rgb = normal * weight + rays.background * (1 - weight)
        elif look.channel == "opacity":
            rgb = opacity[:, None].expand(-1, 3)
        return Seen(rgb.cpu(), opacity.cpu(), depth.cpu())

    def polish(self, camera: Cameras, seen: Seen, look: Look) -> Iterator[Seen]:
        """Nothing: what rays composite is smooth."""
        yield from ()

    def mesh(self, resolution: int, look: Look, turns: Turns | None = None) -> trimesh.Trimesh | None:
        """As `Subject`, at the time of the look and inside of its crop."""
        field = Moment(self.field, look.time) if self.moves else self.field
        config = SurfaceConfig(device=str(self.field.occupancy.bits.device))
        bound = occupancy_bound(self.field.occupancy.occupied)
        seen = field if turns is None else _InTurns(field, turns)
        return surface_mesh(seen, self.described, resolution, config, bound, look.crop)

    def surface_colours(
        self,
        points: Float[np.ndarray, "N 3"],
        normal: Float[np.ndarray, "N 3"],
        look: Look,
        turns: Turns | None = None,
    ) -> Float[np.ndarray, "N 3"]:
        """As `Subject`: what a short ray through each point composites, from outside to inside."""
        side, near = self.field.box.side, self.field.march.near * self.field.box.side
        outward, at = torch.tensor(normal).float(), torch.tensor(points).float()
        origins = at + (near + BEFORE * side) * outward
        shown = clipped(self.field, Clip(look.crop, near, near + (BEFORE + BEHIND) * side))
        device = self.field.occupancy.bits.device

        def colours(part: slice) -> Tensor:
            rays = Rays(origins[part], -outward[part], torch.zeros_like(origins[part]))
            found = render(shown, with_times(rays, replace(look, background=(0.0, 0.0, 0.0))).to(device))
            return (found.rgb / found.opacity.clamp(min=0.05)[:, None]).clamp(0, 1).cpu()

        ask = colours if turns is None else turns.wrap(colours)
        parts = [ask(slice(i, i + COLOURS_AT_ONCE)) for i in range(0, len(at), COLOURS_AT_ONCE)]
        return torch.cat(parts).double().numpy()

    def _part(self, look: Look) -> RadianceField:
        """What is shown of the field."""
        if look.crop is None and look.near <= 0 and math.isinf(look.far):
            return self.field
        if look.crop is None:
            return clipped(self.field, Clip(None, look.near, look.far))
        if self._mask is None or self._mask[0] != look.crop:
            self._mask = look.crop, crop_mask(self.field, look.crop)
        return clipped(self.field, Clip(look.crop, look.near, look.far), self._mask[1])


class _InTurns:
    """A `fields.export.Density` whose calls take turns."""

    def __init__(self, field: Density, turns: Turns) -> None:
        self.density = turns.wrap(torch.no_grad()(field.density))
        self.to_world = turns.wrap(torch.no_grad()(field.to_world))
        self._colours = turns.wrap(torch.no_grad()(field.__call__))

    def __call__(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """As `Density`."""
        return self._colours(x, d)


def occupied_points(field: RadianceField, most: int, generator: torch.Generator) -> Tensor:
    """[N, 3] world middles of occupied cells at the border of what is occupied, `most` of them at random."""
    occupied = field.occupancy.occupied.cpu()
    inner = torch.nn.functional.avg_pool3d(occupied.float()[None, None], 3, 1, 1)[0, 0] > 0.999
    border = (occupied & ~inner).view(-1).nonzero()[:, 0]
    if len(border) > most:
        border = border[torch.randperm(len(border), generator=generator)[:most]]
    r = field.occupancy.config.resolution
    x = torch.stack([border % r, border // r % r, border // (r * r)], 1)
    return field.to_world(((x + 0.5) / r).to(field.occupancy.bits.device)).cpu()
