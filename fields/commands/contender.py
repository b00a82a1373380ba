"""One field of a comparison: an ordinary run, fitted with its quality noted at times evenly spaced in their logarithm.

Each note is a line of the run's metrics.jsonl that has `held_out`; taking it does not count as time of fitting. When it
is fitted, `eval.json` also holds what the comparison tells of it, so that a comparison is made from its runs alone.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fields.commands.evaluate import measure
from fields.commands.stopping import StopSignals
from fields.field import Field, RadianceField, build, initialise
from fields.fitting import Step, fit
from fields.peak_memory import PeakMemory
from fields.presets import Config
from fields.probe import Probe, held_out_split
from fields.progress import FitProgress
from fields.run import Data, Run
from scenes.errors import InputError
from scenes.scene import Scene

SAVE_SECONDS = 60.0
OCTAVES, NOTES_PER_OCTAVE = 8, 3
"""Notes are taken from total / 2^OCTAVES seconds to the end."""


@dataclass(frozen=True)
class Contender:
    """What is fitted under which name."""

    name: str
    config: Config


@dataclass(frozen=True)
class Contest:
    """What all of them are fitted to."""

    scene: Scene
    described: Mapping[str, Any]
    """What the scene says of itself."""
    data: Data
    probe: Probe
    device: torch.device


@dataclass(frozen=True)
class Outcome:
    """What is known of a field that was fitted."""

    name: str
    encoding: str
    network: str
    parameters: int
    bytes: int
    """Of field.safetensors."""
    steps: int
    seconds: float
    """Of fitting."""
    results: dict[str, float]
    """Metric to value, over all that is evaluated."""
    peak_memory: int | None
    """Bytes; None where the system does not tell, or the fit was interrupted."""
    curve: list[tuple[float, float]]
    """(seconds of fitting, quality of the probe)."""

    def gained_per_second(self) -> float | None:
        """dB of PSNR over seconds of fitting; None where there is no PSNR."""
        return self.results["psnr"] / self.seconds if "psnr" in self.results and self.seconds > 0 else None


def open_or_create(folder: Path, contender: Contender, contest: Contest) -> tuple[Run, bool]:
    """The run of a contender, locked, and whether it is new. Raises InputError when what is there is another one."""
    if not (folder / "config.json").exists():
        return Run.create(folder, contender.config, contest.described, contest.data), True
    opened = Run.open(folder)
    if opened.config != contender.config or opened.data.fingerprint != contest.data.fingerprint:
        raise InputError(f"{folder}: was fitted to other data or with other settings; choose another --out")
    opened.lock()
    return opened, False


def outcome(opened: Run, name: str) -> Outcome | None:
    """What a finished run says; None of one that is not finished."""
    evaluation = opened.evaluation() if opened.checkpoint_exists() else None
    if evaluation is None or "comparison" not in evaluation or evaluation.get("step") != opened.step():
        return None
    own = evaluation["comparison"]
    curve = [(float(r["seconds"]), float(r["held_out"])) for r in opened.metrics() if r.get("held_out") is not None]
    size = (opened.path / "field.safetensors").stat().st_size
    parts = own["encoding"], own["network"], int(own["parameters"]), size, int(evaluation["step"])
    return Outcome(name, *parts, float(own["seconds"]), evaluation["results"], own["peak_memory"], curve)


def fit_contender(opened: Run, contest: Contest, is_new: bool) -> int:
    """Fit, or go on, and evaluate; the number of the signal that ended it early, or 0."""
    checkpoint = None if is_new else opened.checkpoint()
    field = _fresh(opened, contest) if checkpoint is None else opened.load(checkpoint.field)
    field = field.to(contest.device)
    opened.rewind(checkpoint.step if checkpoint else 0)
    memory = PeakMemory(contest.device)
    try:
        stopped, seconds = _fit(opened, field, contest, checkpoint.state if checkpoint else None)
    except BaseException:
        if is_new:
            opened.remove_if_nothing_was_saved()
        raise
    if stopped:
        return stopped
    peak = memory.bytes() if checkpoint is None else None
    report = measure(field, contest.scene, contest.described, held_out_split(contest.scene), contest.device)
    field_config = opened.config.field
    networks = [value for key, value in vars(field_config).items() if key in ("network", "density", "color")]
    own = {
        "encoding": type(field_config.encoding).__name__,
        "network": " and ".join(dict.fromkeys(type(part).__name__ for part in networks)),
        "parameters": sum(parameter.numel() for parameter in field.parameters()),
        "seconds": seconds,
        "peak_memory": peak,
    }
    opened.write_evaluation(report | {"step": opened.step(), "comparison": own})
    return 0


def _fresh(opened: Run, contest: Contest) -> Field | RadianceField:
    field = build(opened.config.field, contest.described)
    initialise(field, opened.config.fit.seed)
    return field


def _fit(
    opened: Run, field: Field | RadianceField, contest: Contest, state: dict[str, torch.Tensor] | None
) -> tuple[int, float]:
    """(signal or 0, seconds of fitting)."""
    with FitProgress(sys.stderr) as progress:
        steps = fit(field, contest.scene, opened.config.fit, state=state)
        first = next(steps, None)
        if first is None:
            if state is None:
                raise InputError(f"{opened.path}: the time was over before the first step; give more --minutes")
            return 0, float(state["seconds"])
        step, saved_at = first, time.monotonic()
        due = _next_note(opened, first.seconds)
        with StopSignals() as stop:
            for step in itertools.chain([first], steps):
                progress.show(step)
                if step.seconds >= due or step.progress >= 1:
                    _note(opened, step, contest.probe.quality(field))
                    due = _next_note(opened, step.seconds)
                if stop.received:
                    break
                if time.monotonic() - saved_at >= SAVE_SECONDS:
                    opened.save(field, step)
                    saved_at = time.monotonic()
            progress.show(step, last=True)
            opened.save(field, step)
        return stop.received, step.seconds


def _next_note(opened: Run, seconds: float) -> float:
    """The next of the times at which quality is noted."""
    total = 60 * (opened.config.fit.minutes or 0)
    times = [total * 2 ** (-i / NOTES_PER_OCTAVE) for i in range(OCTAVES * NOTES_PER_OCTAVE, 0, -1)]
    return next((t for t in times if t > seconds), total)


def _note(opened: Run, step: Step, quality: float) -> None:
    record = {key: value for key, value in vars(step).items() if key not in ("stages", "state", "index", "progress")}
    opened.log({"step": step.index, **record, "held_out": quality})


def to_json(found: Outcome) -> dict[str, Any]:
    """What comparison.json holds of it."""
    return asdict(found) | {"psnr_per_second": found.gained_per_second()}
