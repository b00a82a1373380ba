"""The dynamic demo's subject: the toy in motion. Its parts move rigidly, and light and shadows with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from scenes.demo_render import Scalars, Shape, Solid, Vectors
from scenes.demo_toy import WHEELS, beach_ball, blocks, engine, ground, post, running_gear, tree, wheel_pair

ROLL = 0.13
"""How far the engine rolls to each side, in world units."""
CRANK = 0.045
"""Radius of the circle on which the coupling rods go around."""


@dataclass(frozen=True, eq=False)
class Moved:
    """A shape, turned about a pivot and then shifted."""

    shape: Shape
    rotation: Float32[np.ndarray, "3 3"]
    pivot: Float32[np.ndarray, "3"]
    shift: Float32[np.ndarray, "3"]

    def at_rest(self, p: Vectors) -> Vectors:
        """Where points of the moved shape were before."""
        return (p - self.shift - self.pivot) @ self.rotation + self.pivot

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Ball`, of a box around the turned one."""
        lo, hi = self.shape.bounds()
        corners = np.stack(np.meshgrid(*np.stack((lo, hi), 1), indexing="ij"), -1).reshape(-1, 3)
        turned = (corners - self.pivot) @ self.rotation.T + self.pivot + self.shift
        return turned.min(0), turned.max(0)

    def enter(self, o: Vectors, d: Vectors) -> Scalars:
        """As `Ball`."""
        return self.shape.enter(self.at_rest(o), d @ self.rotation)

    def normal(self, p: Vectors) -> Vectors:
        """As `Ball`."""
        return self.shape.normal(self.at_rest(p)) @ self.rotation.T


def moved(
    solid: Solid, shift: tuple[float, float, float], axis: int = 2, angle: float = 0.0, pivot: object = None
) -> Solid:
    """A solid with its texture, turned by `angle` (radians) about an axis through `pivot`, by default through its own
    middle, and shifted."""
    lo, hi = solid.shape.bounds()
    middle = np.asarray((lo + hi) / 2 if pivot is None else pivot, np.float32)
    u, v = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.eye(3, dtype=np.float32)
    rotation[[u, v], [u, v]] = np.cos(angle)
    rotation[v, u], rotation[u, v] = np.sin(angle), -np.sin(angle)
    shape = Moved(solid.shape, rotation, middle, np.array(shift, np.float32))

    def texture(p: Vectors, n: Vectors) -> Vectors:
        return solid.texture(shape.at_rest(p).astype(np.float32), (n @ rotation).astype(np.float32))

    return Solid(shape, texture, solid.shine, solid.gloss)


def moving_toy(t: float) -> list[Solid]:
    """All solids at time t in [0, 1], within the same bounds as the toy at rest: the engine rolls forth and back, its
    wheels and rods go around, a ball hops, another rises, a block turns."""
    roll = ROLL * np.sin(2 * np.pi * t)
    turns = {r: roll / r for _, r in WHEELS}
    large = turns[max(turns)]
    wheels = [moved(wheel, (roll, 0.0, 0.0), 1, turns[r]) for x, r in WHEELS for wheel in wheel_pair(x, r)]
    around = (roll + CRANK * np.sin(large), 0.0, CRANK * (np.cos(large) - 1))
    rods = [moved(rod, around) for rod in running_gear()[-2:]]
    hop, rolled = 0.3 * abs(np.sin(2 * np.pi * t)), -0.22 * np.cos(np.pi * t)
    letter, small = blocks()
    drum, knob = post()
    return [
        *ground(),
        *(moved(part, (roll, 0.0, 0.0)) for part in engine()),
        *wheels,
        *rods,
        *tree(),
        moved(beach_ball(), (rolled, 0.0, hop), 1, rolled / 0.17),
        letter,
        moved(small, (0.0, 0.0, 0.0), 2, 1.5 * np.pi * t),
        drum,
        moved(knob, (0.0, 0.0, 0.35 * np.sin(np.pi * t) ** 2)),
    ]
