"""Ours beside other programs on the same job at equal wall time: images by Dr.Jit and by torch, a mesh by Open3D.

None of them is needed: what is not installed is left out, and one line says so.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drjit_image import DrJitImage, Mode, prepare
from report import plain_table
from rich.table import Table
from substitutes import torch_reference
from torch import Tensor
from turns import each_step_within, take_turns

from fields.field import build, initialise
from fields.fitting import fit
from fields.presets import preset
from fields.rendering.render import predictor
from scenes import load
from scenes.demo import write_demo_image, write_demo_mesh
from scenes.image import Image
from scenes.mesh import Mesh
from scenes.signed_distance import Surface, open3d_loads

POISSON_POINTS = 200_000
POISSON_DEPTHS = range(6, 12)


@dataclass(frozen=True)
class Result:
    """What one program made of a job."""

    program: str
    score: float
    seconds: float
    work: str
    """How far it came: steps, or a depth."""


@dataclass(frozen=True)
class Comparison:
    """One job, done by several programs."""

    job: str
    metric: str
    results: list[Result]

    def table(self) -> Table:
        """Best first."""
        ordered = sorted(self.results, key=lambda result: -result.score)
        cells = [[r.program, f"{r.score:.5g}", f"{r.seconds:.1f}", r.work] for r in ordered]
        return plain_table(self.job, ["", self.metric, "seconds", "work"], cells)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def peer_rows(folder: Path, threads: int, seconds: float) -> Iterator[Comparison]:
    """All comparisons, `seconds` for each program."""
    yield compare_image(folder, threads, seconds)
    mesh = compare_mesh(folder, threads, seconds)
    if mesh is not None:
        yield mesh


def compare_image(folder: Path, threads: int, seconds: float) -> Comparison:
    """The demo's image: the preset's field by the native core, by torch, and by Dr.Jit, in turns."""
    write_demo_image(folder / "demo.png")
    scene = load(folder / "demo.png")
    assert isinstance(scene, Image)
    config = preset(scene)
    config = replace(config, fit=replace(config.fit, minutes=seconds / 60, steps=None))
    fits: dict[str, Iterator[object]] = {}
    predictions: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {}
    for name, within in (("fieldfit", None), ("torch", partial(torch_reference, compiled=False, march=True))):
        field = build(config.field, scene.describe())
        initialise(field, config.fit.seed)
        steps = fit(field, scene, config.fit)
        fits[name] = steps if within is None else each_step_within(within, steps)
        predictions[name] = partial(predictor, field)
    missing = prepare(threads)
    if missing is not None:
        print(f"{missing}; left out")
    else:
        modes: list[Mode] = ["cooperative vectors", "tensors"]
        for mode in modes:
            _warm(DrJitImage(scene, config, mode))
            peer = DrJitImage(scene, config, mode)
            fits[f"Dr.Jit, {mode}"] = peer.steps(seconds)
            predictions[f"Dr.Jit, {mode}"] = lambda peer=peer: peer.predict
    n_steps = take_turns(fits)
    height, width, _ = scene.pixels.shape
    results = [
        Result(name, scene.evaluate(prediction()).results["psnr"], seconds, f"{n_steps[name]} steps")
        for name, prediction in predictions.items()
    ]
    job = f"an image of {width} x {height} in {seconds:g} s of fitting each, one configuration"
    return Comparison(job, "PSNR", results)


def _warm(peer: DrJitImage) -> None:
    """Let Dr.Jit compile its kernels, which it keeps."""
    for i in peer.steps(60.0):
        if i == 3:
            return


def compare_mesh(folder: Path, threads: int, seconds: float) -> Comparison | None:
    """The demo's mesh, from triangles to a surface: ours, and Poisson's reconstruction of points with normals at the
    greatest depth that is done in time."""
    write_demo_mesh(folder / "demo.ply")
    if not open3d_loads():
        print("Open3D does not load here (`fieldfit doctor` says why); its Poisson reconstruction is left out")
        return None
    started = time.perf_counter()
    scene = load(folder / "demo.ply")
    assert isinstance(scene, Mesh)
    config = preset(scene)
    left = max(seconds - (time.perf_counter() - started), 0.5)
    field = build(config.field, scene.describe())
    initialise(field, config.fit.seed)
    n_steps = take_turns({"": fit(field, scene, replace(config.fit, minutes=left / 60, steps=None))})[""]
    taken = time.perf_counter() - started
    score = scene.evaluate(predictor(field)).results["iou"]
    results = [Result("fieldfit", score, taken, f"{n_steps} steps"), *poisson(scene, threads, seconds)]
    job = f"a mesh of {scene.report.faces:,} faces in {seconds:g} s, loading and sampling counted"
    return Comparison(job, "IoU", results)


def poisson(scene: Mesh, threads: int, seconds: float) -> list[Result]:
    """Kazhdan and Hoppe 2013 as Open3D has it, at growing depths as long as the time allows: the last that it does."""
    open3d: Any = importlib.import_module("open3d")
    found: list[Result] = []
    for depth in POISSON_DEPTHS:
        started = time.perf_counter()
        points, face = scene.surface.draw(POISSON_POINTS, np.random.default_rng(0))
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
        cloud.normals = open3d.utility.Vector3dVector(scene.surface.normals[face])
        with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
            made, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
                cloud, depth=depth, n_threads=threads
            )
        taken = time.perf_counter() - started
        if taken > seconds:
            break
        surface = Surface(np.asarray(made.vertices), np.asarray(made.triangles).astype(np.int64))

        def signs(x: Tensor, surface: Surface = surface) -> Tensor:
            inside = torch.from_numpy(surface.inside(x.double().numpy()))
            return torch.where(inside, -1.0, 1.0)[:, None]

        score = scene.evaluate(signs).results["iou"]
        found = [Result("Open3D, Poisson", score, taken, f"depth {depth}, {POISSON_POINTS:,} points")]
    return found
