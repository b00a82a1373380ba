"""Files of what is seen: screenshots, meshes, point clouds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fields.export import SUFFIXES, vertex_colours, write_mesh
from fields.files import write_whole
from viewer.live.desk import Urgency
from viewer.live.flat import Flat
from viewer.live.frames import whole
from viewer.live.panels.saying import tell
from viewer.live.path import resized
from viewer.live.subject import Seen, paint
from viewer.live.turns import Turns

if TYPE_CHECKING:
    import trimesh

    from viewer.live.session import Session
    from viewer.live.window import Window

LARGEST = 16384
"""Pixels along an edge of a screenshot."""


class Exports:
    """The tab."""

    def __init__(self, window: Window, session: Session) -> None:
        self.window, self.session = window, session
        gui = session.client.gui
        self.width = gui.add_number("Screenshot width", 1920, min=16, max=LARGEST, step=1)
        self.shoot = gui.add_button("Screenshot (png)")
        self.shoot.on_click(lambda _: self._shoot())
        if isinstance(window.subject, Flat):
            return
        self.resolution = gui.add_number("Mesh resolution", 256, min=16, max=2048, step=1)
        self.format = gui.add_dropdown("Mesh format", SUFFIXES, initial_value=".glb")
        self.mesh = gui.add_button("Export the mesh")
        self.mesh.on_click(lambda _: self._mesh())
        self.points = gui.add_number("Points", 200_000, min=100, max=20_000_000, step=100)
        self.cloud = gui.add_button("Export a point cloud (ply)")
        self.cloud.on_click(lambda _: self._cloud())

    def _shoot(self) -> None:
        camera, look, client = self.session.camera, self.session.look, self.session.client
        if camera is None:
            return
        width, height = camera.size[0].tolist()
        wanted = int(self.width.value)
        large = resized(camera, (wanted, max(round(wanted * height / width), 1)))

        def done(seen: Seen) -> None:
            from PIL import Image

            memory = io.BytesIO()
            Image.fromarray(paint(seen, look)).save(memory, format="PNG")
            client.send_file_download(f"{self.window.run.path.name}.png", memory.getvalue(), save_immediately=True)

        steps = whole(self.window.subject, large, look, self.window.pace, done)
        self.window.desk.submit(self.session.key("asked"), steps, Urgency.ASKED, failed=self._failed)

    def _mesh(self) -> None:
        target = self.window.run.path / "exports" / f"viewer{self.format.value}"
        resolution = int(self.resolution.value)
        target.parent.mkdir(exist_ok=True)

        def done(mesh: trimesh.Trimesh | None) -> None:
            self.mesh.disabled = False
            if mesh is None:
                tell(self.session, "No mesh", "the field has no surface in the box; fit longer", bad=True)
                return
            write_mesh(mesh, target)
            self.session.client.send_file_download(target.name, target.read_bytes(), save_immediately=True)
            tell(self.session, "Exported", f"{target}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles")

        self.mesh.disabled = True
        self._extract("mesh", resolution, done)

    def _cloud(self) -> None:
        target = self.window.run.path / "exports" / "points.ply"
        n = int(self.points.value)
        target.parent.mkdir(exist_ok=True)

        def done(mesh: trimesh.Trimesh | None) -> None:
            self.cloud.disabled = False
            if mesh is None:
                tell(self.session, "No points", "the field has no surface in the box; fit longer", bad=True)
                return
            points, colours = sampled(mesh, n)
            write_points(points, colours, target)
            self.session.client.send_file_download(target.name, target.read_bytes(), save_immediately=True)
            tell(self.session, "Exported", f"{target}: {n:,} points")

        self.cloud.disabled = True
        self._extract("cloud", int(self.resolution.value), done)

    def _extract(self, key: str, resolution: int, done: Any) -> None:
        turns, look = Turns(), self.session.look
        steps = turns.steps(lambda: self.window.subject.mesh(resolution, look, turns), done)
        self.window.desk.submit(key, steps, Urgency.ASKED, failed=self._failed)

    def _failed(self, error: Exception) -> None:
        for button in (self.shoot, getattr(self, "mesh", None), getattr(self, "cloud", None)):
            if button is not None:
                button.disabled = False
        tell(self.session, "That did not work", str(error), bad=True)


def sampled(mesh: trimesh.Trimesh, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over a mesh [n, 3], and its colours there [n, 3], 0 to 255; white where it has none."""
    from trimesh.sample import sample_surface
    from trimesh.triangles import points_to_barycentric

    found: Any = sample_surface(mesh, n, seed=0)
    points, face = found[0], found[1]
    colours = vertex_colours(mesh)
    if colours is None:
        return points, np.full((n, 3), 255, np.uint8)
    weights = points_to_barycentric(mesh.triangles[face], points)
    blended = (colours[mesh.faces[face]] * weights[..., None]).sum(1)
    return points, np.rint(blended.clip(0, 255)).astype(np.uint8)


def write_points(points: np.ndarray, colours: np.ndarray, target: Path) -> None:
    """A binary PLY of points in the world with colours, written under a temporary name until complete."""
    import trimesh

    data: Any = trimesh.PointCloud(points, colours).export(file_type="ply")
    write_whole(target, lambda temporary: temporary.write_bytes(data))
