"""The browser's space and the world: one similarity takes a subject's box to [-1, 1] along its longest edge.

Poses are OpenCV's on both sides (x right, y down, z forward); the browser's cameras have a vertical field of view and
no distortion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from scenes.box import Box
from scenes.cameras import Cameras
from viewer.paths import pinholes

if TYPE_CHECKING:
    from viser import CameraHandle

MAX_PIXELS = 1 << 23
"""Of a browser's window; larger ones get smaller pictures."""
WIDEST = math.radians(170)


@dataclass(frozen=True)
class Pose:
    """A camera of the browser."""

    wxyz: tuple[float, float, float, float]
    """Rotation to the browser's space, as a quaternion."""
    position: tuple[float, float, float]
    fov: float
    """Vertical, radians."""


@dataclass(frozen=True)
class Space:
    """Between the world and the browser."""

    box: Box
    up: tuple[float, float, float]

    @property
    def scale(self) -> float:
        """Browser's lengths to a world unit."""
        return 2 / self.box.side

    def to_browser(self, world: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
        """World points in the browser's space."""
        return (np.asarray(world, np.float64) - self.box.centre) * self.scale

    def from_browser(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
        """The inverse."""
        return np.asarray(points, np.float64) / self.scale + self.box.centre

    def camera(self, handle: CameraHandle) -> Cameras | None:
        """What a browser's camera is in the world, one camera; None while it has no usable size or pose."""
        width, height = int(handle.image_width), int(handle.image_height)
        values = [*handle.wxyz, *handle.position, handle.fov]
        if min(width, height) < 8 or not np.isfinite(values).all() or not 0 < handle.fov < WIDEST:
            return None
        shrink = min(1.0, math.sqrt(MAX_PIXELS / (width * height)))
        width, height = max(int(width * shrink), 8), max(int(height * shrink), 8)
        T = np.concatenate([rotation(handle.wxyz), self.from_browser(handle.position)[:, None]], 1)
        focal = torch.full((2,), 0.5 * height / math.tan(0.5 * handle.fov))
        return pinholes(torch.from_numpy(T)[None], focal, torch.tensor([width, height]))

    def pose(self, camera: Cameras) -> Pose:
        """What the first of some world's cameras is in the browser; its distortion is lost."""
        T = camera.T_world_camera[0].double().numpy()
        fov = 2 * math.atan(0.5 * float(camera.size[0, 1]) / float(camera.focal[0, 1]))
        x, y, z = self.to_browser(T[:, 3]).tolist()
        return Pose(quaternion(T[:, :3]), (x, y, z), fov)


def rotation(wxyz: Float[np.ndarray, "4"]) -> Float[np.ndarray, "3 3"]:
    """The matrix of a quaternion."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(np.asarray(wxyz, np.float64)[[1, 2, 3, 0]]).as_matrix()


def quaternion(matrix: Float[np.ndarray, "3 3"]) -> tuple[float, float, float, float]:
    """The quaternion (w, x, y, z) of a matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(matrix).as_quat().tolist()
    return w, x, y, z
