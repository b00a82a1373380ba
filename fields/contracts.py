"""What encodings and networks share: how networks are called, and what a module may offer beside `forward`.

An encoding takes points of the unit cube [N, D] and has `width`, the number of its features. A network takes features,
perhaps a second input with one row per ray (`aux`, `index`), and where its samples lie (`at`), which only networks that
are modulated read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class At(NamedTuple):
    """Where N samples lie: what a network may be modulated by."""

    position: Float[Tensor, "N D"]
    """In the unit cube. A film's last coordinate is its time, from 0 to 1."""
    directions: Float[Tensor, "R 3"] | None = None
    """Unit vectors from the camera, in the world's axes, of samples or of rays; of radiance fields."""
    time: Float[Tensor, "N 1"] | None = None
    """In [0, 1]; of films and dynamic radiance fields."""
    ray: Int[Tensor, " N"] | None = None
    """Whose directions these are; None where each sample has its own."""

    @property
    def direction(self) -> Float[Tensor, "N 3"] | None:
        """Of each sample."""
        if self.directions is None or self.ray is None:
            return self.directions
        return self.directions.index_select(0, self.ray)


class AtShape(NamedTuple):
    """What `At` will hold when a network is called: known when its field is built."""

    position: int
    """Number of dimensions."""
    direction: bool = False
    time: Literal["own", "last"] | None = None
    """As a value of its own, or as the last coordinate of the position."""


@runtime_checkable
class Initialised(Protocol):
    """A module that draws its own parameters."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all of them anew."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A network whose first values depend on the features that it will see."""

    def calibrate(self, x: Float[Tensor, "N X"], generator: torch.Generator) -> None:
        """Look at features of random points, after everything was drawn."""
        ...


@runtime_checkable
class Gridded(Protocol):
    """A module some of whose parameters are grids: they are fitted at the rate of tables."""

    def grid_parameters(self) -> Sequence[nn.Parameter]:
        """Those parameters."""
        ...


@runtime_checkable
class Sparse(Protocol):
    """A module of some of whose parameters a step may use a part: the rest gets no gradient, and stays as it is."""

    def sparse_parameters(self) -> Sequence[nn.Parameter]:
        """Those parameters."""
        ...


@runtime_checkable
class Scheduled(Protocol):
    """A module that changes with the progress of the fit. What it remembers of that is in its buffers."""

    def advance(self, progress: float) -> None:
        """Be what it is at this progress in [0, 1]; called before every step, and again with the same value by a fit
        that goes on from a save."""
        ...


@runtime_checkable
class Smooth(Protocol):
    """A module with dense grids, whose values can be kept smooth or small."""

    def grids(self) -> Sequence[Tensor]:
        """Their values, each tensor [G, R, .., R, F]: G grids of F features."""
        ...


def with_aux(
    x: Float[Tensor, "N X"], aux: Float[Tensor, "R A"] | None, index: Int[Tensor, " N"] | None
) -> Float[Tensor, "N XA"]:
    """[x, aux[index]]; `aux` gets no gradient."""
    if aux is None:
        return x
    return torch.cat([x, aux.detach() if index is None else aux.detach().index_select(0, index)], dim=1)
