"""`fieldfit export`: a run as a triangle mesh in the user's own coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fields.commands.arguments import UsageError, parse
from fields.commands.device import DeviceName, choose_device
from fields.crop import read_crop
from fields.export import Moment, check_target, export_mesh
from fields.field import Field, RadianceField
from fields.run import Run
from fields.surface import SurfaceConfig
from scenes.errors import InputError

DESCRIPTION = "Write the surface of a run as a triangle mesh; that of a capture has colours."


@dataclass(frozen=True)
class ExportOptions:
    """Options of `fieldfit export`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that `fieldfit fit` wrote."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Where the mesh goes: a file ending in .ply, .obj or .glb."""
    resolution: int = 256
    """Cells along the longest edge of the box. Memory grows with the surface, not with the volume."""
    time: float | None = None
    """Of a capture that moves, the moment whose surface it is, 0 to 1; by default 0."""
    device: DeviceName = "auto"
    """Where it runs."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(ExportOptions, argv, prog="fieldfit export", description=DESCRIPTION)
    device = choose_device(options.device)
    check_target(options.out)
    if options.time is not None and not 0 <= options.time <= 1:
        raise UsageError(f"--time: expected a number from 0 to 1, got {options.time:g}")
    opened = Run.open(options.run)
    match opened.scene["kind"]:
        case "image":
            raise InputError(
                f"{options.run}: is of an image, which has no surface; `fieldfit render` makes a picture of it"
            )
        case "video":
            raise InputError(f"{options.run}: is of a video, which has no surface; `fieldfit render` plays it back")
        case _:
            pass
    field = _at(opened.field(device), options.time)
    config = SurfaceConfig(device=str(device))
    mesh = export_mesh(field, opened.scene, options.out, options.resolution, config, within=read_crop(opened.path))
    lo, hi = mesh.bounds.tolist()
    watertight = "watertight" if mesh.is_watertight else "not watertight"
    print(f"{options.out}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles, {watertight}")
    print(f"bounds {_point(lo)} to {_point(hi)}")
    return 0


def _at(field: Field | RadianceField, time: float | None) -> Field | RadianceField | Moment:
    """The field, at one time if it is dynamic."""
    if not isinstance(field, RadianceField) or field.dynamics is None:
        if time is not None:
            raise InputError("--time: the run's field does not change with time; leave it out")
        return field
    return Moment(field, time or 0.0)


def _point(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in values) + ")"
