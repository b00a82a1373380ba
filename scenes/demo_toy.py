"""The demo's subject: a wooden toy locomotive on a round board, with a tree, a ball and a block beside it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from scenes.demo_render import Ball, Brick, Cone, Scalars, Solid, Texture, Vectors

CREAM, BRASS, STEEL = (0.78, 0.66, 0.44), (0.72, 0.47, 0.12), (0.42, 0.44, 0.47)
GREEN, RED, BLACK = (0.02, 0.2, 0.09), (0.52, 0.035, 0.025), (0.025, 0.025, 0.03)
TEAL, WALNUT, OAK, GLASS = (0.02, 0.16, 0.2), (0.16, 0.065, 0.025), (0.55, 0.3, 0.12), (0.03, 0.06, 0.1)

WHEELS = ((-0.5, 0.13), (-0.17, 0.13), (0.16, 0.13), (0.53, 0.095))
"""Where along the engine each axle is, and the radius of its wheels."""


def toy() -> list[Solid]:
    """All solids: within 1.15 of the z axis, from 0.12 below the board's top at z = 0 to about 1."""
    return [*ground(), *engine(), *running_gear(), *tree(), beach_ball(), *blocks(), *post()]


def ground() -> list[Solid]:
    """The board, the track and its rails."""
    return [
        Solid(Cone((0.0, 0.0, -0.06), 2, 0.06, (1.11, 1.15)), _board, 0.25, 60),
        Solid(Brick((0.0, 0.0, 0.02), (0.94, 0.27, 0.02)), _track_bed, 0.05, 10),
        *(Solid(Brick((0.0, y, 0.06), (0.94, 0.016, 0.02)), _plain(STEEL), 0.9, 90) for y in (-0.19, 0.19)),
    ]


def engine() -> list[Solid]:
    """The locomotive without its wheels."""
    return [
        Solid(Brick((-0.02, 0.0, 0.26), (0.72, 0.14, 0.05)), _plain(BLACK), 0.3),
        Solid(Brick((0.0, 0.0, 0.35), (0.74, 0.235, 0.014)), _plain(RED), 0.4),
        Solid(Cone((0.17, 0.0, 0.54), 0, 0.4, (0.19, 0.19)), _boiler, 0.7, 120),
        Solid(Cone((0.62, 0.0, 0.54), 0, 0.08, (0.205, 0.205)), _smokebox, 0.4, 60),
        Solid(Cone((0.62, 0.0, 0.82), 2, 0.12, (0.065, 0.095)), _plain(BLACK), 0.5, 60),
        Solid(Cone((0.62, 0.0, 0.95), 2, 0.025, (0.125, 0.115)), _plain(BRASS), 0.9, 120),
        Solid(Cone((0.28, 0.0, 0.74), 2, 0.04, (0.1, 0.1)), _plain(BRASS), 0.9, 120),
        Solid(Ball((0.28, 0.0, 0.78), 0.1), _plain(BRASS), 0.9, 120),
        Solid(Cone((0.0, 0.0, 0.75), 2, 0.05, (0.06, 0.05)), _plain(RED), 0.6, 80),
        Solid(Brick((-0.47, 0.0, 0.6), (0.25, 0.22, 0.25)), _cab, 0.5, 80),
        Solid(Brick((-0.48, 0.0, 0.87), (0.32, 0.275, 0.02)), _plain(RED), 0.5, 60),
        Solid(Brick((-0.48, 0.0, 0.9), (0.27, 0.2, 0.015)), _plain(RED), 0.5, 60),
        Solid(Brick((0.745, 0.0, 0.27), (0.02, 0.22, 0.05)), _plain(RED), 0.4),
        *(Solid(Cone((0.79, y, 0.27), 0, 0.03, (0.03, 0.045)), _plain(STEEL), 0.9, 90) for y in (-0.14, 0.14)),
        Solid(Cone((0.72, 0.0, 0.72), 0, 0.04, (0.05, 0.06)), _lamp, 0.9, 120),
    ]


def running_gear() -> list[Solid]:
    """Wheels, then the rods that couple them."""
    return [
        *(wheel for x, r in WHEELS for wheel in wheel_pair(x, r)),
        *(Solid(Brick((-0.17, y, 0.19), (0.38, 0.008, 0.02)), _plain(STEEL), 0.9, 90) for y in (-0.228, 0.228)),
    ]


def wheel_pair(x: float, r: float) -> list[Solid]:
    """The wheels of one axle, at (x, 0, 0.08 + r)."""
    return [Solid(Cone((x, y, 0.08 + r), 1, 0.028, (r, r)), _wheel(x, 0.08 + r, r), 0.4, 60) for y in (-0.19, 0.19)]


def tree() -> list[Solid]:
    """Beside the rails; three cones of leaves on a trunk."""
    leaves = [(0.22, 0.24), (0.42, 0.19), (0.6, 0.14)]
    return [
        Solid(Cone((-0.3, 0.68, 0.06), 2, 0.06, (0.05, 0.045)), _plain(WALNUT), 0.1),
        *(Solid(Cone((-0.3, 0.68, z), 2, 0.12, (r, 0.025)), _leaves, 0.1, 20) for z, r in leaves),
    ]


