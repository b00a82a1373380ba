"""Posed photographs of one place: the signal that a radiance field is fitted to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from scenes.box import Box
from scenes.cameras import Cameras
from scenes.errors import InputError
from scenes.rays import Rays
from scenes.scene import Evaluation

if TYPE_CHECKING:
    from scenes.scene import JSON


MASKED = "; masked pixels are left out of PSNR and count as equal in the windows of SSIM"


@dataclass(frozen=True, eq=False)
class Capture:
    """V photographs and their cameras. Colours are those of the files, display-encoded, alpha is straight.

    Photographs lie one after another in `pixels`, row by row; the training views come first.
    """

    pixels: UInt8[Tensor, "P C"]
    """RGB, or RGBA of an object cut out."""
    keep: Bool[Tensor, " P"] | None
    """Pixels that no mask leaves out; None if there are no masks."""
    cameras: Cameras
    names: list[str]
    views: dict[str, list[int]]
    """Split (train, val, test) to indices of cameras; those of `train` are 0, 1, 2 ..."""
    box: Box
    """World bounds of the object; of photographs with `unbounded` only of what lies in the middle."""
    unbounded: bool
    """Whether there is something to see beyond the box."""
    background: Literal["white", "black"] = "white"
    """What transparent photographs are composited over in evaluation."""
    near: float = 0.0
    """A hint in world units: nothing to see is closer to a camera than this."""
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Upward in the world, unit length."""
    applied_transform: list[list[float]] | None = None
    """[3][4], what the files say was done to the coordinates before they were written."""
    time_span: tuple[float, float] | None = None
    """The files' times that are 0 and 1 here; None where photographs have no times."""

    def __post_init__(self) -> None:
        if self.views["train"] != list(range(len(self.views["train"]))):
            raise ValueError(f"training views have to come first, got {self.views['train']}")

    @property
    def kind(self) -> Literal["capture"]:
        """For the Scene protocol."""
        return "capture"

    @property
    def has_alpha(self) -> bool:
        """Whether the photographs show an object cut out, so that there is nothing around it."""
        return self.pixels.shape[1] == 4

    @property
    def times(self) -> Float[Tensor, " V"] | None:
        """When each photograph was taken, in [0, 1]; None where nobody says."""
        return self.cameras.time

    @property
    def is_dynamic(self) -> bool:
        """Whether photographs were taken at several times."""
        return self.times is not None and bool((self.times != self.times[0]).any())

    @property
    def splits(self) -> dict[str, Cameras]:
        """The cameras of each split."""
        return {split: self.cameras[views] for split, views in self.views.items()}

    @cached_property
    def _ends(self) -> Int[Tensor, " V"]:
        """Where in `pixels` each photograph ends."""
        return self.cameras.size.prod(-1).cumsum(0)

    @cached_property
    def _starts(self) -> Int[Tensor, " V"]:
        """Where in `pixels` each photograph begins."""
        return self._ends - self.cameras.size.prod(-1)

    @cached_property
    def _widths(self) -> Int[Tensor, " V"]:
        return self.cameras.size[:, 0].contiguous()

    @cached_property
    def _equal_size(self) -> tuple[Int[Tensor, "1"], Int[Tensor, "1"]] | None:
        """Pixels and width of every photograph, if they are of one size."""
        sizes = self.cameras.size.unique(dim=0)
        return (sizes.prod(-1), sizes[:, 0]) if len(sizes) == 1 else None

    @cached_property
    def _kept_share(self) -> float:
        """Of the training pixels, the part that no mask leaves out."""
        n = self._n_training_pixels
        return 1.0 if self.keep is None else float(self.keep[:n].sum()) / max(n, 1)

    @property
    def _n_training_pixels(self) -> int:
        n_views = len(self.views["train"])
        return int(self._ends[n_views - 1]) if n_views else 0

    def sample(self, n: int, generator: torch.Generator) -> tuple[Rays, Float[Tensor, "n 3"]]:
        """`n` rays through random pixels of all training views, and the colours seen there.

        Transparent photographs get a random background for every ray, so that only what is empty can be empty.
        """
        index = self._draw(n, generator)
        view, within, width = self._places(index)
        row = torch.div(within, width, rounding_mode="floor")
        xy = torch.stack((within - row * width, row), -1) + 0.5
        rays = self.cameras.rays(view, xy)
        colour = self.pixels.index_select(0, index).float() / 255
        if self.has_alpha:
            rays = replace(rays, background=torch.rand(n, 3, generator=generator))
            colour = over(colour, rays.background)
        return rays, colour

    def _places(self, index: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, "#n"]]:
        """Views of pixels, where in these they lie, and how wide the views are."""
        if self._equal_size is not None:
            area, width = self._equal_size
            view = torch.div(index, area, rounding_mode="floor")
            return view, index - view * area, width
        view = torch.searchsorted(self._ends, index, right=True)
        return view, index - self._starts.index_select(0, view), self._widths.index_select(0, view)

    def loss(self, predicted: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
        """Mean squared error of display-encoded colours: what PSNR measures."""
        return torch.nn.functional.mse_loss(predicted, target)

    def evaluate(self, predict: Callable[[Rays], Tensor], split: str = "test") -> Evaluation:
        """PSNR and SSIM of every photograph of a split. `predict` gets all rays of a view; raises InputError if the
        split has no views."""
        from scenes.metrics import DEFINITIONS

        views = self.views.get(split)
        if not views:
            having = ", ".join(f"{name} ({len(v)})" for name, v in self.views.items() if v)
            raise InputError(f"the capture has no {split} views, only {having}; choose another split")
        scores: list[dict[str, float]] = []
        for view in views:
            rays = self.image_rays(view)
            with torch.no_grad():
                predicted = predict(rays).cpu().clamp(0, 1)
            scores.append(self._compare(view, predicted))
        metrics = [name for name in scores[0] if all(name in score for score in scores)]
        per_item = {name: [score[name] for score in scores] for name in metrics}
        return Evaluation(
            results={name: sum(values) / len(values) for name, values in per_item.items()},
            names=[self.names[view] for view in views],
            per_item=per_item,
            definitions={name: DEFINITIONS[name] + MASKED * (self.keep is not None) for name in per_item},
            background=self.background if self.has_alpha else None,
        )

    def _compare(self, view: int, predicted: Float[Tensor, "P 3"]) -> dict[str, float]:
        from scenes.metrics import compare_pictures, psnr

        truth, keep = self.image(view)
        width, height = self.cameras.size[view].tolist()
        if keep is not None and not keep.all():
            shown = torch.where(keep[:, None], predicted, truth)
            scores = compare_pictures(shown.view(height, width, 3), truth.view(height, width, 3)).results()
            return scores | ({"psnr": psnr(predicted[keep][:, None], truth[keep][:, None])} if keep.any() else {})
        return compare_pictures(predicted.view(height, width, 3), truth.view(height, width, 3)).results()

    def image_rays(self, view: int) -> Rays:
        """All rays of one view, row by row, with the background of evaluation behind them."""
        rays = self.cameras.image_rays(view)
        return replace(rays, background=self._background().expand_as(rays.origins))

    def image(self, view: int) -> tuple[Float[Tensor, "P 3"], Bool[Tensor, " P"] | None]:
        """One photograph over the background of evaluation, row by row, and its mask."""
        part = slice(int(self._starts[view]), int(self._ends[view]))
        colour = self.pixels[part].float() / 255
        truth = over(colour, self._background()) if self.has_alpha else colour
        return truth, None if self.keep is None else self.keep[part]

    def alpha(self, view: int) -> UInt8[Tensor, "H W"]:
        """Opacity of one photograph of an object cut out, 0 to 255; 255 where it is masked, so that nobody knows."""
        width, height = self.cameras.size[view].tolist()
        part = slice(int(self._starts[view]), int(self._ends[view]))
        opacity = self.pixels[part, 3]
        opacity = opacity if self.keep is None else torch.where(self.keep[part], opacity, 255)
        return opacity.view(height, width)

    def describe(self) -> dict[str, JSON]:
        """What rendering, export and a report of the run need to know."""
        return {
            "kind": self.kind,
            "box": self.box.to_json(),
            "unbounded": self.unbounded,
            "has_alpha": self.has_alpha,
            "background": self.background if self.has_alpha else None,
            "up": list(self.up),
            "near": self.near,
            "applied_transform": self.applied_transform,
            "dynamic": self.is_dynamic,
            "time_span": None if self.time_span is None else list(self.time_span),
            "cameras": {split: cameras.to_json() for split, cameras in self.splits.items()},
            "names": {split: [self.names[view] for view in views] for split, views in self.views.items()},
        }

    def fingerprint(self) -> str:
        """sha256 of the pixels, masks, cameras and splits; names do not count."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.cameras.to_json(), self.views]).encode())
        digest.update(self.pixels.numpy().data)
        if self.keep is not None:
            digest.update(self.keep.numpy().data)
        return digest.hexdigest()

    def _background(self) -> Float[Tensor, "3"]:
        """A field of plain photographs brings its own background, so theirs is black."""
        return torch.full((3,), 1.0 if self.has_alpha and self.background == "white" else 0.0)

    def _draw(self, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Random training pixels. Raises InputError if there are none."""
        total = self._n_training_pixels
        if total == 0 or self._kept_share == 0:
            raise InputError("the capture has no pixels to train on: no training views, or masks leave out all of them")
        if self.keep is None:
            return torch.randint(total, (n,), generator=generator)
        drawn = torch.empty(0, dtype=torch.int64)
        while len(drawn) < n:
            more = int((n - len(drawn)) / self._kept_share * 1.1) + 16
            index = torch.randint(total, (min(more, 64 * n + 16),), generator=generator)
            drawn = torch.cat((drawn, index[self.keep[index]]))
        return drawn[:n]


def over(rgba: Float[Tensor, "P 4"], background: Float[Tensor, "*#P 3"]) -> Float[Tensor, "P 3"]:
    """Straight alpha over a background, in the colour space of both."""
    return torch.lerp(background.expand(len(rgba), 3), rgba[:, :3], rgba[:, 3:])
