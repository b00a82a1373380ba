"""The photographs of a capture: cameras to look through, and the field held against what was seen there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scenes.cameras import Cameras
from scenes.capture import Capture
from viewer.live.photographs import STYLES, Comparison
from viewer.live.sketches import draw_cameras, thumbnail
from viewer.pictures import Picture

if TYPE_CHECKING:
    from viewer.live.session import Session
    from viewer.live.window import Window


class Photographs:
    """The tab."""

    def __init__(self, window: Window, session: Session) -> None:
        self.window, self.session = window, session
        gui, cameras = session.client.gui, window.run.scene["cameras"]
        self.splits = {name: Cameras.from_json(data) for name, data in cameras.items() if data["T_world_camera"]}
        self.names = window.run.scene["names"]
        self._nodes: dict[str, list[Any]] = {}
        self.shown = {name: gui.add_checkbox(f"Cameras: {name} ({len(c)})", False) for name, c in self.splits.items()}
        for name, box in self.shown.items():
            box.on_update(lambda _, name=name: self._toggle(name))
        names = tuple(self.splits)
        self.split = gui.add_dropdown("Split", names, initial_value=names[-1])
        self.number = gui.add_slider("Photograph", 0, max(len(self.splits[names[-1]]) - 1, 1), 1, 0)
        self.style = gui.add_dropdown("Compare by", STYLES, initial_value=STYLES[0])
        self.wipe = gui.add_slider("Wipe", 0.0, 1.0, 0.01, 0.5)
        self.look = gui.add_button("Look through this camera")
        session.photograph_status = gui.add_markdown("")
        self.split.on_update(lambda _: session.serially(self._change_split))
        self.number.on_update(lambda _: session.serially(self._change_number))
        self.style.on_update(lambda _: session.serially(self._change_style))
        self.wipe.on_update(lambda _: session.serially(self._change_style))
        self.look.on_click(lambda _: session.serially(self._compare))
        self.scene_came()

    def scene_came(self) -> None:
        """The photographs can be shown, or are not there."""
        session, scene = self.session, self.window.scene
        if isinstance(scene, Capture):
            session.photograph_status.content = ""
            for name in self.splits:
                if self.shown[name].value:
                    self._toggle(name)
        else:
            why = self.window.without_scene or "The photographs are being loaded ..."
            session.photograph_status.content = why

    @property
    def chosen(self) -> int:
        """The view of the scene, counted over all splits, that is chosen."""
        before = 0
        for name, cameras in self.splits.items():
            if name == self.split.value:
                return before + min(int(self.number.value), len(cameras) - 1)
            before += len(cameras)
        return 0

    def _compare(self) -> None:
        cameras = self.splits[self.split.value]
        number = min(int(self.number.value), len(cameras) - 1)
        if not isinstance(self.window.scene, Capture):
            self.session.jump(cameras[[number]])
            return
        view = self.window.scene.views[self.split.value][number]
        self.session.photograph_status.content = f"{self.window.scene.names[view]}: measuring ..."
        self.session.compare(Comparison(view, self.style.value, self.wipe.value))

    def _change_split(self) -> None:
        self.number.max = max(len(self.splits[self.split.value]) - 1, 1)
        self.number.value = min(self.number.value, self.number.max)
        self._change_number()

    def _change_number(self) -> None:
        if self.session.comparison is not None:
            self._compare()

    def _change_style(self) -> None:
        comparison = self.session.comparison
        if comparison is not None:
            self.session.compare(replace(comparison, style=self.style.value, wipe=self.wipe.value))

    def _toggle(self, name: str) -> None:
        thumbnails, scene = None, self.window.scene
        if self.shown[name].value and isinstance(scene, Capture):
            thumbnails = [thumbnail(scene, view) for view in scene.views[name]]  # it may take long: others go first
        self.session.serially(lambda: self._draw(name, thumbnails))

    def _draw(self, name: str, thumbnails: list[Picture] | None) -> None:
        for node in self._nodes.pop(name, []):
            node.remove()
        if self.shown[name].value:
            api, space = self.session.client.scene, self.window.subject.space
            self._nodes[name] = draw_cameras(api, space, name, self.splits[name], thumbnails)
            for i, node in enumerate(self._nodes[name]):
                node.on_click(lambda _, i=i: self.session.serially(lambda: self._clicked(name, i)))
        self.session.note_drawn("cameras", any(self._nodes.values()))
        self.session.disturb()

    def _clicked(self, name: str, place: int) -> None:
        """A frustum was clicked: look through it."""
        step = max(-(-len(self.splits[name]) // max(len(self._nodes[name]), 1)), 1)
        self.split.value = name
        self.number.max = max(len(self.splits[name]) - 1, 1)
        self.number.value = place * step
        self._compare()
