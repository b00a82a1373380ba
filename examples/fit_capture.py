"""Fit posed photographs, keep the field as a run, open the run again and render a view that was held out."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import fields
import scenes
from fields.run import Data
from scenes.demo import write_demo
from viewer import save_png


def main(path: Path, seconds: float, out: Path) -> None:
    options = scenes.LoadOptions()
    scene = scenes.load(path, options=options)
    config = fields.preset(scene)
    config = replace(config, fit=replace(config.fit, minutes=seconds / 60))
    describe = scene.describe()
    field = fields.build(config.field, describe)
    run = fields.Run.create(out, config, describe, Data(str(path), scene.fingerprint(), options))
    step = None
    for step in fields.fit(field, scene, config.fit):
        if step.index % 100 == 0:
            print(f"step {step.index:5d}   {step.psnr:.2f} dB   {step.n_samples} samples")
    assert step is not None
    run.save(field, step)
    run.unlock()

    again = fields.Run.open(out).field()
    print(scene.evaluate(fields.predictor(again)).results)
    assert isinstance(scene, scenes.Capture) and isinstance(again, fields.RadianceField)
    seen = fields.render_view(again, scene.splits["test"], 0, background=(1.0, 1.0, 1.0))
    save_png(out / "renders" / "held_out.png", (seen.rgb.clamp(0, 1) * 255).round().byte().numpy())
    print(f"wrote {out / 'renders' / 'held_out.png'}")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    if len(sys.argv) > 1:
        photographs = Path(sys.argv[1])
    else:
        write_demo(photographs := folder / "photographs")
    main(photographs, seconds=10, out=folder / "run")
