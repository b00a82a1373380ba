"""Keyframes that people set, the camera path through them, and its film."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from scenes.cameras import Cameras
from viewer.live.frames import Pace, whole
from viewer.live.subject import Look, Seen, Subject, paint
from viewer.live.turns import Turns
from viewer.paths import CameraPath, interpolate, write_camera_path
from viewer.pictures import Picture, depth_span
from viewer.video import write_video


@dataclass
class Keyframes:
    """Cameras in the world with the times that were looked at, in order. All browsers share them."""

    cameras: list[Cameras] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, camera: Cameras, time: float | None) -> None:
        """Append what somebody sees now."""
        with self._lock:
            self.cameras.append(replace(camera, time=None if time is None else torch.tensor([time])))

    def remove(self) -> None:
        """Forget the last."""
        with self._lock:
            if self.cameras:
                self.cameras.pop()

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self.cameras.clear()

    def path(self, seconds: float, fps: float, size: tuple[int, int], *, loop: bool) -> CameraPath | None:
        """The way through them in so many seconds; None while there are fewer than two."""
        with self._lock:
            cameras = list(self.cameras)
        if len(cameras) < 2:
            return None
        joined = joined_cameras([resized(camera, size) for camera in cameras])
        return CameraPath(interpolate(joined, max(round(seconds * fps), 2), loop=loop), fps, loop)


def joined_cameras(cameras: list[Cameras]) -> Cameras:
    """Several single cameras as one set."""
    times = [camera.time for camera in cameras if camera.time is not None]
    return Cameras(
        torch.cat([camera.T_world_camera for camera in cameras]),
        torch.cat([camera.focal for camera in cameras]),
        torch.cat([camera.centre for camera in cameras]),
        torch.cat([camera.size for camera in cameras]),
        torch.cat([camera.distortion for camera in cameras]),
        time=torch.cat(times) if len(times) == len(cameras) else None,
    )


def resized(camera: Cameras, size: tuple[int, int]) -> Cameras:
    """The same vertical field of view in a picture of another size."""
    factor = size[1] / int(camera.size[0, 1])
    whole_size = torch.tensor([size])
    return replace(camera, focal=camera.focal * factor, size=whole_size, centre=whole_size.float() / 2)


def save_path(path: CameraPath, target: Path) -> bytes:
    """Write nerfstudio's `camera_path.json`, and what was written. Raises InputError."""
    write_camera_path(target, path)
    json.loads(target.read_text())
    return target.read_bytes()


def film(
    subject: Subject,
    path: CameraPath,
    look: Look,
    target: Path,
    progress: Callable[[float], None],
    done: Callable[[], None],
) -> Iterator[None]:
    """Render a path to an mp4: a job for the desk. An unfinished film leaves nothing behind."""
    pace, turns = Pace(), Turns()
    span: list[tuple[float, float]] = []
    waiting: list[Iterator[None]] = []
    found: list[Seen] = []

    def advance(view: int, begin: bool) -> Picture | None:
        """A bit of one frame, and the frame when it is complete."""
        camera = path.cameras[[view]]
        now = look if camera.time is None else replace(look, time=float(camera.time[0]))
        if begin:
            found.clear()
            waiting[:] = [whole(subject, camera, now, pace, found.append)]
        if next(waiting[0], StopIteration) is not StopIteration:
            return None
        if look.channel == "depth" and not span:
            span.append(depth_span(found[0].depth, found[0].opacity))
        progress((view + 1) / len(path.cameras))
        return paint(found[0], now, span[0] if span else None)

    in_turn = turns.wrap(advance)

    def frames() -> Iterator[Picture]:
        for view in range(len(path.cameras)):
            picture = in_turn(view, True)
            while picture is None:
                picture = in_turn(view, False)
            yield picture

    return turns.steps(lambda: write_video(target, frames(), path.fps), lambda _: done())
