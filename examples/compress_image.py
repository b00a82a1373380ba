"""Compress a picture to half a bit a pixel, decode the file, and compare."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fields.codec import Effort, Fit, Target, read_image
from scenes.demo import write_demo_image


def main(path: Path, bpp: float, out: Path) -> None:
    with Image.open(path) as opened:
        picture = np.array(opened.convert("RGB"))
    height, width, _ = picture.shape
    fit = Fit(picture, 8, Target(bits=bpp * height * width), Effort(minutes=0.1))
    for step in fit.steps():
        if step.index % 50 == 0:
            print(f"{100 * step.part:3.0f} %   {step.bits / (height * width):.3f} bits a pixel   {step.psnr:.2f} dB")
    packed = fit.pack()
    out.write_bytes(packed.data)

    _, decoded = read_image(out.read_bytes(), max_pixels=height * width)
    assert np.array_equal(decoded, packed.samples)
    print(f"wrote {out}: {len(packed.data):,} bytes, {packed.psnr:.2f} dB")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    if len(sys.argv) > 1:
        picture = Path(sys.argv[1])
    else:
        write_demo_image(picture := folder / "picture.png")
    main(picture, bpp=0.5, out=folder / "picture.ff")
