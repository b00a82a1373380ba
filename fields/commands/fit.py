"""`fieldfit fit`: load, choose a preset, fit, save, evaluate."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fields.commands.arguments import HELP, UsageError, override, parse, split
from fields.commands.device import choose_device, where
from fields.commands.evaluate import measure, table
from fields.commands.job import PROG, FitOptions, Job, is_run, resume, start
from fields.commands.stopping import StopSignals
from fields.commands.view import announce, keep_serving
from fields.field import Field, RadianceField
from fields.fitting import Step, fit
from fields.playback import playback
from fields.presets import Config
from fields.profile import Profile
from fields.progress import FitProgress
from fields.rendering.render import look
from fields.run import Run
from scenes.capture import Capture
from scenes.errors import InputError
from scenes.video import Video

if TYPE_CHECKING:
    from viewer.live.window import Window

SAVE_SECONDS = 60.0
LOG_EVERY = 10
DESCRIPTION = """Fit a field to what PATH holds. The kind of signal chooses the preset; every field of the preset is an
option too, such as --fit.batch or --field.encoding.levels: `fieldfit fit PATH --help` lists them with their values."""


def run(argv: Sequence[str]) -> int:
    """Returns 0, or 128 plus the number of the signal that stopped fitting."""
    if HELP & set(argv):
        return _help(argv)
    own, overrides = split(argv, FitOptions, Config, prog=PROG)
    options = parse(FitOptions, own, prog=PROG, description=DESCRIPTION)
    _check_duration(options)
    device = choose_device(options.device)
    job = resume(options, overrides) if options.resume or is_run(options.path) else start(options, overrides)
    n_parameters = sum(parameter.numel() for parameter in job.field.parameters())
    print(f"{job.run.path}: {job.scene.kind}, {n_parameters:,} parameters, {where(device)}", flush=True)
    try:
        with _window(job, device, options) as window:
            stopped = _fit(job, device, options.profile, window)
            if stopped:
                print(f"stopped and saved; go on with: fieldfit fit {shlex.quote(str(job.run.path))} --resume")
                return 128 + stopped
            _evaluate(job, device)
            if window is not None:
                keep_serving(window)
    except BaseException:
        if job.is_new:
            job.run.remove_if_nothing_was_saved()
        raise
    return 0


@contextmanager
def _window(job: Job, device: torch.device, options: FitOptions) -> Iterator[Window | None]:
    """The viewer, if it is wanted."""
    if not options.view:
        yield None
        return
    from viewer.live.window import Window

    window = Window(job.run, job.field.to(device), options.serve.door(), scene=job.scene)
    try:
        announce(window)
        yield window
    finally:
        window.close()


def _help(argv: Sequence[str]) -> int:
    """The options of this command, and when PATH is given those of the preset that it would get."""
    with suppress(SystemExit):
        parse(FitOptions, ["--help"], prog=PROG, description=DESCRIPTION)
    rest, _ = split([token for token in argv if token not in HELP], FitOptions, Config, prog=PROG)
    if rest and not rest[0].startswith("-"):
        options = parse(FitOptions, rest, prog=PROG, description=DESCRIPTION)
        if is_run(options.path):
            override(Run.open(options.path).config, ["--help"], prog=PROG)
        start(options, ["--help"])
    return 0


def _check_duration(options: FitOptions) -> None:
    """Raise UsageError unless at most one is given, and is positive."""
    if options.minutes is not None and options.steps is not None:
        raise UsageError("--minutes and --steps are two ways to say when to stop; give one of them")
    for flag, value in (("--minutes", options.minutes), ("--steps", options.steps)):
        if value is not None and not value > 0:
            raise UsageError(f"{flag}: expected a number above 0, got {value}")


def _fit(job: Job, device: torch.device, profiled: bool, window: Window | None) -> int:
    """Fit and save; the number of the signal that ended it early, or 0. Raises InputError when no step was taken."""
    module = job.field.to(device)
    state = job.checkpoint.state if job.checkpoint else None
    profile = Profile() if profiled else None
    with FitProgress(sys.stderr) as progress:
        steps = fit(module, job.scene, job.run.config.fit, state=state)
        first = next(steps, None)  # until it is done there is nothing to save: a signal ends the program
        if first is None:
            progress.print(_why_no_step(job))
            return 0
        step, saved_at = first, time.monotonic()
        with StopSignals() as stop:
            going = chain([first], steps)

            def save() -> None:
                nonlocal saved_at
                job.run.save(module, step)
                saved_at = time.monotonic()

            for step in going if window is None else window.follow(going, lambda: bool(stop.received), save):
                progress.show(step)
                if profile is not None:
                    profile.add(step)
                if step.index % LOG_EVERY == 0:
                    _log(job.run, step)
                if stop.received:
                    break
                if time.monotonic() - saved_at >= SAVE_SECONDS:
                    save()
            progress.show(step, last=True)
            if step.index % LOG_EVERY:
                _log(job.run, step)
            job.run.save(module, step)
        if profile is not None:
            progress.print(profile.table())
            progress.print(f"the same over time: {_picture(job, profile)}")
        return stop.received


def _why_no_step(job: Job) -> str:
    if job.checkpoint is None:
        minutes = job.run.config.fit.minutes
        raise InputError(f"{job.run.path}: {minutes:g} minutes were over before the first step; give more --minutes")
    return f"step {job.checkpoint.step} was the last one already; fit longer with --steps or --minutes (in all)"


def _log(opened: Run, step: Step) -> None:
    opened.log(
        {
            "step": step.index,
            "seconds": round(step.seconds, 3),
            "loss": step.loss,
            "psnr": step.psnr,
            "n_samples": step.n_samples,
            "skipped": step.skipped,
        }
    )


def _picture(job: Job, profile: Profile) -> Path:
    """Write the picture of where the time went."""
    from viewer import save_png, stage_picture

    path = job.run.path / "profile.png"
    save_png(path, stage_picture(profile, f"{job.run.path.name}: where a step's time goes"))
    return path


def _evaluate(job: Job, device: torch.device) -> None:
    try:
        report: dict[str, Any] = measure(job.field, job.scene, job.run.scene, "test", device)
    except InputError as error:  # such as a capture of which nothing was held out
        print(f"not evaluated: {error}")
        return
    job.run.write_evaluation(report | {"step": job.run.step()})
    print(table(report))
    if isinstance(job.scene, Capture):
        print(f"truth, render and depth: {_compare(job.run, job.scene, job.field)}")
    if isinstance(job.scene, Video):
        print(f"truth, render and error: {_compare_frames(job.run, job.scene, job.field)}")


def _compare(opened: Run, scene: Capture, field: Field | RadianceField) -> Path:
    """Write a picture of the first held-out view beside what the field shows there, its error and its depth."""
    from viewer import comparison, depth_colours, save_png

    assert isinstance(field, RadianceField)
    view = scene.views["test"][0]
    width, height = scene.cameras.size[view].tolist()
    truth, _ = scene.image(view)
    seen = look(field, scene.image_rays(view).to(next(field.parameters()).device))
    depth = depth_colours(seen.depth.view(height, width).cpu(), seen.opacity.view(height, width).cpu())
    shape = (height, width, 3)
    path = opened.path / "renders" / "comparison.png"
    save_png(path, comparison(truth.view(shape), seen.rgb.view(shape).cpu(), depth))
    return path


def _compare_frames(opened: Run, scene: Video, field: Field | RadianceField) -> Path:
    """Write a picture of the first, the middle and the last frame beside what the field shows there, and its error."""
    from viewer import compared_frames, save_png
    from viewer.sheets import spread

    play = playback(opened.scene)
    chosen = spread(len(scene.frames), 3)
    pairs = [(scene.frames[i].float() / 255, play.values(field, float(scene.times[i]))) for i in chosen]
    path = opened.path / "renders" / "comparison.png"
    save_png(path, compared_frames(pairs))
    return path
