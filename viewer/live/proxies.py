"""What the browser draws by itself while a camera moves: a mesh of the field with its colours, or a picture on a plane.

The mesh is small enough for a laptop without a GPU, is not lit, and lies in the browser's space. It is made once, in
turns with everything else, and kept in the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from fields.export import glb_bytes, vertex_colours
from fields.files import write_whole
from scenes.errors import InputError
from viewer.live.space import Space
from viewer.live.subject import Look, Subject
from viewer.live.turns import Turns

if TYPE_CHECKING:
    import trimesh

RESOLUTION = 64
"""Cells along the longest edge of the box."""
MOST_TRIANGLES = 24_000
"""What a browser draws without a GPU at thirty pictures a second."""
VERSION = 1
"""Of how proxies are made."""
SURFACE_COLOUR = (214, 204, 191)


def make(subject: Subject, look: Look, done: Callable[[bytes | None], None]) -> Iterator[None]:
    """The mesh as a GLB file, or None where there is nothing to draw: a job for the desk."""
    turns = Turns()
    return turns.steps(lambda: proxy_glb(subject, look, turns), done)


def proxy_glb(subject: Subject, look: Look, turns: Turns | None = None) -> bytes | None:
    """The same at once, or as work that takes turns."""
    mesh = subject.mesh(RESOLUTION, look, turns)
    if mesh is None:
        return None
    colours = vertex_colours(mesh)
    if colours is None:
        colours = baked(mesh.vertex_normals, subject.space.up)
    return glb_bytes(_small(mesh, colours.astype(np.float64), subject.space))


def baked(normal: Float[np.ndarray, "V 3"], up: tuple[float, float, float]) -> Float[np.ndarray, "V 3"]:
    """Colours of a surface under a sky and a light from above, 0 to 255."""
    axis = np.asarray(up, np.float64) / np.linalg.norm(up)
    side = np.cross(axis, np.roll(axis, 1) + 0.3)
    light = axis + 0.8 * side / np.linalg.norm(side)
    key = (normal @ (light / np.linalg.norm(light))).clip(0)
    return np.asarray(SURFACE_COLOUR) * (0.35 + 0.25 * (0.5 + 0.5 * normal @ axis) + 0.4 * key)[:, None]


def key_of(run: Path, look: Look) -> str:
    """Of what a run's proxy was made from: its field file as it is now, and what of it is shown."""
    stat = (run / "field.safetensors").stat()
    text = f"{VERSION} {RESOLUTION} {MOST_TRIANGLES} {stat.st_mtime_ns} {stat.st_size} {look.time} {look.crop}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(run: Path, look: Look) -> bytes | None:
    """What `keep` wrote for this field and look."""
    try:
        return (run / "viewer" / f"proxy-{key_of(run, look)}.glb").read_bytes()
    except OSError:
        return None


def keep(run: Path, look: Look, data: bytes) -> None:
    """Keep a proxy in the run, and none of an earlier state of it. A run that cannot be written does without."""
    try:
        path = run / "viewer" / f"proxy-{key_of(run, look)}.glb"
        path.parent.mkdir(exist_ok=True)
        for old in path.parent.glob("proxy-*.glb"):
            old.unlink()
        write_whole(path, lambda temporary: temporary.write_bytes(data))
    except (OSError, InputError):
        return


def _small(mesh: trimesh.Trimesh, colours: Float[np.ndarray, "V 3"], space: Space) -> trimesh.Trimesh:
    """In the browser's space, of few triangles."""
    import trimesh

    vertices = space.to_browser(mesh.vertices)
    faces = np.asarray(mesh.faces)
    if len(faces) > MOST_TRIANGLES:
        import open3d

        whole = open3d.geometry.TriangleMesh(
            open3d.utility.Vector3dVector(vertices), open3d.utility.Vector3iVector(faces.astype(np.int32))
        )
        whole.vertex_colors = open3d.utility.Vector3dVector(colours / 255)
        few = whole.simplify_quadric_decimation(MOST_TRIANGLES)
        vertices, faces = np.asarray(few.vertices), np.asarray(few.triangles)
        colours = 255 * np.asarray(few.vertex_colors)
    rgb = np.rint(np.clip(colours, 0, 255)).astype(np.uint8)
    return trimesh.Trimesh(vertices, faces, vertex_colors=rgb, process=False)
