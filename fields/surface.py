"""Surfaces out of level functions, in the unit cube.

Marching cubes (Lewiner et al., "Efficient implementation of marching cubes' cases with topological guarantees", 2003)
runs block by block, so that memory grows with the surface and never with the volume. A *level function* `v(x)` is
negative inside, on coordinates of the unit cube. A vertex is known by the grid edge it lies on, an integer, which welds
blocks exactly; neighbouring blocks share the values of their common nodes, so they also agree on what crosses there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Level: TypeAlias = Callable[[Tensor], Tensor]
"""[N, 3] of the unit cube -> [N], negative inside."""
Bound: TypeAlias = Callable[[Tensor, float], Tensor]
"""Centres [N, 3] and half the edge of cubic cells -> [N]: 0 where the surface may cross the cell, else a number with
the sign of the level function in all of it."""


@dataclass(frozen=True)
class SurfaceConfig:
    """How a surface is taken out of a field."""

    level: float = 40 * math.log(2)
    """Density of a radiance field at its surface, per edge of the unit cube. By default a fortieth of the edge is half
    opaque."""
    keep_above: float | None = None
    """Drop components with less than this fraction of the largest one's area; by default 0.01 for radiance fields, and
    nothing for distances."""
    closed: bool | None = None
    """Close the surface where it leaves the box; by default for distances only."""
    refine: int = 8
    """Steps of root finding, at most, that move each vertex along its edge after interpolation."""
    safety: float = 1.5
    """A distance may be this many times too large before a part of the surface is missed."""
    block: int = 64
    """Cells along the edge of a block."""
    chunk: int = 1 << 16
    """Points given to the field at once."""
    device: str = "cpu"
    """Where the field is."""


@dataclass(frozen=True)
class Grid:
    """Cubic cells in the unit cube; node (i, j, k) lies at `origin + cell * (i, j, k)`."""

    origin: tuple[float, ...]
    cell: float
    shape: tuple[int, ...]
    """Cells per axis; there is one more node."""

    @classmethod
    def over(cls, lo: Sequence[float], hi: Sequence[float], resolution: int) -> Grid:
        """The grid that covers lo to hi, with `resolution` cells along the longest edge."""
        cell = max(b - a for a, b in zip(lo, hi, strict=True)) / resolution
        shape = tuple(max(1, math.ceil((b - a) / cell - 1e-6)) for a, b in zip(lo, hi, strict=True))
        origin = tuple(0.5 * (a + b - cell * n) for a, b, n in zip(lo, hi, shape, strict=True))
        return cls(origin, cell, shape)

    def points(self, index: Float[np.ndarray, "N 3"] | Int[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Coordinates of (fractional) node indices."""
        return np.asarray(self.origin) + self.cell * index


def distance_bound(distance: Level, safety: float, scale: float) -> Bound:
    """Cells whose centre is farther from the surface than any of their points, by a factor of `safety`."""

    def bound(centres: Tensor, half: float) -> Tensor:
        d = distance(centres)
        return torch.where(d.abs() > safety * (math.sqrt(3) * half + scale), d, 0.0)

    return bound


