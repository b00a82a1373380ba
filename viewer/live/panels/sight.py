"""What is shown: channel, time, background, what is cut away, and what is drawn around the field."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fields.crop import write_crop
from fields.field import RadianceField
from scenes.box import Box
from scenes.mesh import Mesh
from viewer.live.desk import Urgency
from viewer.live.flat import Flat
from viewer.live.panels.saying import failing
from viewer.live.radiance import Radiance, occupied_points
from viewer.live.sketches import BOX_COLOUR, CROP_COLOUR, draw_box, draw_cells
from viewer.live.turns import Turns

if TYPE_CHECKING:
    import trimesh

    from viewer.live.session import Session
    from viewer.live.window import Window

AXES = ("x", "y", "z")
MOMENT, MOVING_SECONDS = 1 / 60, 4.0
"""Seconds between two times while something plays, and from first to last of a scene that does not say."""
MESH_COLOUR = (122, 118, 112)
MOST_CELLS = 20_000
"""Of the occupancy that are drawn."""
THINNEST = 0.02
"""Of a crop, as a share of the box."""


class Sight:
    """The tab."""

    def __init__(self, window: Window, session: Session) -> None:
        self.window, self.session = window, session
        self._nodes: dict[str, Any] = {}
        subject, gui = window.subject, session.client.gui
        self.channel = gui.add_dropdown("Channel", subject.channels, initial_value=subject.channels[0])
        self.channel.on_update(lambda _: session.serially(self._change_channel))
        if subject.moves:
            self.play = gui.add_checkbox("Play", False)
            self.play.on_update(lambda _: self._play())
            n = subject.n_frames if isinstance(subject, Flat) else 101
            self.time = gui.add_slider("Frame" if isinstance(subject, Flat) else "Time", 0, max(n - 1, 1), 1, 0)
            self.time.on_update(
                lambda _: session.serially(lambda: session.change(time=self.time.value / max(n - 1, 1)))
            )
            self._n_times = n
        r, g, b = (round(255 * c) for c in session.look.background)
        self.background = gui.add_rgb("Background", (r, g, b))
        self.background.on_update(lambda _: session.serially(self._change_background))
        if "slice" in subject.channels:
            self.axis = gui.add_dropdown("Slice across", AXES, initial_value="z", visible=False)
            self.at = gui.add_slider("Slice at", 0.0, 1.0, 0.01, 0.5, visible=False)
            for control in (self.axis, self.at):
                control.on_update(lambda _: session.serially(self._change_slice))
        home = gui.add_button("Back to the first view")
        home.on_click(lambda _: session.jump(subject.home))
        if not isinstance(subject, Flat) or not subject.moves:
            self._moving(gui)
        if not isinstance(subject, Flat):
            self._clip(gui)
            self._around(gui)

    def scene_came(self) -> None:
        """The original can be shown beside the field."""
        subject = self.window.subject
        if isinstance(subject, Flat) and len(self.channel.options) != len(subject.channels):
            self.channel.options = subject.channels
        if isinstance(self.window.scene, Mesh) and "Original mesh beside" not in self._nodes:
            self.original.disabled = False

    def _play(self) -> None:
        desk, key = self.window.desk, self.session.key("play")
        if not self.play.value:
            desk.drop(key)
            return

        def steps() -> Iterator[float]:
            started, first, seconds = time.perf_counter(), int(self.time.value), self._seconds()
            while True:
                at = first + int((time.perf_counter() - started) * self._n_times / seconds)
                self.time.value = at % self._n_times
                yield MOMENT

        desk.submit(key, steps(), Urgency.MOVING, failed=self.window.report)

    def _seconds(self) -> float:
        """How long the whole of it takes."""
        described = self.window.run.scene
        return described["frames"] / described["fps"] if "fps" in described else MOVING_SECONDS

    def _change_background(self) -> None:
        r, g, b = (c / 255 for c in self.background.value)
        self.session.change(background=(r, g, b))

    def _change_slice(self) -> None:
        self.session.change(axis=AXES.index(self.axis.value), at=self.at.value)

    def _change_channel(self) -> None:
        self.session.change(channel=self.channel.value)
        if hasattr(self, "axis"):
            self.axis.visible = self.at.visible = self.channel.value == "slice"

    def _moving(self, gui: Any) -> None:
        proxy = gui.add_checkbox("Proxy while moving", True, hint="A mesh that the browser draws by itself")
        field = gui.add_checkbox("Field at rest", True, hint="Pictures of the field itself")

        def change() -> None:
            self.session.use_proxy, self.session.use_field = proxy.value, field.value
            self.session.disturb()

        for control in (proxy, field):
            control.on_update(lambda _: self.session.serially(change))

    def _clip(self, gui: Any) -> None:
        box = self.window.subject.space.box
        reach = 4 * box.side
        with gui.add_folder("Clip", expand_by_default=False):
            self.depth = gui.add_multi_slider("Near, far", 0.0, reach, reach / 400, (0.0, reach))
            self.depth.on_update(lambda _: self.session.serially(lambda: self._change_depth(reach)))
            crop = self.window.crop
            self.cropped = gui.add_checkbox("Crop", crop is not None)
            self.sides = []
            for axis, name in enumerate(AXES):
                lo, hi = box.lo[axis], box.hi[axis]
                at = (lo, hi) if crop is None else (max(crop.lo[axis], lo), min(crop.hi[axis], hi))
                slider = gui.add_multi_slider(
                    f"Crop {name}", lo, hi, (hi - lo) / 200, at, min_range=THINNEST * (hi - lo)
                )
                self.sides.append(slider)
            for control in (self.cropped, *self.sides):
                control.on_update(lambda _: self.session.serially(self._change_crop))
            keep = gui.add_button("Keep the crop in the run", hint="`fieldfit render` and `export` use it then")
            keep.on_click(lambda _: self.session.serially(self._keep))

    def _change_depth(self, reach: float) -> None:
        near, far = self.depth.value
        self.session.change(near=near, far=math.inf if far >= reach else far)

    def _crop(self) -> Box | None:
        if not self.cropped.value:
            return None
        lo, hi = zip(*(slider.value for slider in self.sides), strict=True)
        return Box(tuple(lo), tuple(hi)) if all(a < b for a, b in zip(lo, hi, strict=True)) else self.window.crop

    def _change_crop(self) -> None:
        crop = self._crop()
        self._forget("crop")
        if crop is not None:
            api, space = self.session.client.scene, self.window.subject.space
            self._nodes["crop"] = draw_box(api, "/crop", space, crop, CROP_COLOUR, 2.0)
        self._count()
        self.session.change(crop=crop)

    def _keep(self) -> None:
        with failing(self.session):
            write_crop(self.window.run.path, self._crop())
            self.window.set_crop(self._crop())
            self.session.say("the crop is kept" if self._crop() else "the run has no crop any more")

    def _around(self, gui: Any) -> None:
        with gui.add_folder("Around the field", expand_by_default=False):
            box = gui.add_checkbox("Box", False)
            box.on_update(lambda _: self._toggle("box", box, self._draw_box))
            if isinstance(self.window.subject, Radiance):
                cells = gui.add_checkbox("Occupancy", False)
                cells.on_update(lambda _: self._toggle("cells", cells, self._draw_cells))
            else:
                absent = not isinstance(self.window.scene, Mesh)
                self.cells = gui.add_slider("Mesh resolution", 32, 512, 16, 128)
                self.meshed = gui.add_checkbox("Mesh of the field", False, hint="In place of the field's own pictures")
                for control in (self.cells, self.meshed):
                    control.on_update(lambda _: self.session.serially(self._change_mesh))
                self.original = gui.add_checkbox("Original mesh beside", False, disabled=absent)
                self.original.on_update(lambda _: self._toggle("original", self.original, self._draw_original))

    def _toggle(self, name: str, checkbox: Any, draw: Any) -> None:
        def change() -> None:
            self._forget(name)
            if checkbox.value:
                self._nodes[name] = draw()
            self._count()
            self.session.disturb()

        self.session.serially(change)

    def _change_mesh(self) -> None:
        """Show a mesh of the field in the resolution that is chosen, or no longer."""
        session, window = self.session, self.window
        self._forget("mesh")
        window.desk.drop(session.key("mesh"))
        session.show_instead(self.meshed.value)
        if not self.meshed.value:
            return
        turns, cells = Turns(), int(self.cells.value)

        def done(mesh: trimesh.Trimesh | None) -> None:
            if mesh is None or not self.meshed.value:
                return
            space = window.subject.space
            vertices = space.to_browser(mesh.vertices)
            self._nodes["mesh"] = self._add_mesh("/mesh", vertices, np.asarray(mesh.faces))
            session.say(f"a mesh of {len(mesh.vertices):,} vertices and {len(mesh.faces):,} triangles")

        session.say("the mesh is being made ...")
        steps = turns.steps(lambda: window.subject.mesh(cells, session.look, turns), done)
        window.desk.submit(session.key("mesh"), steps, Urgency.ASKED, failed=window.report)

    def _draw_box(self) -> Any:
        space = self.window.subject.space
        return draw_box(self.session.client.scene, "/box", space, space.box, BOX_COLOUR)

    def _draw_cells(self) -> Any:
        field = self.window.subject.field  # pyright: ignore[reportAttributeAccessIssue]
        assert isinstance(field, RadianceField)
        middles = occupied_points(field, MOST_CELLS, torch.Generator().manual_seed(0))
        cell = field.box.side / field.occupancy.config.resolution
        return draw_cells(self.session.client.scene, self.window.subject.space, middles, cell)

    def _draw_original(self) -> Any:
        scene, space = self.window.scene, self.window.subject.space
        assert isinstance(scene, Mesh)
        world = scene.box.from_unit(torch.from_numpy(scene.surface.vertices)).numpy()
        vertices = space.to_browser(world)
        aside = self.window.subject.home.T_world_camera[0, :, 0].double().numpy()
        vertices = vertices + 1.15 * aside * float((vertices @ aside).max() - (vertices @ aside).min())
        return self._add_mesh("/original", vertices, scene.surface.faces)

    def _add_mesh(self, name: str, vertices: np.ndarray, faces: np.ndarray) -> Any:
        """Under the browser's lights."""
        api, parts = self.session.client.scene, (vertices.astype(np.float32), faces.astype(np.uint32))
        return api.add_mesh_simple(name, *parts, color=MESH_COLOUR, side="double", cast_shadow=False)

    def _forget(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        if node is not None:
            node.remove()

    def _count(self) -> None:
        """Depth goes with pictures while anything is drawn that it may hide."""
        self.session.note_drawn("sight", bool(self._nodes))
