"""Radiance fields of planes and lines: they are fitted, and looked at as they are fitted, by the operations alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_fitting import run
from tiny_captures import ball, ring, write_blender

import scenes
from fields.encodings import CP, TriPlane, VectorMatrix
from fields.field import MarchConfig, RadianceField, RadianceFieldConfig, build
from fields.penalties import PenaltyConfig
from fields.presets import EncodingName, preset
from fields.rendering.occupancy import OccupancyConfig
from fields.rendering.render import is_fused, predictor

SMALL = {
    "tensorf": VectorMatrix(rank=8, width=16, base_resolution=8, resolution=24),
    "cp": CP(rank=32, base_resolution=8, resolution=24),
    "triplane": TriPlane(features=8, base_resolution=8, finest_resolution=24),
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["tensorf", "cp", "triplane"])
def test_a_ball_is_seen_from_where_it_was_not_photographed(name: EncodingName, tmp_path: Path) -> None:
    write_blender(
        tmp_path,
        {"train": ring(6), "test": ring(2, height=1.0)},
        lambda m, w, h: ball(m, w, h, (0, 0, 0), 0.6),
        (24, 24),
    )
    scene = scenes.load(tmp_path)
    config = preset(scene, encoding=name)
    assert type(config.field.encoding) is type(SMALL[name])
    assert isinstance(config.field, RadianceFieldConfig)
    coarse = OccupancyConfig(resolution=16, update_cells=2**11)
    small = replace(config.field, encoding=SMALL[name], occupancy=coarse, march=MarchConfig(steps=64))
    field = build(small, scene.describe())
    assert isinstance(field, RadianceField) and not is_fused(field)
    before = scene.evaluate(predictor(field)).results["psnr"]
    penalties = PenaltyConfig(tv=1e-3, l1=1e-4)
    run(field, scene, replace(config.fit, steps=100, minutes=None, batch=2048, penalties=penalties))
    after = scene.evaluate(predictor(field)).results["psnr"]
    assert after > max(20.0, before + 5)
