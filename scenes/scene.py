"""What every scene can do, how it is loaded, and what an evaluation returns. Imports no torch: the command line needs
`LoadOptions` before any heavy package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from scenes.box import Box
    from scenes.rays import Inputs

    JSON: TypeAlias = Mapping[str, "JSON"] | Sequence["JSON"] | str | int | float | bool | None
else:
    JSON = object  # a recursive type is for type checkers only

Kind: TypeAlias = Literal["image", "mesh", "video", "capture"]


@dataclass(frozen=True)
class LoadOptions:
    """How files become a scene."""

    hold_out_every: int = 8
    """Of a capture whose files name no test views, every n-th view in the order of names is held out for evaluation
    (0, n, 2n ...), or of one whose views have times all views of every n-th time (n/2, n/2 + n ...); 0 holds out
    none."""
    downscale: int = 1
    """Shrink photographs and frames of videos by this whole factor when they are loaded (average over the area)."""
    frames: tuple[int, int] | None = None
    """Of a video, only the frames from the first number on and before the second, counted from 0."""
    background: Literal["white", "black"] = "white"
    """What pictures with transparency are composited over in evaluation and rendering."""
    allow_outside: bool = False
    """Allow a JSON to name pictures that are outside its own folder."""
    max_pixels: int = 200_000_000
    """Refuse a single picture, or a video of such frames, with more pixels than this."""
    max_ram_gb: float | None = None
    """Refuse a capture or a video that needs more memory than this; by default half of the free memory."""
    box: tuple[float, float, float, float, float, float] | None = None
    """World bounds `x0 y0 z0 x1 y1 z1` of what is to be fitted, in place of those found automatically. A capture with
    bounds given here has nothing outside of them."""
    evaluation_only: bool = False
    """The data serve to evaluate a finished run: all views of a JSON are test views, and none are needed to train."""
    seed: int = 0
    """Of whatever a loader draws at random."""


@dataclass(frozen=True)
class Evaluation:
    """Standard metrics on held-out data."""

    results: dict[str, float]
    """Metric to its mean over the items."""
    names: list[str] = field(default_factory=list)
    """The items, for example pictures, in the order of `per_item`."""
    per_item: dict[str, list[float]] = field(default_factory=dict)
    """Metric to its value for every item."""
    definitions: dict[str, str] = field(default_factory=dict)
    """Metric to what was computed: range, window, colour space."""
    background: str | None = None
    """What transparent truth was composited over."""
    items: Literal["views", "frames"] = "views"
    """What several of them are called."""

    def to_json(self) -> dict[str, JSON]:
        """What `eval.json` and `--json` hold."""
        return asdict(self)


@runtime_checkable
class Scene(Protocol):
    """A measured signal that can be sampled."""

    @property
    def kind(self) -> Kind:
        """Which of the few kinds of signal this is."""
        ...

    @property
    def box(self) -> Box:
        """World bounds; a field sees them in the unit cube."""
        ...

    def sample(self, n: int, generator: torch.Generator) -> tuple[Inputs, Tensor]:
        """Draw `n` inputs and what a field should give there. Coordinates are in the unit cube, rays in world units."""
        ...

    def loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """A scalar to minimise."""
        ...

    def evaluate(self, predict: Callable[[Inputs], Tensor], split: str = "test") -> Evaluation:
        """Standard metrics. `predict` gets all that belongs together, such as a picture, and chunks by itself."""
        ...

    def describe(self) -> dict[str, JSON]:
        """What a run stores, so that rendering and export need no data."""
        ...

    def fingerprint(self) -> str:
        """sha256 of the data's content in hexadecimal digits: equal for equal data, wherever they lie."""
        ...
