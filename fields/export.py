"""Triangle meshes of fitted fields, in the user's own coordinates, as PLY, OBJ and GLB."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fields.field import RadianceField
from fields.files import check_folder, write_whole
from fields.surface import Bound, Grid, Level, SurfaceConfig, distance_bound, extract, normals, without_specks
from scenes.box import Box
from scenes.errors import InputError

if TYPE_CHECKING:
    import trimesh

SUFFIXES = (".ply", ".obj", ".glb")


@runtime_checkable
class Density(Protocol):
    """What export needs of a radiance field. `sigma` is per edge of the unit cube, `rgb` in the display's space."""

    def density(self, x: Tensor) -> Tensor:
        """[N, 3] of the unit cube -> sigma [N]."""
        ...

    def to_world(self, x: Tensor) -> Tensor:
        """[N, 3] of the unit cube -> world units."""
        ...

    def __call__(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Positions and unit viewing directions -> rgb [N, 3], sigma [N]."""
        ...


class Moment:
    """A dynamic field at one time, as a `Density`."""

    def __init__(self, field: RadianceField, time: float) -> None:
        self.field, self.time = field, time

    def density(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
        """sigma at field coordinates."""
        return self.field.density(x, x.new_full((len(x), 1), self.time))

    def to_world(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Field coordinates to the user's own."""
        return self.field.to_world(x)

    def __call__(self, x: Float[Tensor, "N 3"], d: Float[Tensor, "N 3"]) -> tuple[Tensor, Tensor]:
        """(rgb [N, 3], sigma [N]), seen along directions d."""
        return self.field(x, d, x.new_full((len(x), 1), self.time))


def seen_colours(
    field: Density,
    points: Float[np.ndarray, "V 3"],
    outward: Float[np.ndarray, "V 3"],
    grid: Grid,
    config: SurfaceConfig,
) -> Float[np.ndarray, "V 3"]:
    """Display colours of surface points (field coordinates) seen from outside along their normals.

    A short ray through each point is composited, from two cells outside to six inside: density is rarely a clean wall.
    Density counts along edges of the unit cube, which the grid fills.
    """
    step, thickness = grid.cell, 1 / max(grid.shape)
    offsets = torch.arange(2.0, -7.0, -1.0) * step
    result = np.empty((len(points), 3))
    rows = max(1, config.chunk // len(offsets))
    for start in range(0, len(points), rows):
        x = torch.from_numpy(points[start : start + rows]).float()
        d = -torch.from_numpy(outward[start : start + rows]).float()
        along = (x[:, None] - d[:, None] * offsets[:, None]).clamp(0, 1)  # [V, S, 3]
        flat_d = d[:, None].expand_as(along).reshape(-1, 3)
        with torch.no_grad():
            rgb, sigma = field(along.reshape(-1, 3).to(config.device), flat_d.to(config.device))
        depth = sigma.cpu().float().reshape(along.shape[:2]).clamp(min=0) * thickness
        weights = torch.exp(depth - depth.cumsum(1)) * -torch.expm1(-depth) + 1e-6
        seen = (weights[..., None] * rgb.cpu().float().reshape(along.shape)).sum(1) / weights.sum(1, keepdim=True)
        result[start : start + rows] = seen.clamp(0, 1).numpy()
    return result


def surface_mesh(
    field: Callable[..., Any],
    describe: Mapping[str, Any],
    resolution: int = 256,
    config: SurfaceConfig | None = None,
    bound: Bound | None = None,
    within: Box | None = None,
) -> trimesh.Trimesh | None:
    """The surface of a fitted mesh or capture in world units, or None without one; that of a capture has colours.

    `describe` is what the scene said of itself. The field of a mesh maps [N, 3] of the unit cube to signed distances
    [N, 1] in edges of the cube; that of a capture is a `Density`, for which `bound` may say where it is empty (1): by
    default its occupancy does.
    `resolution` counts cells along the longest edge of the box, or of the part `within` it that is wanted.
    """
    import trimesh

    config, box = config or SurfaceConfig(), Box.from_json(describe["box"])
    part = box if within is None else within
    if describe["kind"] == "mesh":
        lo, hi = box.to_unit(torch.tensor([part.lo, part.hi], dtype=torch.float64)).tolist()
        grid = Grid.over(lo, hi, resolution)
        distance = _on(field, config.device)
        bound = bound or distance_bound(distance, config.safety, 2 * grid.cell)
        config = replace(config, closed=config.closed is not False)
        vertices, faces = extract(distance, grid, 2 * grid.cell, config, bound)
        vertices, faces = without_specks(vertices, faces, config.keep_above or 0.0)
        if len(faces) == 0:
            return None
        world = box.from_unit(torch.from_numpy(vertices)).numpy()
        return trimesh.Trimesh(world, faces, vertex_normals=normals(world, faces), process=False)
    if not isinstance(field, Density):
        raise TypeError(f"a surface needs a field of distances or densities, got {type(field).__name__}")
    if bound is None and isinstance(field, RadianceField | Moment):
        of = field.field if isinstance(field, Moment) else field
        bound = occupancy_bound(of.occupancy.occupied)
    grid = Grid.over(*_inner_region(field, part, config.device), resolution)
    density = _on(field.density, config.device)

    def thinness(x: Tensor) -> Tensor:
        return (config.level / (density(x) + 1e-12)).log().clamp(-2, 2)

    vertices, faces = extract(thinness, grid, 2.0, config, bound)
    vertices, faces = without_specks(vertices, faces, 0.01 if config.keep_above is None else config.keep_above)
    if len(faces) == 0:
        return None
    colours = np.rint(255 * seen_colours(field, vertices, normals(vertices, faces), grid, config)).astype(np.uint8)
    world = field.to_world(torch.from_numpy(vertices).float().to(config.device)).detach().cpu().double().numpy()
    outward = normals(world, faces)
    return trimesh.Trimesh(world, faces, vertex_normals=outward, vertex_colors=colours, process=False)


def occupancy_bound(occupied: Bool[Tensor, "R R R"]) -> Bound:
    """Cells that meet no occupied cell [z, y, x] of the unit cube are empty."""
    resolution = len(occupied)
    dilated: dict[int, Tensor] = {}

    def bound(centres: Tensor, half: float) -> Tensor:
        reach = math.ceil(half * resolution) + 1
        if reach not in dilated:
            near = occupied.float()[None, None]
            for axis in range(3):  # one after the other: a block of cells for the price of three lines
                size, padding = [1, 1, 1], [0, 0, 0]
                size[axis], padding[axis] = 2 * reach + 1, reach
                near = torch.nn.functional.max_pool3d(near, size, stride=1, padding=padding)
            dilated[reach] = near[0, 0].cpu() > 0
        x, y, z = (centres * resolution).long().clamp(0, resolution - 1).unbind(-1)
        return (~dilated[reach][z, y, x]).float()

    return bound


def _on(values: Callable[[Tensor], Tensor], device: str) -> Level:
    return lambda x: values(x.to(device)).reshape(-1).cpu()


def _inner_region(field: Density, box: Box, device: str) -> tuple[list[float], list[float]]:
    """What part of the unit cube the box is: all that counts of it, or less if the field contracts what lies outside.

    Read off on the cube's three middle lines, on each of which a world coordinate grows with its own.
    """
    t = torch.linspace(0, 1, 8193)
    lo, hi = [], []
    for axis in range(3):
        line = torch.full((len(t), 3), 0.5)
        line[:, axis] = t
        world = field.to_world(line.to(device)).detach().cpu()[:, axis]
        inside = t[(world >= box.lo[axis] - 1e-6 * box.side) & (world <= box.hi[axis] + 1e-6 * box.side)]
        lo.append(float(inside[0]))
        hi.append(float(inside[-1]))
    return lo, hi


def export_mesh(
    field: Callable[..., Any],
    describe: Mapping[str, Any],
    path: str | Path,
    resolution: int = 256,
    config: SurfaceConfig | None = None,
    bound: Bound | None = None,
    within: Box | None = None,
) -> trimesh.Trimesh:
    """`surface_mesh`, written to `path` and returned. Raises InputError, before any work where that is possible."""
    path = Path(path)
    check_target(path)
    if resolution < 2:
        raise InputError(f"{path}: a mesh needs a resolution of at least 2, got {resolution}")
    mesh = surface_mesh(field, describe, resolution, config, bound, within)
    if mesh is None:
        raise InputError(f"{path}: not written, the field has no surface in the box; lower the level, or fit longer")
    write_mesh(mesh, path)
    return mesh


def check_target(path: Path) -> None:
    """Raise InputError unless `path` ends in a format that can be written, in a folder that exists."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a mesh is written as {', '.join(SUFFIXES)}; give a path with one of these endings")
    check_folder(path)


def write_mesh(mesh: trimesh.Trimesh, path: Path) -> None:
    """Write binary PLY, OBJ or GLB by the ending, under a temporary name until complete. Raises InputError.

    Colours are the display's in PLY and OBJ, linear in GLB as its standard asks.
    """
    from trimesh.exchange.obj import export_obj
    from trimesh.exchange.ply import export_ply

    check_target(path)
    match path.suffix.lower():
        case ".ply":
            data = export_ply(mesh, vertex_normal=True)
        case ".obj":
            digits = min(max(7 - math.floor(math.log10(float(mesh.extents.max()))), 3), 15)
            data = str(export_obj(mesh, include_normals=True, digits=digits, header="fieldfit")).encode()
        case _:
            data = glb_bytes(mesh)
    try:
        write_whole(path, lambda temporary: temporary.write_bytes(data))
    except OSError as error:
        raise InputError(f"{path}: the mesh cannot be written ({error.strerror}); choose another path") from error


def vertex_colours(mesh: trimesh.Trimesh) -> UInt8[np.ndarray, "V 3"] | None:
    """Display colours of a mesh's vertices, or None where it has none."""
    from trimesh.visual import ColorVisuals

    visual = mesh.visual
    if not isinstance(visual, ColorVisuals) or visual.kind != "vertex":
        return None
    return np.asarray(visual.vertex_colors)[:, :3]


def glb_bytes(mesh: trimesh.Trimesh) -> bytes:
    """A mesh as GLB: vertex colours as they are, without light on top, or a matte surface."""
    from trimesh.exchange.gltf import export_glb

    if vertex_colours(mesh) is not None:
        return export_glb(mesh, True, tree_postprocessor=_unlit, buffer_postprocessor=_linear_colours)
    return export_glb(mesh, True, tree_postprocessor=_matte)


def _linear_colours(buffers: dict[Any, bytes], tree: dict[str, Any]) -> None:
    """Vertex colours of glTF are linear light; 16 bits keep the dark ones apart."""
    accessor = list(tree["accessors"].values())[tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    key = list(buffers)[accessor["bufferView"]]
    display = np.frombuffer(buffers[key], np.uint8)[: 4 * accessor["count"]].reshape(-1, 4) / 255
    linear = np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    linear[:, 3] = display[:, 3]
    values = np.rint(65535 * linear).astype("<u2")
    buffers[key] = values.tobytes()
    accessor |= {"componentType": 5123, "min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}


def _unlit(tree: dict[str, Any]) -> None:
    """The colours are what was seen: no light comes on top."""
    material = {"doubleSided": True, "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 0.9}}
    tree["materials"] = [material | {"extensions": {"KHR_materials_unlit": {}}}]
    tree["meshes"][0]["primitives"][0]["material"] = 0
    tree["extensionsUsed"] = ["KHR_materials_unlit"]


def _matte(tree: dict[str, Any]) -> None:
    """Without a material, glTF means polished metal."""
    tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 0.7}}]
    tree["meshes"][0]["primitives"][0]["material"] = 0
