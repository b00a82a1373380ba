"""Boxes: a similarity into the unit cube, and back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tolerances import VALUES

from scenes import Box


def test_longest_edge_fills_the_cube_and_the_box_is_centred():
    box = Box((-1.0, 2.0, 10.0), (3.0, 4.0, 11.0))
    assert box.side == 4.0
    assert box.centre == (1.0, 3.0, 10.5)
    corners = box.to_unit(torch.tensor([box.lo, box.hi, box.centre]))
    VALUES.check(corners, torch.tensor([[0.0, 0.25, 0.375], [1.0, 0.75, 0.625], [0.5, 0.5, 0.5]]))


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_to_unit_keeps_ratios_of_distances(dimensions, generator):
    lo = tuple(torch.rand(dimensions, generator=generator).tolist())
    box = Box(lo, tuple(v + 0.5 + 7 * i for i, v in enumerate(lo)))
    x = torch.randn(20, dimensions, generator=generator)
    VALUES.check(torch.pdist(box.to_unit(x)) * box.side, torch.pdist(x))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 5)])
def test_from_unit_inverts_to_unit(shape, generator):
    box = Box((-1.0, 2.0, 0.0), (3.0, 4.0, 1.0))
    x = torch.randn(*shape, 3, generator=generator)
    VALUES.check(box.from_unit(box.to_unit(x)), x)


def test_keeps_the_precision_it_is_given():
    assert Box((0.0,), (3.0,)).to_unit(torch.zeros(1, 1, dtype=torch.float64)).dtype == torch.float64


def test_padding_grows_every_side_by_a_part_of_the_longest_edge():
    assert Box((0.0, 0.0), (2.0, 1.0)).padded(0.25) == Box((-0.5, -0.5), (2.5, 1.5))


def test_survives_json():
    box = Box((-1.5, 0.1, 2.0), (3.0, 4.0, 1e3))
    assert Box.from_json(json.loads(json.dumps(box.to_json()))) == box


@pytest.mark.parametrize(
    ("lo", "hi"),
    [((), ()), ((0.0,), (0.0,)), ((1.0,), (0.0,)), ((0.0, 0.0), (1.0,)), ((0.0,), (math.inf,)), ((math.nan,), (1.0,))],
)
def test_refuses_what_is_no_box(lo, hi):
    with pytest.raises(ValueError, match="box needs"):
        Box(lo, hi)
