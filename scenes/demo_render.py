"""A small ray tracer for convex solids under one soft light and a sky; what the demo's photographs are made with.

All solids are convex, so that a ray's first hit is where it enters. Vectors are float32 arrays [..., 3] in world units
(z up), colours are linear RGB. Each of the samples of a pixel sees the light from one of as many directions: soft
shadows that are the same from every camera.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

Vectors: TypeAlias = Float32[np.ndarray, "*#N 3"]
Scalars: TypeAlias = Float32[np.ndarray, "*#N"]
Texture: TypeAlias = Callable[[Vectors, Vectors], Vectors]
"""From points and normals on a solid to its colour there."""

SUN = np.array([0.42, -0.62, 0.66])
SUN_COLOUR = np.array([1.25, 1.1, 0.9], np.float32)
SKY_COLOUR = np.array([0.3, 0.35, 0.44], np.float32)
FLOOR_COLOUR = np.array([0.15, 0.12, 0.1], np.float32)
SUBPIXELS = np.array([[0.125, 0.625], [0.375, 0.125], [0.625, 0.875], [0.875, 0.375]], np.float32)
FAR = np.float32(1e9)


@runtime_checkable
class Shape(Protocol):
    """What a ray can meet, such as a `Ball`."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner."""
        ...

    def enter(self, o: Vectors, d: Vectors) -> Scalars:
        """Where rays enter, in multiples of their unit directions; `FAR` where they do not."""
        ...

    def normal(self, p: Vectors) -> Vectors:
        """Outward, at points on the surface."""
        ...


@dataclass(frozen=True)
class Ball:
    """A sphere."""

    centre: tuple[float, float, float]
    radius: float

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner."""
        return np.array(self.centre) - self.radius, np.array(self.centre) + self.radius

    def enter(self, o: Vectors, d: Vectors) -> Scalars:
        """Where rays enter, in multiples of their unit directions; `FAR` where they do not."""
        c = o - np.array(self.centre, np.float32)
        b = _dot(c, d)
        disc = b * b - _dot(c, c) + np.float32(self.radius**2)
        return np.where(disc > 0, -b - np.sqrt(np.maximum(disc, 0)), FAR)

    def normal(self, p: Vectors) -> Vectors:
        """Outward, at points on the surface."""
        return (p - np.array(self.centre, np.float32)) / np.float32(self.radius)


@dataclass(frozen=True)
class Brick:
    """A box along the axes; `half` are half its edges."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Ball`."""
        return np.array(self.centre) - self.half, np.array(self.centre) + self.half

    def enter(self, o: Vectors, d: Vectors) -> Scalars:
        """As `Ball`."""
        first, last = np.float32(-FAR), FAR
        for k in range(3):
            inverse = 1 / np.where(np.abs(d[..., k]) < 1e-7, np.float32(1e-7), d[..., k])
            middle = (np.float32(self.centre[k]) - o[..., k]) * inverse
            reach = np.abs(inverse) * np.float32(self.half[k])
            first, last = np.maximum(first, middle - reach), np.minimum(last, middle + reach)
        return np.where(first < last, first, FAR)

    def normal(self, p: Vectors) -> Vectors:
        """As `Ball`."""
        q = (p - np.array(self.centre, np.float32)) / np.array(self.half, np.float32)
        axis = np.abs(q).argmax(-1)
        return np.where(np.arange(3) == axis[:, None], np.sign(q), 0).astype(np.float32)


