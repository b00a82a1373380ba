"""One browser: where it looks, what it wants to see, and the pictures it gets.

While its camera moves, the browser draws the proxy by itself; without one it gets coarse pictures of the field, always
of where the camera is by then. When it rests, the field's own pictures come, finer and finer. A new movement ends them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from scenes.cameras import Cameras
from scenes.capture import Capture
from scenes.metrics import psnr
from viewer.live.desk import Urgency
from viewer.live.frames import Frame, coarseness_of, refine, whole
from viewer.live.photographs import Comparison, fitted, held_against, truth
from viewer.live.subject import Look, Seen, paint
from viewer.page import BY_ITSELF

if TYPE_CHECKING:
    from viser import CameraHandle, ClientHandle

    from viewer.live.window import Window

FIRST_SECONDS, MOVING_SECONDS = 0.012, 0.025
"""What a picture for somebody who moves may take: the first of a movement, and those that follow."""
FIRST_STANDS = 0.1
"""Seconds for which nothing follows the first: a browser that still unpacks it would drop it for the next."""
REST_SECONDS = 0.15
"""Without movement, after which the camera rests."""
SETTLE_SECONDS = 1.0
"""After a jump, during which the browser's camera may still be somewhere else."""
NEAR_HOME = 1e-3
"""In the browser's lengths."""
AGAIN_SECONDS = 1.5
"""Between two pictures of a field that is being fitted."""
SWAP = 3
"""The proxy gives way to a picture of the field that is at most this many times coarser than the window."""
DEPTH_WIDTH = 480
"""Pixels of depth at most, for what is drawn behind and before the field."""
COARSE_QUALITY, FULL_QUALITY = 75, 95
"""Of JPEG."""


