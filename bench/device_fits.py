"""Whole fits on this machine's NVIDIA GPU: our kernels beside tiny-cuda-nn's grid and networks and nerfacc's marching.

    python bench/device_fits.py [PATH] [--minutes 0.5 | --steps N]

PATH is a capture, by default the built-in demo. All fits have the same sizes, rates, batches and time of fitting, one
after another; kernels are compiled before the clock starts. What is not installed is said and left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from fields.field import Field, RadianceField, RadianceFieldConfig, build, initialise
from fields.fitting import fit
from fields.networks import MLP, NetworkConfig, TcnnMLP
from fields.presets import Config, preset
from fields.rendering.render import predictor
from scenes import load
from scenes.demo import write_demo
from scenes.errors import InputError
from scenes.scene import Scene

WARM_UP = 20
"""Steps before the clock starts: kernels are compiled in the first, and occupancy is refreshed in the 17th."""


def settings(scene: Scene) -> dict[str, Config]:
    """The preset, and the same computed by other libraries."""
    ours = preset(scene)
    assert isinstance(ours.field, RadianceFieldConfig)
    grid = preset(scene, encoding="tcnn-hash").field.encoding
    theirs = replace(ours.field, encoding=grid, density=fused(ours.field.density), color=fused(ours.field.color))
    by = {"fieldfit": ours.field, "tiny-cuda-nn": theirs}
    march = replace(ours.field.march, marcher="nerfacc")
    by |= {f"{name}, marched by nerfacc": replace(field, march=march) for name, field in by.items()}
    return {name: replace(ours, field=field) for name, field in by.items()}


def fused(network: NetworkConfig) -> TcnnMLP:
    """tiny-cuda-nn's perceptron of the same size."""
    assert isinstance(network, MLP)
    return TcnnMLP(network.hidden_dim, network.hidden_layers)


def measure(config: Config, scene: Scene, device: torch.device) -> str:
    """Fit and evaluate; the numbers of a row."""
    for _ in fit(make(config, scene, device), scene, replace(config.fit, steps=WARM_UP, minutes=None)):
        pass
    field, step, n_samples = make(config, scene, device), None, 0
    for step in fit(field, scene, config.fit):
        n_samples += step.n_samples
    assert step is not None
    psnr = scene.evaluate(predictor(field.eval())).results["psnr"]
    speed, samples = step.index / step.seconds, n_samples / step.seconds / 1e6
    return f"{psnr:8.2f}{step.seconds:9.1f}{step.index:8}{speed:9.1f}{samples:13.2f}"


def make(config: Config, scene: Scene, device: torch.device) -> Field | RadianceField:
    """A field before its first step."""
    field = build(config.field, scene.describe())
    initialise(field, config.fit.seed)
    return field.to(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; ends with one line where there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=0.5, help="of fitting, for each")
    parser.add_argument("--steps", type=int, help="instead of a time")
    given = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit("this measures an NVIDIA GPU, and torch finds none here; `fieldfit doctor` says why")
    path = given.path or Path(tempfile.mkdtemp()) / "demo"
    if given.path is None:
        write_demo(path)
    try:
        scene = load(path)
    except InputError as error:
        sys.exit(str(error))
    if scene.kind != "capture":
        sys.exit(f"{path}: expected a capture, got a signal of the kind {scene.kind}")
    device = torch.device("cuda", torch.cuda.current_device())
    gpu = torch.cuda.get_device_name(device)
    length = f"{given.minutes * 60:g} s" if given.steps is None else f"{given.steps} steps"
    print(f"{gpu}, torch {torch.__version__}; {path.name}, {length} each")
    print(f"{'':<38}{'PSNR':>8}{'seconds':>9}{'steps':>8}{'steps/s':>9}{'M samples/s':>13}", flush=True)
    for name, config in settings(scene).items():
        timed = replace(config, fit=replace(config.fit, minutes=given.minutes, steps=given.steps))
        try:
            print(f"{name:<38}{measure(timed, scene, device)}", flush=True)
        except InputError as error:
            print(f"{name:<38}not run: {error}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
