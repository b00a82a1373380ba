"""Tiny data of every kind, written to files, and runs that the program fits to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny_captures
from PIL import Image
from program import Program

SMALL = ("--steps", "60", "--fit.batch", "4096", "--field.encoding.finest-resolution", "64")
SMALL += ("--field.encoding.log2-table-size", "12")


Y, X = np.mgrid[:16, :24]
WIDE = np.stack([X * 10, Y * 15, (X + Y) * 6], -1).astype(np.uint8)
"""[16, 24, 3]."""


def write_image(path: Path) -> Path:
    Image.fromarray(WIDE).save(path)
    return path


def write_tetrahedron(path: Path, faces: str = "1 3 2\n1 4 3\n1 2 4\n2 3 4") -> Path:
    lines = [f"f {face}" for face in faces.splitlines()]
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n" + "\n".join(lines) + "\n")
    return path


def red_ball(matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    return tiny_captures.ball(matrix, width, height, (0, 0, 0), 1.0)


def write_ball(folder: Path) -> Path:
    views = tiny_captures.ring(8)
    return tiny_captures.write_blender(folder, {"train": views[:6], "test": views[6:]}, red_ball, (12, 12))


def fit_image(fieldfit: Program, folder: Path) -> Path:
    """The run in `folder`/runs of an image in `folder`; what was printed is in image.out."""
    return _fit(fieldfit, "image", write_image(folder / "stripes.png"))


def fit_each(fieldfit: Program, folder: Path) -> dict[str, Path]:
    """The same for each kind of signal."""
    return {
        "image": fit_image(fieldfit, folder),
        "mesh": _fit(fieldfit, "mesh", write_tetrahedron(folder / "tetrahedron.obj")),
        "capture": _fit(fieldfit, "capture", write_ball(folder / "ball")),
    }


def _fit(fieldfit: Program, kind: str, data: Path) -> Path:
    done = fieldfit(data.parent, "fit", data, *SMALL)
    assert done.code == 0, done.stderr
    (data.parent / f"{kind}.out").write_text(done.stdout)
    return data.parent / "runs" / data.stem
