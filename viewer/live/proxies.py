"""What the browser draws by itself while a camera moves: a mesh of the field with its colours, or a picture on a plane.

The mesh is small enough for a laptop without a GPU, is not lit, and lies in the browser's space. It is made once, in
turns with everything else, and kept in the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from fields.files import write_whole
from scenes.errors import InputError
from viewer.live.subject import Look, Subject
from viewer.live.textures import textured_glb
from viewer.live.turns import Turns

RESOLUTION = 64
"""Cells along the longest edge of the box."""
MOST_TRIANGLES = 12_000
"""What a browser draws without a GPU at thirty pictures a second."""
VERSION = 2
"""Of how proxies are made."""


def make(subject: Subject, look: Look, done: Callable[[bytes | None], None]) -> Iterator[None]:
    """The mesh as a GLB file, or None where there is nothing to draw: a job for the desk."""
    turns = Turns()
    return turns.steps(lambda: proxy_glb(subject, look, turns), done)


def proxy_glb(subject: Subject, look: Look, turns: Turns | None = None) -> bytes | None:
    """The same at once, or as work that takes turns."""
    mesh = subject.mesh(RESOLUTION, look, turns)
    if mesh is None:
        return None
    vertices, faces = simplified(np.asarray(mesh.vertices), np.asarray(mesh.faces), MOST_TRIANGLES)
    space = subject.space

    def colours(points: Float[np.ndarray, "N 3"], normal: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        return subject.surface_colours(space.from_browser(points), normal, look, turns)

    return textured_glb(space.to_browser(vertices), faces, colours)


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


def simplified(
    vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], most: int
) -> tuple[Float[np.ndarray, "W 3"], Int[np.ndarray, "G 3"]]:
    """A mesh of at most so many triangles, about as the one that was given."""
    if len(faces) <= most:
        return vertices, faces
    import open3d

    whole = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(vertices), open3d.utility.Vector3iVector(faces.astype(np.int32))
    )
    few = whole.simplify_quadric_decimation(most)
    return np.asarray(few.vertices).astype(np.float64), np.asarray(few.triangles).astype(np.int64)
