"""Rows of whole radiance fields, fitted to the built-in demo: a training step, looking, and memory."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from limits import GridBound
from operations import Bench, scaling
from report import Asked, Row
from rounds import Rounds
from substitutes import torch_reference

from fields.encodings import Hash
from fields.encodings.grid import GridEncoding
from fields.field import RadianceField, RadianceFieldConfig, build, initialise
from fields.fitting import FitConfig, Step, fit
from fields.networks import MLP
from fields.networks.mlp import Perceptron
from fields.presets import Config, capture_preset
from fields.rendering.render import look
from scenes import load
from scenes.capture import Capture
from scenes.demo import write_demo

ENDLESS = 10**9
"""Steps of a fit that is stopped by no longer asking."""


def demo_capture(folder: Path) -> Capture:
    """The demo's photographs, made in a folder."""
    write_demo(folder / "demo")
    scene = load(folder / "demo")
    assert isinstance(scene, Capture)
    return scene


def large_config() -> Config:
    """The preset with instant-ngp's grid and sizes of networks: 16 x 2 x 2^19, layers of 64."""
    config = capture_preset(unbounded=False)
    assert isinstance(config.field, RadianceFieldConfig)
    encoding = Hash(16, 2, 19, 16, 2048)
    density = replace(config.field.density, hidden_dim=64, hidden_layers=1)
    color = replace(config.field.color, hidden_dim=64, hidden_layers=2)
    return replace(config, field=replace(config.field, encoding=encoding, density=density, color=color))


def in_full_precision(config: Config) -> Config:
    """The same with networks that compute in float32."""
    assert isinstance(config.field, RadianceFieldConfig)
    density, color = config.field.density, config.field.color
    assert isinstance(density, MLP)
    assert isinstance(color, MLP)
    field = replace(
        config.field, density=replace(density, precision="float32"), color=replace(color, precision="float32")
    )
    return replace(config, field=field)


@dataclass
class Fitted:
    """A field and the fit that moves it on, one step a turn."""

    field: RadianceField
    steps: Iterator[Step]
    config: FitConfig
    last: Step
    within: Callable[[], AbstractContextManager[None]] = nullcontext
    """What a step runs in."""

    def advance(self, n: int) -> tuple[float, int]:
        """Take n steps: seconds, and samples of the field."""
        n_samples, started = 0, time.perf_counter()
        with self.within():
            for _ in range(n):
                self.last = next(self.steps)
                n_samples += self.last.n_samples
        return time.perf_counter() - started, n_samples

    def fork(self, scene: Capture, within: Callable[[], AbstractContextManager[None]]) -> Fitted:
        """Another fit that goes on from the same state, on a field of its own."""
        field, state = copy.deepcopy(self.field), self.last.state()
        return Fitted(field, fit(field, scene, self.config, state=state), self.config, self.last, within)


def fitted(scene: Capture, config: Config, seconds: float) -> Fitted:
    """The field of a configuration after some seconds of fitting, so that its occupancy has settled."""
    field = build(config.field, scene.describe())
    assert isinstance(field, RadianceField)
    initialise(field, 0)
    endless = replace(config.fit, minutes=None, steps=ENDLESS)
    steps = fit(field, scene, endless)
    state = Fitted(field, steps, endless, next(steps))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        state.advance(1)
    return state


@dataclass
class Turns:
    """Some steps at every call. The occupancy is refreshed in some steps only, so that a rate is one of all turns."""

    fitted: Fitted
    n_steps: int
    taken: list[tuple[float, int]] = field(default_factory=list)

    def __call__(self) -> float:
        """Take them: samples per second."""
        seconds, n_samples = self.fitted.advance(self.n_steps)
        self.taken.append((seconds, n_samples))
        return n_samples / seconds

    def rate(self) -> float:
        """Samples per second over all turns but the first, which warms up."""
        return sum(n for _, n in self.taken[1:]) / sum(seconds for seconds, _ in self.taken[1:])


def least_seconds(bench: Bench, field: RadianceField, n: int, training: bool) -> float:
    """Of n samples, if nothing had to be done but the networks' products at the peak and the grid's random accesses."""
    assert isinstance(field.encoding, GridEncoding)
    seconds = 0.0
    for network in (field.density_network, field.color_network):
        assert isinstance(network, Perceptron)
        half = network.shape.precision == "bfloat16"
        limits = (bench.limits.tiles, bench.limits.bfloat16, bench.limits.fma) if half else (bench.limits.fma,)
        seconds += 2 * network.shape.size * n * (3 if training else 1) / max(peak(bench.threads) for peak in limits)
    bound = GridBound(bench.limits, field.encoding.shape, n)
    return seconds + (bound.forward_backward(bench.threads) if training else bound.forward(bench.threads))


