"""A picture as a scene: from pixel coordinates to values.

World coordinates are pixels: the centre of pixel (row i, column j) is (j + 0.5, i + 0.5), the box is (0, 0) to (W, H).
What a field fits are *values*, about [0, 1] in every channel: the file's own numbers divided by the largest possible
where they are encoded for a display (8 and 16 bits), or, where they are linear light L (floats), the logarithmic curve

    v = sign(L) log(1 + MU |L| / peak) / log(1 + MU),   MU = 5000,   peak = the file's largest |L|

that is the usual one for comparing high dynamic range (Kalantari and Ramamoorthi 2017); PSNR of v is known as PSNR-mu.
Alpha is not curved. Channels are grey, grey and alpha, RGB, or RGB and straight alpha.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from scenes.box import Box
from scenes.metrics import DEFINITIONS, band_rows, compare_bands
from scenes.picture import read_picture
from scenes.scene import JSON, Evaluation, LoadOptions

MU = 5000.0


@dataclass(frozen=True)
class PixelFormat:
    """How a file's pixels and a field's values belong together; all that is needed to write a picture back."""

    channels: int
    depth: Literal["uint8", "uint16", "float32"]
    peak: float = 1.0
    """The largest absolute linear colour of a float picture."""

    @property
    def transfer(self) -> Literal["srgb", "log"]:
        """What the values are: the display's own encoding, or the curve of the module's docstring."""
        return "log" if self.depth == "float32" else "srgb"

    @property
    def alpha(self) -> bool:
        """Whether the last channel is straight alpha."""
        return self.channels in (2, 4)

    def to_values(self, pixels: Shaped[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """A file's numbers as float32 values."""
        match self.depth:
            case "uint8":
                return pixels.float().mul_(1 / 255)
            case "uint16":
                return pixels.float().mul_(1 / 65535)
            case "float32":
                return self._colours(pixels, self._curve)

    def from_values(self, values: Float[Tensor, "*N C"]) -> Shaped[Tensor, "*N C"]:
        """Values as a file's numbers: rounded to the depth, or linear floats."""
        match self.depth:
            case "uint8":
                return values.clamp(0, 1).mul_(255).round_().to(torch.uint8)
            case "uint16":
                return values.clamp(0, 1).mul_(65535).round_().to(torch.uint16)
            case "float32":
                return self._colours(values, self._uncurve)

    def to_linear(self, values: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """Values as linear light: in [0, 1] for an encoded picture, up to `peak` for a float one."""
        return self._colours(values, self._uncurve if self.transfer == "log" else _from_srgb)

    def from_linear(self, linear: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """The inverse of `to_linear`."""
        return self._colours(linear, self._curve if self.transfer == "log" else _to_srgb)

    def _colours(self, x: Float[Tensor, "*N C"], change: Callable[[Tensor], Tensor]) -> Float[Tensor, "*N C"]:
        return torch.cat((change(x[..., :-1]), x[..., -1:]), -1) if self.alpha else change(x)

    def _curve(self, linear: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        return torch.sign(linear) * torch.log1p(linear.abs() * (MU / self.peak)) / math.log1p(MU)

    def _uncurve(self, values: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        return torch.sign(values) * torch.expm1(values.abs() * math.log1p(MU)) * (self.peak / MU)

    def to_json(self) -> dict[str, JSON]:
        """From which `from_json` rebuilds the same."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PixelFormat:
        """Raises KeyError, TypeError or ValueError when `data` is not from `to_json`."""
        if data["depth"] not in ("uint8", "uint16", "float32"):
            raise ValueError(f"expected depth uint8, uint16 or float32, got {data['depth']}")
        return cls(int(data["channels"]), data["depth"], float(data["peak"]))


@dataclass(frozen=True)
class Image:
    """A picture as a scene; made by `load_image` or `Image.of`."""

    name: str
    pixels: Shaped[Tensor, "H W C"]
    """As they came: uint8, uint16 or float32."""
    format: PixelFormat

    @property
    def kind(self) -> Literal["image"]:
        """As `Scene`."""
        return "image"

    @property
    def box(self) -> Box:
        """(0, 0) to (W, H), in pixels."""
        return Box((0.0, 0.0), (float(self.pixels.shape[1]), float(self.pixels.shape[0])))

    @property
    def transfer(self) -> Literal["srgb", "log"]:
        """How values relate to light: see the module's docstring."""
        return self.format.transfer

    @staticmethod
    def of(pixels: Shaped[np.ndarray, "H W C"], name: str) -> Image:
        """A scene of pixels in memory, uint8, uint16 or float32 (linear); they are not copied."""
        height, width, channels = pixels.shape
        if not 1 <= channels <= 4 or height == 0 or width == 0:
            raise ValueError(f"expected [H, W, C] with 1 to 4 channels and at least one pixel, got {pixels.shape}")
        peak = 1.0
        match pixels.dtype:
            case np.uint8:
                depth = "uint8"
            case np.uint16:
                depth = "uint16"
            case np.float32:
                depth = "float32"
                colours = pixels[..., :-1] if channels in (2, 4) else pixels
                peak = float(np.abs(colours).max()) or 1.0
            case _:
                raise ValueError(f"expected uint8, uint16 or float32 pixels, got {pixels.dtype}")
        return Image(name, torch.from_numpy(pixels), PixelFormat(channels, depth, peak))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N C"]]:
        """Centres of random pixels, with replacement, in the unit cube, and their values."""
        height, width, channels = self.pixels.shape
        index = torch.randint(height * width, (n,), generator=generator)
        row = torch.div(index, width, rounding_mode="floor")
        xy = torch.stack((index - row * width, row), -1).float().add_(0.5)
        flat = self.pixels.view(-1, channels)
        if self.format.depth == "uint16":  # torch selects no rows of uint16
            gathered = flat.view(torch.int16).index_select(0, index).view(torch.uint16)
        else:
            gathered = flat.index_select(0, index)
        return self.box.to_unit(xy), self.format.to_values(gathered)

    def loss(self, predicted: Float[Tensor, "N C"], target: Float[Tensor, "N C"]) -> Float[Tensor, ""]:
        """Mean squared error: what PSNR measures."""
        return (predicted - target).square().mean()

    def evaluate(
        self, predict: Callable[[Float[Tensor, "N 2"]], Float[Tensor, "N C"]], split: str = "test"
    ) -> Evaluation:
        """PSNR and SSIM of the values over the whole picture, held against each other in bands of rows.

        A picture is known everywhere, so that all splits are the same. Predictions for encoded pictures are clamped to
        [0, 1].
        """
        scores = compare_bands(self._bands(predict)).results()
        space = {
            "srgb": "values as stored (sRGB-encoded), predictions clamped to [0, 1]",
            "log": f"PSNR-mu: linear light L as log(1 + {MU:g} |L| / {self.format.peak:g}) / log(1 + {MU:g})",
        }[self.transfer]
        definitions = {name: f"{DEFINITIONS[name]}; {space}" for name in scores}
        return Evaluation(scores, [self.name], {name: [value] for name, value in scores.items()}, definitions)

    def _bands(self, predict: Callable[[Tensor], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        height, width, channels = self.pixels.shape
        rows = band_rows(width * channels)
        for top in range(0, height, rows):
            target = self.format.to_values(self.pixels[top : top + rows])
            y, x = torch.meshgrid(torch.arange(top, top + len(target)) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            predicted = predict(self.box.to_unit(torch.stack((x, y), -1).view(-1, 2))).view(target.shape)
            yield predicted.clamp(0, 1) if self.transfer == "srgb" else predicted, target

    def decode(self, values: Float[Tensor, "H W C"]) -> Shaped[np.ndarray, "H W C"]:
        """A field's values as pixels of the file's own depth."""
        return self.format.from_values(values).numpy()

    def to_linear(self, values: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """As `PixelFormat.to_linear`."""
        return self.format.to_linear(values)

    def from_linear(self, linear: Float[Tensor, "*N C"]) -> Float[Tensor, "*N C"]:
        """As `PixelFormat.from_linear`."""
        return self.format.from_linear(linear)

    def describe(self) -> dict[str, JSON]:
        """As `Scene`."""
        height, width, channels = self.pixels.shape
        return {
            "kind": self.kind,
            "name": self.name,
            "channels": channels,
            "box": self.box.to_json(),
            "size": [width, height],
            "format": self.format.to_json(),
        }

    def fingerprint(self) -> str:
        """sha256 of shape, depth and pixels."""
        digest = hashlib.sha256(f"{tuple(self.pixels.shape)} {self.format.depth}".encode())
        digest.update(self.pixels.numpy().reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def load_image(path: Path, options: LoadOptions) -> Image:
    """The picture in a file. Raises InputError when it cannot be read whole or is larger than allowed."""
    return Image.of(read_picture(path, options.max_pixels), path.name)


def _from_srgb(v: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """IEC 61966-2-1."""
    return torch.where(v <= 0.04045, v / 12.92, ((v.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _to_srgb(v: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    return torch.where(v <= 0.0031308, v * 12.92, 1.055 * v.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)