def extract(
    level: Level, grid: Grid, scale: float, config: SurfaceConfig, bound: Bound | None = None
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """The surface `level(x) = 0` as vertices in the unit cube and faces that turn outward.

    Values beyond `scale` are all alike: about what the level changes over two cells. The result does not depend on the
    block size. It has neither boundary nor crack inside of the grid, whatever the field; with `config.closed` it has
    none at all. A bound saves evaluations, and costs what it wrongly excludes.
    """
    keys, ends, centres, faces, count = [], [], [], [], 0
    for start, values in _blocks(level, grid, config, scale, bound):
        found = _march(values, start, grid, scale)
        if found is not None:
            for part, piece in zip((keys, ends, centres), found[:3], strict=True):
                part.append(piece)
            faces.append(found[3] + count)
            count += len(found[0])
    if not keys:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    key, first, inverse = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    axis, nodes = key % 4, np.array(grid.shape) + 1
    corner = np.stack(np.unravel_index(key // 4, tuple(nodes)), axis=1).astype(np.float64)
    on_edge = axis < 3
    position = corner + np.concatenate(centres)[first]
    step = np.eye(3)[axis[on_edge]]
    position[on_edge] = _roots(level, grid, corner[on_edge], step, np.concatenate(ends)[first][on_edge], config)
    return grid.points(position), inverse[np.concatenate(faces)].astype(np.int64)


def _coarse(bound: Bound, grid: Grid, chunk: int) -> tuple[np.ndarray, int]:
    """Per coarse cell 0 where the surface may be, else the sign of what fills it; and the cell's edge in cells."""
    edge = max(4, math.ceil(max(grid.shape) / 256))
    shape = tuple(math.ceil(n / edge) for n in grid.shape)
    signs = np.zeros(math.prod(shape), np.int8)
    for start in range(0, signs.size, chunk):
        flat = np.arange(start, min(start + chunk, signs.size))
        lower = np.stack(np.unravel_index(flat, shape), axis=1) * edge
        middle = 0.5 * (lower + np.minimum(lower + edge, grid.shape))
        known = bound(torch.from_numpy(grid.points(middle)).float(), 0.5 * edge * grid.cell)
        signs[flat] = torch.nan_to_num(known.detach()).sign().cpu().numpy().astype(np.int8).reshape(-1)
    signs = signs.reshape(shape)
    torn = np.zeros(shape, bool)
    for axis in range(3):
        a, b = np.moveaxis(signs, axis, 0)[:-1], np.moveaxis(signs, axis, 0)[1:]
        tear = a * b < 0
        np.moveaxis(torn, axis, 0)[:-1] |= tear
        np.moveaxis(torn, axis, 0)[1:] |= tear
    signs[torn] = 0
    return signs, edge


def _blocks(
    level: Level, grid: Grid, config: SurfaceConfig, scale: float, bound: Bound | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First node and values at all nodes of each block that the surface may cross.

    Every node has one value: it is computed if the surface may cross a coarse cell that touches it, else filled in. The
    faces towards later blocks are kept until those come, since a field rounds differently in a batch of another size.
    """
    signs, edge = _coarse(bound, grid, config.chunk) if bound else (np.zeros((1, 1, 1), np.int8), max(grid.shape))
    kept: dict[tuple[int, ...], np.ndarray] = {}
    counts = [math.ceil(n / config.block) for n in grid.shape]
    for block in np.ndindex(*counts):
        start = np.array(block) * config.block
        nodes = [np.arange(a, min(a + config.block, n) + 1) for a, n in zip(start, grid.shape, strict=True)]
        before = [np.maximum((i - 1) // edge, 0) for i in nodes]
        after = [np.minimum(i // edge, n - 1) for i, n in zip(nodes, signs.shape, strict=True)]
        near = signs[tuple(slice(a[0], b[-1] + 1) for a, b in zip(before, after, strict=True))] == 0
        faces = [kept.pop((axis, *block), None) for axis in range(3)]
        if not near.any():
            continue
        for axis in range(3):
            near = near.take(before[axis] - before[axis][0], axis) | near.take(after[axis] - before[axis][0], axis)
        values = signs[np.ix_(*after)].astype(np.float32) * scale
        for axis, face in enumerate(faces):
            if face is not None:
                plane = tuple(0 if a == axis else slice(None) for a in range(3))
                values[plane], near[plane] = face, False
        _fill(values, near, nodes, level, grid, config)
        if config.closed:
            _close(values, nodes, grid, scale)
        for axis in range(3):
            if block[axis] + 1 < counts[axis]:
                later = tuple(b + (a == axis) for a, b in enumerate(block))
                kept[axis, *later] = np.asarray(values.take(-1, axis))
        yield start, values


def _fill(
    values: np.ndarray, wanted: np.ndarray, nodes: list[np.ndarray], level: Level, grid: Grid, config: SurfaceConfig
) -> None:
    flat = np.flatnonzero(wanted)
    for begin in range(0, len(flat), config.chunk):
        part = flat[begin : begin + config.chunk]
        local = np.unravel_index(part, values.shape)
        index = np.stack([n[i] for n, i in zip(nodes, local, strict=True)], axis=1)
        values.flat[part] = _evaluate(level, grid.points(index))


def _close(values: np.ndarray, nodes: list[np.ndarray], grid: Grid, scale: float) -> None:
    for axis, n in enumerate(grid.shape):
        planes = np.moveaxis(values, axis, 0)
        for outer in np.flatnonzero((nodes[axis] == 0) | (nodes[axis] == n)):
            np.clip(planes[outer], 1e-3 * scale, None, out=planes[outer])


def _evaluate(level: Level, x: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, " N"]:
    with torch.no_grad():
        values = level(torch.from_numpy(x).float()).reshape(-1).cpu().numpy()
    return np.nan_to_num(values, nan=math.inf).clip(-1e30, 1e30)


def _march(
    values: np.ndarray, start: np.ndarray, grid: Grid, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Keys [V], values at both ends of the edge [V, 2], offset from the corner [V, 3], faces [F, 3]; None if empty.

    The key of a vertex is `4 * corner + axis` for one on a grid edge, and `4 * corner + 3` for the one in a cell's
    middle that some cases need. To tell them apart by position, no vertex may come near a node: magnitudes are clipped.
    """
    from skimage.measure import marching_cubes

    clipped = np.where(values < 0, -1, 1) * np.clip(np.abs(values) / scale, 1e-3, 1, dtype=np.float32)
    if clipped.min() > 0 or clipped.max() < 0:
        return None
    position, faces, _, _ = marching_cubes(clipped, 0.0, gradient_direction="descent")
    whole = np.abs(position - np.rint(position)) < 1e-4
    on_edge = whole.sum(axis=1) == 2
    axis = np.where(on_edge, whole.argmin(axis=1), 3)
    corner = np.where(whole, np.rint(position), np.floor(position)).astype(np.int64)
    other = corner + np.eye(4, 3, dtype=np.int64)[axis]
    ends = np.stack([values[tuple(corner.T)], values[tuple(other.T)]], axis=1)
    nodes = tuple(n + 1 for n in grid.shape)
    key = np.ravel_multi_index(tuple((corner + start).T), nodes) * 4 + axis
    return key, ends, (position - corner).astype(np.float32), faces.astype(np.int64)


def _roots(
    level: Level, grid: Grid, corner: np.ndarray, step: np.ndarray, ends: np.ndarray, config: SurfaceConfig
) -> np.ndarray:
    """Where the level function vanishes on edges, in node indices, by the Illinois variant of regula falsi.

    A vertex rests when a step moves it by less than a thousandth of the edge, and stays as far from the ends.
    """
    f0, f1 = ends.astype(np.float64).T
    t0, t1, last = np.zeros_like(f0), np.ones_like(f1), np.zeros_like(f0)
    t = (f0 / (f0 - f1)).clip(1e-3, 1 - 1e-3)
    result, moving = t.copy(), np.arange(len(t))
    for _ in range(config.refine):
        f = np.empty_like(t)
        for begin in range(0, len(t), config.chunk):
            i = moving[begin : begin + config.chunk]
            f[begin : begin + config.chunk] = _evaluate(level, grid.points(corner[i] + result[i, None] * step[i]))
        low = (f < 0) == (f0 < 0)
        halve = np.where(low == (last > 0), 0.5, 1.0) if last.any() else 1.0
        f0, f1, last = np.where(low, f, f0 * halve), np.where(low, f1 * halve, f), np.where(low, 1.0, -1.0)
        t0, t1, before = np.where(low, t, t0), np.where(low, t1, t), t
        t = ((t0 * f1 - t1 * f0) / np.where(f1 == f0, 1.0, f1 - f0)).clip(1e-3, 1 - 1e-3)
        result[moving] = t
        keep = np.abs(t - before) > 1e-3
        moving, f0, f1, t0, t1, last, t = (a[keep] for a in (moving, f0, f1, t0, t1, last, t))
    return corner + result[:, None] * step


def without_specks(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], fraction: float
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]]:
    """Only the connected components with at least `fraction` of the largest one's area."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(faces) == 0 or fraction <= 0:
        return vertices, faces
    a, b = faces[:, [0, 1]].T.reshape(2, -1), faces[:, [1, 2]].T.reshape(2, -1)
    pairs = np.concatenate([a, b], axis=1)
    links = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(len(vertices),) * 2)
    label = connected_components(links, directed=False)[1]
    p, q, r = vertices[faces].swapaxes(0, 1)
    area = np.bincount(label[faces[:, 0]], weights=np.linalg.norm(np.cross(q - p, r - p), axis=1))
    faces = faces[(area >= fraction * area.max())[label[faces[:, 0]]]]
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(faces.shape)


def normals(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V 3"]:
    """Outward unit normals of vertices: means of faces by area, so that marching cubes' slivers do not count."""
    p, q, r = vertices[faces].swapaxes(0, 1)
    areas = np.repeat(np.cross(q - p, r - p), 3, axis=0)
    sums = np.stack([np.bincount(faces.ravel(), areas[:, i], len(vertices)) for i in range(3)], axis=1)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(min=1e-300)