def beach_ball() -> Solid:
    """On the board."""
    return Solid(Ball((0.42, -0.66, 0.17), 0.17), _beach_ball, 0.7, 120)


def blocks() -> tuple[Solid, Solid]:
    """A letter block, and a smaller one on top of it."""
    return (
        Solid(Brick((-0.34, -0.62, 0.13), (0.13, 0.13, 0.13)), _block, 0.3, 40),
        Solid(Brick((-0.31, -0.64, 0.34), (0.08, 0.08, 0.08)), _plain((0.75, 0.42, 0.03)), 0.3, 40),
    )


def post() -> tuple[Solid, Solid]:
    """A striped drum, and a ball on top of it."""
    return (
        Solid(Cone((0.45, 0.6, 0.09), 2, 0.09, (0.11, 0.11)), _stripes, 0.4, 60),
        Solid(Ball((0.45, 0.6, 0.26), 0.09), _plain((0.75, 0.42, 0.03)), 0.6, 90),
    )


def _plain(colour: tuple[float, float, float]) -> Texture:
    def texture(p: Vectors, n: Vectors) -> Vectors:
        return _colour(colour, p)

    return texture


def _board(p: Vectors, n: Vectors) -> Vectors:
    """Oak planks within a ring of chequers; a walnut rim with a brass line."""
    x, y, z = p.T
    plank = np.floor(y / 0.23)
    grain = (y + 0.02 * np.sin(3.1 * x + 7 * plank) + 0.006 * np.sin(13 * x + 3 * plank)) * 70
    tone = 0.5 + 0.32 * np.sin(grain + 2 * np.sin(2.1 * x + 1.7 * plank)) + 0.14 * np.sin(5 * plank)
    top = _mix(OAK, WALNUT, 0.15 + 0.5 * tone)
    top *= (0.35 + 0.65 * _step(np.abs(y / 0.23 - np.round(y / 0.23)), 0.018))[:, None]
    radius, angle = np.hypot(x, y), np.arctan2(y, x) * 24 / np.pi
    chequer = (np.floor(angle) + np.floor((radius - 0.99) / 0.06)) % 2
    top = _over(top, _mix(CREAM, TEAL, chequer), _step(radius, 0.99) * (1 - _step(radius, 1.11)))
    top = _over(top, _colour(WALNUT, p), _step(radius, 1.11))
    side = _over(_colour(WALNUT, p), _colour(BRASS, p), 1 - _step(np.abs(z + 0.06), 0.012))
    return _over(side, top, _step(n[:, 2], 0.5))


def _track_bed(p: Vectors, n: Vectors) -> Vectors:
    """Sleepers in gravel."""
    x, y, _ = p.T
    tone = np.sin(91 * x + 4 * np.sin(23 * y)) * np.sin(87 * y + 3 * np.sin(29 * x))
    gravel = _mix((0.16, 0.15, 0.14), (0.36, 0.34, 0.31), 0.5 + 0.5 * tone)
    sleeper = _mix(WALNUT, OAK, 0.2 + 0.15 * np.sin(200 * x + 6 * np.sin(9 * y)))
    return _over(gravel, sleeper, 1 - _step(np.abs((x / 0.135) % 1 - 0.5), 0.22))


def _boiler(p: Vectors, n: Vectors) -> Vectors:
    bands = np.abs(p[:, 0, None] - np.array([-0.18, 0.04, 0.26, 0.5], np.float32)).min(1)
    body = _over(_colour(GREEN, p), _colour(CREAM, p), 1 - _step(bands, 0.026))
    return _over(body, _colour(BRASS, p), 1 - _step(bands, 0.017))


def _smokebox(p: Vectors, n: Vectors) -> Vectors:
    """Black, with a door in a brass ring and a handle."""
    y, z = p[:, 1], p[:, 2] - np.float32(0.54)
    radius = np.hypot(y, z)
    front = _over(_colour(BLACK, p), _colour(RED, p), 1 - _step(radius, 0.145))
    front = _over(front, _colour(BRASS, p), 1 - _step(np.abs(radius - 0.145), 0.013))
    cross = np.minimum(np.abs(y + z), np.abs(y - z))
    front = _over(front, _colour(BRASS, p), (1 - _step(cross, 0.011)) * (1 - _step(radius, 0.07)))
    return _over(_colour(BLACK, p), front, _step(n[:, 0], 0.5))


def _cab(p: Vectors, n: Vectors) -> Vectors:
    """Green panels lined in cream, with windows in red frames."""
    along = np.where(np.abs(n[:, 1]) > 0.5, p[:, 0] + np.float32(0.47), p[:, 1])
    height = p[:, 2] - np.float32(0.6)
    wide = np.where(np.abs(n[:, 1]) > 0.5, np.float32(0.25), np.float32(0.22))
    pane = np.maximum(np.abs(np.abs(along) - wide * 0.46) / (wide * 0.3), np.abs(height - 0.09) / 0.1)
    panel = np.maximum(np.abs(along) / (wide * 0.8), np.abs(height + 0.145) / 0.07)
    body = _over(_colour(GREEN, p), _colour(CREAM, p), 1 - _step(np.abs(panel - 1), 0.09))
    body = _over(body, _colour(RED, p), 1 - _step(pane, 1.22))
    return _over(body, _mix(GLASS, (0.35, 0.5, 0.62), (height * 2.6 + along).clip(0, 1)), 1 - _step(pane, 1.0))


