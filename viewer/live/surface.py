"""Distance fields to look at: shaded surfaces, normals, depth, and slices with level lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fields.export import surface_mesh
from fields.field import Field
from fields.rendering.render import predictor
from fields.rendering.shading import Lights, ShadingConfig, decode_srgb, edge_pixels, edge_rays, encode_srgb, shade
from fields.rendering.sphere_tracing import Hits, TraceConfig, normals, trace
from fields.surface import SurfaceConfig
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.rays import Rays
from viewer.live.space import Space
from viewer.live.subject import Look, Seen
from viewer.live.turns import Turns
from viewer.pictures import normal_colours

if TYPE_CHECKING:
    import trimesh

SLICE_LEVELS = 40.0
"""Level lines of a slice to an edge of the unit cube."""
POLISH_PIXELS = 4096
"""Edge pixels that are averaged at once."""
INSIDE, OUTSIDE, LINE = (0.23, 0.44, 0.72), (0.87, 0.52, 0.22), (0.12, 0.13, 0.15)


class DistanceSurface:
    """A `Subject`."""

    channels = ("colour", "normal", "depth", "slice")
    moves = False

    def __init__(self, field: Field, described: Mapping[str, Any]) -> None:
        from viewer.orbits import orbit

        self.field, self.described = field, described
        self.box = Box.from_json(described["box"])
        x, y, z = described.get("up", (0.0, 1.0, 0.0))
        self.space = Space(self.box, (x, y, z))
        self.home = orbit(described, 8).cameras[[0]]

    @property
    def kind(self) -> str:
        """As `Scene`."""
        return "mesh"

    @property
    def distance(self) -> Callable[[Tensor], Tensor]:
        """The field on its device."""
        return predictor(self.field)

    def see(self, camera: Cameras, rays: Rays, look: Look) -> Seen:
        """As `Subject`."""
        rays = self._clipped(rays, look)
        hits = self._trace(camera, rays, look)
        seen = self._shown(camera, rays, hits, look)
        if look.channel == "slice":
            seen = self._sliced(rays, look, seen)
        seen.depth = seen.depth + look.near
        return seen

    def polish(self, camera: Cameras, seen: Seen, look: Look) -> Iterator[Seen]:
        """Average the pixels on edges, which are jagged otherwise."""
        if look.channel != "colour":
            return
        yield seen
        assert seen.normal is not None
        height, width = seen.opacity.shape
        normal = seen.normal.view(-1, 3)
        hits = Hits(seen.opacity.view(-1) > 0.5, seen.depth.view(-1), normal, normal)
        edges = edge_pixels(hits, width, height).nonzero()[:, 0]
        rgb, opacity, k = seen.rgb.view(-1, 3), seen.opacity.view(-1), ShadingConfig().edge_samples
        for part in edges.split(POLISH_PIXELS):
            finer = self._clipped(edge_rays(camera, 0, part, width, k), look)
            found = self._shown(camera, finer, self._trace(camera, finer, look), look)
            rgb[part] = encode_srgb(decode_srgb(found.rgb).view(-1, k, 3).mean(1))  # light adds up, not its code
            opacity[part] = found.opacity.view(-1, k).mean(1)
            yield seen

    def mesh(self, resolution: int, look: Look, turns: Turns | None = None) -> trimesh.Trimesh | None:
        """As `Subject`, inside of the look's crop."""
        device = str(next(self.field.parameters()).device)
        distance = self.field if turns is None else turns.wrap(self.distance)
        return surface_mesh(distance, self.described, resolution, SurfaceConfig(device=device), within=look.crop)

    def surface_colours(
        self,
        points: Float[np.ndarray, "N 3"],
        normal: Float[np.ndarray, "N 3"],
        look: Look,
        turns: Turns | None = None,
    ) -> Float[np.ndarray, "N 3"]:
        """Under a sky and a light from above; the field's normals show what a coarse mesh has lost."""
        distance = self.distance if turns is None else turns.wrap(self.distance)
        unit = self.box.to_unit(torch.from_numpy(points).float())
        own = [normals(distance, part, TraceConfig()) for part in unit.split(TraceConfig().chunk)]
        up = torch.nn.functional.normalize(torch.tensor(self.space.up), dim=0)
        side = torch.linalg.cross(up, up.roll(1) + 0.3)
        light = torch.nn.functional.normalize(up + 0.8 * torch.nn.functional.normalize(side, dim=0), dim=0)
        n = torch.cat(own)
        level = 0.30 + 0.25 * (0.5 + 0.5 * n @ up) + 0.45 * (n @ light).clamp(min=0)
        return (level[:, None] * n.new_tensor(ShadingConfig().surface)).double().numpy()

    def _clipped(self, rays: Rays, look: Look) -> Rays:
        return replace(rays, origins=rays.origins + look.near * rays.directions) if look.near > 0 else rays

    def _trace(self, camera: Cameras, rays: Rays, look: Look) -> Hits:
        away = float((camera.position[0] - camera.position.new_tensor(self.box.centre)).norm())
        pixel = away / float(camera.focal[0, 1]) / self.box.side
        config = TraceConfig()
        config = replace(config, normal_step=max(config.normal_step, min(pixel, 0.01)))
        hits = trace(self.distance, rays, self.box, config, look.crop)
        beyond = hits.depth + look.near > look.far
        if math.isfinite(look.far) and bool(beyond.any()):
            hits = Hits(
                hits.hit & ~beyond,
                torch.where(beyond, math.inf, hits.depth),
                torch.where(beyond[:, None], 0.0, hits.normal),
                hits.position,
            )
        return hits

    def _shown(self, camera: Cameras, rays: Rays, hits: Hits, look: Look) -> Seen:
        if look.channel == "normal":
            rgb = normal_colours(hits.normal)
        else:
            lit = shade(self.distance, rays, hits, Lights.of(camera, 0), ShadingConfig(), TraceConfig().chunk)
            rgb = encode_srgb(lit)
        return Seen(rgb, hits.hit.float(), hits.depth, hits.normal)

    def _sliced(self, rays: Rays, look: Look, behind: Seen) -> Seen:
        """A plane through the box in colours of the distance, in front of what is behind it."""
        where = self.box.lo[look.axis] + look.at * self.box.size[look.axis]
        t = (where - rays.origins[:, look.axis]) / rays.directions[:, look.axis]
        points = rays.origins + t[:, None] * rays.directions
        shown = self._in_box(points, look) & (t > 0) & (t < behind.depth)
        rgb, opacity, depth = behind.rgb.clone(), behind.opacity.clone(), behind.depth.clone()
        if bool(shown.any()):
            distance = self.distance(self.box.to_unit(points[shown])).view(-1)
            rgb[shown] = slice_colours(distance, t[shown] * pixel_angle(rays) / self.box.side)
            opacity[shown], depth[shown] = 1.0, t[shown]
        return Seen(rgb, opacity, depth, behind.normal)

    def _in_box(self, points: Float[Tensor, "N 3"], look: Look) -> Bool[Tensor, " N"]:
        box = look.crop or self.box
        lo, hi = points.new_tensor(box.lo), points.new_tensor(box.hi)
        rest = [axis for axis in range(3) if axis != look.axis]
        return ((points >= lo) & (points <= hi))[:, rest].all(-1)


def pixel_angle(rays: Rays) -> float:
    """About the angle between neighbours of a row of rays."""
    if len(rays) < 2:
        return 1e-3
    return float((rays.directions[1:] - rays.directions[:-1]).norm(dim=-1).median())


def slice_colours(distance: Float[Tensor, " N"], pixel: Float[Tensor, " N"]) -> Float[Tensor, "N 3"]:
    """Blue inside, orange outside, paler with distance, with level lines and a bold one at zero; all in edges of the
    unit cube, `pixel` what a pixel covers of it."""
    inside = (distance < 0)[:, None]
    base = torch.where(inside, distance.new_tensor(INSIDE), distance.new_tensor(OUTSIDE))
    rgb = base + (1 - base) * (0.25 + 0.6 * (distance.abs() * 4).clamp(max=1))[:, None]
    phase = distance * SLICE_LEVELS
    from_line = (phase - phase.round()).abs() / SLICE_LEVELS
    fine = (1 - from_line / (0.8 * pixel)).clamp(0, 1) * 0.35
    bold = (1.6 - distance.abs() / (1.2 * pixel)).clamp(0, 1)
    dark = torch.maximum(fine, bold)[:, None]
    return rgb * (1 - dark) + rgb.new_tensor(LINE) * dark
