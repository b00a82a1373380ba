"""`fieldfit render`: pictures or a film of a run, without its data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, assert_never

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor

from fields.commands.arguments import UsageError, parse
from fields.commands.device import DeviceName, choose_device
from fields.crop import read_crop
from fields.field import Field, RadianceField
from fields.files import check_folder
from fields.progress import counted
from fields.rendering.clipping import Clip, clipped
from fields.rendering.render import Rendering, predictor, render_view, view_normals
from fields.rendering.shading import SurfaceView, render_surface
from fields.run import Run
from scenes.box import Box
from scenes.cameras import Cameras
from scenes.errors import InputError
from scenes.scene import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from viewer.paths import CameraPath

Picture: TypeAlias = UInt8[np.ndarray, "H W C"]
SPLITS = ("test", "val", "train")
ROWS = 256
"""Rows of a picture that are evaluated at once."""
ORBIT_FRAMES, ORBIT_FPS = 120, 30.0
DESCRIPTION = "Pictures or a film of a run: along a path of cameras; for images and videos what they themselves show."


@dataclass(frozen=True)
class RenderOptions:
    """Options of `fieldfit render`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that `fieldfit fit` wrote."""
    out: Path
    """Where it goes: a film .mp4, one picture .png, or a folder for PNG files."""
    path: str = "orbit"
    """Where the cameras are: orbit, the views of a split (test, val, train), or a nerfstudio camera_path.json."""
    width: int | None = None
    """Pixels; by default those of the photographs, the picture or the path."""
    frames: int | None = None
    """Frames of an orbit, by default 120; or of a video, spread evenly over its time, by default as many as it had."""
    time: float | None = None
    """Of a capture that moves, the one moment that is seen, 0 to 1. By default the views of a split have their own
    times, and along other paths time runs from 0 to 1."""
    fps: float | None = None
    """Frames per second of an orbit or of the views of a split, by default 30. A video keeps its duration unless both
    this and --frames are given."""
    show: Literal["colour", "depth", "normal"] = "colour"
    """What is seen: colours, distance from the camera, or the direction of the surface."""
    device: DeviceName = "auto"
    """Where it runs."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(RenderOptions, argv, prog="fieldfit render", description=DESCRIPTION)
    for flag, value in (("--width", options.width), ("--frames", options.frames), ("--fps", options.fps)):
        if value is not None and not value > 0:
            raise UsageError(f"{flag}: expected a number above 0, got {value}")
    if options.time is not None and not 0 <= options.time <= 1:
        raise UsageError(f"--time: expected a number from 0 to 1, got {options.time:g}")
    check_folder(options.out)
    device = choose_device(options.device)
    opened = Run.open(options.run)
    field = opened.field(device)
    kind: Kind = opened.scene["kind"]
    if options.time is not None and not opened.scene.get("dynamic"):
        raise InputError(f"--time: {options.run} is of no photographs with several times; leave it out")
    match kind:
        case "image":
            n_frames = _image(opened, field, options)
        case "video":
            n_frames = _video(opened, field, options)
        case "mesh" | "capture":
            n_frames = _film(opened, field, options, device)
        case _:
            assert_never(kind)
    print(f"{options.out}: {n_frames} picture{'s' * (n_frames != 1)}")
    return 0


def _film(opened: Run, field: Field | RadianceField, options: RenderOptions, device: torch.device) -> int:
    from viewer import save_png, write_frames
    from viewer.video import check_target

    path = _timed(_camera_path(opened.scene, options), opened.scene, options.time)
    crop = read_crop(opened.path)
    views = _views(opened.scene, field, path.cameras.to(device), options.show, crop)
    if options.out.suffix.lower() == ".png":
        if len(path.cameras) > 1 and options.path != "orbit":
            raise InputError(f"{options.out}: {len(path.cameras)} views need a folder or an .mp4")
        save_png(options.out, next(views))
        return 1
    check_target(options.out)
    if options.out.suffix and len(set(map(tuple, path.cameras.size.tolist()))) > 1:
        raise InputError(f"{options.out}: the {options.path} views have several sizes; give a folder for PNG files")
    return write_frames(options.out, counted(views, len(path.cameras), sys.stderr), path.fps)


def _camera_path(described: Mapping[str, Any], options: RenderOptions) -> CameraPath:
    """The path that was asked for, in the size that was asked for. Raises InputError."""
    from viewer.orbits import orbit
    from viewer.paths import CameraPath, read_camera_path

    if options.path == "orbit":
        path = orbit(described, options.frames or ORBIT_FRAMES, options.fps or ORBIT_FPS)
    elif options.path in SPLITS:
        data = described.get("cameras", {}).get(options.path)
        if not data or not data["size"]:
            raise InputError(f"--path {options.path}: the run's scene has no {options.path} views; try --path orbit")
        path = CameraPath(Cameras.from_json(data), options.fps or ORBIT_FPS)
    elif Path(options.path).exists():
        path = read_camera_path(options.path)
    else:
        raise InputError(f"--path {options.path}: there is no such file; give orbit, {', '.join(SPLITS)} or a JSON")
    return path if options.width is None else path.resized(options.width)


