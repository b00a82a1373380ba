"""A picture on a plane, for browsers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

QUALITY = 90
"""Of JPEG."""


def picture_glb(picture: UInt8[np.ndarray, "H W 3"], corners: Float[np.ndarray, "4 3"]) -> bytes:
    """A GLB file of a picture on a plane, seen from both sides as it is; corners go clockwise from the upper left."""
    from PIL import Image
    from trimesh import Trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    uv = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, format="JPEG", quality=QUALITY, subsampling=0)
    memory.seek(0)
    material = PBRMaterial(
        baseColorTexture=Image.open(memory), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    mesh = Trimesh(corners, [[0, 2, 1], [0, 3, 2]], visual=TextureVisuals(uv=uv, material=material), process=False)
    return export_glb(mesh, include_normals=False, tree_postprocessor=_unlit)


def _unlit(tree: dict[str, Any]) -> None:
    """The colours are what was seen: no light comes on top."""
    for material in tree["materials"]:
        material["extensions"] = {"KHR_materials_unlit": {}}
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
