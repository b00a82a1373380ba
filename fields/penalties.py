"""Penalties on a field's grids: total variation, which keeps neighbours alike, and L1, which keeps values small.

Both are of what modules offer as `Smooth`: dense grids, planes and lines; hashed levels have no neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fields.contracts import Smooth
from fields.field import Field, RadianceField
from scenes.errors import InputError

Penalty: TypeAlias = Callable[[Field | RadianceField], Tensor]
"""A further term of the loss, of the field alone."""


@dataclass(frozen=True)
class PenaltyConfig:
    """What is added to the loss, of dense grids, planes and lines."""

    tv: float = 0.0
    """Weight of the total variation: the mean squared difference of neighbours."""
    l1: float = 0.0
    """Weight of the mean absolute value."""
    every: int = 4
    """They are computed at every so many steps, and weigh as many times as much there."""


def grids_of(field: nn.Module) -> list[Tensor]:
    """All grids of a field, each [G, R, .., R, F].

    Raises:
        InputError: it has none that are dense.
    """
    grids = [grid for module in field.modules() if isinstance(module, Smooth) for grid in module.grids()]
    if not grids:
        raise InputError(
            "penalties: expected a field with dense grids, got one without; take --fit.penalties.tv 0 and "
            "--fit.penalties.l1 0, or an encoding such as dense, tensorf or triplane"
        )
    return grids


def total_variation(field: nn.Module) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring vertices, summed over axes and grids (TensoRF, Chen et al. 2022)."""
    terms = [
        grid.narrow(axis, 1, grid.shape[axis] - 1).sub(grid.narrow(axis, 0, grid.shape[axis] - 1)).square().mean()
        for grid in grids_of(field)
        for axis in range(1, grid.ndim - 1)
    ]
    return torch.stack(terms).sum()


def magnitude(field: nn.Module) -> Float[Tensor, ""]:
    """Mean absolute value, summed over grids (TensoRF's L1)."""
    return torch.stack([grid.abs().mean() for grid in grids_of(field)]).sum()


def configured(config: PenaltyConfig) -> list[Penalty]:
    """The penalties of a configuration, for those steps that compute them.

    Raises:
        InputError: a weight or an interval that makes no sense.
    """
    if not (config.tv >= 0 and config.l1 >= 0 and config.every >= 1):
        raise InputError(
            f"penalties: expected tv >= 0, l1 >= 0 and every >= 1, got {config.tv:g}, {config.l1:g}, {config.every}"
        )
    weights = {total_variation: config.tv * config.every, magnitude: config.l1 * config.every}
    return [_weighted(penalty, weight) for penalty, weight in weights.items() if weight > 0]


def _weighted(penalty: Penalty, weight: float) -> Penalty:
    return lambda field: weight * penalty(field)
