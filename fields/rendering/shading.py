"""Pictures of distance fields: a key light and a fill light beside the camera, a sky, shadows, and a plain backdrop.

Light is added up in linear RGB; what comes out is in the display's colour space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fields.rendering.sphere_tracing import Distance, Hits, TraceConfig, evaluate, trace
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.rays import Rays


@dataclass(frozen=True)
class ShadingConfig:
    """How a surface looks. Colours are the display's, lengths are edges of the unit cube."""

    surface: tuple[float, float, float] = (0.84, 0.80, 0.75)
    """The surface's colour in full light."""
    backdrop_top: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Colour behind the surface at the picture's upper edge."""
    backdrop_bottom: tuple[float, float, float] = (0.87, 0.88, 0.90)
    """Colour behind the surface at the picture's lower edge."""
    occlusion_samples: int = 5
    """Distances along the normal that darken crevices; 0 for none."""
    occlusion_radius: float = 0.10
    """How far those reach."""
    shadow_steps: int = 24
    """Steps towards the key light; 0 for no shadow."""
    edge_samples: int = 6
    """Pixels on edges are averaged over this many rays; 1 leaves edges jagged."""


@dataclass(frozen=True)
class Lights:
    """Unit vectors in the world, of one camera."""

    up: Float[Tensor, "3"]
    forward: Float[Tensor, "3"]
    key: Float[Tensor, "3"]
    """Towards the main light: over the left shoulder."""
    fill: Float[Tensor, "3"]
    """Towards the weak light that opens the shadows: from the right."""
    slope: float
    """Tangent of half the vertical field of view."""

    @classmethod
    def of(cls, cameras: Cameras, view: int) -> Lights:
        """The lights that go with a camera, so that a surface is lit in the same way from everywhere."""
        right, down, forward = cameras.T_world_camera[view, :, :3].unbind(-1)
        key = torch.nn.functional.normalize(-0.55 * right - 0.75 * down - 0.60 * forward, dim=0)
        fill = torch.nn.functional.normalize(0.80 * right - 0.10 * down - 0.55 * forward, dim=0)
        slope = 0.5 * float(cameras.size[view, 1]) / float(cameras.focal[view, 1])
        return cls(-down, forward, key, fill, slope)


@dataclass
class SurfaceView:
    """The pixels of one camera."""

    rgb: Float[Tensor, "H W 3"]
    """In the display's colour space."""
    opacity: Float[Tensor, "H W"]
    """How much of a pixel the surface covers."""
    depth: Float[Tensor, "H W"]
    """Along the ray through the pixel's centre, world units; infinity where it meets nothing."""
    normal: Float[Tensor, "H W 3"]
    """Outward, world axes; zero where the ray meets nothing."""


def render_surface(
    distance: Distance,
    cameras: Cameras,
    view: int,
    box: Box,
    trace_config: TraceConfig | None = None,
    config: ShadingConfig | None = None,
    crop: Box | None = None,
) -> SurfaceView:
    """What one camera sees of a distance field in the unit cube, inside the crop of the world if there is one.

    Normals are those of a pixel, not of finer noise.
    """
    trace_config, config = trace_config or TraceConfig(), config or ShadingConfig()
    away = float((cameras.position[view] - cameras.position.new_tensor(box.centre)).norm())
    pixel = away / float(cameras.focal[view, 1]) / box.side
    trace_config = replace(trace_config, normal_step=max(trace_config.normal_step, min(pixel, 0.01)))
    width, height = (int(v) for v in cameras.size[view])
    lights = Lights.of(cameras, view)
    rays = cameras.image_rays(view)
    hits = trace(distance, rays, box, trace_config, crop)
    rgb = shade(distance, rays, hits, lights, config, trace_config.chunk)
    opacity = hits.hit.float()
    if config.edge_samples > 1:
        edges = edge_pixels(hits, width, height).nonzero()[:, 0]
        k = config.edge_samples
        finer = edge_rays(cameras, view, edges, width, k)
        met = trace(distance, finer, box, trace_config, crop)
        rgb[edges] = shade(distance, finer, met, lights, config, trace_config.chunk).view(-1, k, 3).mean(1)
        opacity[edges] = met.hit.view(-1, k).float().mean(1)
    return SurfaceView(
        encode_srgb(rgb).view(height, width, 3),
        opacity.view(height, width),
        hits.depth.view(height, width),
        hits.normal.view(height, width, 3),
    )


@torch.no_grad()
def shade(
    distance: Distance, rays: Rays, hits: Hits, lights: Lights, config: ShadingConfig, chunk: int
) -> Float[Tensor, "N 3"]:
    """Linear RGB of what rays meet, and of the backdrop for those that meet nothing."""
    rgb = _backdrop(rays.directions, lights, config)
    n, x, towards = hits.normal[hits.hit], hits.position[hits.hit], -rays.directions[hits.hit]
    open_sky = _openness(distance, x, n, config, chunk)
    key = (n @ lights.key).clamp(min=0) * _lit(distance, x, n, lights.key, config, chunk)
    fill = (n @ lights.fill).clamp(min=0)
    sky = 0.5 + 0.5 * (n @ lights.up)
    half = torch.nn.functional.normalize(lights.key + towards, dim=-1)
    gloss = (n * half).sum(-1).clamp(min=0).pow(40) * (key > 0)
    rim = (1 - (n * towards).sum(-1).clamp(0, 1)).pow(3) * sky

    def light(r: float, g: float, b: float) -> Tensor:
        return x.new_tensor([r, g, b])

    ambient = light(0.10, 0.08, 0.07) + sky[:, None] * light(0.13, 0.17, 0.22)
    diffuse = key[:, None] * light(1.02, 0.97, 0.88) * (0.4 + 0.6 * open_sky[:, None])
    diffuse = diffuse + fill[:, None] * light(0.09, 0.11, 0.15) * open_sky[:, None]
    surface = decode_srgb(x.new_tensor(config.surface))
    lit = surface * (diffuse + ambient * open_sky[:, None])
    rgb[hits.hit] = lit + (0.05 * gloss + 0.12 * rim * open_sky)[:, None]
    return rgb


