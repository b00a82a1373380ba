"""From rays to colours: marching, the field, compositing; differentiable for fitting, fused for looking."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.encodings.grid import GridEncoding
from fields.field import Field, RadianceField
from fields.kernels import ops, reference
from fields.kernels.shapes import MarchShape
from fields.networks.mlp import Perceptron
from fields.rendering import nerfacc_march
from fields.rendering.hidden import follow, front_of
from scenes.cameras import Cameras
from scenes.rays import Inputs, Rays

MAX_SAMPLES = 1024
MIN_TRANSMITTANCE = 1e-3
CHUNK_POINTS = 2**17
CHUNK_RAYS = 2**13


@dataclass
class Rendering:
    """What N rays see, or the pixels [H, W] of a view."""

    rgb: Float[Tensor, "*N 3"]
    """Over the background."""
    opacity: Float[Tensor, "*N"]
    depth: Float[Tensor, "*N"]
    """Mean distance along the ray where it is opaque, in world units; infinity where it meets nothing."""
    n_samples: int
    stages: Callable[[], dict[str, float]] = dict
    """Milliseconds by stage so far, as `ops.Rendered` has them."""


def march_shape(field: RadianceField) -> MarchShape:
    """How rays step through this field."""
    m = field.march
    step = math.sqrt(3) / m.steps
    cone = max(m.cone_angle, 1 / 256) if field.unbounded else m.cone_angle
    return MarchShape(field.occupancy.config.resolution, field.unbounded, m.near, m.far, step, cone, MAX_SAMPLES)


def unit_rays(field: RadianceField, rays: Rays) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
    """Origins in the unit cube's coordinates; directions keep unit length, so that t is in edges of the cube."""
    return field.box.to_unit(rays.origins), rays.directions


def render_rays(field: RadianceField, rays: Rays, generator: torch.Generator | None = None) -> Rendering:
    """Differentiable rendering; with a generator, each ray's steps are shifted at random."""
    origins, directions = unit_rays(field, rays)
    jitter = None
    if generator is not None:
        jitter = torch.rand(len(rays), generator=generator, device=generator.device).to(origins.device)
    if is_fused(field) and not origins.requires_grad and not directions.requires_grad:
        return _finish(field, rays, _fused(field, origins, directions, jitter))
    return compose_rays(field, rays, jitter)


def compose_rays(field: RadianceField, rays: Rays, jitter: Float[Tensor, " N"] | None = None) -> Rendering:
    """Differentiable rendering of any field, operation by operation."""
    origins, directions = unit_rays(field, rays)
    s, latent = visible_latents(field, origins, directions, jitter, rays.time)
    sigma = reference.activate("exp", latent[:, 0])
    rgb = field.color(latent, s.x, directions, s.ray, of_rays(field, rays.time, s.ray))
    return _finish(field, rays, ops.Rendered(*ops.composite(sigma, rgb, s.t0, s.t1, s.offsets), len(s.t0)))


def _fused(field: RadianceField, origins: Tensor, directions: Tensor, jitter: Tensor | None) -> ops.Rendered:
    encoding, density, color = field.encoding, field.density_network, field.color_network
    assert isinstance(encoding, GridEncoding) and isinstance(density, Perceptron) and isinstance(color, Perceptron)
    model = ops.RadianceModel(encoding.shape, density.shape, color.shape, field.harmonics_degree)
    weights = encoding.table, density.params, color.params
    rays = ops.RayBatch(origins.contiguous(), directions.contiguous(), jitter, field.occupancy.bits)
    return ops.render(model, weights, rays, march_shape(field), MIN_TRANSMITTANCE, encoding.gathered)


def of_rays(
    field: RadianceField, time: Float[Tensor, " N"] | None, ray: Int[Tensor, " S"]
) -> Float[Tensor, "S 1"] | None:
    """The time of each sample, that of its ray; None where the field is static."""
    return None if time is None or field.dynamics is None else time.index_select(0, ray)[:, None]


def visible_samples(
    field: RadianceField,
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    jitter: Float[Tensor, " N"] | None,
) -> ops.Samples:
    """Samples in occupied cells up to where a ray is opaque: what lies behind has no weight and gets no gradient. For
    fields that a core or nerfacc marches through by itself; `visible_latents` is for all."""
    shape = march_shape(field)
    if field.march.marcher == "nerfacc":
        rays = ops.RayBatch(origins, directions, jitter, field.occupancy.bits)
        return nerfacc_march.visible_samples(rays, shape, field.density, MIN_TRANSMITTANCE)
    encoding, density = field.encoding, field.density_network
    assert isinstance(encoding, GridEncoding) and isinstance(density, Perceptron)
    grid = ops.grid_spec(encoding.shape, encoding.table), encoding.table.detach()
    network = ops.mlp_spec(density.shape, density.params), density.params.detach()
    batch = origins.contiguous(), directions.contiguous(), jitter, field.occupancy.bits
    how = *ops.march_arguments(shape), MIN_TRANSMITTANCE
    return ops.Samples(*ops.core_for(encoding.table, *batch).march_visible(*grid, *network, *batch, *how))


