"""Where the world is: a box around what the photographs show, and which way is up, from the cameras alone or with the
help of transparency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from scenes.box import Box
from scenes.cameras import Cameras

PARALLEL = 3e-4  # mean squared sine between optical axes; below, where they meet says nothing about the distance
FAR = 30.0  # in median distances between cameras; axes that meet farther away than this count as parallel
PARALLEL_DEPTH = 10.0  # what cameras in one direction look at, in median distances between them: LLFF fern has 10
INNER = 0.5  # half an edge of the box around a scene in photographs, in distances of the cameras from its middle
OUTWARD = 3.0  # the same for cameras that look outward, in distances of the cameras from each other

CARVE_RESOLUTION = 64
CARVE_VIEWS = 50  # at most; more hardly change the box
OPAQUE = 8  # alpha, of 255, from which a pixel shows the object; below are rounding and the edges of compression
FEW_VIEWS = 0.3  # a point counts as object only if it is in view this often, compared with the best seen tenth
CRUMB = 0.03  # parts of the hull with less than this share of its cells are left over between views, not object
MASK_TILES = 120  # masks are reduced to about this many tiles along their longer side


@dataclass(frozen=True)
class Focus:
    """What a set of cameras looks at."""

    point: Float[Tensor, "3"]
    """World units."""
    distance: float
    """Of the cameras from it, the median, in world units; above zero."""
    radius: float
    """Half an edge of a box that should hold what matters, in world units; above zero."""


def find_focus(cameras: Cameras) -> Focus:
    """The point nearest to all optical axes, robust against cameras that look elsewhere.

    Cameras that all look in one direction give a point in front of them, as far as such captures usually are compared
    with the distances between the cameras. Cameras that look outward give a point amidst them.
    """
    position, forward = cameras.position.double(), cameras.forward.double()
    middle = position.median(0).values
    spread = float((position - middle).norm(dim=-1).median())
    spread = spread or float((position - middle).norm(dim=-1).max()) or float(middle.norm()) or 1.0
    point, divergence = _nearest_point_to_axes(position, forward, spread)
    depth = ((point - position) * forward).sum(-1)
    distance = float((point - position).norm(dim=-1).median())
    mean_forward = forward.mean(0)
    if divergence > PARALLEL and depth.median() > 0 and 0 < distance < FAR * spread:
        radius = INNER * distance
    elif mean_forward.norm() > 0.8:
        distance = PARALLEL_DEPTH * spread
        point, radius = middle + distance * mean_forward / mean_forward.norm(), INNER * distance
    else:
        point, distance, radius = middle, spread, OUTWARD * spread
    return Focus(point.float(), distance, radius)


def find_up(cameras: Cameras) -> Float[Tensor, "3"]:
    """Upward in the world, unit length: the direction that the cameras' horizontal axes avoid, if photographers held
    them level, otherwise the mean of the pictures' upward directions."""
    mean = cameras.up.double().mean(0)
    if mean.norm() < 1e-3:
        return torch.tensor([0.0, 0.0, 1.0])
    mean = mean / mean.norm()
    right = cameras.T_world_camera[:, :, 0].double()
    spread, axes = torch.linalg.eigh(right.T @ right / len(right))
    level = axes[:, 0] * torch.sign(axes[:, 0] @ mean)
    is_level = spread[0] < 0.02 and spread[1] > 0.1 and level @ mean > 0.8
    return (level if is_level else mean).float()


def box_around(focus: Focus) -> Box:
    """A cube that holds what cameras look at."""
    lo, hi = (focus.point - focus.radius).tolist(), (focus.point + focus.radius).tolist()
    return Box(tuple(lo), tuple(hi))


def box_of_object(cameras: Cameras, alpha: Callable[[int], UInt8[Tensor, "H W"]], start: Box | None = None) -> Box:
    """A tight box around an object that is cut out in every photograph: the bounds of its visual hull.

    Points that a photograph shows as transparent are not object (space carving, Kutulakos and Seitz 2000). Every test
    errs towards the object by a cell of the grid, so that the box is never too small. Without a usable hull (masks that
    contradict each other) this is the `start` box, by default a cube of all that the cameras see around their focus.
    """
    views = torch.linspace(0, len(cameras) - 1, min(len(cameras), CARVE_VIEWS)).round().long()
    # an order that sees all sides early: the first few views carve most of the space
    order = views[torch.argsort(torch.arange(len(views)) * 0.6180339887 % 1)].tolist()
    tiles = [(i, *tiled_mask(alpha(i))) for i in order]
    box = _visible_cube(cameras) if start is None else start
    hull = _carve(cameras, tiles, box)
    for _ in range(2):
        if hull is None:
            return box
        margin = 0.5 * box.side / CARVE_RESOLUTION
        near_lo = any(a < b + margin for a, b in zip(hull.lo, box.lo, strict=True))
        near_hi = any(a > b - margin for a, b in zip(hull.hi, box.hi, strict=True))
        if start is not None or not (near_lo or near_hi):
            break
        box = box.padded(0.5)  # the object goes on beyond the box
        hull = _carve(cameras, tiles, box)
    return box if hull is None else _carve(cameras, tiles, hull) or hull