def step_rows(bench: Bench, scene: Capture, state: Fitted) -> Iterator[Row]:
    """The complete training step of the preset: ours, and the same in the torch reference."""
    period = state.field.occupancy.config.update_every
    n_rounds, batch = 4 if bench.compile else 2, state.config.batch
    kinds = {"eager": False} | ({"compiled": True} if bench.compile else {})
    for march in (True, False):
        rounds = Rounds(n_rounds, n_rounds)
        turns = {"ours": Turns(state, period)}
        rounds.ask("ours", turns["ours"], bench.threads)
        rounds.ask("limit", lambda: batch / least_seconds(bench, state.field, batch, True), bench.threads)
        if bench.threads > 1:
            turns["1 thread"] = Turns(state, period)
            rounds.ask("ours on 1 thread", turns["1 thread"], 1)
        for name, compiled in kinds.items():
            within = partial(torch_reference, compiled=compiled, march=march)
            reference = state.fork(scene, within)
            reference.advance(period + 4 if compiled else 3)  # whatever compiles, and as many rays as give a batch
            turns[name] = Turns(reference, period // 4)
            rounds.ask(name, turns[name], bench.threads)
        rounds.run()
        ours = turns["ours"].rate()
        times = {name: ours / turns[name].rate() for name in turns if name != "ours"}
        asked = []
        if march:
            rate = Asked("M samples/s", ours / 1e6, 1.0, "{:.2f}")
            asked = [rate, Asked("the faster of both", min(times[name] for name in kinds), 10)]
            asked += [Asked("threads", times["1 thread"], 1.8)] if "1 thread" in times else []
        name = "radiance step of the preset" if march else "the same, torch's marched by ours"
        figures = times.get("eager"), times.get("compiled"), times.get("1 thread")
        yield Row(name, f"{ours / 1e6:.2f} M/s", rounds.ratio("ours", "limit"), *figures, asked, rounds.values)


def inference_row(bench: Bench, scene: Capture, field: RadianceField, name: str, least: float) -> Row:
    """All test views of the demo through the fused renderer."""
    rays = [scene.image_rays(view) for view in scene.views["test"]]
    n_samples = sum(look(field, part).n_samples for part in rays)

    def call() -> None:
        for part in rays:
            look(field, part)

    rounds = bench.rounds()
    rounds.time("ours", call, bench.threads)
    if bench.threads > 1:
        rounds.time("ours on 1 thread", call, 1)
    rounds.ask("limit", lambda: least_seconds(bench, field, n_samples, False), bench.threads)
    rounds.run()
    rate = n_samples / rounds.median("ours") / 1e6
    asked = [Asked("M samples/s", rate, least, "{:.2f}"), *scaling(rounds)]
    times = rounds.ratio("ours on 1 thread", "ours") if bench.threads > 1 else None
    limit = rounds.ratio("limit", "ours")
    return Row(f"inference, {name}", f"{rate:.2f} M/s", limit, scaling=times, asked=asked, values=rounds.values)


def networks_row(bench: Bench, state: Fitted, name: str, least: float | None = None) -> Row:
    """The networks' part of whole training steps: products that gradients need over the peak of what computes them.

    Each of forward, cotangents of inputs and gradients of weights counts once, whatever is computed twice.
    """
    flops, seconds, shares = 0.0, 0.0, []
    for network in (state.field.density_network, state.field.color_network):
        assert isinstance(network, Perceptron)
        flops += 3 * 2 * network.shape.size
    limits = (bench.limits.tiles, bench.limits.bfloat16, bench.limits.fma)
    half = state.field.color_network.shape.precision == "bfloat16"  # pyright: ignore[reportAttributeAccessIssue]
    peak_flops = max(peak(bench.threads) for peak in (limits if half else limits[-1:]))
    for _ in range(64):
        n = state.advance(1)[1]
        stages = state.last.stages
        seconds = sum(stages.get(f"{pass_}: networks", 0.0) for pass_ in ("forward", "backward")) / 1e3
        shares.append(flops * n / seconds / peak_flops)
    share = statistics.median(shares)
    asked = [] if least is None else [Asked("of limit", 100 * share, least, "{:.0f} %")]
    return Row(f"networks in a training step, {name}", f"{1e3 * seconds:.2f} ms", share, asked=asked)


def memory_row(state: Fitted, n_steps: int) -> Row:
    """Growth of what the process holds, from the third quarter of so many steps to the last: buffers have by then met
    the largest batches."""
    held = []
    for _ in range(n_steps // 4):
        state.advance(4)
        held.append(resident_bytes())
    quarter = len(held) // 4
    growth = statistics.median(held[-quarter:]) - statistics.median(held[-2 * quarter : -quarter])
    per_hundred = growth / 1e6 * 100 / (n_steps / 4)
    asked = [Asked("growth, MB in 100 steps", per_hundred, 1.0, "{:.2f}", at_most=True)]
    name = f"memory over {n_steps} steps of training"
    return Row(name, f"{held[-1] / 1e6:.0f} MB", asked=asked, values={"bytes": held})


def resident_bytes() -> int:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def radiance_rows(bench: Bench, names: Container[str], folder: Path) -> Iterator[Row]:
    """The rows of this file that are named: radiance, inference, memory."""
    if not any(name in names for name in ("radiance", "inference", "memory")):
        return
    scene = demo_capture(folder)
    seconds = 15.0 if bench.compile else 8.0
    preset = fitted(scene, capture_preset(unbounded=False), seconds)
    if "memory" in names:  # before torch compiles and fits in the same process
        yield memory_row(preset, 2000)
    if "inference" in names:
        yield inference_row(bench, scene, preset.field, "preset", 5.0)
        large = fitted(scene, large_config(), seconds)
        yield inference_row(bench, scene, large.field, "16 x 2, 2^19, layers of 64", 3.0)
    if "radiance" in names:
        yield networks_row(bench, preset, "preset")
        large = large_config()
        yield networks_row(bench, fitted(scene, large, seconds), "layers of 64")
        yield networks_row(bench, fitted(scene, in_full_precision(large), seconds), "layers of 64, fp32", 75)
        yield from step_rows(bench, scene, preset)