def visible_latents(
    field: RadianceField,
    origins: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    jitter: Float[Tensor, " N"] | None,
    time: Float[Tensor, " N"] | None = None,
) -> tuple[ops.Samples, Float[Tensor, "S Z"]]:
    """Samples up to where a ray is opaque, and what both networks share there, which also tells where that is."""
    if is_fused(field) or field.march.marcher == "nerfacc":
        s = visible_samples(field, origins, directions, jitter)
        return s, field.latent(s.x, of_rays(field, time, s.ray))
    # Networks behind a grid are small: once more on what is seen takes less than the way back through every round.
    differentiable, encoding = torch.is_grad_enabled(), field.encoding
    again = encoding if differentiable and field.dynamics is None and isinstance(encoding, GridEncoding) else None
    features: list[Tensor] = []
    latents: list[Tensor] = []

    def sigma(x: Tensor, ray: Tensor) -> Tensor:
        with torch.set_grad_enabled(differentiable and again is None):
            if again is not None:
                features.append(again(x))
            latents.append(field.latent(x, of_rays(field, time, ray), features[-1] if features else None))
        return reference.activate("exp", latents[-1][:, 0])

    rays = ops.RayBatch(origins, directions, jitter, field.occupancy.bits)
    s, row = follow(front_of(rays, march_shape(field), MIN_TRANSMITTANCE), sigma)
    if not latents:  # no ray meets anything
        return s, field.latent(s.x, of_rays(field, time, s.ray))
    if again is None:
        return s, torch.cat(latents).index_select(0, row)
    return s, field.latent(s.x, None, again(s.x, torch.cat(features).index_select(0, row)))


def _finish(field: RadianceField, rays: Rays, seen: ops.Rendered) -> Rendering:
    background = rays.background if field.background is None else field.background.sigmoid()
    rgb = seen.rgb + (1 - seen.opacity)[:, None] * background
    with torch.no_grad():
        mean = seen.depth / seen.opacity.clamp(min=1e-3)
        world = torch.where(seen.opacity > 1e-3, mean * field.box.side, math.inf)
    return Rendering(rgb, seen.opacity, world, seen.n_samples, seen.stages)


def is_fused(field: RadianceField) -> bool:
    """Whether a core renders this architecture in one pass."""
    return (
        field.march.marcher == "fieldfit"
        and field.dynamics is None
        and isinstance(field.encoding, GridEncoding)
        and isinstance(field.density_network, Perceptron)
        and isinstance(field.color_network, Perceptron)
        and ops.is_native(field.encoding.table)
    )


@torch.no_grad()
def look(field: RadianceField, rays: Rays) -> Rendering:
    """Rendering without gradients, any number of rays: fused where the architecture allows."""
    if not is_fused(field):
        parts = [render_rays(field, rays[i : i + CHUNK_RAYS]) for i in range(0, len(rays), CHUNK_RAYS)]
        return Rendering(
            torch.cat([p.rgb for p in parts]),
            torch.cat([p.opacity for p in parts]),
            torch.cat([p.depth for p in parts]),
            sum(p.n_samples for p in parts),
        )
    return _finish(field, rays, _fused(field, *unit_rays(field, rays), None))


def render_view(field: RadianceField, cameras: Cameras, view: int, background: tuple[float, float, float]) -> Rendering:
    """All pixels [H, W] of one camera."""
    rays = cameras.image_rays(view)
    rays.background = rays.origins.new_tensor(background).expand(len(rays), 3)
    flat = look(field, rays)
    width, height = (int(v) for v in cameras.size[view])
    rgb = flat.rgb.view(height, width, 3)
    return Rendering(rgb, flat.opacity.view(height, width), flat.depth.view(height, width), flat.n_samples)


def view_normals(field: RadianceField, cameras: Cameras, view: int, seen: Rendering) -> Float[Tensor, "H W 3"]:
    """`ray_normals` of all pixels of one camera, at its time."""
    normal = ray_normals(field, cameras.image_rays(view), seen.depth.flatten(), seen.opacity.flatten())
    return normal.view(*seen.opacity.shape, 3)


@torch.no_grad()
def ray_normals(
    field: RadianceField, rays: Rays, depth: Float[Tensor, " N"], opacity: Float[Tensor, " N"]
) -> Float[Tensor, "N 3"]:
    """Outward unit normals in the world, at the rays' times, where a ray becomes more opaque than not, else zero.

    They point against the rise of log density at the mean depth, by central differences over 1/128 of the box.
    """
    hit = (opacity > 0.5).nonzero()[:, 0]
    points = rays.origins[hit] + rays.directions[hit] * depth[hit, None]
    time = None if rays.time is None else rays.time[hit, None]
    h = field.box.side / 256

    def rise(part: slice, axis: int) -> Tensor:
        offset = h * torch.eye(3, device=points.device)[axis]
        at = None if time is None else time[part]
        ahead, behind = (field.latent(field.from_world(points[part] + o), at)[:, 0] for o in (offset, -offset))
        return ahead - behind

    parts = [slice(i, i + CHUNK_POINTS) for i in range(0, len(points), CHUNK_POINTS)]
    normal = torch.zeros_like(rays.origins)
    if parts:
        rises = torch.cat([torch.stack([rise(part, axis) for axis in range(3)], 1) for part in parts])
        normal[hit] = -torch.nn.functional.normalize(rises, dim=1)
    return normal


def predictor(field: Field | RadianceField) -> Callable[[Inputs], Tensor]:
    """The field as `Scene.evaluate` calls it: any number of coordinates or rays, no gradients.

    Inputs may lie on any device; results lie where the inputs do.
    """
    device = next(field.parameters()).device

    @torch.no_grad()
    def predict(inputs: Inputs) -> Tensor:
        if isinstance(field, RadianceField):
            assert isinstance(inputs, Rays)
            return look(field, inputs.to(device)).rgb.to(inputs.origins.device)
        assert isinstance(inputs, Tensor)
        return torch.cat([field(x.to(device)).to(inputs.device) for x in inputs.split(CHUNK_POINTS)])

    return predict
