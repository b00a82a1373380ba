"""S-KAN: gates, phases, what pruning keeps, drops and costs, and resumed fits."""

from __future__ import annotations

import functools
import statistics
import time
from pathlib import Path

import pytest
import torch
from test_fitting import GRID, Waves, run
from tolerances import EXACT, VALUES
from torch import Tensor

from fields.field import Field, SignalFieldConfig, build, initialise
from fields.fitting import FitConfig, fit
from fields.networks import SelectableKAN, build_network
from fields.networks.kan.selectable import SelectableLayer, SelectableNetwork

SMALL = SelectableKAN(hidden_dim=8, hidden_layers=1)
FIT = FitConfig(steps=20, batch=64)


def drawn_layer(generator: torch.Generator, config: SelectableKAN = SMALL, n_in: int = 6, n_out: int = 5):
    layer = SelectableLayer(config, n_in, n_out)
    layer.initialise(generator)
    with torch.no_grad():
        layer.alpha.normal_(generator=generator)
    return layer


def image_field(config: SelectableKAN = SMALL) -> tuple[Field, SelectableNetwork]:
    field = build(SignalFieldConfig(GRID, config), Waves().describe())
    assert isinstance(field, Field) and isinstance(field.network, SelectableNetwork)
    initialise(field, 0)
    return field, field.network


def families_alone(layer: SelectableLayer, x: Tensor) -> Tensor:
    """Each family's own values [K, N, O], without SiLU and bias."""
    none = torch.zeros_like(layer.bias)
    pairs = zip(layer.families, layer.weights, strict=True)
    return torch.stack([functions.product(x, weight, none) for functions, weight in pairs])  # pyright: ignore[reportCallIssue]


def shared(layer: SelectableLayer, x: Tensor) -> Tensor:
    return torch.nn.functional.silu(x) @ layer.base.T + layer.bias


def test_gates_weigh_the_families(generator: torch.Generator) -> None:
    layer, x = drawn_layer(generator).double(), torch.randn(20, 6, dtype=torch.float64, generator=generator)
    gates = layer.gates()
    assert gates.shape == (5, 6)
    VALUES.check(gates.sum(1), torch.ones(5))
    VALUES.check(layer(x), shared(layer, x) + torch.einsum("ok,kno->no", gates, families_alone(layer, x)))


@pytest.mark.parametrize("gates", ["node", "layer"])
def test_phases_follow_progress(gates, generator: torch.Generator) -> None:
    layer = drawn_layer(generator, SelectableKAN(8, gates=gates, select_at=0.2, prune_at=0.6))
    assert layer.alpha.shape == (5 if gates == "node" else 1, 6)
    sharpest = []
    for progress in (0.0, 0.2, 0.4, 0.59):
        layer.advance(progress)
        assert not layer.is_pruned()
        sharpest.append(float(layer.gates().detach().amax(1).mean()))
    assert sharpest[0] == sharpest[1] < sharpest[2] < sharpest[3]
    layer.advance(0.6)
    chosen = torch.nn.functional.one_hot(layer.alpha.detach().argmax(1), 6).bool()
    EXACT.check(layer.kept, chosen)
    with torch.no_grad():
        layer.alpha.neg_()
    for progress in (0.9, 0.1):  # what was pruned stays pruned, also when a fit is made longer
        layer.advance(progress)
        EXACT.check(layer.kept, chosen)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("gates", ["node", "layer"])
def test_pruning_keeps_what_was_chosen(gates, keep: int, generator: torch.Generator) -> None:
    layer = drawn_layer(generator, SelectableKAN(8, gates=gates, keep=keep)).double()
    x = torch.randn(20, 6, dtype=torch.float64, generator=generator)
    branches, gate = families_alone(layer, x), layer.gates().detach()
    layer.advance(1.0)
    best = gate.topk(keep, dim=1)
    expected = shared(layer, x)
    for o in range(5):
        share = best.values[o] / best.values[o].sum()
        expected[:, o] += sum(w * branches[int(k), :, o] for w, k in zip(share, best.indices[o], strict=True))
    VALUES.check(layer(x), expected.detach())
    kept = [(k, int((best.indices == k).sum())) for k in best.indices.unique().tolist()]
    branch_parameters = sum(count * layer.weights[k].shape[1] for k, count in kept)
    own = sum(p.numel() for k, _ in kept for p in layer.families[k].parameters())
    assert layer.active_parameters() == branch_parameters + own + layer.base.numel() + layer.bias.numel()


