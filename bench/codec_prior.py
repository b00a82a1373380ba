"""Makes fields/codec/prior.json: the networks that the codec's fits begin with, and that files' weights are relative
to.

One pair of networks is fitted to a mosaic of photographs that come with scikit-image and scikit-learn (public domain,
CC0 and CC BY), for three weights of the rate at once. Part of the file format: once files exist it does not change.

    python bench/codec_prior.py --rounds 900
"""

from __future__ import annotations

import argparse
import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fields.codec import weights
from fields.codec.shape import CONTEXT, CONTEXT_HIDDEN, LEVELS, SCALE, TAPS, CodecShape
from fields.kernels.native import core

TILE = 256
TILES = (
    ("skimage.data", "astronaut.png", 0, 100),
    ("skimage.data", "astronaut.png", 256, 200),
    ("skimage.data", "coffee.png", 20, 60),
    ("skimage.data", "coffee.png", 130, 330),
    ("skimage.data", "chelsea.png", 20, 100),
    ("sklearn.datasets.images", "china.jpg", 60, 40),
    ("sklearn.datasets.images", "china.jpg", 150, 350),
    ("sklearn.datasets.images", "flower.jpg", 100, 200),
    ("skimage.data", "rocket.jpg", 100, 200),
)
RATE_WEIGHTS = (4e-3, 1e-3, 2.5e-4)
LATENT_RATE, NETWORK_RATE = 0.2, 1.5e-2


def mosaic() -> np.ndarray:
    tiles = []
    for package, name, top, left in TILES:
        with resources.files(package).joinpath(name).open("rb") as file:
            pixels = np.asarray(Image.open(file).convert("RGB"))
        tiles.append(pixels[top : top + TILE, left : left + TILE])
    rows = [np.concatenate(tiles[i : i + 3], 1) for i in range(0, len(tiles), 3)]
    return np.concatenate(rows, 0)


def beginning(shape: CodecShape, generator: torch.Generator) -> torch.Tensor:
    """Networks before any fit: cubic filters, half brightness, no filters of the image, noise elsewhere."""
    k, m, c = CONTEXT_HIDDEN, shape.hidden, shape.channels
    networks = torch.zeros(shape.context_size + shape.synthesis_size)
    taps = shape.context_size + (LEVELS - 1) * TAPS
    networks[shape.context_size : taps] = cubic_taps().repeat(LEVELS - 1)
    networks[taps + m * (LEVELS + 1) + c * m :][:c] = SCALE / 2
    first, second, third = 0, k * CONTEXT + LEVELS * k, k * CONTEXT + LEVELS * k + k * (k + 1)
    w1 = shape.context_size + (LEVELS - 1) * 4
    w2 = w1 + m * (LEVELS + 1)
    for at, n_out, n_in, gain in (
        (first, k, CONTEXT, 1.0),
        (second, k, k, 1.4),
        (third, 2, k, 0.3),
        (w1, m, LEVELS, 1.0),
        (w2, c, m, 1.0),
    ):
        networks[at : at + n_out * n_in] = torch.randn(n_out * n_in, generator=generator) * gain / math.sqrt(n_in)
    return networks


def cubic_taps(a: float = -0.75) -> torch.Tensor:
    """Of cubic interpolation a quarter before a value."""

    def at(d: float) -> float:
        if d <= 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return torch.tensor([at(1.75), at(0.75), at(0.25), at(1.25)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=900)
    parser.add_argument("--out", type=Path, default=Path("fields/codec/prior.json"))
    options = parser.parse_args()
    picture = mosaic()
    height, width, channels = picture.shape
    shape, n = CodecShape(height, width, channels), height * width
    wanted = torch.from_numpy(picture.copy()).permute(2, 0, 1).float().mul(SCALE / 255).contiguous()
    model = core().CodecModel(height, width, channels, shape.hidden)
    networks = beginning(shape, torch.Generator().manual_seed(0))
    pyramids = [torch.zeros(shape.n_latents) for _ in RATE_WEIGHTS]
    moments = {id(x): (torch.zeros_like(x), torch.zeros_like(x)) for x in [networks, *pyramids]}
    seen, slope, d_latents = (torch.empty(shape.n_latents) for _ in range(3))
    bits, split, values = np.zeros(LEVELS), shape.context_size, n * channels * SCALE**2
    for i in range(options.rounds):
        part = i / options.rounds
        factor = max(0.5 * (1 + math.cos(math.pi * part)), 0.01) * min(1, (i + 1) / 20)
        d_networks = torch.zeros_like(networks)
        told = []
        for latents, rate_weight in zip(pyramids, RATE_WEIGHTS, strict=True):
            core().codec_perturb(latents, False, 0.6 - 0.58 * part, 2 - part, i, seen, slope)
            d_latents.zero_()
            d = torch.zeros_like(networks)
            model.rate(seen, networks[:split], rate_weight / n, bits, d_latents, d[:split])
            error = model.distortion(seen, networks[split:], wanted, 1 / values, d_latents, d[split:]) / values
            loss = error + rate_weight * bits.sum() / n
            d_networks += d / loss  # of the logarithm, so that all three count the same
            d_latents.mul_(slope)
            m1, m2 = moments[id(latents)]
            rule = (0.9, 0.99, 1e-10, 1 - 0.9 ** (i + 1), 1 - 0.99 ** (i + 1), False)
            core().adam(latents, d_latents, m1, m2, LATENT_RATE * factor, *rule)
            told.append(f"{bits.sum() / n:.3f} bpp {10 * math.log10(1 / error):.2f} dB")
        m1, m2 = moments[id(networks)]
        rule = (0.9, 0.999, 1e-10, 1 - 0.9 ** (i + 1), 1 - 0.999 ** (i + 1), False)
        core().adam(networks, d_networks, m1, m2, NETWORK_RATE * factor, *rule)
        if i % 100 == 0 or i == options.rounds - 1:
            print(i, "  ".join(told), flush=True)
    integers = (networks.double() * 2**weights.UNIT).round().long().tolist()
    lines = [", ".join(map(str, integers[i : i + 20])) for i in range(0, len(integers), 20)]
    text = '{"unit": 10, "weights": [\n' + ",\n".join(lines) + "\n]}\n"
    json.loads(text)
    options.out.write_text(text)


if __name__ == "__main__":
    main()
