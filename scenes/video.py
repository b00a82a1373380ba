"""A film as a scene: from (x, y, t) to colours.

World coordinates are pixels and frames: the centre of pixel (row i, column j) of frame k is at (j + 0.5, i + 0.5,
k + 0.5), x to the right, y down, and the box is (0, 0, 0) to (W, H, T). Of a film whose frames are not evenly spaced,
t is in proportion to the time of a frame, and the first and the last one lie where they do in any film of T frames:
equal steps of t are equal times in every film. What a field fits are display values in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scenes.box import Box
from scenes.film import read_film
from scenes.metrics import DEFINITIONS, band_rows, compare_bands
from scenes.scene import JSON, Evaluation, LoadOptions


@dataclass(frozen=True)
class Video:
    """A film as a scene; made by `load_video` or `Video.of`."""

    name: str
    frames: UInt8[Tensor, "T H W 3"]
    times: Float[Tensor, " T"]
    """Of the frames, in world units, float32."""
    fps: float
    """Frames a second, in the mean."""

    @property
    def kind(self) -> Literal["video"]:
        """As `Scene`."""
        return "video"

    @property
    def box(self) -> Box:
        """(0, 0, 0) to (W, H, T), in pixels and frames."""
        n_frames, height, width, _ = self.frames.shape
        return Box((0.0, 0.0, 0.0), (float(width), float(height), float(n_frames)))

    @staticmethod
    def of(
        frames: UInt8[np.ndarray, "T H W 3"], name: str, fps: float = 30.0, times: Float[np.ndarray, " T"] | None = None
    ) -> Video:
        """A scene of frames in memory, which are not copied; evenly spaced, unless `times` says where they lie."""
        if 0 in frames.shape:
            raise ValueError(f"expected [T, H, W, 3] with at least one frame and pixel, got {frames.shape}")
        at = np.arange(len(frames)) + 0.5 if times is None else times
        if not ((at >= 0) & (at <= len(frames))).all() or (np.diff(at) <= 0).any():
            raise ValueError(f"expected times that rise from 0 to {len(frames)}, got {at}")
        return Video(name, torch.from_numpy(frames), torch.from_numpy(at).float(), fps)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3"]]:
        """Centres of random pixels of random frames, with replacement, in the unit cube, and their values."""
        n_frames, height, width, _ = self.frames.shape
        index = torch.randint(n_frames * height * width, (n,), generator=generator)
        row = torch.div(index, width, rounding_mode="floor")
        frame = torch.div(row, height, rounding_mode="floor")
        x, y = (index - row * width).float(), (row - frame * height).float()
        xyt = torch.stack((x.add_(0.5), y.add_(0.5), self.times[frame]), -1)
        return self.box.to_unit(xyt), self.frames.view(-1, 3).index_select(0, index).float().mul_(1 / 255)

    def loss(self, predicted: Float[Tensor, "N 3"], target: Float[Tensor, "N 3"]) -> Float[Tensor, ""]:
        """Mean squared error: what PSNR measures."""
        return (predicted - target).square().mean()

    def evaluate(
        self, predict: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N 3"]], split: str = "test"
    ) -> Evaluation:
        """PSNR and SSIM of every frame, and their means; held against each other in bands of rows.

        A film is known everywhere, so that all splits are the same. Predictions are clamped to [0, 1].
        """
        scores = [compare_bands(self._bands(predict, frame)).results() for frame in range(len(self.frames))]
        per_item = {name: [score[name] for score in scores] for name in scores[0]}
        results = {name: float(np.mean(values)) for name, values in per_item.items()}
        results |= {"psnr_min": min(per_item["psnr"]), "psnr_max": max(per_item["psnr"])}
        space = "of each frame, values as stored, predictions clamped to [0, 1]; the mean over frames"
        definitions = {name: f"{DEFINITIONS[name]}; {space}" for name in per_item}
        definitions |= {"psnr_min": "PSNR of the worst frame", "psnr_max": "PSNR of the best frame"}
        names = [str(frame) for frame in range(len(self.frames))]
        return Evaluation(results, names, per_item, definitions, items="frames")

    def _bands(self, predict: Callable[[Tensor], Tensor], frame: int) -> Iterator[tuple[Tensor, Tensor]]:
        _, height, width, _ = self.frames.shape
        rows = band_rows(width * 3)
        for top in range(0, height, rows):
            target = self.frames[frame, top : top + rows].float().mul_(1 / 255)
            y = torch.arange(top, top + len(target)) + 0.5
            where = points(torch.arange(width) + 0.5, y, float(self.times[frame]))
            yield predict(self.box.to_unit(where)).view(target.shape).clamp(0, 1), target

    def describe(self) -> dict[str, JSON]:
        """As `Scene`."""
        n_frames, height, width, _ = self.frames.shape
        return {
            "kind": self.kind,
            "name": self.name,
            "channels": 3,
            "box": self.box.to_json(),
            "size": [width, height],
            "frames": n_frames,
            "fps": self.fps,
            "evenly_spaced": bool(torch.equal(self.times, torch.arange(n_frames) + 0.5)),
        }

    def fingerprint(self) -> str:
        """sha256 of shape, times and pixels."""
        digest = hashlib.sha256(f"{tuple(self.frames.shape)}".encode())
        digest.update(self.times.numpy().data)
        digest.update(self.frames.numpy().reshape(-1).data)
        return digest.hexdigest()


def points(x: Float[Tensor, " W"], y: Float[Tensor, " H"], t: float) -> Float[Tensor, "HW 3"]:
    """Of all rows y and columns x, row by row, at one time."""
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows, torch.full_like(rows, t)), -1).view(-1, 3)


def load_video(path: Path, options: LoadOptions) -> Video:
    """The film in a file. Raises InputError when it cannot be read whole or is larger than allowed."""
    film = read_film(path, options)
    return Video.of(film.frames, path.name, film.fps, film.times)
