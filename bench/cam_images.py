"""Images by random Fourier features and 3 x 256 ReLU, with coordinate-aware modulation and without it.

The backbone is that of Tancik et al. (2020): 256 frequencies of sigma 10, a sigmoid at the end. Modulated, each hidden
layer is normalised over its channels and has 32 x 32 grids for one scale and one shift (Lee et al. 2024); the backbone
alone has neither. Both start from the same seed, see the same batches, and are fitted by Adam at one rate, the grids at
1e-2, all a tenth of that from half of the steps on, and a hundredth from three quarters. Protocols: `regression` fits
all pixels and measures them; `every other pixel` fits those in even rows and columns and measures the others too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fields.contracts import At, AtShape
from fields.encodings import RandomFourier, build_encoding
from fields.field import initialise
from fields.kernels.reference import mlp_layers
from fields.networks import CAM, build_network
from fields.networks.cam import CamPerceptron
from fields.optim import Adam, OptimiserConfig
from scenes.picture import read_picture

MODULATED = CAM(hidden_dim=256, hidden_layers=3, over=("position",), resolution=(32, 32))
CONTENDERS = {
    "backbone": CAM(hidden_dim=256, hidden_layers=3, norm="none", modulated=False),
    "normalised": CAM(hidden_dim=256, hidden_layers=3, modulated=False),
    "CAM": MODULATED,
}


@dataclass(frozen=True)
class Fits:
    """How every image is fitted."""

    crop: int
    """Edge of the square in the middle, pixels."""
    steps: int
    batch: int
    """Pixels of a step; 0 takes all."""
    seed: int
    rate: float
    """Of the networks; that of the grids is 1e-2."""
    norm_alone: bool
    """Whether the normalised network without modulation takes part."""
    torch_init: bool
    """Whether weights and biases begin as those of torch's linear layers, as in the published code: the weights of
    hidden layers are smaller by the root of six then."""


class Backbone(nn.Module):
    """Pixels' places in the unit square to colours."""

    def __init__(self, config: CAM) -> None:
        super().__init__()
        self.encoding = build_encoding(RandomFourier(), 2)
        self.network = build_network(config, self.encoding.width, 3, "sigmoid", AtShape(2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 2] to [N, 3]."""
        return self.network(self.encoding(x), at=At(x))


def compare_images(folder: Path, first: int | None, fits: Fits) -> Iterator[str]:
    """Rows of a Markdown table, and means behind them."""
    names = [name for name in CONTENDERS if name != "normalised" or fits.norm_alone]
    yield f"| image | protocol | pixels | {' | '.join(f'{name}, dB' for name in names)} | gain, dB | seconds |"
    yield "|---|---|---|" + "---:|" * (len(names) + 2)
    gains: dict[str, list[float]] = {}
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    for path in paths[:first]:
        image = middle(read_picture(path, 2**28), fits.crop)
        for protocol, mask in protocols(image).items():
            started = time.perf_counter()
            errors = {name: fit(CONTENDERS[name], image, mask, fits) for name in names}
            seconds = time.perf_counter() - started
            for pixels in errors["CAM"]:
                gain = errors["CAM"][pixels] - errors["backbone"][pixels]
                gains.setdefault(f"{protocol}, {pixels}", []).append(gain)
                cells = " | ".join(f"{errors[name][pixels]:.2f}" for name in names)
                yield f"| {path.stem} | {protocol} | {pixels} | {cells} | {gain:+.2f} | {seconds:.0f} |"
    for what, values in gains.items():
        yield f"mean gain, {what}: {sum(values) / len(values):+.2f} dB over {len(values)}"


def middle(picture: np.ndarray, edge: int) -> Tensor:
    """The square in the middle, [edge, edge, 3] in [0, 1]."""
    pixels = torch.from_numpy(picture)
    height, width = pixels.shape[:2]
    if min(height, width) < edge or pixels.shape[2] < 3 or pixels.dtype != torch.uint8:
        raise SystemExit(f"expected colours in 8 bits and {edge} pixels each way, got {tuple(pixels.shape)}")
    top, left = (height - edge) // 2, (width - edge) // 2
    return pixels[top : top + edge, left : left + edge, :3].float() / 255


def protocols(image: Tensor) -> dict[str, Tensor]:
    """Which pixels are fitted."""
    every = torch.ones(image.shape[:2], dtype=torch.bool)
    other = torch.zeros_like(every)
    other[::2, ::2] = True
    return {"regression": every, "every other pixel": other}


def fit(config: CAM, image: Tensor, fitted: Tensor, fits: Fits) -> dict[str, float]:
    """PSNR of the fitted pixels, and of the held-out ones if there are any."""
    edge = len(image)
    centres = (torch.arange(edge) + 0.5) / edge
    x = torch.stack([centres.expand(edge, edge), centres[:, None].expand(edge, edge)], dim=-1)
    inputs, targets = x[fitted], image[fitted]
    field = Backbone(config)
    initialise(field, fits.seed)
    if fits.torch_init:
        begin_like_torch(field.network, torch.Generator().manual_seed(fits.seed))
    adam = OptimiserConfig(table_rate=1e-2, network_rate=fits.rate, beta2=0.999, eps=1e-8, warmup_steps=1)
    optimiser, generator = Adam(field, adam), torch.Generator().manual_seed(fits.seed + 1)
    for step in range(fits.steps):
        if fits.batch:
            index = torch.randint(len(inputs), (min(fits.batch, len(inputs)),), generator=generator)
        else:
            index = torch.arange(len(inputs))
        (field(inputs[index]) - targets[index]).square().mean().backward()
        optimiser.step(0.1 ** ((2 * step >= fits.steps) + (4 * step >= 3 * fits.steps)))
    found = {"fitted": psnr(field, inputs, targets)}
    return found if bool(fitted.all()) else found | {"held out": psnr(field, x[~fitted], image[~fitted])}


@torch.no_grad()
def begin_like_torch(network: nn.Module, generator: torch.Generator) -> None:
    """Uniform up to the inverse root of a layer's inputs, biases too."""
    assert isinstance(network, CamPerceptron)
    for weight, bias in mlp_layers(network.params, network.shape.mlp):
        assert bias is not None
        for values in (weight, bias):
            values.uniform_(-(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5, generator=generator)


@torch.no_grad()
def psnr(field: Backbone, x: Tensor, target: Tensor) -> float:
    """In dB, of colours in [0, 1]."""
    squared = [
        (field(p).clamp(0, 1) - t).square().sum() for p, t in zip(x.split(2**14), target.split(2**14), strict=True)
    ]
    return -10 * math.log10(float(sum(squared)) / target.numel())
