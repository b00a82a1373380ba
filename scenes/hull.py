"""Where an object is that photographs show cut out: its visual hull, carved from a coarse grid.

Points that a photograph shows as transparent are not object (space carving, Kutulakos and Seitz 2000).
"""

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
from scenes.framing import Focus, box_around, find_focus

COARSE, FINE = 32, 48  # cells along the longest edge, while the box is looked for and at last
MOST_PASSES = 6  # of the coarse grid, in which a box can grow or shrink to any size that happens
MOST_VIEWS = 100  # at most; with half of them, splinters of space are left over that stretch the box
OPAQUE = 8  # alpha, of 255, from which a pixel shows the object; below are rounding and the edges of compression
WRONG_VIEWS = 0.02  # of the silhouettes may be wrong, one in fifty
FEW_VIEWS = 0.3  # what fewer views see, compared with the point that most views see, is not the object
CRUMB = 0.03  # parts of the hull with less than this share of its cells are left over between views, not object
LEVELS = 7  # of growing a silhouette: by 0, 1, 3, 7, 15, 31 tiles, and over everything
MOVING_MARGIN = 0.1  # by which the cube around something that moves is larger than what its silhouettes ask for
MASK_TILES = 120  # masks are reduced to about this many tiles along their longer side


def box_of_object(cameras: Cameras, alpha: Callable[[int], UInt8[Tensor, "H W"]], start: Box | None = None) -> Box:
    """A tight box around an object that is cut out in every photograph: the bounds of its visual hull.

    Every test errs towards the object by a cell of the grid, so that the box is never too small. Photographs without
    anything opaque say nothing. Without a usable hull (silhouettes that contradict each other) this is the `start` box,
    by default a cube of all that the cameras see around their focus; an object may reach beyond the latter, not beyond
    a `start` that is given.
    """
    views = torch.linspace(0, len(cameras) - 1, min(len(cameras), MOST_VIEWS)).round().long()
    # an order that sees all sides early: the first few views carve most of the space
    order = views[torch.argsort(torch.arange(len(views)) * 0.6180339887 % 1)].tolist()
    silhouettes = [s for i in order if (s := _silhouette(i, alpha(i))).grown[0].any()]
    first = box = _visible_cube(cameras) if start is None else start
    may_grow = [start is None] * 6
    for _ in range(MOST_PASSES):
        hull = _carve(cameras, silhouettes, box, COARSE)
        if hull is None:
            return first
        cell = box.side / COARSE
        gaps = [a - b for a, b in zip(hull.lo + box.hi, box.lo + hull.hi, strict=True)]
        may_grow = [may and gap < 0.5 * cell for may, gap in zip(may_grow, gaps, strict=True)]  # up to this face
        out = [0.5 * box.side * may for may in may_grow]
        settled = not any(may_grow) and hull.side > 0.8 * box.side
        box = Box(
            tuple(v - grow for v, grow in zip(hull.lo, out[:3], strict=True)),
            tuple(v + grow for v, grow in zip(hull.hi, out[3:], strict=True)),
        )
        if settled:
            break
    return _carve(cameras, silhouettes, box, FINE) or first


def cube_of_moving_object(cameras: Cameras, alpha: Callable[[int], UInt8[Tensor, "H W"]]) -> Box:
    """A cube around something that moves and is cut out in every photograph: the smallest one around the point that the
    cameras look at which every ray that shows something meets.

    Silhouettes of several times have no common hull, and what moves farthest may be seen from where it moves to, which
    says nothing of how far: the cube grows by a share of itself. Photographs without anything opaque say nothing.
    """
    middle = find_focus(cameras).point
    half = 0.0
    for view in range(len(cameras)):
        mask, tile = tiled_mask(alpha(view))
        inner = -F.max_pool2d(-F.pad(mask, (1, 1, 1, 1))[None], 3, 1)[0]
        row, column = ((mask > 0) & (inner == 0)).nonzero().unbind(-1)  # rays within pass nearer by the middle
        if len(row) == 0:
            continue
        xy = torch.stack((column, row), -1) * float(tile) + 0.5 * tile
        rays = cameras.rays(torch.full_like(row, view), xy)
        depth = float((middle - cameras.position[view]).norm())
        margin = tile * depth / float(cameras.focal[view].min())
        half = max(half, float(_passing(rays.origins - middle, rays.directions).max()) + margin)
    if half == 0:
        return _visible_cube(cameras)
    half *= 1 + MOVING_MARGIN
    return Box(tuple((middle - half).tolist()), tuple((middle + half).tolist()))


