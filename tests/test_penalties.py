"""Penalties on grids in closed form, and fits of low-rank encodings: they converge, grow, resume, are saved."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_fitting import Waves, run, small_field
from tolerances import EXACT, VALUES
from torch import Tensor

from fields.encodings import CP, Dense, EncodingConfig, Hash, RandomFourier, TriPlane
from fields.encodings.factors import Factor, Growth
from fields.encodings.grid import GridEncoding
from fields.field import Field
from fields.fitting import FitConfig, fit
from fields.networks import MLP
from fields.optim import OptimiserConfig
from fields.penalties import PenaltyConfig, configured, magnitude, total_variation
from scenes.errors import InputError

GROWING = CP(rank=32, base_resolution=4, resolution=24, stages=3, grown_by=0.6)
QUICK = FitConfig(steps=200, batch=1024, optimiser=OptimiserConfig(table_rate=2e-2, network_rate=1e-2))
pytestmark = pytest.mark.usefixtures("one_thread")


def test_of_a_ramp() -> None:
    """Slopes s and t along the axes give s^2 + t^2; the mean of |value| is that of the ramp."""
    plane = Factor((0, 1), 8, Growth((7,)))
    steps = torch.arange(8.0)
    ramp = 0.5 * steps[:, None] - 2.0 * steps
    plane.draw(0.0, 1.0, torch.Generator().manual_seed(0))
    plane.grids()[0].data.copy_(ramp[None, :, :, None].expand(1, 8, 8, 8))
    VALUES.check(total_variation(plane).detach(), torch.tensor(0.25 + 4.0))
    VALUES.check(magnitude(plane).detach(), ramp.abs().mean())
    line = Factor((0,), 2, Growth((7,)))
    line.draw(3.0, 0.0, torch.Generator())
    assert float(total_variation(line).detach()) == 0
    both = torch.nn.ModuleList([plane, line])
    VALUES.check(magnitude(both).detach(), ramp.abs().mean() + 3)


def test_levels_of_a_dense_grid_do_not_touch() -> None:
    """The last vertex of a level and the first of the next are no neighbours."""
    grid = GridEncoding(Dense(levels=3, base_resolution=3, finest_resolution=12), 2)
    for i, level in enumerate(grid.shape.levels):
        grid.table.data[level.offset : level.offset + level.entries] = 10.0**i
    assert float(total_variation(grid).detach()) == 0
    VALUES.check(magnitude(grid).detach(), torch.tensor(111.0))


def test_gradients_are_those_of_finite_differences() -> None:
    plane = Factor((0, 1), 2, Growth((3,))).double()
    plane.draw(0.0, 1.0, torch.Generator().manual_seed(0))

    def of(values: Tensor) -> Tensor:
        return total_variation(_Grids(values)) + magnitude(_Grids(values))

    assert torch.autograd.gradcheck(of, plane.grids()[0].detach().clone().requires_grad_())


class _Grids(torch.nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def grids(self) -> list[Tensor]:
        return [self.values]


def test_hashed_levels_alone_cannot_be_penalised() -> None:
    field = small_field(Hash(levels=1, log2_table_size=4, base_resolution=32, finest_resolution=32))
    with pytest.raises(InputError, match="dense grids"):
        run(field, Waves(), replace(QUICK, penalties=PenaltyConfig(tv=1.0)))


@pytest.mark.parametrize("config", [PenaltyConfig(tv=-1.0), PenaltyConfig(l1=float("nan")), PenaltyConfig(every=0)])
def test_nonsense_is_refused(config: PenaltyConfig) -> None:
    with pytest.raises(InputError, match="penalties: expected"):
        configured(config)


def test_penalties_act() -> None:
    """More weight, smoother and smaller grids; a weight at every third step counts as much as at every step."""
    results = {}
    for name, config in {
        "none": PenaltyConfig(),
        "tv": PenaltyConfig(tv=1.0, every=1),
        "l1": PenaltyConfig(l1=1.0, every=1),
    }.items():
        field = small_field(TriPlane(features=8, levels=1, base_resolution=24, finest_resolution=24))
        run(field, Waves(), replace(QUICK, steps=60, penalties=config))
        results[name] = float(total_variation(field).detach()), float(magnitude(field).detach())
    assert results["tv"][0] < 0.5 * results["none"][0]
    assert results["l1"][1] < 0.5 * results["none"][1]
    field = small_field(TriPlane(features=8, levels=1, base_resolution=24, finest_resolution=24))
    smooth, small = (penalty(field).detach() for penalty in configured(PenaltyConfig(tv=0.5, l1=0.25, every=3)))
    VALUES.check(smooth, 1.5 * total_variation(field).detach())
    VALUES.check(small, 0.75 * magnitude(field).detach())


@pytest.mark.parametrize(
    ("encoding", "network"),
    [
        (GROWING, MLP(hidden_dim=16)),
        (TriPlane(features=8, levels=2, base_resolution=6, finest_resolution=24), MLP(hidden_dim=16)),
        (RandomFourier(64, 2.0), MLP(hidden_dim=32, bias=True)),
    ],
    ids=["cp", "triplane", "rff"],
)
def test_fits_converge(encoding: EncodingConfig, network: MLP) -> None:
    field, scene = small_field(encoding, network), Waves()
    run(field, scene, QUICK)
    assert scene.evaluate(lambda x: field(x).detach()).results["psnr"] > 30


@pytest.mark.parametrize("stop", [3, 9, 10, 18])
def test_a_growing_fit_with_penalties_resumes_bit_exactly(stop: int) -> None:
    """Stopped right before and after stages begin, with steps 9 and 18 of 30; penalties count at every fourth step."""
    config = replace(QUICK, steps=30, penalties=PenaltyConfig(tv=0.1, l1=0.01))

    def fresh() -> Field:
        return small_field(GROWING)

    whole, halves, again = fresh(), fresh(), fresh()
    run(whole, Waves(), config)
    state: dict[str, Tensor] = {}
    for step in fit(halves, Waves(), config):  # pyright: ignore[reportArgumentType]
        if step.index == stop:
            state = step.state()
            break
    again.load_state_dict(halves.state_dict())
    run(again, Waves(), config, state)
    stages = {key: int(value) for key, value in whole.state_dict().items() if key.endswith("stage")}
    assert set(stages.values()) == {2}
    for key, value in whole.state_dict().items():
        EXACT.check(again.state_dict()[key], value)
