"""What is fitted: images, meshes, videos and posed photographs, from files to samples.

Names are loaded when first used, so that `import scenes` costs nothing.
"""

from __future__ import annotations

import importlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from scenes.errors import InputError, InputWarning
from scenes.scene import Evaluation, LoadOptions, Scene

if TYPE_CHECKING:
    from scenes.box import Box
    from scenes.cameras import Cameras
    from scenes.capture import Capture
    from scenes.image import Image
    from scenes.mesh import Mesh
    from scenes.rays import Rays
    from scenes.video import Video

__all__ = [
    "Box",
    "Cameras",
    "Capture",
    "Evaluation",
    "Image",
    "InputError",
    "InputWarning",
    "LoadOptions",
    "Mesh",
    "Rays",
    "Scene",
    "Video",
    "load",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".exr", ".hdr")
MESH_SUFFIXES = (".ply", ".obj", ".off", ".stl", ".glb", ".gltf")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".y4m", ".gif")


def __getattr__(name: str) -> object:
    match name:
        case "Box" | "Cameras" | "Capture" | "Image" | "Mesh" | "Rays" | "Video":
            return vars(importlib.import_module(f"scenes.{name.lower()}"))[name]
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(path: str | Path, *, options: LoadOptions | None = None) -> Scene:
    """Load the scene that `path` holds: an image, mesh or video file, or a folder or JSON of posed photographs.

    Raises InputError when there is nothing at `path`, or nothing that can be fitted.
    """
    path, options = Path(path), options or LoadOptions()
    suffix = path.suffix.lower()
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
        raise InputError(
            f"{path}: {reason}; give an image, a mesh, a video, or a folder or JSON of posed photographs"
        ) from error
    if is_folder or suffix == ".json":
        from scenes.capture_files import load_capture

        return load_capture(path, options)
    if suffix in IMAGE_SUFFIXES:
        from scenes.image import load_image

        return load_image(path, options)
    if suffix in MESH_SUFFIXES:
        from scenes.mesh import load_mesh

        return load_mesh(path, options)
    if suffix in VIDEO_SUFFIXES:
        from scenes.video import load_video

        return load_video(path, options)
    known = " ".join((*IMAGE_SUFFIXES, *MESH_SUFFIXES, *VIDEO_SUFFIXES, ".json"))
    raise InputError(f"{path}: is of no known kind; give a folder, or a file ending in one of {known}")
