"""Fit a picture, and look at it at twice its resolution: a field has no pixels."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import fields
import scenes
from scenes.demo import write_demo_image
from viewer import save_png


def main(path: Path, seconds: float, out: Path) -> None:
    scene = scenes.load(path)
    config = fields.preset(scene)
    field = fields.build(config.field, scene.describe())
    for step in fields.fit(field, scene, replace(config.fit, minutes=seconds / 60)):
        if step.index % 100 == 0:
            print(f"step {step.index:5d}   {step.psnr:.2f} dB")
    predict = fields.predictor(field)
    print(scene.evaluate(predict).results)

    width, height = (2 * int(v) for v in scene.box.size)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = predict(scene.box.to_unit(torch.stack([x, y], -1).view(-1, 2) / 2))
    save_png(out, (pixels[:, :3].clamp(0, 1) * 255).round().byte().view(height, width, 3).numpy())
    print(f"wrote {out}, {width} x {height}")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    if len(sys.argv) > 1:
        picture = Path(sys.argv[1])
    else:
        write_demo_image(picture := folder / "picture.png")
    main(picture, seconds=5, out=folder / "twice.png")
