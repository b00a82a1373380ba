"""Fit the signed distance of a mesh, and get a mesh back from it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import fields
import scenes
from scenes.demo import write_demo_mesh


def main(path: Path, out: Path) -> None:
    scene = scenes.load(path)
    config = fields.preset(scene)
    field = fields.build(config.field, scene.describe())
    for step in fields.fit(field, scene, config.fit):
        if step.index % 100 == 0:
            print(f"step {step.index:5d}   loss {step.loss:.4f}")
    print(scene.evaluate(fields.predictor(field)).results)
    mesh = fields.export_mesh(field, scene.describe(), out, resolution=128)
    print(f"wrote {out}: {len(mesh.faces):,} faces, watertight: {mesh.is_watertight}")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    if len(sys.argv) > 1:
        surface = Path(sys.argv[1])
    else:
        write_demo_mesh(surface := folder / "knot.ply")
    main(surface, out=folder / "fitted.ply")