def _nearest_point_to_axes(
    position: Float[Tensor, "V 3"], forward: Float[Tensor, "V 3"], spread: float
) -> tuple[Float[Tensor, "3"], float]:
    """Minimise the sum of distances to the axes (reweighted least squares), and how much the axes diverge: the mean
    squared sine of their angles with their common direction."""
    off_axis = torch.eye(3, dtype=position.dtype) - forward[:, :, None] * forward[:, None, :]  # [V, 3, 3]
    weight = torch.ones(len(position), dtype=position.dtype)
    point = position.mean(0)
    normal = off_axis.mean(0)
    for _ in range(20):
        normal = (weight[:, None, None] * off_axis).sum(0) / weight.sum()
        target = (weight[:, None] * (off_axis @ position[:, :, None])[:, :, 0]).sum(0) / weight.sum()
        point = torch.linalg.lstsq(normal + 1e-12 * torch.eye(3, dtype=normal.dtype), target[:, None]).solution[:, 0]
        miss = (off_axis @ (point - position)[:, :, None])[:, :, 0].norm(dim=-1)
        weight = 1 / miss.clamp(min=1e-3 * spread)
    return point, float(torch.linalg.eigvalsh(normal)[0])


def _visible_cube(cameras: Cameras) -> Box:
    """All that most cameras see at the distance of their focus."""
    focus = find_focus(cameras)
    corner = (cameras.size / cameras.focal / 2).norm(dim=-1).median()  # tangent of half the diagonal field of view
    half = focus.distance * min(float(corner), 1.0)
    return box_around(Focus(focus.point, focus.distance, half))


def tiled_mask(alpha: UInt8[Tensor, "H W"]) -> tuple[Float[Tensor, "h w"], int]:
    """One where any pixel of a tile is opaque; and the edge of a tile in pixels."""
    height, width = alpha.shape
    tile = -(-max(height, width) // MASK_TILES)
    padded = F.pad(alpha, (0, -width % tile, 0, -height % tile))
    tiles = padded.view(padded.shape[0] // tile, tile, padded.shape[1] // tile, tile).amax(3).amax(1)
    return (tiles >= OPAQUE).float(), tile


def _carve(cameras: Cameras, tiles: list[tuple[int, Float[Tensor, "h w"], int]], box: Box) -> Box | None:
    """Bounds of the cells of a grid over `box` that no photograph shows as empty."""
    cell = box.side / CARVE_RESOLUTION
    counts = [max(1, round(size / cell)) for size in box.size]
    axes = [lo + (torch.arange(n) + 0.5) * (size / n) for lo, size, n in zip(box.lo, box.size, counts, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    cells = torch.arange(len(points))
    n_seen = torch.zeros(len(points))
    centre = torch.tensor(box.centre)
    for view, mask, tile in tiles:
        distance = float((cameras.position[view] - centre).norm())
        nearest = max(distance - 0.5 * box.side, 0.3 * distance, 1e-9)
        reach = float(cameras.focal[view].max()) * 0.87 * cell / nearest / tile  # half the diagonal of a cell, in tiles
        grow = min(int(reach) + 1, max(mask.shape))
        mask = F.max_pool2d(mask[None], (2 * grow + 1, 1), 1, (grow, 0))
        mask = F.max_pool2d(mask, (1, 2 * grow + 1), 1, (0, grow))[0]
        xy, seen = cameras.project(view, points)
        column, row = (xy / tile).long().unbind(-1)
        column, row = column.clamp(0, mask.shape[1] - 1), row.clamp(0, mask.shape[0] - 1)
        kept = ~seen | (mask[row, column] > 0)
        points, cells, n_seen = points[kept], cells[kept], (n_seen + seen)[kept]
    hull = torch.zeros(counts, dtype=torch.bool)
    if len(cells):
        hull.view(-1)[cells[n_seen >= max(1.0, FEW_VIEWS * float(n_seen.quantile(0.9)))]] = True
    inside = _without_crumbs(hull).nonzero()
    if not len(inside):
        return None
    size = torch.tensor(box.size) / torch.tensor(counts)
    lo, hi = inside.amin(0) * size + torch.tensor(box.lo), (inside.amax(0) + 1) * size + torch.tensor(box.lo)
    return Box(tuple(lo.tolist()), tuple(hi.tolist()))


def _without_crumbs(hull: Bool[Tensor, "X Y Z"]) -> Bool[Tensor, "X Y Z"]:
    """Only the parts that hang together and are a fair share of the whole."""
    from scipy import ndimage

    labels = np.zeros(hull.shape, np.int32)
    ndimage.label(hull.numpy(), np.ones((3, 3, 3)), output=labels)
    parts = torch.from_numpy(labels)
    n_cells = torch.bincount(parts.view(-1))
    large = n_cells >= max(1.0, CRUMB * int(n_cells[1:].sum()))
    large[0] = False
    return large[parts]
