"""A mesh of few triangles with many colours: a texture in which every triangle has a place of its own.

Two triangles share a square cell of the picture, on both sides of its diagonal, a pixel away from its edges and from
each other. The colour of a pixel is asked for at the point of the triangle that it is of.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

SIZE = 768
"""Pixels along an edge of the texture."""
SMALLEST = 6
"""Pixels along the edge of a cell, at least."""
QUALITY = 90
"""Of JPEG."""

Colours = Callable[[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]], Float[np.ndarray, "N 3"]]
"""Points of a surface and unit normals there to display colours in [0, 1]."""


def picture_glb(picture: UInt8[np.ndarray, "H W 3"], corners: Float[np.ndarray, "4 3"]) -> bytes:
    """A GLB file of a picture on a plane; its corners begin at the upper left and go on clockwise."""
    uv = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    return _glb(corners, np.array([[0, 2, 1], [0, 3, 2]]), uv, picture)


def textured_glb(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], colours: Colours) -> bytes:
    """A GLB file that shows the colours as they are, without light."""
    corners = vertices[faces]
    uv, index, weights = layout(len(faces))
    points = (corners[index] * weights[..., None]).sum(1)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30)
    edge = round(len(index) ** 0.5)
    rgb = np.rint(255 * colours(points, normal[index]).clip(0, 1)).astype(np.uint8).reshape(edge, edge, 3)
    apart = np.arange(3 * len(faces)).reshape(-1, 3)
    return _glb(corners.reshape(-1, 3), apart, uv.reshape(-1, 2), rgb)


def _glb(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    uv: Float[np.ndarray, "V 2"],
    picture: UInt8[np.ndarray, "H W 3"],
) -> bytes:
    """The picture on the mesh, shown as it is from both sides."""
    from PIL import Image
    from trimesh import Trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, format="JPEG", quality=QUALITY, subsampling=0)
    memory.seek(0)
    material = PBRMaterial(
        baseColorTexture=Image.open(memory), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    mesh = Trimesh(vertices, faces, visual=TextureVisuals(uv=uv, material=material), process=False)
    return export_glb(mesh, include_normals=False, tree_postprocessor=_unlit)


def layout(
    n: int, size: int = SIZE
) -> tuple[Float[np.ndarray, "N 3 2"], Int[np.ndarray, " P"], Float[np.ndarray, "P 3"]]:
    """Where n triangles lie in the texture, 0 to 1 from its lower left corner; and of each pixel, row by row from the
    top, the triangle that it is of, and where in that it lies, as shares of its corners."""
    squares = max(int(np.ceil(np.sqrt(-(-n // 2)))), 1)
    cell = max(size // squares, SMALLEST)
    edge = squares * cell
    y, x = np.mgrid[:edge, :edge]
    square, i, j = y // cell * squares + x // cell, x % cell, y % cell
    upper = i + j <= cell - 1
    index = np.minimum(2 * square + ~upper, n - 1)
    reach = cell - 5  # what bilinear filtering reads of one triangle is not of the other
    along = np.where(upper, i - 1, cell - 2 - i) / reach, np.where(upper, j - 1, cell - 2 - j) / reach
    weights = np.stack([1 - along[0] - along[1], *along], -1).clip(0)
    weights = weights / weights.sum(-1, keepdims=True)
    triangle = np.arange(n)
    low = np.stack([triangle // 2 % squares, triangle // 2 // squares], -1) * cell
    first, last = np.array([[1, 1], [1 + reach, 1], [1, 1 + reach]]), cell - 2
    places = np.where((triangle % 2 == 0)[:, None, None], first, last + 1 - first)
    pixels = low[:, None] + places + 0.5
    uv = pixels / edge
    uv[..., 1] = 1 - uv[..., 1]
    return uv, index.reshape(-1), weights.reshape(-1, 3)


def _unlit(tree: dict[str, Any]) -> None:
    """The colours are what was seen: no light comes on top."""
    for material in tree["materials"]:
        material["extensions"] = {"KHR_materials_unlit": {}}
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
