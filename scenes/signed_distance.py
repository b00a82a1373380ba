"""Triangle surfaces: the closest point, inside or outside, and points drawn on the surface.

Coordinates are whatever the caller has, in float64. The closest points are found by Open3D's ray-casting scene. Open3D
loads only where a display's libraries are installed: on a bare server libigl finds them, the same to float32.
Insides are told by libigl's winding numbers. A surface needs at least one face with an area.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Points = Float[np.ndarray, "N 3"]


@functools.cache
def open3d_loads() -> bool:
    """Whether Open3D is there with the system libraries that it wants (`fieldfit doctor` tells how to get them)."""
    try:
        import open3d
    except (ImportError, OSError):
        return False
    return hasattr(open3d, "t")


@dataclass(frozen=True)
class Nearest:
    """The point of a surface that is closest to each of N points."""

    point: Points
    distance: Float[np.ndarray, " N"]
    face: Int[np.ndarray, " N"]


@dataclass(frozen=True)
class Surface:
    """Triangles whose counter-clockwise side faces outward."""

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]

    @cached_property
    def _cross(self) -> Float[np.ndarray, "F 3"]:
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    @cached_property
    def areas(self) -> Float[np.ndarray, " F"]:
        """Of the faces."""
        return 0.5 * np.linalg.norm(self._cross, axis=1)

    @cached_property
    def normals(self) -> Float[np.ndarray, "F 3"]:
        """Outward unit normals of the faces; zero where a face has no area."""
        double = 2 * self.areas[:, None]
        return np.divide(self._cross, double, out=np.zeros_like(self._cross), where=double > 0)

    @property
    def volume(self) -> float:
        """Enclosed volume, negative when the faces point inward; of an open surface, as seen from its centre."""
        a = self.vertices[self.faces[:, 0]] - self.vertices.mean(0)
        return float((a * self._cross).sum() / 6)

    @cached_property
    def _scene(self) -> Any | None:  # open3d.t.geometry.RaycastingScene, which has no type information
        if not open3d_loads():
            return None
        open3d: Any = importlib.import_module("open3d")  # its types reject numpy's arrays
        scene = open3d.t.geometry.RaycastingScene()
        tensor = open3d.core.Tensor
        scene.add_triangles(tensor(self.vertices.astype(np.float32)), tensor(self.faces.astype(np.uint32)))
        return scene

    @cached_property
    def _tree(self) -> Any:  # igl.AABB, which has no type information
        import igl

        tree = igl.AABB()
        tree.init(self.vertices, self.faces)
        return tree

    def closest(self, points: Points) -> Nearest:
        """The closest point of the surface to each point. Fastest for points sorted along a curve."""
        if self._scene is not None:
            found = self._scene.compute_closest_points(np.ascontiguousarray(points, np.float32))
            point = found["points"].numpy().astype(np.float64)
            distance = np.linalg.norm(points - point, axis=1)
            return Nearest(point, distance, found["primitive_ids"].numpy().astype(np.int64))
        squared, face, point = self._tree.squared_distance(self.vertices, self.faces, np.ascontiguousarray(points))
        return Nearest(point.reshape(-1, 3), np.sqrt(squared), face.astype(np.int64))

    def inside(self, points: Points) -> Bool[np.ndarray, " N"]:
        """Whether the surface winds around each point at least half.

        The generalised winding number is one inside of a closed surface and zero outside, and in between where the
        surface has holes, which this closes smoothly (Jacobson et al. 2013); parts that overlap count as their union.
        Computed by the fast approximation of Barill et al. 2018, whose error is about 0.003.
        """
        import igl

        winding = np.asarray(igl.fast_winding_number(self.vertices, self.faces, np.ascontiguousarray(points)))
        return winding > 0.5

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Points, Int[np.ndarray, " N"]]:
        """`n` points uniformly by area, and their faces; ordered by face, so that neighbours are close."""
        cumulative = np.cumsum(self.areas)
        # stratified: one point in each n-th of the area, so that no part of the surface is missed by chance
        at = (np.arange(n) + rng.random(n)) / n * cumulative[-1]
        face = np.minimum(np.searchsorted(cumulative, at, side="right"), len(self.faces) - 1)
        u, v = rng.random(n), rng.random(n)
        fold = u + v > 1
        u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
        a, b, c = (self.vertices[self.faces[face, k]] for k in range(3))
        return a + u[:, None] * (b - a) + v[:, None] * (c - a), face


def along_a_curve(points: Points) -> Int[np.ndarray, " N"]:
    """An order of points in the unit cube in which neighbours are close: Morton's, on a grid of 1024^3 cells."""
    q = (points.clip(0, 1) * 1023).astype(np.int64)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        q = (q | q << shift) & mask
    return np.argsort(q[:, 0] | q[:, 1] << 1 | q[:, 2] << 2)
