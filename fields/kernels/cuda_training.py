"""Fitting a radiance field on a GPU: march, field and compositing with what their backward pass needs.

All samples in occupied cells go through grid and density network at once; those in front of which a ray is opaque
already are then dropped (compaction), so that colours, and the whole backward pass, are of samples that can be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from fields.kernels.cuda_arguments import expect, expect_tensor
from fields.kernels.cuda_march import Evaluated, Rays
from fields.kernels.cuda_render import RadianceModel, visible

if TYPE_CHECKING:
    from fields.kernels.cuda import Core


class Kept(NamedTuple):
    """Of one forward pass."""

    evaluated: Evaluated
    directional: Tensor
    """[N, K], harmonics of the rays' directions."""
    rgb: Tensor
    """[S, 3] of the samples."""


class RadianceTape:
    """What a forward pass leaves for its backward pass, which takes it away."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.kept: Kept | None = None

    def stages(self) -> dict[str, float]:
        """None: to read a clock would wait for the GPU."""
        return {}


def forward(
    core: Core,
    model: RadianceModel,
    rays: Rays,
    least: float,
    outputs: tuple[Tensor, Tensor, Tensor],
    tape: RadianceTape,
) -> int:
    """Write (rgb, opacity, depth) of the rays; returns how many samples they have."""
    assert model.color is not None and model.color_params is not None
    evaluated = visible(model, rays, least)
    samples, latent = evaluated.samples, evaluated.latent
    directions = rays.arguments[2]
    assert isinstance(directions, Tensor)
    directional = directions.new_empty(rays.n, model.degree**2)
    core.harmonics(model.degree, directions, directional)
    rgb = latent.new_empty(len(latent), 3)
    model.color.forward(latent, model.color_params, directional, samples.ray, rgb)
    core.composite_forward(samples.offsets, evaluated.sigma, rgb, samples.t0, samples.t1, *outputs)
    tape.n_samples, tape.kept = len(latent), Kept(evaluated, directional, rgb)
    return tape.n_samples


def backward(
    core: Core,
    model: RadianceModel,
    tape: RadianceTape,
    outputs: tuple[Tensor, ...],
    cotangents: tuple[Tensor, ...],
    gradients: tuple[Tensor, Tensor | None, Tensor, Tensor],
) -> None:
    """`gradients`: of the table, which is added to, its marks, and those of both networks, which are written."""
    assert model.color is not None and model.color_params is not None
    expect(tape.kept is not None, "the tape of these rays, which serves one backward pass")
    assert tape.kept is not None
    (samples, features, latent, sigma), directional, rgb = tape.kept
    tape.kept = None
    d_table, touched, d_density, d_color = gradients
    expect_tensor("d_table", d_table, model.table.shape)
    d_sigma, d_rgb = sigma.new_empty(sigma.shape), rgb.new_empty(rgb.shape)
    of_samples = samples.offsets, sigma, rgb, samples.t0, samples.t1
    core.composite_backward(*of_samples, *outputs, *cotangents, d_sigma, d_rgb)
    d_latent = latent.new_empty(latent.shape)
    through = latent, model.color_params, directional, samples.ray
    model.color.backward(*through, d_rgb, d_latent, d_color)
    d_latent[:, 0].addcmul_(d_sigma, sigma)  # sigma = exp(the latent's first value)
    d_features = features.new_empty(features.shape)
    model.density.backward(features, model.density_params, None, None, d_latent, d_features, d_density)
    model.grid.backward(samples.x, model.table, d_features, d_table, touched, None)
