"""The part of a run that is wanted, as a box in the world: kept beside the run's field, used by all that shows it."""

from __future__ import annotations

from pathlib import Path

from fields.files import read_json, write_json
from scenes.box import Box
from scenes.errors import InputError

NAME = "crop.json"


def read_crop(run: Path) -> Box | None:
    """The crop of a run, or None. Raises InputError when its file is not one."""
    source = run / NAME
    if not source.exists():
        return None
    content = read_json(source)
    try:
        if not isinstance(content, dict):
            raise ValueError
        box = Box.from_json(content["crop"])
        if len(box.lo) != 3:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f'{source}: expected "crop": [[x, y, z], [x, y, z]]; mend it, or delete the file') from error
    return box


def write_crop(run: Path, crop: Box | None) -> None:
    """Keep a crop in a run, or no longer. Raises InputError when the run cannot be written."""
    target = run / NAME
    try:
        if crop is None:
            target.unlink(missing_ok=True)
        else:
            write_json(target, {"crop": crop.to_json()})
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error
