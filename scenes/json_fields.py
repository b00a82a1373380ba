"""Fields of a JSON that a person or another program wrote: each is checked, and a message names file and field.

`where` is what a message begins with, for example `transforms.json: frames[3].fl_x`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from scenes.errors import InputError

RIGID_TOLERANCE = 2e-3  # of R^T R - 1; matrices printed with four digits pass, a scale of 1.001 does not
FARTHEST = 1e6  # world units from the origin; beyond, float32 keeps less than a tenth of a unit


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply to be a list of cameras") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({str(error)[:120]})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object with frames, got {shown(data)}")
    return data


def read_pose(value: object, where: str) -> np.ndarray:
    """[3, 4] float64: an OpenGL camera-to-world matrix with OpenCV's camera axes, its rotation made orthonormal."""
    matrix = read_matrix(value, where)
    rotation, position = matrix[:, :3], matrix[:, 3]
    if np.abs(position).max() > FARTHEST:
        raise InputError(
            f"{where}: the camera is {np.abs(position).max():.3g} from the origin; move the scene near to it"
        )
    gram = rotation.T @ rotation
    if np.abs(gram - np.eye(3)).max() > RIGID_TOLERANCE:
        lengths = np.sqrt(np.diag(gram))
        what = "singular" if abs(np.linalg.det(rotation)) < 1e-6 else "not rigid"
        got = f"columns of length {lengths[0]:.4g}, {lengths[1]:.4g}, {lengths[2]:.4g}"
        raise InputError(f"{where}: is {what} ({got}); expected a rotation and a position, without scale or shear")
    if np.linalg.det(rotation) < 0:
        raise InputError(f"{where}: is a mirror image; expected a right-handed rotation (x right, y up, z backward)")
    u, _, vt = np.linalg.svd(rotation)
    return np.concatenate((u @ vt @ np.diag((1.0, -1.0, -1.0)), position[:, None]), 1)


def read_matrix(value: object, where: str) -> np.ndarray:
    """[3, 4]; a fourth row has to be 0 0 0 1."""
    if value is None:
        raise InputError(f"{where}: is missing; expected a 4 x 4 matrix as a list of rows")
    if not isinstance(value, list) or len(value) not in (3, 4):
        raise InputError(f"{where}: expected a 4 x 4 matrix as a list of rows, got {shown(value)}")
    rows = [read_vector(row, f"{where}[{i}]", 4) for i, row in enumerate(value)]
    if len(rows) == 4 and np.abs(np.array(rows[3]) - (0, 0, 0, 1)).max() > 1e-6:
        raise InputError(f"{where}[3]: expected the row 0 0 0 1, got {' '.join(f'{v:g}' for v in rows[3])}")
    return np.array(rows[:3])


def read_vector(value: object, where: str, n: int = 3) -> list[float]:
    """A list of `n` finite numbers."""
    if not isinstance(value, list) or len(value) != n:
        raise InputError(f"{where}: expected a list of {n} numbers, got {shown(value)}")
    return [read_number(v, f"{where}[{i}]") for i, v in enumerate(value)]


def read_number(value: object, where: str) -> float:
    """A finite number; what is larger than 1e30 counts as infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: expected a number, got {shown(value)}")
    if not abs(value) < 1e30:
        raise InputError(f"{where}: expected a finite number, got {shown(value)}")
    return float(value)


def read_positive(value: object, where: str) -> float:
    """A finite number above zero."""
    number = read_number(value, where)
    if number <= 0:
        raise InputError(f"{where}: expected a positive number, got {number:g}")
    return number


def read_string(value: object, where: str) -> str:
    """Text."""
    if not isinstance(value, str):
        what = "is missing" if value is None else f"expected a string, got {shown(value)}"
        raise InputError(f"{where}: {what}")
    return value


def shown(value: object) -> str:
    """A value as a message shows it; never descends, since data may be nested deeply."""
    match value:
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)}"
        case int() if not isinstance(value, bool) and abs(value) >= 10**30:
            return "a number of very many digits"
        case _:
            return json.dumps(value)[:60]
