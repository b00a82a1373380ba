"""S-KAN against every single family of its pool and an equal-parameter perceptron, on seven kinds of functions.

    python bench/kan_functions.py [--steps N] [--seeds N] [--only NAME ...] [--json FILE]

S-KAN tries six families, and each layer keeps three of them here, where its default is one for each node: it has more
parameters than a single family of the same width, and as many as the perceptron. Every contender takes the same number
of steps of Adam at the same rates, each on points that are drawn anew (and have noise of their own), and is measured on
fresh points without noise. Inputs and values have a variance of one. The figures are medians over seeds, which draw
points, noise and weights.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from report import console, plain_table
from torch import Tensor, nn

from fields.contracts import Calibrated, Initialised, Scheduled
from fields.networks import KAN, MLP, NetworkConfig, RationalKAN, SelectableKAN, build_network
from fields.networks.kan.selectable import SelectableNetwork
from fields.optim import Adam, OptimiserConfig

HIDDEN, N_BASIS, KEEP = 8, 8, 3
BATCH, FRESH = 512, 4096
POOL = SelectableKAN().pool
OPTIMISER = OptimiserConfig(network_rate=1e-2, warmup_steps=50, final_rate=0.01)


@dataclass(frozen=True)
class Task:
    """A function on [-1, 1]^dim."""

    dim: int
    function: Callable[[Tensor], Tensor]
    noise: float = 0.0
    """Of the values that are fitted, as a share of their deviation."""


TASKS = {
    "smooth": Task(2, lambda x: (torch.sin(math.pi * x[:, 0]) + x[:, 1].square()).exp()),
    "high-frequency": Task(1, lambda x: torch.sin(24 * x[:, 0]) + 0.5 * torch.cos(41 * x[:, 0] + 1)),
    "discontinuous": Task(1, lambda x: (x[:, 0] > -0.35).float() - 1.5 * (x[:, 0] > 0.4).float() + 0.5 * x[:, 0]),
    "singular": Task(1, lambda x: (x[:, 0] - 0.2).abs().pow(0.4) + 0.05 / (0.05 + (x[:, 0] + 0.5).abs())),
    "noisy": Task(1, lambda x: torch.sin(5 * x[:, 0]) + x[:, 0].square(), noise=0.3),
    "2-D oscillating": Task(2, lambda x: torch.sin(7 * x[:, 0] + 3 * x[:, 1].square()) * torch.cos(5 * x[:, 1])),
    "sparse sum": Task(8, lambda x: torch.sin(4 * x[:, 1]) + 2 * (x[:, 4].abs() - 0.5) + (2 * x[:, 6]).tanh()),
}


@dataclass(frozen=True)
class Result:
    """What one contender reached on one task."""

    rmse: float
    """Median over seeds, in deviations of the function."""
    parameters: int
    """That its values depend on at the end."""
    chosen: str = ""
    """The families that S-KAN kept, with the numbers of nodes, of the last seed."""


def contender(name: str) -> NetworkConfig:
    """A network by the name of its family; all have the same hidden width."""
    match name:
        case "s-kan":
            return SelectableKAN(HIDDEN, 1, N_BASIS, gates="layer", keep=KEEP)
        case "rational":
            return RationalKAN(HIDDEN, 1)
        case "spline" | "rbf" | "chebyshev" | "fourier" | "dog" | "mexican-hat":
            return KAN(name, HIDDEN, 1, N_BASIS)
        case _:
            raise ValueError(name)


def perceptron(dim: int, parameters: int) -> MLP:
    """With two hidden layers and at least so many parameters."""
    width = 1
    while width * (dim + 1) + width * (width + 1) + width + 1 < parameters:
        width += 1
    return MLP(hidden_dim=width, hidden_layers=2, activation="silu", bias=True)


def fit(task: Task, config: NetworkConfig, steps: int, seed: int) -> tuple[float, nn.Module]:
    """Root mean squared error on fresh points, and the fitted network."""
    g = torch.Generator().manual_seed(seed)
    fresh = 2 * torch.rand(FRESH, task.dim, generator=g) - 1
    truth = task.function(fresh)
    mean, deviation = truth.mean(), truth.std()

    def sample() -> tuple[Tensor, Tensor]:
        x = 2 * torch.rand(BATCH, task.dim, generator=g) - 1
        noise = task.noise * torch.randn(BATCH, generator=g)
        return x * math.sqrt(3), (task.function(x) - mean) / deviation + noise

    network = build_network(config, task.dim, 1)
    for module in network.modules():
        if isinstance(module, Initialised):
            module.initialise(g)
    with torch.no_grad():
        if isinstance(network, Calibrated):
            network.calibrate(sample()[0], g)
    scheduled = [module for module in network.modules() if isinstance(module, Scheduled)]
    optimiser = Adam(network, OPTIMISER)
    for step in range(steps):
        for module in scheduled:
            module.advance(step / steps)
        x, y = sample()
        (network(x)[:, 0] - y).square().mean().backward()
        final = OPTIMISER.final_rate
        optimiser.step(final + (1 - final) * 0.5 * (1 + math.cos(math.pi * step / steps)))
    with torch.no_grad():
        error = network(fresh * math.sqrt(3))[:, 0] - (truth - mean) / deviation
    return float(error.square().mean().sqrt()), network


def measure(task: Task, config: NetworkConfig, steps: int, seeds: int) -> Result:
    """Median over seeds."""
    found = [fit(task, config, steps, seed) for seed in range(seeds)]
    network = found[-1][1]
    parameters, chosen = sum(p.numel() for p in network.parameters()), ""
    if isinstance(network, SelectableNetwork):
        parameters = network.active_parameters()
        assert isinstance(config, SelectableKAN)
        kept = [(config.pool[k], len(nodes)) for layer in network.selectable() for k, nodes in layer.chosen()]
        chosen = ", ".join(f"{count} {name}" for name, count in kept)
    return Result(statistics.median(rmse for rmse, _ in found), parameters, chosen)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, whatever figures are met."""
    given, started = options(argv), time.perf_counter()
    torch.set_num_threads(1)  # arrays are small
    results: dict[str, dict[str, Result]] = {}
    for name in given.only:
        task = TASKS[name]
        found = {family: measure(task, contender(family), given.steps, given.seeds) for family in ("s-kan", *POOL)}
        mlp = perceptron(task.dim, found["s-kan"].parameters)
        results[name] = found | {"mlp": measure(task, mlp, given.steps, given.seeds)}
        print(f"{time.perf_counter() - started:4.0f} s  {name}", file=sys.stderr, flush=True)
    shown, headings = console(), ["s-kan", *POOL, "mlp"]
    cells = [
        [name, *(f"{found[h].rmse:.2e}" for h in headings), f"{found['s-kan'].parameters} / {found['mlp'].parameters}"]
        for name, found in results.items()
    ]
    title = f"RMSE after {given.steps} steps, medians of {given.seeds} seeds"
    shown.print(plain_table(title, ["task", *headings, "parameters s-kan / mlp"], cells))
    for name, found in results.items():
        shown.print(f"{name}: kept {found['s-kan'].chosen}")
    near = sum(f["s-kan"].rmse <= 1.1 * min(f[k].rmse for k in POOL) for f in results.values())
    ahead = sum(f["s-kan"].rmse < f["mlp"].rmse for f in results.values())
    shown.print(f"s-kan: best or within 10 % of the best single family on {near} of {len(results)} tasks,")
    shown.print(
        f"       ahead of a perceptron with as many parameters on {ahead}; {time.perf_counter() - started:.0f} s"
    )
    if given.json is not None:
        given.json.write_text(json.dumps({n: {k: vars(r) for k, r in f.items()} for n, f in results.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