def _backdrop(directions: Float[Tensor, "N 3"], lights: Lights, config: ShadingConfig) -> Float[Tensor, "N 3"]:
    height = (directions @ lights.up) / (directions @ lights.forward).clamp(min=1e-3) / lights.slope
    mix = (0.5 + 0.5 * height.clamp(-1, 1))[:, None]
    top, bottom = (directions.new_tensor(c) for c in (config.backdrop_top, config.backdrop_bottom))
    return decode_srgb(bottom + mix * (top - bottom))


def _openness(
    distance: Distance, x: Float[Tensor, "N 3"], n: Float[Tensor, "N 3"], config: ShadingConfig, chunk: int
) -> Float[Tensor, " N"]:
    """1 under an open sky, 0 deep in a crevice: how far distances along the normal fall short of the way there."""
    if config.occlusion_samples == 0 or len(x) == 0:
        return torch.ones_like(x[:, 0])
    h = config.occlusion_radius * torch.linspace(0, 1, config.occlusion_samples + 1)[1:].square().to(x)
    d = evaluate(distance, (x[:, None] + h[:, None] * n[:, None]).reshape(-1, 3), chunk).view(len(x), -1)
    blocked = ((h - d).clamp(min=0) / h * torch.linspace(1.0, 0.5, len(h)).to(x)).mean(1)
    return (1 - 2.2 * blocked).clamp(0.05, 1)


def _lit(
    distance: Distance,
    x: Float[Tensor, "N 3"],
    n: Float[Tensor, "N 3"],
    light: Float[Tensor, "3"],
    config: ShadingConfig,
    chunk: int,
) -> Float[Tensor, " N"]:
    """Soft shadow: the narrowest opening towards the light, as an angle, up to where nothing else is in the cube."""
    result = torch.ones_like(x[:, 0])
    active = (n @ light > 0).nonzero()[:, 0]
    start, t = x + 4e-3 * n, torch.full_like(result, 8e-3)
    for _ in range(config.shadow_steps):
        if len(active) == 0:
            break
        p = start[active] + t[active, None] * light
        d = evaluate(distance, p.clamp(0, 1), chunk) + (p - p.clamp(0, 1)).norm(dim=-1)
        result[active] = torch.minimum(result[active], (8 * d / t[active]).clamp(0, 1))
        t[active] += d.clamp(5e-3, 0.15)
        inside = ((p > 0) & (p < 1)).all(-1)
        active = active[inside & (result[active] > 1e-3)]
    return result * result * (3 - 2 * result)


def edge_rays(cameras: Cameras, view: int, pixels: Int[Tensor, " E"], width: int, k: int) -> Rays:
    """`k` rays through each of some pixels of one camera, spread over it."""
    i = torch.arange(k)
    inside = torch.stack([(i + 0.5) / k, (0.5 + i * 0.6180340) % 1], -1).to(cameras.focal)  # no two in line
    corner = torch.stack([pixels % width, pixels // width], -1)
    xy = (corner[:, None] + inside).reshape(-1, 2)
    return cameras.rays(torch.full_like(xy[:, 0], view, dtype=torch.int64), xy)


def edge_pixels(hits: Hits, width: int, height: int) -> Bool[Tensor, " P"]:
    """Pixels whose neighbour to the right or below is another surface or turned away, and those neighbours."""
    hit, depth = hits.hit.view(height, width), hits.depth.view(height, width)
    normal = hits.normal.view(height, width, 3)
    edges = torch.zeros_like(hit)
    for axis, n in ((0, height), (1, width)):
        here, there = (slice(None),) * axis + (slice(0, n - 1),), (slice(None),) * axis + (slice(1, n),)
        both = hit[here] & hit[there]
        jump = (depth[here] - depth[there]).abs() > 0.02 * torch.minimum(depth[here], depth[there])
        bent = (normal[here] * normal[there]).sum(-1) < 0.5
        differ = (hit[here] != hit[there]) | (both & (jump | bent))
        edges[here] |= differ
        edges[there] |= differ
    return edges.view(-1)


def encode_srgb(linear: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Linear light in [0, 1] to the display's values (IEC 61966-2-1)."""
    c = linear.clamp(0, 1)
    return torch.where(c <= 0.0031308, 12.92 * c, 1.055 * c.clamp(min=0.0031308).pow(1 / 2.4) - 0.055)


def decode_srgb(display: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """The inverse of `encode_srgb`."""
    return torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055).pow(2.4))
