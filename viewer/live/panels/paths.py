"""Camera paths: keyframes from what is seen, a preview, nerfstudio's JSON, and the film."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from viewer.live.desk import Urgency
from viewer.live.panels.saying import failing, tell
from viewer.live.path import film, save_path
from viewer.live.sketches import draw_path
from viewer.orbits import orbit
from viewer.paths import CameraPath

if TYPE_CHECKING:
    from viewer.live.session import Session
    from viewer.live.window import Window


class Paths:
    """The tab."""

    def __init__(self, window: Window, session: Session) -> None:
        self.window, self.session = window, session
        gui = session.client.gui
        self.count = gui.add_markdown("")
        gui.add_button("Add what I see as a keyframe").on_click(lambda _: session.serially(self._add))
        for label, what in (("the last keyframe", window.keyframes.remove), ("all keyframes", window.keyframes.clear)):
            remove = gui.add_button(f"Remove {label}")
            remove.on_click(lambda _, what=what: session.serially(lambda: self._change(what)))
        self.seconds = gui.add_number("Seconds", 4.0, min=0.1, max=600.0, step=0.1)
        self.fps = gui.add_number("Frames a second", 30, min=1, max=120, step=1)
        self.loop = gui.add_checkbox("Loop", False)
        self.width = gui.add_number("Width", 1280, min=16, max=8192, step=2)
        self.height = gui.add_number("Height", 720, min=16, max=8192, step=2)
        for control in (self.seconds, self.fps, self.loop, self.width, self.height):
            control.on_update(lambda _: session.serially(self._draw))
        gui.add_button("Preview").on_click(lambda _: self._preview())
        gui.add_button("Save camera_path.json").on_click(lambda _: self._save())
        self.render = gui.add_button("Render the film (mp4)")
        self.render.on_click(lambda _: self._render())
        self.stop = gui.add_button("Stop rendering", visible=False)
        self.stop.on_click(lambda _: self._stop())
        self.progress = gui.add_progress_bar(0.0, visible=False)
        self._line: Any = None
        self._draw()

    def path(self) -> CameraPath:
        """Through the keyframes, or around the subject where there are fewer than two."""
        size = int(self.width.value) // 2 * 2, int(self.height.value) // 2 * 2
        seconds, fps = float(self.seconds.value), float(self.fps.value)
        found = self.window.keyframes.path(seconds, fps, size, loop=bool(self.loop.value))
        if found is not None:
            return found
        return orbit(self.window.run.scene, max(round(seconds * fps), 2), fps).resized(size[0])

    def _add(self) -> None:
        session = self.session
        if session.camera is not None:
            moment = session.look.time if self.window.subject.moves else None
            self.window.keyframes.add(session.camera, moment)
            self._draw()

    def _change(self, what: Any) -> None:
        what()
        self._draw()

    def _draw(self) -> None:
        n = len(self.window.keyframes.cameras)
        self.count.content = f"{n} keyframes" if n > 1 else f"{n} keyframes: the path is an orbit until there are two"
        if self._line is not None:
            self._line.remove()
            self._line = None
        if n > 1:
            self._line = draw_path(self.session.client.scene, self.window.subject.space, self.path().cameras)
        self.session.note_drawn("path", self._line is not None)

    def _preview(self) -> None:
        path = self.path()

        def play() -> Iterator[float]:
            started, at = time.perf_counter(), 0.0
            while at < path.seconds:
                at = time.perf_counter() - started  # the last frame is seen however late it is
                camera = path.cameras[[min(int(at * path.fps), len(path.cameras) - 1)]]
                if camera.time is not None and self.window.subject.moves:
                    self.session.change(time=float(camera.time[0]))
                self.session.jump(camera)
                yield 1 / 30

        self.window.desk.submit(self.session.key("asked"), play(), Urgency.MOVING, failed=self.window.report)

    def _save(self) -> None:
        with failing(self.session):
            target = self.window.run.path / "camera_path.json"
            self.session.client.send_file_download(target.name, save_path(self.path(), target), save_immediately=True)
            tell(self.session, "Saved", f"{target}; `fieldfit render RUN --path` takes it")

    def _render(self) -> None:
        path, target = self.path(), self.window.run.path / "renders" / "viewer.mp4"
        self.progress.visible = self.stop.visible = True
        self.progress.value, self.render.disabled = 0.0, True

        def progress(share: float) -> None:
            self.progress.value = 100 * share

        def done() -> None:
            self._ended()
            self.session.client.send_file_download(target.name, target.read_bytes(), save_immediately=True)
            tell(self.session, "Rendered", f"{target}: {len(path.cameras)} frames")

        def failed(error: Exception) -> None:
            self._ended()
            tell(self.session, "The film was not written", str(error), bad=True)

        target.parent.mkdir(exist_ok=True)
        steps = film(self.window.subject, path, self.session.look, target, progress, done)
        self.window.desk.submit("film", steps, Urgency.ASKED, failed=failed)

    def _stop(self) -> None:
        self.window.desk.drop("film")
        self._ended()

    def _ended(self) -> None:
        self.progress.visible = self.stop.visible = False
        self.render.disabled = False
