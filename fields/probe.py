"""How good a field is while it is being fitted: a metric on a small fixed sample of what it is evaluated on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fields.field import Field, RadianceField
from fields.rendering.render import predictor
from scenes.capture import Capture
from scenes.mesh import Mesh
from scenes.metrics import iou
from scenes.rays import Inputs, Rays
from scenes.scene import Scene

POINTS, PIXELS = 2**15, 2**11
"""Of values at coordinates, and of rays."""
VIEWS = 4
Metric = Literal["psnr", "iou"]


@dataclass(frozen=True)
class Probe:
    """What is asked, and the truth."""

    metric: Metric
    inputs: Inputs
    truth: Tensor
    sample: str
    """What it consists of, in words."""

    def quality(self, field: Field | RadianceField) -> float:
        """PSNR in dB, or intersection over union in [0, 1]."""
        predicted = predictor(field)(self.inputs)
        if self.metric == "iou":
            return iou(predicted[:, 0] < 0, self.truth)
        if float(self.truth.min()) >= 0 and float(self.truth.max()) <= 1:
            predicted = predicted.clamp(0, 1)
        error = float((predicted - self.truth).square().mean())
        return -10 * math.log10(max(error, 1e-12)) if math.isfinite(error) else 0.0


def probe(scene: Scene, seed: int = 0) -> Probe:
    """A sample of held-out photographs, or of what is known everywhere."""
    generator = torch.Generator().manual_seed(seed + 2)  # fitting draws from seed + 1
    if isinstance(scene, Mesh):
        return _of_mesh(scene, seed)
    if isinstance(scene, Capture):
        return _of_capture(scene, generator)
    inputs, truth = scene.sample(POINTS, generator)
    return Probe("psnr", inputs, truth, f"{len(truth):,} points drawn once, of the data that are fitted")


def _of_mesh(scene: Mesh, seed: int) -> Probe:
    corners = scene.surface.vertices.min(0), scene.surface.vertices.max(0)
    points = np.random.default_rng(seed + 2).uniform(*corners, (POINTS, 3))
    inside = torch.from_numpy(scene.surface.inside(points))
    return Probe("iou", torch.from_numpy(points).float(), inside, f"{POINTS:,} points of the bounds, drawn once")


def _of_capture(scene: Capture, generator: torch.Generator) -> Probe:
    split = held_out_split(scene)
    views = scene.views[split]
    chosen = [views[i * len(views) // min(VIEWS, len(views))] for i in range(min(VIEWS, len(views)))]
    rays, truths = [], []
    for view in chosen:
        seen = scene.image_rays(view)
        truth, mask = scene.image(view)
        known = torch.arange(len(truth)) if mask is None else mask.nonzero()[:, 0]
        index = known[torch.randint(len(known), (PIXELS // len(chosen),), generator=generator)] if len(known) else known
        rays.append(seen[index])
        truths.append(truth[index])
    times = [r.time for r in rays]
    inputs = Rays(
        torch.cat([r.origins for r in rays]),
        torch.cat([r.directions for r in rays]),
        torch.cat([r.background for r in rays]),
        None if any(t is None for t in times) else torch.cat([t for t in times if t is not None]),
    )
    text = f"{len(inputs):,} pixels drawn once, of {len(chosen)} {split} view{'s' * (len(chosen) > 1)}"
    return Probe("psnr", inputs, torch.cat(truths), text)


def held_out_split(scene: Scene) -> str:
    """`test`, or `train` for a capture of which nothing was held out."""
    return "train" if isinstance(scene, Capture) and not scene.views["test"] else "test"
