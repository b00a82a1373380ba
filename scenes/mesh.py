"""A triangle mesh as a signed distance field.

World coordinates are the mesh's own. The unit cube's coordinates are `Box.to_unit` of them, and distances there are
world distances divided by `box.side`; they are negative inside. All geometry is computed in the unit cube in float64,
so that neither the size of a mesh nor its distance from the origin matters.

Samples come from a pool of segments. When q is the surface point closest to p, at signed distance d, then for every s
in [0, 1] it is also closest to x = q + s (p - q), whose signed distance is s d. So a pool that is searched once, while
loading, gives an endless supply of exact samples.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from scenes.box import Box
from scenes.errors import InputError, InputWarning
from scenes.mesh_report import MeshReport, mend
from scenes.metrics import DEFINITIONS, compare_surfaces, iou
from scenes.scene import JSON, Evaluation, LoadOptions
from scenes.signed_distance import Surface, along_a_curve

if TYPE_CHECKING:
    import trimesh

PADDING = 0.05
"""The box is the bounding box, grown on each side by this fraction of its longest edge."""


@dataclass(frozen=True)
class PoolOptions:
    """How many segments of which kind make the pool; samples are drawn from all alike."""

    uniform: int = 1 << 16
    """Segments from the surface to a point drawn uniformly in the box."""
    near: int = 1 << 18
    """Segments from the surface to a point near it: one of its own points, moved by Gaussian noise."""
    near_sigma: float = 0.004
    """Standard deviation of that noise, in unit-cube units."""
    surface: int = 1 << 18
    """Points of the surface itself: segments without a length, which cost no search."""


@dataclass(frozen=True)
class Mesh:
    """A mesh as a scene; made by `load_mesh` or `Mesh.of`."""

    name: str
    surface: Surface
    """In the unit cube."""
    bounds: Box
    """The bounding box, in world units."""
    box: Box
    """The bounding box with a margin: what the unit cube shows."""
    report: MeshReport
    pool: Float[Tensor, "P 7"]
    """q, p - q and the signed distance of p, of every segment, in the unit cube."""
    seed: int

    @property
    def kind(self) -> Literal["mesh"]:
        """As `Scene`."""
        return "mesh"

    @staticmethod
    def of(
        vertices: Float[np.ndarray, "V 3"],
        faces: Integer[np.ndarray, "F 3"],
        name: str,
        options: PoolOptions | None = None,
        seed: int = 0,
    ) -> Mesh:
        """A scene of triangles in world units; messages call it by `name`, which may be a path.

        Raises InputError when nothing can be fitted, and warns with InputWarning of whatever else is wrong.
        """
        options = options or PoolOptions()
        _check(vertices, faces, name)
        world, report = mend(np.asarray(vertices, np.float64), np.asarray(faces, np.int64))
        if report.faces == 0 or not world.areas.any():
            raise InputError(f"{name}: all {len(faces)} faces have no area; export it again at a larger scale")
        for problem in report.problems():
            warnings.warn(f"{name}: {problem}", InputWarning, stacklevel=2)
        bounds = Box(*_bounds(world.vertices))
        box = bounds.padded(PADDING)
        surface = Surface((world.vertices - np.array(box.centre)) / box.side + 0.5, world.faces)
        pool = _pool(surface, box, options, np.random.default_rng(seed))
        return Mesh(Path(name).name, surface, bounds, box, report, pool, seed)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 1"]]:
        """Points in the unit cube and their signed distances, exact to float32: dense at the surface, thin far away."""
        rows = self.pool.index_select(0, torch.randint(len(self.pool), (n,), generator=generator))
        s = torch.rand((n, 1), generator=generator)
        return torch.addcmul(rows[:, :3], rows[:, 3:6], s), rows[:, 6:] * s

    def loss(self, predicted: Float[Tensor, "N 1"], target: Float[Tensor, "N 1"]) -> Float[Tensor, ""]:
        """Mean relative error |p - t| / (|t| + 0.01): what is near the surface counts most (Müller et al. 2022)."""
        return ((predicted - target).abs() / (target.abs() + 0.01)).mean()

    def evaluate(
        self,
        predict: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 1"]],
        split: str = "test",
        surface: trimesh.Trimesh | None = None,
    ) -> Evaluation:
        """IoU of the insides, and how close an extracted `surface` in world units is, if one is given.

        A mesh is known everywhere, so that all splits are the same. The points are fixed by the seed.
        """
        rng = np.random.default_rng(self.seed + 1)
        lo, hi = _bounds(self.surface.vertices)
        points = rng.uniform(lo, hi, (1 << 18, 3))
        points = points[along_a_curve(points)]
        predicted = predict(torch.from_numpy(points).float()) < 0
        results = {"iou": iou(predicted[:, 0], torch.from_numpy(self.surface.inside(points)))}
        if surface is not None:
            results |= self._compare(surface)
        definitions = {name: DEFINITIONS[name] for name in results}
        return Evaluation(results, [self.name], {name: [v] for name, v in results.items()}, definitions)

    def _compare(self, surface: trimesh.Trimesh) -> dict[str, float]:
        vertices = (np.asarray(surface.vertices, np.float64) - np.array(self.box.centre)) / self.box.side + 0.5
        extracted = Surface(vertices, np.asarray(surface.faces, np.int64))
        if not extracted.areas.any():
            return {}
        found = compare_surfaces(extracted, self.surface, 100_000, self.seed)
        return found | {"chamfer": found["chamfer"] * self.box.side}

    def describe(self) -> dict[str, JSON]:
        """As `Scene`."""
        return {
            "kind": self.kind,
            "name": self.name,
            "channels": 1,
            "box": self.box.to_json(),
            "bounds": self.bounds.to_json(),
            "report": asdict(self.report),
        }

    def fingerprint(self) -> str:
        """sha256 of the mended vertices and faces."""
        digest = hashlib.sha256(self.surface.vertices.tobytes())
        digest.update(self.surface.faces.tobytes())
        return digest.hexdigest()


def load_mesh(path: Path, options: LoadOptions) -> Mesh:
    """Read PLY, OBJ, OFF, STL or GLB; the parts of a GLB scene become one mesh.

    Raises InputError when the file cannot be read or holds nothing that can be fitted.
    """
    import trimesh

    try:
        read = trimesh.load_mesh(path, process=False, skip_materials=True)
    except Exception as error:  # a parser may raise anything on a broken file
        raise InputError(
            f"{path}: cannot be read as a {path.suffix[1:].upper()} mesh ({_first_line(error)})"
        ) from error
    faces = np.asarray(getattr(read, "faces", np.empty((0, 3))))
    return Mesh.of(np.asarray(read.vertices, np.float64), faces.astype(np.int64), str(path), seed=options.seed)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check(vertices: Float[np.ndarray, "V 3"], faces: Integer[np.ndarray, "F 3"], name: str) -> None:
    if len(vertices) == 0:
        raise InputError(f"{name}: holds no vertices; it is empty, truncated or not what its ending says")
    if len(faces) == 0:
        raise InputError(f"{name}: has {len(vertices)} vertices but no faces; a surface is needed, not a point cloud")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"{name}: a face names vertex {faces.max()}, there are {len(vertices)}; export it again")
    bad = int((~np.isfinite(vertices).all(axis=1)).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {len(vertices)} vertices are not finite; repair or remove them")


def _bounds(vertices: Float[np.ndarray, "V 3"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(vertices.min(axis=0).tolist()), tuple(vertices.max(axis=0).tolist())


def _pool(surface: Surface, box: Box, options: PoolOptions, rng: np.random.Generator) -> Float[Tensor, "P 7"]:
    half = np.array(box.size) / (2 * box.side)
    uniform = rng.uniform(0.5 - half, 0.5 + half, (options.uniform, 3))
    uniform = uniform[along_a_curve(uniform)]
    near, _ = surface.draw(options.near, rng)
    near = near + options.near_sigma * rng.standard_normal(near.shape)
    near = near[along_a_curve(near)]
    points = np.concatenate((uniform, near))
    nearest = surface.closest(points)
    distance = np.where(surface.inside(points), -nearest.distance, nearest.distance)
    pool = torch.zeros((len(points) + options.surface, 7))
    pool[: len(points)] = torch.from_numpy(np.column_stack((nearest.point, points - nearest.point, distance)))
    pool[len(points) :, :3] = torch.from_numpy(surface.draw(options.surface, rng)[0])
    return pool
