"""What the browser draws by itself while a camera moves: a mesh of the field with its colours, or a picture on a plane.

The mesh is small enough for a laptop without a GPU, is not lit, and lies in the browser's space. It is made once, in
turns with everything else, and kept in the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from fields.export import glb_bytes
from fields.files import write_whole
from scenes.errors import InputError
from viewer.live.flat import Flat
from viewer.live.plane import picture_glb
from viewer.live.subject import Look, Subject
from viewer.live.turns import Turns
from viewer.pictures import to_bytes

RESOLUTION = 64
"""Cells along the longest edge of the box."""
MOST_TRIANGLES = 6_000
"""What a browser draws without a GPU at thirty pictures a second."""
PICTURE, PICTURE_PIXELS = 2048, 1 << 16
"""Pixels of an image's proxy along its longer edge, at most; and those that are computed at once."""
VERSION = 5
"""Of how proxies are made."""


def make(subject: Subject, look: Look, done: Callable[[bytes | None], None]) -> Iterator[None]:
    """The mesh as a GLB file, or None where there is nothing to draw: a job for the desk."""
    turns = Turns()
    return turns.steps(lambda: proxy_glb(subject, look, turns), done)


def proxy_glb(subject: Subject, look: Look, turns: Turns | None = None) -> bytes | None:
    """The same at once, or as work that takes turns."""
    from trimesh import Trimesh

    if isinstance(subject, Flat):
        return picture_proxy(subject, look, turns)
    mesh = subject.mesh(RESOLUTION, look, turns)
    if mesh is None:
        return None
    vertices, faces = simplified(np.asarray(mesh.vertices), np.asarray(mesh.faces), MOST_TRIANGLES)
    normal = Trimesh(vertices, faces, process=False).vertex_normals.copy()
    rgb = np.rint(255 * subject.surface_colours(vertices, normal, look, turns).clip(0, 1)).astype(np.uint8)
    return glb_bytes(Trimesh(subject.space.to_browser(vertices), faces, vertex_colors=rgb, process=False))


def picture_proxy(subject: Flat, look: Look, turns: Turns | None) -> bytes:
    """An image on its plane, of `PICTURE` pixels along the longer edge at most."""
    shrink = min(1.0, PICTURE / max(subject.width, subject.height))
    width, height = max(round(subject.width * shrink), 1), max(round(subject.height * shrink), 1)
    ask = subject.colours if turns is None else turns.wrap(subject.colours)
    x = (torch.arange(width) + 0.5) * (subject.width / width)
    y = (torch.arange(height) + 0.5) * (subject.height / height)
    rows = max(PICTURE_PIXELS // width, 1)
    bands = []
    for part in y.split(rows):
        across, down = torch.meshgrid(x, part, indexing="xy")
        bands.append(ask(torch.stack([across, down], -1).view(-1, 2), look))
    picture = to_bytes(torch.cat(bands).view(height, width, 3))
    w, h = float(subject.width), float(subject.height)
    corners = np.array([[0.0, 0.0, 0.0], [w, 0.0, 0.0], [w, h, 0.0], [0.0, h, 0.0]])
    return picture_glb(picture, subject.space.to_browser(corners))


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
    cell = float(np.ptp(vertices, axis=0).max()) / RESOLUTION
    while len(few.triangles) > most:  # of many small pieces, whose borders it keeps
        cell *= 1.25
        few = whole.simplify_vertex_clustering(cell)
    return np.asarray(few.vertices).astype(np.float64), np.asarray(few.triangles).astype(np.int64)
