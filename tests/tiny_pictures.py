"""Small pictures with edges, slopes and texture, in any number of channels and both depths.

python tests/tiny_pictures.py     # makes the golden files of the codec anew: only for a new version of the format
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

GOLDEN = {
    "rgb8": (24, 31, 3, np.uint8),
    "grey8": (40, 17, 1, np.uint8),
    "rgba8": (19, 22, 4, np.uint8),
    "rgb16": (20, 20, 3, np.uint16),
    "grey-alpha16": (9, 33, 2, np.uint16),
    "one-pixel": (1, 1, 3, np.uint8),
}


def waves(height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    layers = []
    for c in range(channels):
        slope = (x / max(width - 1, 1) + c * y / max(height - 1, 1)) / (1 + c)
        texture = 0.25 * np.sin(x / (2 + c)) * np.cos(y / 3)
        disc = 0.4 * ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 3) ** 2)
        layers.append(np.clip(0.2 + 0.4 * slope + texture * (x > width / 2) + disc, 0, 1))
    return (np.stack(layers, -1) * np.iinfo(dtype).max).round().astype(dtype)


def main() -> None:
    from fields.codec.fitting import Effort, Fit, Target
    from fields.codec.image_file import digest, read_image

    folder = Path(__file__).with_name("golden")
    folder.mkdir(exist_ok=True)
    told = {}
    for name, (height, width, channels, dtype) in GOLDEN.items():
        samples = waves(height, width, channels, dtype)
        depth = 8 * samples.dtype.itemsize
        fit = Fit(samples, depth, Target(75), Effort(steps=400))
        for _ in fit.steps():
            pass
        packed = fit.pack()
        (folder / f"{name}.ff").write_bytes(packed.data)
        _, decoded = read_image(packed.data, samples.size)
        told[name] = [*decoded.shape, depth, digest(decoded).hex()]
        print(name, len(packed.data), f"{packed.psnr:.2f} dB")
    (folder / "samples.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