def test_a_sharp_gate_hardly_changes_when_it_is_pruned(generator: torch.Generator) -> None:
    layer, x = drawn_layer(generator), torch.randn(20, 6, generator=generator)
    with torch.no_grad():
        layer.alpha.zero_()
        layer.alpha[torch.arange(5), torch.arange(5)] = 2.0
    layer.advance(layer.prune_at - 1e-6)
    before = layer(x)
    layer.advance(layer.prune_at)
    VALUES.check(layer(x), before.detach())


def test_what_was_pruned_is_trained_no_more() -> None:
    field, network = image_field()
    moved: set[str] = set()
    still: dict[str, Tensor] = {}
    for step in fit(field, Waves(), FIT):  # pyright: ignore[reportArgumentType]
        pruned = network.selectable()[0].is_pruned()
        if pruned and not still:
            still = {name: p.detach().clone() for name, p in network.named_parameters()}
        assert pruned == (step.index > SMALL.prune_at * 20)
    for i, layer in enumerate(network.selectable()):
        EXACT.check(layer.alpha, still[f"layers.{i}.alpha"])
        for k, weight in enumerate(layer.weights):
            before = still[f"layers.{i}.weights.{k}"]
            rows = layer.kept[:, k]
            EXACT.check(weight[~rows], before[~rows])
            if bool(rows.any()):
                moved.add(f"{i}.{k}")
                assert not torch.equal(weight[rows], before[rows])
    assert moved


def interrupted(at: int) -> Field:
    """A fit that was stopped after `at` steps and went on in another process's field."""
    first, _ = image_field()
    state: dict[str, Tensor] = {}
    for step in fit(first, Waves(), FIT):  # pyright: ignore[reportArgumentType]
        if step.index == at:
            state = step.state()
            break
    second, _ = image_field()
    second.load_state_dict(first.state_dict())
    run(second, Waves(), FIT, state)
    return second


@functools.cache
def uninterrupted() -> dict[str, Tensor]:
    field, _ = image_field()
    run(field, Waves(), FIT)
    return field.state_dict()


@pytest.mark.parametrize("at", [1, 4, 6, 12])
def test_a_fit_resumes_exactly_in_every_phase(at: int) -> None:
    resumed = interrupted(at).state_dict()
    for name, tensor in uninterrupted().items():
        EXACT.check(resumed[name], tensor)


def test_the_phase_is_saved_with_the_field(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    field, network = image_field()
    run(field, Waves(), FIT)
    save_file(field.state_dict(), tmp_path / "field.safetensors")
    other, again = image_field()
    assert not again.selectable()[0].is_pruned()
    other.load_state_dict(load_file(tmp_path / "field.safetensors"))
    x = torch.rand(50, 2)
    EXACT.check(other(x).detach(), field(x).detach())
    assert again.active_parameters() == network.active_parameters() < sum(p.numel() for p in network.parameters()) / 3


@pytest.mark.parametrize("gates", ["node", "layer"])
def test_a_pruned_network_costs_less(gates, generator: torch.Generator, one_thread: None) -> None:
    config = SelectableKAN(hidden_dim=16, hidden_layers=1, gates=gates)
    network, x = build_network(config, 16, 4), torch.randn(4096, 16, generator=generator)
    assert isinstance(network, SelectableNetwork)
    for layer in network.selectable():
        layer.initialise(generator)
        with torch.no_grad():
            layer.alpha[:, 1 if gates == "layer" else slice(1, 3)] = 1.0

    def seconds() -> float:
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            network(x).square().mean().backward()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    before = seconds()
    for layer in network.selectable():
        layer.advance(1.0)
    assert seconds() < before / 2
