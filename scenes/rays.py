"""Rays in world units: what a capture hands to a renderer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(eq=False)
class Rays:
    """N rays; a point on a ray is `origin + t * direction` with `t` in world units."""

    origins: Float[Tensor, "N 3"]
    directions: Float[Tensor, "N 3"]
    """Unit length."""
    background: Float[Tensor, "N 3"]
    """The colour behind everything, in the display's colour space."""
    time: Float[Tensor, "N"] | None = None
    """In [0, 1], for captures of something that moves."""

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, index: slice | Tensor) -> Rays:
        """Some of the rays: a slice, a tensor of indices or a mask."""
        time = None if self.time is None else self.time[index]
        return Rays(self.origins[index], self.directions[index], self.background[index], time)

    def to(self, device: torch.device | str) -> Rays:
        """The same rays on a device."""
        time = None if self.time is None else self.time.to(device)
        return Rays(self.origins.to(device), self.directions.to(device), self.background.to(device), time)


Inputs: TypeAlias = Tensor | Rays
"""What a scene's samples are placed at: coordinates in the unit cube, or rays in world units."""
