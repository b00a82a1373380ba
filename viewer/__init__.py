"""Looking at fields: in the browser, and as camera paths, films and pictures. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viewer.live.window import Window, view
    from viewer.orbits import orbit
    from viewer.paths import CameraPath, interpolate, read_camera_path, write_camera_path
    from viewer.pictures import comparison, depth_colours, frusta, normal_colours, save_png
    from viewer.sheets import compared_frames, contact_sheet
    from viewer.stages import stage_picture
    from viewer.video import read_video, write_frames, write_video

__all__ = [
    "CameraPath",
    "Window",
    "compared_frames",
    "comparison",
    "contact_sheet",
    "depth_colours",
    "frusta",
    "interpolate",
    "normal_colours",
    "orbit",
    "read_camera_path",
    "read_video",
    "save_png",
    "stage_picture",
    "view",
    "write_camera_path",
    "write_frames",
    "write_video",
]


def __getattr__(name: str) -> object:
    match name:
        case "Window" | "view":
            module = "viewer.live.window"
        case "orbit":
            module = "viewer.orbits"
        case "CameraPath" | "interpolate" | "read_camera_path" | "write_camera_path":
            module = "viewer.paths"
        case "comparison" | "depth_colours" | "frusta" | "normal_colours" | "save_png":
            module = "viewer.pictures"
        case "compared_frames" | "contact_sheet":
            module = "viewer.sheets"
        case "stage_picture":
            module = "viewer.stages"
        case "read_video" | "write_frames" | "write_video":
            module = "viewer.video"
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(importlib.import_module(module))[name]