@dataclass(frozen=True)
class Cone:
    """A capped cone along an axis; a cylinder where both radii are equal."""

    centre: tuple[float, float, float]
    axis: Literal[0, 1, 2]
    half: float
    radii: tuple[float, float]
    """At the lower and at the upper end of the axis."""

    @property
    def _slope(self) -> tuple[np.float32, np.float32]:
        """Radius at the centre, and its growth along the axis."""
        low, high = self.radii
        return np.float32((low + high) / 2), np.float32((high - low) / (2 * self.half))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Ball`."""
        reach = np.where(np.arange(3) == self.axis, self.half, max(self.radii))
        return np.array(self.centre) - reach, np.array(self.centre) + reach

    def enter(self, o: Vectors, d: Vectors) -> Scalars:
        """As `Ball`."""
        c = o - np.array(self.centre, np.float32)
        u, v = (k for k in range(3) if k != self.axis)
        ch, dh = c[..., self.axis], d[..., self.axis]
        radius, slope = self._slope
        at = radius + slope * ch
        a = d[..., u] ** 2 + d[..., v] ** 2 - (slope * dh) ** 2
        a = np.where(np.abs(a) < 1e-7, np.float32(1e-7), a)
        b = c[..., u] * d[..., u] + c[..., v] * d[..., v] - slope * dh * at
        disc = b * b - a * (c[..., u] ** 2 + c[..., v] ** 2 - at * at)
        root = np.sqrt(np.maximum(disc, 0))
        side = (-b - root) / a
        inverse = 1 / np.where(np.abs(dh) < 1e-7, np.float32(1e-7), dh)
        cap = -ch * inverse - np.abs(inverse) * np.float32(self.half)
        on_side = (disc > 0) & (np.abs(ch + side * dh) <= np.float32(self.half))
        rim = radius - slope * np.float32(self.half) * np.sign(dh)
        on_cap = (c[..., u] + cap * d[..., u]) ** 2 + (c[..., v] + cap * d[..., v]) ** 2 <= rim * rim
        return np.minimum(np.where(on_side, side, FAR), np.where(on_cap, cap, FAR))

    def normal(self, p: Vectors) -> Vectors:
        """As `Ball`."""
        q = p - np.array(self.centre, np.float32)
        h = q[:, self.axis].copy()
        radius, slope = self._slope
        q[:, self.axis] = 0
        length = np.sqrt(_dot(q, q))
        n = q / np.maximum(length, 1e-6)[:, None]
        n[:, self.axis] = -slope
        n /= np.sqrt(1 + slope * slope)
        cap = np.abs(h) / np.float32(self.half) > 1 - 1e-3
        cap &= length < (radius + slope * h) * np.float32(1 - 1e-3)
        n[cap] = 0
        n[cap, self.axis] = np.sign(h[cap])
        return n


@dataclass(frozen=True)
class Solid:
    """A shape and what it is made of."""

    shape: Shape
    texture: Texture
    shine: float = 0.3
    """Strength of highlight and reflection, 0 to 1."""
    gloss: int = 40
    """Sharpness of the highlight: the exponent of Blinn and Phong."""


def photograph(
    solids: list[Solid], T_world_camera: Float[np.ndarray, "4 4"], focal: float, size: int
) -> UInt8[np.ndarray, "H W 4"]:
    """A square RGBA picture, sRGB with straight alpha. The camera has Blender's axes: x right, y up, z backward."""
    rotation, origin = T_world_camera[:3, :3].astype(np.float32), T_world_camera[:3, 3].astype(np.float32)
    i, j = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32), indexing="ij")
    n = len(SUBPIXELS)
    x = (j + SUBPIXELS[:, 0, None, None] - size / 2) / np.float32(focal)
    y = (size / 2 - i - SUBPIXELS[:, 1, None, None]) / np.float32(focal)
    d = np.stack((x, y, -np.ones_like(x)), -1) @ rotation.T
    d /= np.sqrt(_dot(d, d))[..., None]
    nearest = np.full((n, size, size), FAR, np.float32)
    which = np.zeros((n, size, size), np.int16)
    for k, solid in enumerate(solids):
        rows, columns = _window(solid, rotation, origin, focal, size)
        t = solid.shape.enter(origin[None], d[:, rows, columns])
        closer = t < nearest[:, rows, columns]
        nearest[:, rows, columns][closer] = t[closer]
        which[:, rows, columns][closer] = k
    hit = nearest < FAR
    sample = np.nonzero(hit)[0]
    light = np.zeros((n, size, size, 3), np.float32)
    light[hit] = _shade(solids, which[hit], origin + nearest[hit][:, None] * d[hit], d[hit], sample)
    alpha = hit.mean(0, dtype=np.float32)
    linear = light.sum(0) / np.maximum(alpha * n, 1e-6)[..., None]
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
    return np.round(np.concatenate((encoded.clip(0, 1), alpha[..., None]), -1) * 255).astype(np.uint8)


def _window(solid: Solid, rotation: np.ndarray, origin: np.ndarray, focal: float, size: int) -> tuple[slice, slice]:
    """Rows and columns of the picture that can show a solid."""
    corners = np.stack(np.meshgrid(*np.stack(solid.shape.bounds(), 1)), -1).reshape(-1, 3)
    local = (corners - origin) @ rotation
    x, y = size / 2 - focal * local[:, 0] / local[:, 2], size / 2 + focal * local[:, 1] / local[:, 2]
    return (
        slice(max(int(y.min()) - 1, 0), max(int(y.max()) + 2, 0)),
        slice(max(int(x.min()) - 1, 0), max(int(x.max()) + 2, 0)),
    )


def _shade(solids: list[Solid], which: np.ndarray, p: Vectors, d: Vectors, sample: np.ndarray) -> Vectors:
    """Light towards the camera from points `p` of solids, seen along `d`."""
    n, colour = np.empty_like(p), np.empty_like(p)
    shine, gloss = np.empty(len(p), np.float32), np.empty(len(p), np.float32)
    for k in np.unique(which):
        of = np.flatnonzero(which == k)
        n[of] = solids[k].shape.normal(p[of])
        colour[of] = solids[k].texture(p[of], n[of])
        shine[of], gloss[of] = solids[k].shine, solids[k].gloss
    suns = _suns()
    sun = suns[sample]
    facing = _dot(n, sun).clip(0, None)
    lit = np.zeros(len(p), np.float32)
    for k, direction in enumerate(suns):
        of = np.flatnonzero((sample == k) & (facing > 0))
        lit[of] = ~_shadowed(solids, p[of] + np.float32(2e-3) * n[of], direction)
    facing *= lit
    open_sky = _openness(solids, p, n)[:, None]
    up = 0.5 + 0.5 * n[:, 2:]
    diffuse = SUN_COLOUR * facing[:, None] + open_sky * (FLOOR_COLOUR + (SKY_COLOUR - FLOOR_COLOUR) * up)
    half = sun - d
    half /= np.sqrt(_dot(half, half))[:, None]
    highlight = lit * shine * (gloss + 8) / 50 * _dot(n, half).clip(0, 1) ** gloss
    facing_camera = -_dot(n, d)
    mirrored_up = 0.5 + 0.5 * (d[:, 2:] + 2 * facing_camera[:, None] * n[:, 2:])
    sky = open_sky * (FLOOR_COLOUR + (SKY_COLOUR - FLOOR_COLOUR) * mirrored_up)
    reflected = (shine * (0.06 + 0.7 * (1 - facing_camera.clip(0, 1)) ** 5))[:, None] * sky
    return colour * diffuse + SUN_COLOUR * highlight[:, None] + reflected


def _suns() -> Float32[np.ndarray, "S 3"]:
    """Directions to as many points of the light's disc as a pixel has samples."""
    centre = SUN / np.linalg.norm(SUN)
    right = np.cross(centre, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    angle = 0.6 + np.arange(len(SUBPIXELS)) * 2 * np.pi / len(SUBPIXELS)
    offset = np.cos(angle)[:, None] * right + np.sin(angle)[:, None] * np.cross(centre, right)
    suns = centre + 0.06 * offset
    return (suns / np.linalg.norm(suns, axis=1, keepdims=True)).astype(np.float32)


def _shadowed(solids: list[Solid], p: Vectors, direction: Float32[np.ndarray, "3"]) -> Bool[np.ndarray, " N"]:
    """Whether a solid stands between points and the light."""
    centres, edges = _extents(solids)
    radii = np.linalg.norm(edges, axis=1) / 2
    near = np.empty((len(p), len(solids)), bool)
    for rows in _chunks(len(p)):
        along = (p[rows] @ direction)[:, None] - centres @ direction
        near[rows] = (_squared_distances(p[rows], centres) - along * along < radii * radii) & (along < radii)
    shadow = np.zeros(len(p), bool)
    for k, solid in enumerate(solids):
        of = np.flatnonzero(near[:, k] & ~shadow)
        t = solid.shape.enter(p[of], direction[None])
        shadow[of] = (t > 0) & (t < FAR)
    return shadow


def _openness(solids: list[Solid], p: Vectors, n: Vectors) -> Scalars:
    """How much of the sky above points is open: every solid hides about what a ball in its middle would."""
    centres, edges = _extents(solids)
    radii = np.sort(edges, axis=1)[:, :2].mean(1) / 2
    open_sky = np.empty(len(p), np.float32)
    for rows in _chunks(len(p)):
        squared = _squared_distances(p[rows], centres)
        towards = n[rows] @ centres.T - _dot(n[rows], p[rows])[:, None]
        # cosine times (radius / distance)^2, the share of the sky that a ball covers; none where a point is within it
        hidden = towards.clip(0, None) * radii**2 / (squared * np.sqrt(squared))
        hidden[squared < (1.02 * radii) ** 2] = 0
        open_sky[rows] = (1 - np.float32(0.75) * hidden).prod(1)
    return open_sky


def _chunks(n: int) -> Iterator[slice]:
    """Rows whose products with all solids fit into the cache."""
    return (slice(start, start + 2048) for start in range(0, n, 2048))


def _extents(solids: list[Solid]) -> tuple[Float32[np.ndarray, "S 3"], Float32[np.ndarray, "S 3"]]:
    """Centres and edges of the boxes around solids."""
    corners = np.array([solid.shape.bounds() for solid in solids], np.float32)
    return corners.mean(1), corners[:, 1] - corners[:, 0]


def _squared_distances(p: Vectors, centres: Float32[np.ndarray, "S 3"]) -> Float32[np.ndarray, "N S"]:
    expanded = _dot(p, p)[:, None] - 2 * p @ centres.T + _dot(centres, centres)
    return np.maximum(expanded, 1e-6)


def _dot(a: Vectors, b: Vectors) -> Scalars:
    return np.einsum("...k,...k->...", a, b)
