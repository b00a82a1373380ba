"""Gaussian neurons: the fused layer against torch and this machine's limit, and fields against perceptrons.

    python bench/rbf.py [--quick] [--threads N]
    python bench/rbf.py --image F --mesh F --capture DIR --minutes M [--encoding hash dif] [--downscale 2]

The first prints the kernel's table. The limit is that of the products' multiply-adds alone: exponentials count for
nothing.
The second fits your data with a layer of Gaussian neurons and with a perceptron of as
many multiply-adds behind the same encoding, for equal wall time, in turns, and says which is better.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from limits import Limits
from presets import Effort, compare
from report import Asked, Row, console, machine, row, share, table, tally
from rounds import Rounds
from torch import Tensor

from fields.encodings import build_encoding
from fields.field import RadianceFieldConfig, SignalFieldConfig
from fields.kernels import rbf, reference_rbf
from fields.kernels.reference_rbf import RbfWeights
from fields.networks import MLP, RBF
from fields.presets import Config, EncodingName, preset
from scenes import load
from scenes.errors import InputError
from scenes.scene import LoadOptions, Scene

N = 2**16
OUTPUTS = 4
Layer = Callable[[Tensor, RbfWeights], Tensor]


def multiply_adds(n_features: int, n_neurons: int, n_outputs: int) -> int:
    """Of one sample forward: x and x^2 with two matrices, and the neurons' outputs."""
    return n_neurons * (2 * n_features + n_outputs)


def kernel_rows(limits: Limits, threads: int, n_rounds: int) -> Iterator[Row]:
    """Forward, and forward with all gradients, by number of features and neurons."""
    for n_features, n_neurons in ((18, 64), (24, 64), (32, 64), (24, 32)):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(N, n_features, generator=g).requires_grad_()
        shapes = (n_neurons, n_features), (n_neurons, n_features), (OUTPUTS, n_neurons), (OUTPUTS,)
        weights = RbfWeights(*(torch.randn(shape, generator=g).mul_(0.3).requires_grad_() for shape in shapes))
        d_out = torch.randn(N, OUTPUTS, generator=g)

        def look(layer: Layer, x: Tensor = x, weights: RbfWeights = weights) -> None:
            with torch.no_grad():
                layer(x, weights)

        def learn(layer: Layer, x: Tensor = x, weights: RbfWeights = weights, d_out: Tensor = d_out) -> None:
            torch.autograd.grad(layer(x, weights), [x, *weights], d_out)

        products = 2 * N * multiply_adds(n_features, n_neurons, OUTPUTS)
        for name, call, times in (("forward", look, 1), ("forward + backward", learn, 3)):
            flops = times * products
            rounds = Rounds(n_rounds, n_rounds)
            rounds.time("ours", lambda call=call: call(rbf.rbf), threads)
            rounds.time("ours on 1 thread", lambda call=call: call(rbf.rbf), 1)
            rounds.time("eager", lambda call=call: call(reference_rbf.rbf), threads)
            rounds.ask("limit", lambda flops=flops: flops / limits.fma(threads), threads)
            rounds.run()
            asked = [share("limit", rounds.ratio("limit", "ours"), 0.6)]
            if call is learn:
                asked.append(Asked("eager", rounds.ratio("eager", "ours"), 3.0))
            yield row(rounds, f"RBF {n_features}-{n_neurons}-{OUTPUTS} {name}", asked)


def equal_perceptron(n_in: int, n_out: int, n_neurons: int, hidden_layers: int) -> MLP:
    """The perceptron with `hidden_layers` layers whose multiply-adds come nearest to those of Gaussian neurons."""
    wanted = multiply_adds(n_in, n_neurons, n_out)
    a, b = hidden_layers - 1, n_in + n_out
    width = wanted / b if a == 0 else (math.sqrt(b * b + 4 * a * wanted) - b) / (2 * a)
    return MLP(hidden_dim=max(round(width), 1), hidden_layers=hidden_layers)


def with_network(config: Config, gaussian: bool, n_neurons: int, dim: int, channels: int) -> Config:
    """A configuration with Gaussian neurons, or with perceptrons of as many multiply-adds."""
    field = config.field
    width = build_encoding(field.encoding, dim).width
    match field:
        case SignalFieldConfig():
            network = RBF(n_neurons) if gaussian else equal_perceptron(width, channels, n_neurons, 2)
            return replace(config, field=replace(field, network=network))
        case RadianceFieldConfig():
            color_in = field.latent_dim + field.harmonics_degree**2
            sizes = (width, field.latent_dim), (color_in, 3)
            density, color = (RBF(n_neurons) if gaussian else equal_perceptron(*s, n_neurons, 1) for s in sizes)
            return replace(config, field=replace(field, density=density, color=color))


def duel(scene: Scene, encoding: EncodingName, given: argparse.Namespace) -> list[str]:
    """Both fields, fitted for equal time; the lines of a table, best first, and who won."""
    describe = scene.describe()
    dim = 2 if scene.kind == "image" else 3
    channels = int(str(describe["channels"])) if scene.kind == "image" else 1
    names = {"Gaussian neurons": True, "perceptron": False}

    def change(gaussian: bool) -> Callable[[Config], Config]:
        def apply(base: Config) -> Config:
            named = preset(scene, encoding=encoding, network="rbf" if gaussian else "mlp")
            fit = replace(named.fit, minutes=base.fit.minutes, steps=base.fit.steps, seed=base.fit.seed)
            return with_network(replace(named, fit=fit), gaussian, given.neurons, dim, channels)

        return apply

    effort = Effort(given.minutes, None, given.seed)
    lines = compare(scene, {name: change(gaussian) for name, gaussian in names.items()}, effort)
    best = lines[2].split("|")[1].strip()
    return [*lines, "", f"{scene.kind}, {encoding}: the better one is: {best}"]


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    for kind in ("image", "mesh", "capture"):
        parser.add_argument(f"--{kind}", type=Path, help="data that both kinds of network are fitted to")
    parser.add_argument("--minutes", type=float, default=0.25, help="of each fit")
    parser.add_argument("--encoding", nargs="+", choices=get_args(EncodingName), default=["hash"])
    parser.add_argument("--neurons", type=int, default=64)
    parser.add_argument("--downscale", type=int, default=1, help="of photographs, as `fieldfit fit` has it")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, whatever figures are met."""
    given = options(argv)
    torch.set_num_threads(given.threads)
    paths = [path for path in (given.image, given.mesh, given.capture) if path is not None]
    print(machine(given.threads), flush=True)
    if not paths:
        with tempfile.TemporaryDirectory() as name:
            try:
                limits = Limits(Path(name), given.threads)
            except RuntimeError as error:
                sys.exit(str(error))
            rows = list(kernel_rows(limits, given.threads, 3 if given.quick else 7))
        shown = console()
        shown.print(table(rows, given.threads))
        shown.print(tally(rows))
    for path in paths:
        try:
            scene = load(path, options=LoadOptions(downscale=given.downscale))
        except InputError as error:
            sys.exit(str(error))
        for encoding in given.encoding:
            print(f"\n## {path.name}, {given.minutes * 60:g} s each\n")
            print("\n".join(duel(scene, encoding, given)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
