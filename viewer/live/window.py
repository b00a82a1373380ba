"""The viewer of one run: what all browsers that look at it share.

All evaluation of the field happens on the thread that runs `serve`, or that fits and is followed by `follow`; browsers
come and go on viser's threads and only ask for it.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from fields.crop import read_crop
from fields.field import Field, RadianceField
from fields.fitting import Step
from fields.run import Run
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.image import Image
from scenes.scene import Scene
from scenes.video import Video
from viewer.live import proxies
from viewer.live.desk import Desk, Urgency
from viewer.live.fitting import Fitting
from viewer.live.flat import Flat
from viewer.live.frames import Pace
from viewer.live.path import Keyframes
from viewer.live.radiance import Radiance
from viewer.live.session import SETTLE_SECONDS, Session
from viewer.live.subject import Look, Subject
from viewer.live.surface import DistanceSurface
from viewer.page import PROXY
from viewer.serving import Door, Served, open_server

if TYPE_CHECKING:
    from viser import ClientHandle

SHARE_MOVING, SHARE_RESTING = 0.09, 0.05
"""Of the time of fitting, what pictures may take meanwhile: while somebody moves, and otherwise."""
TIDY_SECONDS = 2.0
"""After a browser has left, before memory is given back; others that leave meanwhile do not put that off."""
REFRESH_SECONDS = 1.0
"""Between two points of a plot."""
MOST_CREDIT = 0.3
"""Seconds of pictures that fitting may owe."""


def subject_of(run: Run, field: Field | RadianceField, scene: Scene | None = None) -> Subject:
    """What there is to look at in a run."""
    if isinstance(field, RadianceField):
        return Radiance(field, run.scene)
    if run.scene["kind"] == "mesh":
        return DistanceSurface(field, run.scene)
    return Flat(field, run.scene, scene if isinstance(scene, Image | Video) else None)


class Window:
    """A viewer that serves browsers until it is closed."""

    def __init__(self, run: Run, field: Field | RadianceField, door: Door, *, scene: Scene | None = None) -> None:
        self.run, self.scene = run, scene
        self.subject = subject_of(run, field, scene)
        self.desk, self.pace = Desk(), Pace()
        self.crop: Box | None = read_crop(run.path)
        self.keyframes = Keyframes()
        self.without_scene = ""
        """Why what was fitted cannot be shown."""
        self.fitting: Fitting | None = None
        """Of a run that is being fitted."""
        self._sessions: dict[int, tuple[Session, Any]] = {}
        self._proxy: bytes | None = None
        self._proxy_look: Look | None = None
        self._lock = threading.RLock()
        self._reported: set[str] = set()
        self.served: Served = open_server(door, f"fieldfit: {run.path.name}")
        self._dress()
        self.served.server.on_client_connect(self._enter)
        self.served.server.on_client_disconnect(self._leave)

    @property
    def changing(self) -> bool:
        """Whether the field is another one from moment to moment."""
        return self.fitting is not None and self.fitting.running

    @property
    def sessions(self) -> list[Session]:
        """Of all browsers that look."""
        with self._lock:
            return [session for session, _ in self._sessions.values()]

    @staticmethod
    def now() -> float:
        """Seconds, for comparing."""
        return time.monotonic()

    def first_look(self) -> Look:
        """What a browser sees first."""
        level = 0.0 if self.run.scene.get("background") == "black" else 1.0
        return Look(self.subject.channels[0], background=(level, level, level), crop=self.crop)

    def target(self, camera: Cameras) -> tuple[float, float, float]:
        """The point, in the browser's space, around which a camera turns: on its axis, beside the middle of the box."""
        position, forward = camera.position[0], camera.forward[0]
        middle = position.new_tensor(self.subject.space.box.centre)
        ahead = max(float((middle - position) @ forward), 0.1 * self.subject.space.box.side)
        x, y, z = self.subject.space.to_browser((position + ahead * forward).double().numpy()).tolist()
        return x, y, z

    def report(self, error: Exception) -> None:
        """One line for what went wrong in a picture, once."""
        line = f"fieldfit: warning: the viewer: {type(error).__name__}: {' '.join(str(error).split())}"
        if line not in self._reported:
            self._reported.add(line)
            sys.stderr.write(line + "\n")

    def set_scene(self, scene: Scene) -> None:
        """What was fitted is there by now: photographs and originals can be shown."""
        self.scene = scene
        if isinstance(self.subject, Flat) and isinstance(scene, Image | Video):
            self.subject.scene = scene
        with self._lock:
            panels = [panel for _, panel in self._sessions.values()]
        for panel in panels:
            panel.scene_came()

    def say_without_scene(self) -> None:
        """Tell everyone why photographs and originals cannot be shown."""
        with self._lock:
            panels = [panel for _, panel in self._sessions.values()]
        for panel in panels:
            panel.scene_came()

    def set_crop(self, crop: Box | None) -> None:
        """Show only what lies inside, to everyone."""
        self.crop = crop
        for session in self.sessions:
            session.change(crop=crop)
        self.want_proxy()

    def serve(self, seconds: float | None = None) -> None:
        """Make pictures until the process is told to end, or for so many seconds."""
        end = None if seconds is None else self.now() + seconds
        self.want_proxy()
        while end is None or self.now() < end:
            if not self.desk.advance():
                self.desk.wait(1.0 if end is None else max(end - self.now(), 0.0))

    def follow(
        self,
        steps: Iterator[Step],
        interrupted: Callable[[], bool] = lambda: False,
        save: Callable[[], None] = lambda: None,
    ) -> Iterator[Step]:
        """The steps of a fit, with pictures between them; while it is paused, only those. `save` is called between
        steps when somebody asks for it."""
        self.fitting = fitting = Fitting()
        with self._lock:
            panels = [panel for _, panel in self._sessions.values()]
        for panel in panels:
            panel.fitting_began()
        credit, before = 0.0, time.perf_counter()
        refreshed = before
        for step in steps:
            fitting.took(step)
            yield step
            if fitting.take_save():
                save()
            if before - refreshed > REFRESH_SECONDS:
                self._refresh()
                refreshed = before
            if fitting.paused:
                self._refresh()
            while fitting.paused and not interrupted():
                if fitting.take_save():
                    save()
                elif not self.desk.advance():
                    self.desk.wait(0.2)
                before = time.perf_counter()
            now = time.perf_counter()
            urgency = self.desk.urgent()
            share = SHARE_MOVING if urgency is Urgency.MOVING else SHARE_RESTING
            credit = min(credit + share * (now - before), MOST_CREDIT)
            while credit > 0 and self.desk.urgent() is not None:
                started = time.perf_counter()
                self.desk.advance()
                credit -= time.perf_counter() - started
            before = time.perf_counter()
        fitting.running = False
        self._refresh()
        for session in self.sessions:
            session.rest(0.0)

    def want_proxy(self) -> None:
        """See that browsers get what they draw by themselves: from the run, or made when nothing else is to do."""
        look = self.first_look()
        if self.changing or (isinstance(self.subject, Flat) and self.subject.moves):
            return  # a film's would have to be another one for every frame
        if (data := proxies.cached(self.run.path, look)) is not None:
            self._take_proxy(data, look)
            return

        def done(data: bytes | None) -> None:
            if data is not None:
                if not self.changing:
                    proxies.keep(self.run.path, look, data)
                self._take_proxy(data, look)

        self.desk.submit("proxy", proxies.make(self.subject, look, done), Urgency.SPARE, failed=self.report)

    def close(self) -> None:
        """End it for all browsers."""
        self.served.close()

    def _take_proxy(self, data: bytes, look: Look) -> None:
        self._proxy, self._proxy_look = data, look
        for session in self.sessions:
            self._give_proxy(session)

    def _give_proxy(self, session: Session) -> None:
        if self._proxy is not None and not self.changing:
            node = session.client.scene.add_glb(
                PROXY, self._proxy, visible=False, cast_shadow=False, receive_shadow=False
            )
            session.take_proxy(node)

    def _refresh(self) -> None:
        """Tell everyone how the fit goes."""
        with self._lock:
            panels = [panel for _, panel in self._sessions.values()]
        for panel in panels:
            if panel.fit is not None:
                panel.fit.refresh()

    def _dress(self) -> None:
        server, space = self.served.server, self.subject.space
        server.gui.configure_theme(
            control_layout="fixed",
            control_width="medium",
            show_logo=False,
            show_share_button=False,
            brand_color=(38, 105, 190),
        )
        server.scene.set_up_direction(space.up)
        server.scene.configure_environment_map(None)
        server.scene.configure_default_lights(True, cast_shadow=False)
        pose, camera = space.pose(self.subject.home), server.initial_camera
        camera.position, camera.look_at = pose.position, self.target(self.subject.home)
        camera.up, camera.fov, camera.near, camera.far = space.up, pose.fov, 0.001, 200.0

    def _enter(self, client: ClientHandle) -> None:
        from viewer.live.panel import Panel

        session = Session(self, client)
        panel = Panel(self, session)
        with self._lock:
            self._sessions[client.client_id] = session, panel
        client.camera.on_update(session.moved)
        self._give_proxy(session)  # first of all, so that the browser has drawn it once before anybody moves
        session.moved(client.camera)
        self.desk.submit(
            session.key("arrived"),
            _once(lambda: session.moved(client.camera)),
            Urgency.MOVING,
            after=2 * SETTLE_SECONDS,
        )
        if client.client_id not in self.served.server.get_clients():  # gone again before all this was there
            self._leave(client)

    def _leave(self, client: ClientHandle) -> None:
        with self._lock:
            found = self._sessions.pop(client.client_id, None)
        if found is not None:
            found[0].leave()
            if not self.desk.has("tidy"):
                self.desk.submit("tidy", tidied(), Urgency.SPARE, after=TIDY_SECONDS)


def _once(what: Callable[[], None]) -> Iterator[None]:
    what()
    yield


def tidied() -> Iterator[None]:
    """Give the system back what browsers that are gone took of memory, where the C library can: a job for the desk.

    What they leave is full of cycles; among so many objects as torch has, Python would collect them after hundreds.
    """
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    yield


@torch.no_grad()
def view(run: Run, door: Door | None = None, seconds: float | None = None) -> None:
    """Look at a finished run until the process is told to end."""
    window = Window(run, run.field(), door or Door())
    try:
        window.serve(seconds)
    finally:
        window.close()
