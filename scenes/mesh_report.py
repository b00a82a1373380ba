"""What is wrong with a triangle mesh, and the mending that needs no guess about its shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from scenes.signed_distance import Surface


@dataclass(frozen=True)
class MeshReport:
    """Counts of a mesh after mending, and of what was mended."""

    vertices: int
    faces: int
    components: int
    """Parts that share no vertex."""
    watertight: bool
    """Every edge has as many faces on one side as on the other, so that inside and outside are well defined."""
    duplicate_vertices: int
    """Merged into vertices at the very same place."""
    degenerate_faces: int
    """Dropped: after merging, two of their corners are one vertex."""
    boundary_edges: int
    holes: int
    """Connected sets of boundary edges."""
    non_manifold_edges: int
    """Shared by more than two faces."""
    turned_faces: int
    """Faces that were turned over because they pointed inward."""

    def problems(self) -> list[str]:
        """What a person should know before trusting a fit, most serious first; empty for a sound mesh."""
        found = []
        if not self.watertight:
            found.append(
                f"not watertight ({_count(self.holes, 'hole')}, {_count(self.boundary_edges, 'boundary edge')}, "
                f"{_count(self.non_manifold_edges, 'non-manifold edge')}); inside is where it winds around by half"
            )
        elif self.non_manifold_edges:
            found.append(f"{_count(self.non_manifold_edges, 'non-manifold edge')}")
        if self.turned_faces:
            which = "all faces" if self.turned_faces == self.faces else f"{self.turned_faces} of {self.faces} faces"
            found.append(f"{which} pointed inward and were turned over")
        if self.degenerate_faces:
            found.append(f"{_count(self.degenerate_faces, 'degenerate face')} dropped")
        return found


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def mend(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> tuple[Surface, MeshReport]:
    """Merge equal vertices, drop collapsed faces and unused vertices, turn faces outward.

    The result may have no faces. Vertices are finite, and faces name existing ones.
    """
    n_faces = len(faces)
    used, faces = np.unique(faces, return_inverse=True)
    vertices, merged = np.unique(vertices[used] + 0.0, axis=0, return_inverse=True)  # -0.0 equals 0.0
    n_duplicates = len(used) - len(vertices)
    faces = merged.reshape(-1)[faces.reshape(-1, 3)].astype(np.int64)
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    kept, faces = np.unique(faces, return_inverse=True)
    vertices, faces = np.ascontiguousarray(vertices[kept]), np.ascontiguousarray(faces.reshape(-1, 3))

    edges, turned = _Edges.of(faces, len(vertices)), 0
    if not edges.consistent:
        faces, turned = _orient(vertices, faces)
        edges = _Edges.of(faces, len(vertices))
    elif len(faces) and Surface(vertices, faces).volume < 0:
        # As a whole, so that a cavity, whose faces point inward, stays one.
        faces, turned = np.ascontiguousarray(faces[:, ::-1]), len(faces)
    report = MeshReport(
        vertices=len(vertices),
        faces=len(faces),
        components=_components(faces, len(vertices)),
        watertight=bool(len(faces)) and edges.closed,
        duplicate_vertices=n_duplicates,
        degenerate_faces=n_faces - len(faces),
        boundary_edges=len(edges.boundary),
        holes=_components(edges.boundary, len(vertices)),
        non_manifold_edges=edges.non_manifold,
        turned_faces=turned,
    )
    return Surface(vertices, faces), report


@dataclass(frozen=True)
class _Edges:
    boundary: Int[np.ndarray, "E 2"]
    non_manifold: int
    consistent: bool
    """No two faces run along a shared edge in the same direction, except where more than two meet."""
    closed: bool

    @staticmethod
    def of(faces: Int[np.ndarray, "F 3"], n_vertices: int) -> _Edges:
        start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        key = np.minimum(start, end) * n_vertices + np.maximum(start, end)
        _, first, edge, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        balance = np.bincount(edge, weights=np.where(start < end, 1.0, -1.0), minlength=len(count))
        single = first[count == 1]
        return _Edges(
            boundary=np.stack((start[single], end[single]), axis=1),
            non_manifold=int((count > 2).sum()),
            consistent=not bool(((count == 2) & (balance != 0)).any()),
            closed=not bool(balance.any()),
        )


def _components(links: Int[np.ndarray, "N K"], n_vertices: int) -> int:
    """How many connected parts of a graph have at least one link; each row links its vertices."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(links) == 0:
        return 0
    start, end = links.reshape(-1), np.roll(links, -1, axis=1).reshape(-1)
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(n_vertices, n_vertices))
    _, label = connected_components(graph, directed=False)
    return len(np.unique(label[start]))


def _orient(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> tuple[Int[np.ndarray, "F 3"], int]:
    """Faces that agree along shared edges, each patch of them enclosing a positive volume, and how many were turned."""
    import igl

    oriented, patch = (np.asarray(labels, np.int64) for labels in igl.bfs_orient(faces))
    a, b, c = (vertices[oriented[:, k]] for k in range(3))
    n = np.bincount(patch)
    centre = np.stack([np.bincount(patch, (a + b + c)[:, k]) / (3 * n) for k in range(3)], axis=1)[patch]
    volume = np.bincount(patch, ((a - centre) * np.cross(b - centre, c - centre)).sum(1))
    oriented = np.where((volume < 0)[patch, None], oriented[:, ::-1], oriented)
    same = np.zeros(len(faces), bool)
    for k in range(3):
        same |= (oriented == np.roll(faces, k, axis=1)).all(axis=1)
    return np.ascontiguousarray(oriented), int((~same).sum())