def _passing(o: Float[Tensor, "N 3"], d: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """Half an edge of the smallest cube around zero that each line o + t d meets: the least over t of the largest
    coordinate's size, which lies where one coordinate is zero or two are equally large."""
    d = torch.where(d.abs() < 1e-7, 1e-7, d)
    t = [-o[:, k] / d[:, k] for k in range(3)]
    for k, j in ((0, 1), (1, 2), (2, 0)):
        for sign in (-1.0, 1.0):
            slope = d[:, k] + sign * d[:, j]
            t.append(-(o[:, k] + sign * o[:, j]) / torch.where(slope.abs() < 1e-7, 1e-7, slope))
    at = torch.stack(t)[..., None]  # [9, N, 1]
    return (o + at * d).abs().amax(-1).amin(0)


def tiled_mask(alpha: UInt8[Tensor, "H W"]) -> tuple[Float[Tensor, "h w"], int]:
    """One where any pixel of a tile is opaque; and the edge of a tile in pixels."""
    height, width = alpha.shape
    tile = -(-max(height, width) // MASK_TILES)
    padded = F.pad(alpha, (0, -width % tile, 0, -height % tile))
    tiles = padded.view(padded.shape[0] // tile, tile, padded.shape[1] // tile, tile).amax(3).amax(1)
    return (tiles >= OPAQUE).float(), tile


def _visible_cube(cameras: Cameras) -> Box:
    """All that most cameras see at the distance of their focus."""
    focus = find_focus(cameras)
    corner = (cameras.size / cameras.focal / 2).norm(dim=-1).median()  # tangent of half the diagonal field of view
    half = focus.distance * min(float(corner), 1.0)
    return box_around(Focus(focus.point, focus.distance, half))


@dataclass(frozen=True)
class _Silhouette:
    """Where one photograph shows the object, coarsely."""

    view: int
    tile: int
    """Edge of a tile in pixels."""
    grown: UInt8[Tensor, "L h w"]
    """1 where a pixel within 2^level - 1 tiles of a tile is opaque; 1 everywhere at the last level."""


def _silhouette(view: int, alpha: UInt8[Tensor, "H W"]) -> _Silhouette:
    mask, tile = tiled_mask(alpha)
    grown = [mask]
    for level in range(LEVELS - 2):
        reach = 2**level
        rows = F.max_pool2d(grown[-1][None], (2 * reach + 1, 1), 1, (reach, 0))
        grown.append(F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[0])
    return _Silhouette(view, tile, torch.stack((*grown, torch.ones_like(mask))).byte())


def _carve(cameras: Cameras, silhouettes: list[_Silhouette], box: Box, resolution: int) -> Box | None:
    """Bounds of the cells that no photograph shows as empty, of a grid with `resolution` of them along the longest
    edge of `box`."""
    cell = box.side / resolution
    counts = [max(1, round(size / cell)) for size in box.size]
    axes = [lo + (torch.arange(n) + 0.5) * (size / n) for lo, size, n in zip(box.lo, box.size, counts, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
    cells = torch.arange(len(points))
    n_seen, n_empty = torch.zeros(len(points)), torch.zeros(len(points))
    for silhouette in silhouettes:
        view, grown = silhouette.view, silhouette.grown
        xy, seen = cameras.project(view, points)
        distance = (points - cameras.position[view]).norm(dim=-1)
        # half the diagonal of a cell, in tiles
        reach = float(cameras.focal[view].max()) * 0.87 * cell / silhouette.tile / distance.clamp(min=1e-9)
        level = (reach + 1).log2().ceil().clamp(max=LEVELS - 1).long()
        column, row = (xy.clamp(-1e6, 1e6) / silhouette.tile).long().unbind(-1)
        column, row = column.clamp(0, grown.shape[2] - 1), row.clamp(0, grown.shape[1] - 1)
        n_seen, n_empty = n_seen + seen, n_empty + (seen & (grown[level, row, column] == 0))
        kept = n_empty <= WRONG_VIEWS * len(silhouettes)
        points, cells, n_seen, n_empty = points[kept], cells[kept], n_seen[kept], n_empty[kept]
    hull = torch.zeros(counts, dtype=torch.bool)
    if len(cells):
        hull.view(-1)[cells[n_seen >= max(1.0, FEW_VIEWS * float(n_seen.max()))]] = True
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
