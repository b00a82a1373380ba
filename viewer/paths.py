"""Camera paths: what lies between keyframes, and nerfstudio's `camera_path.json`. The world is the user's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.files import write_json
from scenes.cameras import Cameras
from scenes.errors import InputError
from scenes.json_fields import read_number, read_object, read_pose, read_positive, read_vector, shown

MAX_KEYFRAMES = 12
MAX_FRAMES = 100_000


@dataclass(frozen=True)
class CameraPath:
    """Frames of a film; all have one size."""

    cameras: Cameras
    fps: float = 30.0
    loop: bool = False
    """Whether the last frame leads back to the first."""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.cameras) / self.fps

    def resized(self, width: int) -> CameraPath:
        """The same views, `width` pixels wide."""
        return replace(self, cameras=self.cameras.scaled(width / int(self.cameras.size[0, 0])))


def pinholes(T_world_camera: Float[Tensor, "T 3 4"], focal: Float[Tensor, "2"], size: Int[Tensor, "2"]) -> Cameras:
    """Cameras that share a focal length and a size, the axis in the middle."""
    n = len(T_world_camera)
    return Cameras(
        T_world_camera.float(),
        focal.expand(n, 2),
        (size / 2).float().expand(n, 2),
        size.expand(n, 2),
        torch.zeros(n, 6),
    )


def interpolate(keyframes: Cameras, n_frames: int, *, loop: bool = False) -> Cameras:
    """A smooth way through the keyframes at an even pace: cubic splines of position and rotation.

    A loop comes back to the first one, which does not appear twice. All frames have the size of the first keyframe.
    """
    from scipy.interpolate import CubicSpline
    from scipy.spatial.transform import Rotation, RotationSpline

    if len(keyframes) == 1:
        return keyframes[[0] * n_frames]
    order = np.arange(-3, len(keyframes) + 4) % len(keyframes) if loop else np.arange(len(keyframes))
    T = keyframes.T_world_camera.double().numpy()[order]
    rotation = Rotation.from_matrix(T[:, :, :3])
    step = np.linalg.norm(np.diff(T[:, :, 3], axis=0), axis=1)
    turn = (rotation[:-1].inv() * rotation[1:]).magnitude()
    pace = step / max(float(step.mean()), 1e-12) + turn
    at = np.concatenate([[0.0], np.cumsum(pace + 1e-3 * max(float(pace.mean()), 1e-6))])
    if loop:
        t = at[3] + (at[3 + len(keyframes)] - at[3]) * np.arange(n_frames) / n_frames
    else:
        t = np.linspace(0, at[-1], n_frames)
    poses = np.empty((n_frames, 3, 4))
    poses[:, :, :3] = RotationSpline(at, rotation)(t).as_matrix()
    poses[:, :, 3] = CubicSpline(at, T[:, :, 3], bc_type="natural")(t)

    def between(values: Tensor) -> Tensor:
        columns = values.double().numpy()[order].reshape(len(order), -1).T
        return torch.from_numpy(np.stack([np.interp(t, at, c) for c in columns], axis=-1)).float()

    relative = keyframes.focal / keyframes.size
    time = None if keyframes.time is None else between(keyframes.time)[:, 0]
    size = keyframes.size[0]
    path = pinholes(torch.from_numpy(poses), torch.ones(2), size)
    return replace(path, focal=between(relative.log()).exp() * size, fisheye=keyframes.fisheye, time=time)


def read_camera_path(path: str | Path) -> CameraPath:
    """A `camera_path.json` as nerfstudio writes it, its poses in the user's world. Raises InputError.

    If it has no frames but keyframes, the frames between them are interpolated.
    """
    path = Path(path)
    data = read_object(path)
    kind = data.get("camera_type", "perspective")
    if not isinstance(kind, str) or kind.lower() not in ("perspective", "fisheye"):
        raise InputError(f"{path}: camera_type: expected perspective or fisheye, got {shown(kind)}")
    width, height = (_pixels(data.get(f"render_{name}"), f"{path}: render_{name}") for name in ("width", "height"))
    name, key = ("camera_path", "camera_to_world") if data.get("camera_path") else ("keyframes", "matrix")
    frames = data.get(name)
    if not isinstance(frames, list) or not 0 < len(frames) <= MAX_FRAMES:
        raise InputError(f"{path}: camera_path: expected a list of 1 to {MAX_FRAMES} frames, got {shown(frames)}")
    poses, focals, times = [], [], []
    for i, frame in enumerate(frames):
        where = f"{path}: {name}[{i}]"
        if not isinstance(frame, dict):
            raise InputError(f"{where}: expected an object, got {shown(frame)}")
        poses.append(read_pose(_rows(frame.get(key), f"{where}.{key}"), f"{where}.{key}"))
        fov = read_positive(frame.get("fov"), f"{where}.fov")
        if fov >= 180:
            raise InputError(f"{where}.fov: expected vertical degrees below 180, got {fov:g}")
        focals.append(0.5 * height / math.tan(math.radians(fov) / 2))
        time = frame.get("render_time", frame.get("time"))
        times.append(None if time is None else read_number(time, f"{where}.render_time"))
    cameras = pinholes(torch.from_numpy(np.stack(poses)), torch.ones(2), torch.tensor([width, height]))
    focal = torch.tensor(focals, dtype=torch.float32)[:, None].expand(-1, 2)
    time = None if None in times else torch.tensor(times, dtype=torch.float32).clamp(0, 1)
    cameras = replace(cameras, focal=focal, fisheye=kind.lower() == "fisheye", time=time)
    loop = data.get("is_cycle") is True
    seconds = read_positive(data["seconds"], f"{path}: seconds") if "seconds" in data else len(frames) / 24
    fps = read_positive(data["fps"], f"{path}: fps") if "fps" in data else max(len(frames) / seconds, 1.0)
    if name == "keyframes":
        n_frames = min(max(round(seconds * fps), len(frames)), MAX_FRAMES)
        cameras = interpolate(cameras, n_frames, loop=loop)
    return CameraPath(cameras, fps, loop)


def write_camera_path(path: str | Path, camera_path: CameraPath) -> None:
    """The inverse of `read_camera_path`, with some of the frames as keyframes. Raises InputError."""
    path, cameras = Path(path), camera_path.cameras
    n = len(cameras)
    T = torch.eye(4, dtype=torch.float64).repeat(n, 1, 1)
    T[:, :3] = cameras.T_world_camera.double()
    T[:, :, 1:3] *= -1  # OpenGL's camera axes: y up, z backward
    matrices = T.reshape(n, 16).tolist()
    width, height = cameras.size[0].tolist()
    fov = (2 * torch.atan(0.5 * height / cameras.focal[:, 1].double())).rad2deg().tolist()
    times = [{}] * n if cameras.time is None else [{"render_time": t} for t in cameras.time.tolist()]
    lens = [{"fov": f, "aspect": width / height} | t for f, t in zip(fov, times, strict=True)]
    content = {
        "camera_type": "fisheye" if cameras.fisheye else "perspective",
        "render_height": height,
        "render_width": width,
        "fps": camera_path.fps,
        "seconds": camera_path.seconds,
        "is_cycle": camera_path.loop,
        "smoothness_value": 0.0,
        "default_fov": fov[0],
        "keyframes": [{"matrix": matrices[i]} | lens[i] for i in range(0, n, -(-n // MAX_KEYFRAMES))],
        "camera_path": [{"camera_to_world": m} | x for m, x in zip(matrices, lens, strict=True)],
    }
    try:
        write_json(path, content)
    except OSError as error:
        raise InputError(f"{path}: the camera path cannot be written ({error.strerror})") from error


def _rows(value: object, where: str) -> object:
    """Four rows of the 16 numbers that nerfstudio writes, or the rows themselves."""
    if isinstance(value, list) and not any(isinstance(v, list) for v in value):
        numbers = read_vector(value, where, 16)
        return [numbers[i : i + 4] for i in range(0, 16, 4)]
    return value


def _pixels(value: object, where: str) -> int:
    number = read_positive(value, where)
    if number != round(number) or number > 32768:
        raise InputError(f"{where}: expected a whole number of pixels up to 32768, got {number:g}")
    return int(number)