class Session:
    """What the window keeps of one browser. Methods may be called from any thread; pictures are made at the desk."""

    def __init__(self, window: Window, client: ClientHandle) -> None:
        self.window, self.client = window, client
        self.look = window.first_look()
        self.camera: Cameras | None = None
        self.use_proxy, self.use_field = True, True
        self.gone = False
        """Whether the browser has left."""
        self._drawn: dict[str, bool] = {}
        """What is drawn that may be behind the field or before it."""
        self.comparison: Comparison | None = None
        self.status: Any = None
        """The line of text about the picture."""
        self.photograph_status: Any = None
        self._jumped_at = 0.0
        self._expected_until = window.now() + SETTLE_SECONDS
        self._rest_at, self._waits = 0.0, False
        self._instead = False
        self._proxy: Any = None
        self._shows_proxy = False
        self._by_itself: Any = None
        self._lock, self._asking = threading.RLock(), threading.RLock()

    @property
    def keys(self) -> tuple[object, ...]:
        """Of this session's jobs at the desk."""
        return tuple(
            (name, self.client.client_id) for name in ("moving", "resting", "psnr", "asked", "play", "mesh", "arrived")
        )

    def key(self, name: str) -> object:
        """One of them."""
        return name, self.client.client_id

    def moved(self, handle: CameraHandle) -> None:
        """The browser's camera may be somewhere else."""
        with self._lock:
            camera = self.window.subject.space.camera(handle)  # by now: calls may overtake each other
            if self.camera is None and self.window.now() < self._expected_until and not self._at_home(handle):
                return  # where viser's page puts it before it has heard of ours
            if self.gone or camera is None or (self.camera is not None and same_view(camera, self.camera)):
                return
            resized = self.camera is None or not torch.equal(camera.size, self.camera.size)
            self.camera = camera
            if self.comparison is not None and not resized and self.window.now() - self._jumped_at > SETTLE_SECONDS:
                self.leave_photograph()
            self.disturb()

    def _at_home(self, handle: CameraHandle) -> bool:
        """Whether the camera is where the window puts it first."""
        space = self.window.subject.space
        away = np.linalg.norm(np.asarray(handle.position) - space.pose(self.window.subject.home).position)
        return bool(away < NEAR_HOME)

    def serially(self, do: Callable[[], None]) -> None:
        """Do what somebody asked for, one after the other: viser's threads would do it all at once, and what is done
        last would not be what was asked last. It must be short and not wait for the desk, which may come here too."""
        with self._asking:
            do()

    def jump(self, camera: Cameras) -> None:
        """Put the browser's camera there."""
        pose = self.window.subject.space.pose(camera)
        with self._lock, self.client.atomic():
            self._jumped_at = self.window.now()
            self.client.camera.wxyz = np.array(pose.wxyz)
            self.client.camera.position = np.array(pose.position)
            self.client.camera.look_at = np.array(self.window.target(camera))
            self.client.camera.fov = pose.fov
        self.client.flush()

    def change(self, **values: Any) -> None:
        """See something else of the same subject."""
        with self._lock:
            look = replace(self.look, **values)
            if look != self.look:
                self.look = look
                self.disturb()

    def disturb(self) -> None:
        """What is shown is no longer what is wanted: show something at once, and the rest when nothing changes."""
        desk = self.window.desk
        with self._lock:
            self._let_by_itself()
            if not self._waits:
                desk.drop(self.key("resting"))
            if self.camera is None or self._instead:
                return
            if self.comparison is not None:  # of which nothing coarser is shown, and nothing drawn by the browser
                desk.drop(self.key("moving"))
                self._hide_proxy()
            elif self._proxy_can_show():
                desk.drop(self.key("moving"))
                self._show_proxy()
            elif not desk.has(self.key("moving")):
                desk.submit(self.key("moving"), self._follow(), Urgency.MOVING, failed=self.window.report)
            self.rest(REST_SECONDS)

    def rest(self, after: float) -> None:
        """Show the field's own picture after so many seconds."""
        with self._lock:
            alone = not self.use_field and self._proxy_can_show() and self.comparison is None
            if self._instead or alone:
                return
            self._rest_at = self.window.now() + after
            if self._waits and self.window.desk.has(self.key("resting")):
                return  # it looks at the clock when its time has come
            self._waits = True
            self.window.desk.submit(self.key("resting"), self._rest(), Urgency.RESTING, failed=self.window.report)

    def _rest(self) -> Iterator[float | None]:
        """The field's pictures, as soon as nothing has moved for long enough."""
        while (left := self._rest_at - self.window.now()) > 0:
            yield left
        with self._lock:
            self._waits = False
            self.window.desk.drop(self.key("moving"))  # which may stand for a while: nothing coarse comes after this
        yield from self._refine()

    def take_proxy(self, proxy: Any) -> None:
        """What the browser draws while it moves, a node of its scene; None for nothing."""
        with self._lock:
            old, self._proxy = self._proxy, proxy
            if old is not None and old is not proxy and getattr(old, "name", None) != getattr(proxy, "name", None):
                old.remove()
            if proxy is not None:
                proxy.visible = self._shows_proxy = self._shows_proxy and self.use_proxy
            if proxy is not None and self._by_itself is None:
                self._by_itself = self.client.scene.add_frame(BY_ITSELF, show_axes=False, visible=False)
            self._let_by_itself()

    def show_instead(self, other: bool) -> None:
        """Show something else that the browser draws in place of all pictures, or no longer."""
        with self._lock:
            self._instead = other
            self._let_by_itself()
            if other:
                self.window.desk.drop(self.key("moving"), self.key("resting"))
                self._hide_proxy()
                self.client.scene.set_background_image(None)
                self.client.flush()
            else:
                self.disturb()

    def compare(self, comparison: Comparison | None) -> None:
        """Hold a photograph against the field, from where it was taken; or no longer."""
        with self._lock:
            before, self.comparison = self.comparison, comparison
            self._let_by_itself()
            if comparison is None:
                self.disturb()
                return
            if before is None or before.view != comparison.view:
                scene = self.window.scene
                assert isinstance(scene, Capture)
                camera = scene.cameras[[comparison.view]]
                if camera.time is not None and self.window.subject.moves:
                    self.look = replace(self.look, time=float(camera.time[0]))
                self.jump(camera)
                self._measure(scene, comparison.view)
            self._hide_proxy()
            self.rest(0.0)

    def leave_photograph(self) -> None:
        """The camera is no longer where a photograph was taken."""
        self.comparison = None
        self.window.desk.drop(self.key("psnr"))
        if self.photograph_status is not None:
            self.photograph_status.content = "The camera has moved on."

    def leave(self) -> None:
        """The browser is gone."""
        self.gone = True
        self.window.desk.drop(*self.keys)
        with self._lock:
            self._proxy = self._by_itself = None

    def show(self, frame: Frame, *, moving: bool = False) -> None:
        """Send a picture to the browser."""
        if self.gone or (self._shows_proxy and frame.coarseness > SWAP and not frame.done):
            return
        picture = paint(frame.seen, frame.look)
        depth = self._depth(frame) if any(self._drawn.values()) else None
        quality = FULL_QUALITY if frame.coarseness == 1 else COARSE_QUALITY
        with self.client.atomic():
            self.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=quality, depth=depth)
            self._hide_proxy()
            width, height = frame.camera.size[0].tolist()
            if moving:
                self.say(f"moving: 1/{frame.coarseness} of the resolution")
            else:
                self.say(f"{width} x {height} in {frame.seconds:.2f} s" if frame.done else "getting finer ...")
        self.client.flush()

    def note_drawn(self, name: str, drawn: bool) -> None:
        """Whether something is drawn around the field, of which the field may hide a part."""
        self._drawn[name] = drawn

    def say(self, text: str) -> None:
        """Tell about the picture."""
        if self.status is not None and self.status.content != text:
            self.status.content = text

    def _proxy_can_show(self) -> bool:
        return self.use_proxy and self._proxy is not None and self.look.channel == "colour"

    def _let_by_itself(self) -> None:
        """Let the page show the proxy when the camera moves, before we know of it; or no longer."""
        if self._by_itself is not None:
            self._by_itself.visible = self._proxy_can_show() and self.comparison is None and not self._instead

    def _show_proxy(self) -> None:
        if not self._shows_proxy:
            self._shows_proxy = True
            with self.client.atomic():
                self.client.scene.set_background_image(None)
                self._proxy.visible = True
                self.say("moving: the proxy")
            self.client.flush()

    def _hide_proxy(self) -> None:
        with self._lock:
            if self._shows_proxy and self._proxy is not None:
                self._proxy.visible = False
            self._shows_proxy = False

    def _follow(self) -> Iterator[float | None]:
        """Coarse pictures of where the camera is, as long as it is somewhere else by then."""
        seen: tuple[Cameras, Look] | None = None
        followed = False

        def show(frame: Frame) -> None:
            self.show(frame, moving=True)

        while self.camera is not None and seen != (self.camera, self.look) and self.comparison is None:
            camera, look, pace = self.camera, self.look, self.window.pace
            seen = camera, look
            coarse = max(coarseness_of(camera, pace.rays(MOVING_SECONDS if followed else FIRST_SECONDS)), 2)
            yield from refine(self.window.subject, camera, look, pace, show, finest=coarse)
            if not followed:
                followed = True
                yield FIRST_STANDS

    def _refine(self) -> Iterator[None]:
        camera, look, comparison = self.camera, self.look, self.comparison
        if camera is None:
            return
        if comparison is not None:
            yield from self._refine_photograph(comparison, camera)
        else:
            yield from refine(self.window.subject, camera, look, self.window.pace, self.show)
        if self.window.changing:
            self.rest(AGAIN_SECONDS)

    def _refine_photograph(self, comparison: Comparison, window_camera: Cameras) -> Iterator[None]:
        scene = self.window.scene
        assert isinstance(scene, Capture)
        wide, high = window_camera.size[0].tolist()
        camera = fitted(scene.cameras, comparison.view, (wide, high))
        look = replace(self.look, near=0.0, far=float("inf"), crop=None)

        def show(frame: Frame) -> None:
            rgb = torch.from_numpy(paint(frame.seen, frame.look)).float() / 255
            across, down = camera.size[0].tolist()
            if frame.coarseness > 1:
                rgb = interpolate(rgb.permute(2, 0, 1)[None], (down, across))[0].permute(1, 2, 0)
            how = self.comparison or comparison
            picture = held_against(truth(scene, how.view, (across, down)), rgb, how, (wide, high))
            self.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=FULL_QUALITY)
            self.client.flush()
            self.say(f"{scene.names[how.view]}: {'full resolution' if frame.done else 'getting finer ...'}")

        yield from refine(self.window.subject, camera, look, self.window.pace, show)

    def _measure(self, scene: Capture, view: int) -> None:
        """PSNR of one photograph, at its own size."""
        width, height = scene.cameras.size[view].tolist()
        level = float(scene.has_alpha and scene.background == "white")
        look = Look(time=self.look.time, background=(level, level, level))

        def done(seen: Seen) -> None:
            expected, keep = scene.image(view)
            found = seen.rgb.clamp(0, 1).view(-1, 3)
            if keep is not None:
                expected, found = expected[keep], found[keep]
            if self.photograph_status is not None and self.comparison is not None and self.comparison.view == view:
                text = f"**{psnr(found[:, None], expected[:, None]):.2f} dB** over {width} x {height} pixels"
                self.photograph_status.content = f"{scene.names[view]}: {text}"

        steps = whole(self.window.subject, scene.cameras[[view]], look, self.window.pace, done)
        self.window.desk.submit(self.key("psnr"), steps, Urgency.ASKED, after=0.1, failed=self.window.report)

    def _depth(self, frame: Frame) -> np.ndarray:
        """Depth along the optical axis in the browser's units, of few pixels."""
        height, width = frame.seen.depth.shape
        step = max(-(-width // DEPTH_WIDTH), 1)
        small = frame.camera.scaled(width / int(frame.camera.size[0, 0]))
        rows = (torch.arange(height) + 0.5 - small.centre[0, 1]) / small.focal[0, 1]
        columns = (torch.arange(width) + 0.5 - small.centre[0, 0]) / small.focal[0, 0]
        along = torch.rsqrt(rows[:, None].square() + columns.square() + 1)
        depth = torch.where(frame.seen.opacity > 0.5, frame.seen.depth * along, torch.inf)[
            step // 2 :: step, step // 2 :: step
        ]
        return np.nan_to_num(depth.numpy() * self.window.subject.space.scale, posinf=1e3)


def same_view(a: Cameras, b: Cameras) -> bool:
    """Whether two cameras show the same, to what a browser rounds."""
    return (
        torch.equal(a.size, b.size)
        and torch.allclose(a.T_world_camera, b.T_world_camera, rtol=1e-6, atol=1e-7)
        and torch.allclose(a.focal, b.focal, rtol=1e-5)
    )
