"""Fitting: draw samples of a scene, move a field towards them. A generator; who iterates decides what else happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fields.contracts import Scheduled
from fields.field import Field, RadianceField
from fields.optim import Adam, OptimiserConfig
from fields.penalties import Penalty, PenaltyConfig, configured
from fields.rendering.render import march_shape, render_rays
from scenes.capture import Capture
from scenes.errors import InputError
from scenes.rays import Rays
from scenes.scene import Scene


@dataclass(frozen=True)
class FitConfig:
    """How long and how fast a field is fitted."""

    steps: int | None = None
    """Steps to take. Given alone, a fit on a CPU is the same every time, and resumes bit-exactly."""
    minutes: float | None = 1.0
    """Wall time of fitting, where `steps` is not given."""
    batch: int = 2**16
    """Samples of the field in a step. Rays are drawn as many as give about this number."""
    seed: int = 0
    """Of initial values and of all that is drawn."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """Rates and decays."""
    penalties: PenaltyConfig = PenaltyConfig()
    """On grids."""


@dataclass(frozen=True)
class Step:
    """What one step did."""

    index: int
    """Steps taken so far."""
    progress: float
    """Of the whole fit, in [0, 1]."""
    seconds: float
    """Of fitting so far, earlier sessions included."""
    loss: float
    psnr: float
    """Of the batch, in dB, against a range of 1; of distances too."""
    n_samples: int
    """Evaluations of the field."""
    skipped: int
    """Steps so far whose loss or gradients were not finite, and which therefore changed nothing."""
    stages: Mapping[str, float]
    """Milliseconds by stage."""
    state: Callable[[], dict[str, Tensor]]
    """All that going on bit-exactly needs, but for the field's own tensors."""


@dataclass
class Stopwatch:
    """Milliseconds by stage of one step."""

    stages: dict[str, float] = field(default_factory=dict)
    at: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to a stage."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self.at) * 1e3
        self.at = now

    def split(self, parts: Mapping[str, float]) -> None:
        """Replace a stage by those of its parts, called `stage: part`, that are known, and what is left of it."""
        for name, milliseconds in parts.items():
            whole, _, _ = name.partition(":")
            self.stages[whole] -= milliseconds
            self.stages[name] = milliseconds


class _Counts:
    """The numbers of a fit that a resumed one goes on with."""

    def __init__(self) -> None:
        self.index = 0
        self.skipped = 0
        self.seconds = 0.0
        self.n_rays = 0


def fit(
    field: Field | RadianceField,
    scene: Scene,
    config: FitConfig,
    penalties: Sequence[Penalty] = (),
    state: dict[str, Tensor] | None = None,
) -> Iterator[Step]:
    """Fit `field` to `scene`, one step a turn; stop by no longer asking for steps.

    `state`, from `Step.state` of an earlier fit of the same field, goes on where that stopped; the field must hold the
    values of the same moment.

    Raises:
        InputError: nothing says how long, or the state is of another field.
    """
    if config.steps is None and config.minutes is None:
        raise InputError("fit: expected a number of steps or of minutes, got neither")
    generator = torch.Generator().manual_seed(config.seed + 1)
    lasting, periodic = list(penalties), configured(config.penalties)
    optimiser, counts = Adam(field, config.optimiser), _Counts()
    if state is not None:
        _load(state, generator, optimiser, counts)
    elif isinstance(field, RadianceField) and isinstance(scene, Capture):
        started = time.perf_counter()
        field.occupancy.carve(scene, field.to_world)
        counts.seconds += time.perf_counter() - started
    device = next(field.parameters()).device
    scheduled = [module for module in field.modules() if isinstance(module, Scheduled)]
    while (progress := _progress(config, counts)) < 1:
        watch, started = Stopwatch(), time.perf_counter()
        for module in scheduled:
            module.advance(progress)
        optimiser.follow()
        n = config.batch
        if isinstance(field, RadianceField):
            if counts.index % field.occupancy.config.update_every == 0 and counts.index > 0:
                field.occupancy.refresh(field.sometime(generator), march_shape(field).step, generator)
                watch.lap("occupancy")
            n = counts.n_rays = counts.n_rays or max(config.batch // 256, 16)
        inputs, target = scene.sample(n, generator)
        inputs, target = inputs.to(device), target.to(device)
        parts: Callable[[], Mapping[str, float]] = dict
        watch.lap("sample")
        if isinstance(inputs, Rays):
            assert isinstance(field, RadianceField)
            rendering = render_rays(field, inputs, generator)
            predicted, n_samples, parts = rendering.rgb, rendering.n_samples, rendering.stages
            counts.n_rays = _rays_for(config.batch, n, n_samples)
        else:
            predicted, n_samples = field(inputs), len(inputs)
        loss = scene.loss(predicted, target)
        due = counts.index % config.penalties.every == 0
        for penalty in [*lasting, *(periodic if due else [])]:
            loss = loss + penalty(field)
        watch.lap("forward")
        value = float(loss.detach())
        if math.isfinite(value) and loss.requires_grad:
            loss.backward()
            watch.lap("backward")
        if math.isfinite(value) and optimiser.finite():
            optimiser.step(_decay(progress, config.optimiser.final_rate))
        else:
            optimiser.forget()
            counts.skipped += 1
        watch.lap("optimiser")
        watch.split(parts())
        error = float((predicted.detach() - target).square().mean())
        counts.index += 1
        counts.seconds += time.perf_counter() - started
        yield Step(
            index=counts.index,
            progress=min(_progress(config, counts), 1.0),
            seconds=counts.seconds,
            loss=value,
            psnr=-10 * math.log10(max(error, 1e-12)) if math.isfinite(error) else math.nan,
            n_samples=n_samples,
            skipped=counts.skipped,
            stages=watch.stages,
            state=lambda: _save(generator, optimiser, counts),
        )


def _progress(config: FitConfig, counts: _Counts) -> float:
    if config.steps is not None:
        return counts.index / config.steps if config.steps > 0 else 1.0
    assert config.minutes is not None
    return counts.seconds / (60 * config.minutes) if config.minutes > 0 else 1.0


def _decay(progress: float, final: float) -> float:
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _rays_for(batch: int, n_rays: int, n_samples: int) -> int:
    """Rays that would give `batch` samples, at most twice as many as now, so that one odd batch does not run away."""
    wanted = n_rays * batch / max(n_samples, 1)
    return int(min(max(wanted, n_rays / 2, 16), n_rays * 2, batch))


def _save(generator: torch.Generator, optimiser: Adam, counts: _Counts) -> dict[str, Tensor]:
    return {
        **{f"optimiser.{k}": v.clone() for k, v in optimiser.state().items()},
        "generator": generator.get_state(),
        "index": torch.tensor(counts.index),
        "skipped": torch.tensor(counts.skipped),
        "n_rays": torch.tensor(counts.n_rays),
        "seconds": torch.tensor(counts.seconds, dtype=torch.float64),
    }


def _load(state: dict[str, Tensor], generator: torch.Generator, optimiser: Adam, counts: _Counts) -> None:
    missing = {"generator", "index", "skipped", "n_rays", "seconds"} - set(state)
    if missing:
        raise InputError(f"the state of a fit lacks {', '.join(sorted(missing))}; expected one saved by this version")
    generator.set_state(state["generator"])
    optimiser.load({k.removeprefix("optimiser."): v for k, v in state.items() if k.startswith("optimiser.")})
    counts.index, counts.skipped = int(state["index"]), int(state["skipped"])
    counts.n_rays, counts.seconds = int(state["n_rays"]), float(state["seconds"])
