"""Cameras: pixels to rays and points to pixels.

Camera axes are OpenCV's: x right, y down, z forward; `T_world_camera` takes them to the world. Pixel coordinates are
continuous, the centre of the first pixel is (0.5, 0.5). A point (X, Y, Z) in camera axes is seen at
`focal * distorted + centre`, where with x = X / Z, y = Y / Z, r^2 = x^2 + y^2, theta = atan2(hypot(X, Y), Z):

- radial-tangential lens, as in OpenCV, with a fourth radial term as in nerfstudio:
  `radial = 1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8`,
  `distorted = (x radial + 2 p1 x y + p2 (r^2 + 2 x^2),  y radial + p1 (r^2 + 2 y^2) + 2 p2 x y)`;
- fisheye lens (OpenCV's fisheye model, Kannala and Brandt 2006):
  `distorted = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8) (X, Y) / hypot(X, Y)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from scenes.rays import Rays

NEWTON_STEPS = 10  # of the inverse lens at most; a phone's lens needs 3 or 4, a wide fisheye 6
CONVERGED = 1e-5  # Newton's method squares the error: what is left after a step this small is below rounding
CHUNK = 1 << 15  # points that go through the inverse lens at once, so that its temporaries stay in the cache


@dataclass(frozen=True, eq=False)
class Cameras:
    """V posed cameras, of one lens model, which may differ in size and intrinsics."""

    T_world_camera: Float[Tensor, "V 3 4"]
    """Rotation (orthonormal) and position."""
    focal: Float[Tensor, "V 2"]
    """Focal lengths fx, fy in pixels."""
    centre: Float[Tensor, "V 2"]
    """Principal point cx, cy in pixels."""
    size: Int[Tensor, "V 2"]
    """Width and height in pixels."""
    distortion: Float[Tensor, "V 6"]
    """k1 k2 k3 k4 p1 p2."""
    fisheye: bool = False
    time: Float[Tensor, "V"] | None = None
    """In [0, 1], for captures of something that moves."""

    def __len__(self) -> int:
        return len(self.T_world_camera)

    def __getitem__(self, index: int | slice | list[int] | Int[Tensor, " n"]) -> Cameras:
        """Some of the cameras; a single index gives one camera, still with its leading axis."""
        if isinstance(index, int):
            index = [index]
        tensors = {f.name: value[index] for f in fields(self) if isinstance(value := self.__dict__[f.name], Tensor)}
        return replace(self, **tensors)

    @property
    def position(self) -> Float[Tensor, "V 3"]:
        """In world units."""
        return self.T_world_camera[:, :, 3]

    @property
    def forward(self) -> Float[Tensor, "V 3"]:
        """The optical axis, unit length."""
        return self.T_world_camera[:, :, 2]

    @property
    def up(self) -> Float[Tensor, "V 3"]:
        """Upward in the picture, unit length."""
        return -self.T_world_camera[:, :, 1]

    @cached_property
    def distorted(self) -> bool:
        """Whether any lens bends rays away from the pinhole."""
        return self.fisheye or bool(self.distortion.any())

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on a device."""
        moved = {f.name: v.to(device) for f in fields(self) if isinstance(v := self.__dict__[f.name], Tensor)}
        return replace(self, **moved)

    def scaled(self, factor: float) -> Cameras:
        """The cameras of pictures `factor` times as large; a rest of less than one pixel is cut off."""
        size = (self.size.double() * factor + 1e-6).floor().clamp(min=1).to(self.size.dtype)
        return replace(self, focal=self.focal * factor, centre=self.centre * factor, size=size)

    @cached_property
    def _rows(self) -> Float[Tensor, "V 16"]:
        """Pose, focal length and centre of each camera, side by side, so that they are gathered at once."""
        return torch.cat((self.T_world_camera.flatten(1), self.focal, self.centre), 1)

    def rays(self, view: Int[Tensor, " N"], xy: Float[Tensor, "N 2"]) -> Rays:
        """The rays through pixel coordinates `xy` of the cameras `view`, over black."""
        rows = self._rows.index_select(0, view)
        T, focal, centre = rows[:, :12].unflatten(1, (3, 4)), rows[:, 12:14], rows[:, 14:]
        plane = (xy - centre) / focal
        d_camera = self._unproject(plane, self.distortion[view]) if self.distorted else _pinhole(plane)
        origins = T[:, :, 3].contiguous()
        directions = torch.bmm(T[:, :, :3], d_camera[:, :, None])[:, :, 0]
        time = None if self.time is None else self.time.index_select(0, view)
        return Rays(origins, directions, torch.zeros_like(origins), time)

    def image_rays(self, view: int) -> Rays:
        """The rays of all pixels of one camera, row by row."""
        width, height = (int(v) for v in self.size[view])
        device = self.size.device
        x = torch.arange(width, device=device).add(0.5).repeat(height)
        y = torch.arange(height, device=device).add(0.5).repeat_interleave(width)
        T = self.T_world_camera[view]
        plane = (torch.stack((x, y), -1) - self.centre[view]) / self.focal[view]
        d_camera = self._unproject(plane, self.distortion[view, None]) if self.distorted else _pinhole(plane)
        origins = T[:, 3].expand(len(plane), 3)
        time = None if self.time is None else self.time[view].expand(len(plane))
        return Rays(origins, d_camera @ T[:, :3].T, torch.zeros_like(d_camera), time)

    def project(self, view: int, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N 2"], Bool[Tensor, " N"]]:
        """Where one camera sees world points, in pixels, and whether it does: in front of it and inside the picture."""
        T = self.T_world_camera[view]
        local = (points - T[:, 3]) @ T[:, :3]
        xy = self._bend(local, view) * self.focal[view] + self.centre[view]
        seen = ((xy >= 0) & (xy <= self.size[view])).all(-1)
        if not self.fisheye:
            seen = seen & (local[:, 2] > 0)
            if self.distorted:
                seen = seen & (local[:, :2].norm(dim=-1) <= self._largest_radius(view) * local[:, 2])
        return xy, seen

    def inverse_error(self, view: int) -> float:
        """Largest distance in pixels between a point on the edge of a picture and where its ray is seen."""
        plane, d_camera = self._edge(view)
        error = ((self._bend(d_camera, view) - plane) * self.focal[view]).norm(dim=-1)
        return float(error.nan_to_num(torch.inf).max())

    def to_json(self) -> dict[str, Any]:
        """Plain lists, from which `from_json` rebuilds the same cameras."""
        values = {f.name: self.__dict__[f.name] for f in fields(self)}
        return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cameras:
        """Raises ValueError, KeyError or TypeError when `data` does not hold cameras."""
        n = len(data["T_world_camera"])
        shapes = {"T_world_camera": (n, 3, 4), "focal": (n, 2), "centre": (n, 2), "distortion": (n, 6), "time": (n,)}
        tensors = {
            name: torch.tensor(data[name], dtype=torch.float32).reshape(shape)
            for name, shape in shapes.items()
            if data.get(name) is not None
        }
        size = torch.tensor(data["size"], dtype=torch.int64).reshape(n, 2)
        return cls(size=size, fisheye=bool(data["fisheye"]), **tensors)

    def _unproject(self, plane: Float[Tensor, "N 2"], distortion: Float[Tensor, "M 6"]) -> Float[Tensor, "N 3"]:
        """Unit directions in camera axes of distorted points; `distortion` is one per point, or a single row."""
        inverse = _from_fisheye if self.fisheye else _from_radial_tangential
        if len(plane) <= CHUNK:
            return inverse(plane, distortion)
        rows = distortion.expand(len(plane), 6)
        return torch.cat([inverse(p, d) for p, d in zip(plane.split(CHUNK), rows.split(CHUNK), strict=True)])

    def _bend(self, local: Float[Tensor, "N 3"], view: int) -> Float[Tensor, "N 2"]:
        """From camera axes to `distorted` points; for a perspective lens anything finite where Z <= 0."""
        distortion = self.distortion[view, None]
        if self.fisheye:
            radius = local[:, :2].norm(dim=-1)
            theta = torch.atan2(radius, local[:, 2])
            return local[:, :2] * (_fisheye_angle(theta, distortion) / radius.clamp(min=1e-12))[:, None]
        plane = local[:, :2] / torch.where(local[:, 2] > 0, local[:, 2], 1.0)[:, None]
        return torch.stack(_distort(plane[:, 0], plane[:, 1], distortion), -1) if self.distorted else plane

    def _edge(self, view: int) -> tuple[Float[Tensor, "E 2"], Float[Tensor, "E 3"]]:
        """Points along the edge of a picture as `distorted` points, and their directions in camera axes."""
        t = torch.linspace(0, 1, 33).to(self.focal)
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        corners = torch.stack((torch.cat((t, t, zero, one)), torch.cat((zero, one, t, t))), -1)
        plane = (corners * self.size[view] - self.centre[view]) / self.focal[view]
        return plane, self._unproject(plane, self.distortion[view, None])

    def _largest_radius(self, view: int) -> float:
        """How far from the axis (tangent of the angle) the picture reaches; beyond, a lens polynomial folds back."""
        plane, d_camera = self._edge(view)
        invertible = (self._bend(d_camera, view) - plane).norm(dim=-1) < 1e-3
        reach = d_camera[:, :2].norm(dim=-1) / d_camera[:, 2]
        return 1.02 * float(torch.where(invertible, reach, 0.0).max())


def _pinhole(plane: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    x, y = plane.unbind(-1)
    z = torch.rsqrt(x * x + y * y + 1)
    return torch.stack((x * z, y * z, z), -1)


def _distort(
    x: Float[Tensor, " N"], y: Float[Tensor, " N"], distortion: Float[Tensor, "M 6"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    k1, k2, k3, k4, p1, p2 = distortion.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


def _from_radial_tangential(plane: Float[Tensor, "N 2"], distortion: Float[Tensor, "M 6"]) -> Float[Tensor, "N 3"]:
    """Newton's method for the inverse of `_distort`, then the unit direction."""
    k1, k2, k3, k4, p1, p2 = distortion.unbind(-1)
    x_d, y_d = plane.unbind(-1)
    x, y = x_d, y_d
    for _ in range(NEWTON_STEPS):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        d_radial = k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * 4 * k4))
        error_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - x_d
        error_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y - y_d
        xx = radial + 2 * x * x * d_radial + 2 * p1 * y + 6 * p2 * x
        xy = 2 * x * y * d_radial + 2 * p1 * x + 2 * p2 * y
        yy = radial + 2 * y * y * d_radial + 6 * p1 * y + 2 * p2 * x
        determinant = (xx * yy - xy * xy).clamp(min=1e-2)  # where the polynomial folds there is no inverse: stay finite
        d_x = (yy * error_x - xy * error_y) / determinant
        d_y = (xx * error_y - xy * error_x) / determinant
        x, y = x - d_x, y - d_y
        if bool((d_x.abs() + d_y.abs() <= CONVERGED * (1 + r2)).all()):
            break
    return _pinhole(torch.stack((x, y), -1))


def _fisheye_angle(theta: Float[Tensor, " N"], distortion: Float[Tensor, "M 6"]) -> Float[Tensor, " N"]:
    k1, k2, k3, k4, _, _ = distortion.unbind(-1)
    t2 = theta * theta
    return theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))


def _from_fisheye(plane: Float[Tensor, "N 2"], distortion: Float[Tensor, "M 6"]) -> Float[Tensor, "N 3"]:
    """Newton's method for the angle from the axis, then the unit direction."""
    k1, k2, k3, k4, _, _ = distortion.unbind(-1)
    bent = plane.norm(dim=-1)
    theta = bent.clamp(max=math.pi)
    for _ in range(NEWTON_STEPS):
        t2 = theta * theta
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        d_theta = (_fisheye_angle(theta, distortion) - bent) / slope.clamp(min=1e-2)
        theta = (theta - d_theta).clamp(0, math.pi)
        if bool((d_theta.abs() <= CONVERGED).all()):
            break
    # sin(theta) / bent tends to 1 on the axis
    scale = torch.where(bent > 1e-6, torch.sin(theta) / bent.clamp(min=1e-6), 1.0)
    return torch.cat((plane * scale[:, None], torch.cos(theta)[:, None]), -1)
