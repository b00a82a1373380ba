"""World bounds, and the one similarity that takes them into the unit cube where fields live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in world units, of any number of dimensions, with a positive length on every axis."""

    lo: tuple[float, ...]
    hi: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.lo) != len(self.hi) or not self.lo:
            raise ValueError(f"a box needs as many upper as lower bounds, got {self.lo} and {self.hi}")
        if not all(math.isfinite(v) for v in (*self.lo, *self.hi)):
            raise ValueError(f"a box needs finite bounds, got {self.lo} and {self.hi}")
        if not all(lo < hi for lo, hi in zip(self.lo, self.hi, strict=True)):
            raise ValueError(f"a box needs lo < hi on every axis, got {self.lo} and {self.hi}")

    @property
    def centre(self) -> tuple[float, ...]:
        """The middle, in world units."""
        return tuple(0.5 * (lo + hi) for lo, hi in zip(self.lo, self.hi, strict=True))

    @property
    def size(self) -> tuple[float, ...]:
        """Edge lengths in world units."""
        return tuple(hi - lo for lo, hi in zip(self.lo, self.hi, strict=True))

    @property
    def side(self) -> float:
        """The longest edge: the edge of the unit cube, in world units."""
        return max(self.size)

    def to_unit(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """World to unit cube: a similarity that centres the box in the cube and lets its longest edge fill it."""
        return (x - x.new_tensor(self.centre)) / self.side + 0.5

    def from_unit(self, u: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """The inverse of `to_unit`."""
        return (u - 0.5) * self.side + u.new_tensor(self.centre)

    def padded(self, fraction: float) -> Box:
        """The box grown on every side by `fraction` of its longest edge."""
        pad = fraction * self.side
        return Box(tuple(lo - pad for lo in self.lo), tuple(hi + pad for hi in self.hi))

    def to_json(self) -> list[list[float]]:
        """`[lo, hi]`."""
        return [list(self.lo), list(self.hi)]

    @classmethod
    def from_json(cls, data: Sequence[Sequence[float]]) -> Box:
        """Raises ValueError when `data` is not `[lo, hi]` of a box."""
        lo, hi = data
        return cls(tuple(float(v) for v in lo), tuple(float(v) for v in hi))