def _timed(path: CameraPath, described: Mapping[str, Any], time: float | None) -> CameraPath:
    """The path, through a scene that moves with the time of each camera."""
    if not described.get("dynamic"):
        return path
    n = len(path.cameras)
    times = path.cameras.time if time is None else torch.full((n,), time)
    return replace(path, cameras=replace(path.cameras, time=torch.linspace(0, 1, n) if times is None else times))


def _views(
    described: Mapping[str, Any], field: Field | RadianceField, cameras: Cameras, show: str, crop: Box | None
) -> Iterator[Picture]:
    """What each camera sees, as 8-bit pictures, of what lies inside the crop."""
    from viewer.pictures import depth_colours, depth_span, normal_colours, to_bytes

    box = Box.from_json(described["box"])
    if crop is not None and isinstance(field, RadianceField):
        field = clipped(field, Clip(crop))
    level = 0.0 if described.get("background") == "black" else 1.0
    span: tuple[float, float] | None = None
    for view in range(len(cameras)):
        seen: Rendering | SurfaceView
        if isinstance(field, RadianceField):
            seen = render_view(field, cameras, view, (level, level, level))
        else:
            seen = render_surface(field, cameras, view, box, crop=crop)
        match show, seen:
            case "depth", _:
                depth, opacity = seen.depth.cpu(), seen.opacity.cpu()
                span = span or depth_span(depth, opacity)  # that of the first picture, so that colours mean the same
                yield to_bytes(depth_colours(depth, opacity, span=span))
            case "normal", SurfaceView():
                yield to_bytes(normal_colours(seen.normal.cpu()))
            case "normal", Rendering():
                assert isinstance(field, RadianceField)
                yield to_bytes(normal_colours(view_normals(field, cameras, view, seen).cpu()))
            case _:
                yield to_bytes(seen.rgb)


def _image(opened: Run, field: Field | RadianceField, options: RenderOptions) -> int:
    """Write the picture that a run of an image holds, at any width."""
    from scenes.image import PixelFormat
    from viewer import save_png

    if options.out.suffix.lower() != ".png":
        raise InputError(f"{options.out}: a run of an image is written as one picture; give a path ending in .png")
    values = image_values(opened.scene, field, options.width)
    form = PixelFormat.from_json(opened.scene["format"])
    if form.transfer == "log":  # linear light: what a display shows of it
        values = PixelFormat(form.channels, "uint8").from_linear(form.to_linear(values).clamp(0, 1))
    save_png(options.out, PixelFormat(form.channels, "uint8").from_values(values).numpy())
    return 1


def _video(opened: Run, field: Field | RadianceField, options: RenderOptions) -> int:
    """Play the video that a run holds, at any width, rate and number of frames."""
    from fields.playback import playback
    from viewer import save_png, write_frames
    from viewer.video import check_target

    for flag, value, usual in (("--path", options.path, "orbit"), ("--show", options.show, "colour")):
        if value != usual:
            raise InputError(f"{flag} {value}: a run of a video has no cameras; leave it out")
    play = playback(opened.scene, options.width, options.frames, options.fps)
    frames = play.frames(field)
    if options.out.suffix.lower() == ".png":
        if len(play.times) > 1:
            raise InputError(f"{options.out}: {len(play.times)} frames need a folder or an .mp4; or give --frames 1")
        save_png(options.out, next(frames))
        return 1
    check_target(options.out)
    return write_frames(options.out, counted(frames, len(play.times), sys.stderr), play.fps)


def image_values(
    described: Mapping[str, Any], field: Field | RadianceField, width: int | None = None
) -> Float[Tensor, "H W C"]:
    """The values of an image's field at the centres of pixels, `width` of them across."""
    box = Box.from_json(described["box"])
    full_width, full_height = described["size"]
    n_across = width or full_width
    height = max(round(full_height * n_across / full_width), 1)
    predict = predictor(field)
    device = next(field.parameters()).device
    bands = []
    for top in range(0, height, ROWS):
        rows = (torch.arange(top, min(top + ROWS, height)) + 0.5) * full_height / height
        y, x = torch.meshgrid(rows, (torch.arange(n_across) + 0.5) * full_width / n_across, indexing="ij")
        coordinates = box.to_unit(torch.stack((x, y), -1).reshape(-1, 2))
        bands.append(predict(coordinates.to(device)).cpu().view(len(rows), n_across, -1))
    return torch.cat(bands)
