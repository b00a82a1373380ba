"""The benchmark's own arithmetic: limits that can be true, ratios within a round, bounds by hand, substitutes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import substitutes
import torch
from limits import Access, GridBound, Limits, accesses
from report import Asked
from rounds import Rounds
from substitutes import build_for, torch_mlp, torch_reference
from tolerances import HALF_STORAGE
from turns import take_turns

from fields.kernels import bits, native, ops, reference
from fields.kernels.shapes import MlpShape, grid_shape

BENCH = Path(__file__).resolve().parent.parent / "bench"
GRID = grid_shape(3, 4, 2, 4, 64, 2**9)


def test_limits_can_be_true(tmp_path):
    limits = Limits(tmp_path, 2)
    fma, fma256 = (max(peak(1) for _ in range(3)) for peak in (limits.fma, limits.fma256))
    assert fma > fma256 * 0.5
    assert fma > 1e9
    assert limits.read(1) > 1e8
    near, far = Access(2**10, 2), Access(2**25, 2)
    reads = {access: max(limits.reads(1, access) for _ in range(3)) for access in (near, far)}
    adds = {access: max(limits.adds(1, access) for _ in range(3)) for access in (near, far)}
    assert 2e10 > reads[near] > 2 * reads[far] > 0  # 8 KiB are in the first cache, 256 MiB in none
    assert 2e10 > adds[near] > 2 * adds[far] > 0


@pytest.mark.parametrize("script", ["kernels.py", "presets.py", "dynamic.py"])
def test_help_answers(script):
    done = subprocess.run([sys.executable, BENCH / script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_ratios_are_taken_within_a_round():
    """A machine that slows down threefold from round to round changes no ratio."""
    rounds, order = Rounds(3, 3), []

    def slowing(name: str, value: float):
        def call() -> float:
            order.append(name)
            return value * 3.0 ** (order.count(name) - 1)

        return call

    rounds.ask("a", slowing("a", 2.0), 1)
    rounds.ask("b", slowing("b", 1.0), 1)
    rounds.run()
    assert rounds.ratio("a", "b") == 2
    assert rounds.median("a") == 2 * 3.0**2
    assert order == ["a", "b"] + ["a", "b"] + ["b", "a"] + ["a", "b"]  # one warms up; then who begins changes


def test_threads_are_given_back():
    before = torch.get_num_threads()
    seen = []
    rounds = Rounds(1, 1)
    rounds.ask("one", lambda: float(seen.append(torch.get_num_threads()) or 1), 1)
    rounds.run()
    assert set(seen) == {1}
    assert torch.get_num_threads() == before


def test_bound_counts_every_corner_of_every_level():
    class Even(Limits):
        def __init__(self) -> None:
            pass

        def reads(self, threads: int, access: Access) -> float:
            return 1e6

        def adds(self, threads: int, access: Access) -> float:
            return 2e6

    bound = GridBound(Even(), GRID, 1000)
    assert bound.forward(1) == pytest.approx(1000 * 8 * 4 / 1e6)
    assert bound.forward_backward(1) == pytest.approx(1000 * 8 * 4 * (1 / 1e6 + 1 / 2e6))
    assert [a.bytes for a in accesses(GRID, GRID)] == sorted({level.entries * 8 for level in GRID.levels})


def test_a_figure_is_met_or_not():
    assert Asked("eager", 2.0, 2.0).met and not Asked("eager", 1.9, 2.0).met
    assert Asked("growth", 0.5, 1.0, at_most=True).met and not Asked("growth", 1.5, 1.0, at_most=True).met
    assert not Asked("eager", float("nan"), 2.0).met
    assert "not met" in Asked("eager", 1.9, 2.0).line()


def test_torch_keeps_the_same_bits():
    """Where the native core would have kept them."""
    g = torch.Generator().manual_seed(0)
    density, allowed = torch.rand(8**3, generator=g), bits.pack_bits(torch.rand(8, 8, 8, generator=g) < 0.7)
    cells, found = torch.arange(0, 8**3, 3), torch.rand(171, generator=g)
    kept = []
    for module in (bits, substitutes):
        now, words = density.clone(), allowed.clone()
        module.visit_cells(cells, found, 0.8, 0.4, allowed, now, words)
        kept.append((now, words, module.set_bits(words, 8)))
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    assert 0 < len(kept[0][2]) < 8**3


@pytest.mark.parametrize("march", [True, False])
def test_the_reference_is_put_in_place_and_taken_away(march):
    x, table = torch.rand(100, 3), torch.randn(GRID.entries, 2)
    before = ops.is_native, ops.march, reference.mlp
    with torch_reference(compiled=False, march=march):
        assert not ops.is_native(x)
        assert torch.equal(ops.grid_encode(x, table, GRID), reference.grid_encode(x, table, GRID))
    assert (ops.is_native, ops.march, reference.mlp) == before


def test_torch_computes_in_bfloat16_what_ours_does():
    shape = MlpShape((4, 16, 2), "relu", "identity", bias=False, precision="bfloat16")
    x, params = torch.rand(50, 4), torch.rand(shape.size)
    half = torch_mlp(reference.mlp, has_bfloat16=True)(x, params, shape)
    exact = reference.mlp(x.double(), params.double(), replace(shape, precision="float32"))
    assert half.dtype == torch.float32
    HALF_STORAGE.check(half, exact)
    assert not torch.equal(half, torch_mlp(reference.mlp, has_bfloat16=False)(x, params, shape))


def test_each_build_is_put_in_place():
    shape = MlpShape((4, 8, 2), "relu", "identity", bias=True)
    x, params = torch.randn(50, 4), torch.randn(shape.size)
    ours = native.isa()
    for name in native.available():
        with build_for(name):
            assert native.isa() == name
            assert type(ops.mlp_spec(shape, x)).__module__.endswith(name)
            ops.mlp(x, params, shape)
    assert native.isa() == ours
    assert type(ops.mlp_spec(shape, x)).__module__.endswith(ours)


def test_turns_end_by_themselves():
    assert take_turns({"a": iter(range(1, 6)), "b": iter([]), "c": iter(range(1, 3))}) == {"a": 5, "b": 0, "c": 2}