def _lamp(p: Vectors, n: Vectors) -> Vectors:
    radius = np.hypot(p[:, 1], p[:, 2] - np.float32(0.72))
    return _over(_colour(BRASS, p), _colour((1.0, 0.9, 0.6), p), (1 - _step(radius, 0.045)) * _step(n[:, 0], 0.5))


def _wheel(x: float, z: float, radius: float) -> Texture:
    """Red spokes in a steel tyre."""

    def texture(p: Vectors, n: Vectors) -> Vectors:
        u, v = p[:, 0] - np.float32(x), p[:, 2] - np.float32(z)
        r, angle = np.hypot(u, v) / np.float32(radius), np.arctan2(v, u)
        spoke = 1 - _step(np.abs(np.sin(4 * angle)) * r, 0.34)
        face = _mix(BLACK, RED, np.maximum(spoke, 1 - _step(r, 0.32)))
        face = _over(face, _colour(BRASS, p), 1 - _step(r, 0.15))
        return _over(face, _colour(STEEL, p), _step(r, 0.84))

    return texture


def _leaves(p: Vectors, n: Vectors) -> Vectors:
    x, y, z = p.T
    tone = np.sin(61 * x + 2 * np.sin(31 * z)) * np.sin(59 * y + 2 * np.sin(37 * z)) * np.sin(71 * z)
    return _mix((0.015, 0.11, 0.03), (0.1, 0.33, 0.05), 0.5 + 0.5 * tone)


def _beach_ball(p: Vectors, n: Vectors) -> Vectors:
    """Six gores around a tilted axis."""
    axis = np.array([0.36, 0.48, 0.8], np.float32)
    right = np.array([0.8, -0.6, 0], np.float32)
    angle = np.arctan2(n @ np.cross(axis, right), n @ right) * 3 / np.pi
    gore = np.floor(angle + 3) % 3
    ball = _over(_colour((0.8, 0.78, 0.72), p), _colour((0.05, 0.2, 0.6), p), (gore == 1).astype(np.float32))
    ball = _over(ball, _colour((0.85, 0.08, 0.03), p), (gore == 2).astype(np.float32))
    return _over(ball, _colour((0.85, 0.6, 0.05), p), _step(np.abs(n @ axis), 0.93))


def _block(p: Vectors, n: Vectors) -> Vectors:
    """A letter block: on each side a coloured frame and an F."""
    q = (p - np.array([-0.34, -0.62, 0.13], np.float32)) / np.float32(0.13)
    side = np.abs(n[:, 0]) > 0.5
    u = np.where(
        side, q[:, 1] * np.sign(n[:, 0]), np.where(np.abs(n[:, 1]) > 0.5, -q[:, 0] * np.sign(n[:, 1]), q[:, 0])
    )
    v = np.where(np.abs(n[:, 2]) > 0.5, q[:, 1], q[:, 2])
    ink = _mix((0.6, 0.05, 0.03), (0.04, 0.2, 0.5), side.astype(np.float32))
    frame = _step(np.maximum(np.abs(u), np.abs(v)), 0.8)
    stem = _inside(u, v, -0.38, -0.14, -0.58, 0.58)
    bars = np.maximum(_inside(u, v, -0.38, 0.42, 0.36, 0.58), _inside(u, v, -0.38, 0.28, -0.1, 0.12))
    return _over(_colour(CREAM, p), ink, np.maximum(frame, np.maximum(stem, bars)))


def _stripes(p: Vectors, n: Vectors) -> Vectors:
    return _mix((0.8, 0.78, 0.72), RED, _step(np.sin(p[:, 2] * 70), 0.0))


def _inside(u: Scalars, v: Scalars, u0: float, u1: float, v0: float, v1: float) -> Scalars:
    return ((u > u0) & (u < u1) & (v > v0) & (v < v1)).astype(np.float32)


def _step(x: Scalars, edge: float) -> Scalars:
    return (x > edge).astype(np.float32)


def _colour(colour: tuple[float, float, float], like: Vectors) -> Vectors:
    return np.broadcast_to(np.array(colour, np.float32), like.shape)


def _mix(a: tuple[float, float, float], b: tuple[float, float, float], t: Scalars) -> Vectors:
    low, high = np.array(a, np.float32), np.array(b, np.float32)
    return (low + (high - low) * t[:, None].clip(0, 1)).astype(np.float32)


def _over(below: Vectors, above: Vectors, cover: Float32[np.ndarray, "N"]) -> Vectors:
    return (below + (above - below) * cover[:, None]).astype(np.float32)
