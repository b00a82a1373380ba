"""Coordinate-aware modulation: the fused kernel against torch and this machine's limit, or what modulation is good for.

    python bench/cam.py [--quick] [--threads N]
    python bench/cam.py --images DIR [--first 2] [--crop 512] [--steps 2000] [--batch 16384] [--rate 1e-3]
        [--norm-alone] [--torch-init]

The first races our kernel, forward and backward, with gradients of input, coordinates' grids and weights, against the
torch reference (eager), against torch's own grid sampling where the grids have two axes, and against the time that the
products alone would take at the peak of multiply-adds. The second fits the crops in the middle of images with random
Fourier features and 3 x 256, with modulation and without it, as cam_images.py says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from cam_images import Fits, compare_images
from limits import Limits
from operations import Bench
from report import Asked, Row, console, machine, row, share, table, tally
from torch import Tensor
from torch.nn.functional import grid_sample, layer_norm, linear

from fields.kernels import cam, reference_cam
from fields.kernels.reference import activate, mlp_layers
from fields.kernels.shapes import CamShape, MlpShape, ModulationAxis

IMAGE = (ModulationAxis(32), ModulationAxis(32))
DIRECTION = (ModulationAxis(10, wraps=True), ModulationAxis(5))
TIME = (ModulationAxis(30),)


@dataclass(frozen=True)
class Case:
    """One network of the race."""

    name: str
    shape: CamShape
    n: int
    """Samples."""


def cases() -> list[Case]:
    """An image's backbone, small networks behind grids, and a video's, modulated channel by channel."""

    def shape(dims: tuple[int, ...], axes: tuple[ModulationAxis, ...], each: bool = False) -> CamShape:
        return CamShape(MlpShape(dims, "relu", "identity", bias=True), axes, each, normalised=True)

    return [
        Case("512-256-256-256-3, image 32 x 32", shape((512, 256, 256, 256, 3), IMAGE), 2**13),
        Case("256-256-256, image 32 x 32", shape((256, 256, 256), IMAGE), 2**13),
        Case("32-64-64-4, image 32 x 32", shape((32, 64, 64, 4), IMAGE), 2**16),
        Case("32-64-64-3, direction 10 x 5", shape((32, 64, 64, 3), DIRECTION), 2**16),
        Case("32-64-64-3, time 30, each channel", shape((32, 64, 64, 3), TIME, each=True), 2**16),
    ]


Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x, at, params, grids) to values."""


def sampled(x: Tensor, at: Tensor, params: Tensor, grids: Tensor, shape: CamShape) -> Tensor:
    """The network as one would write it in torch for images: layer_norm and grid_sample, one pair for all channels."""
    *hidden, (weight, bias) = mlp_layers(params, shape.mlp)
    height, width = shape.axes[1].vertices, shape.axes[0].vertices
    where = (2 * at - 1)[None, None]
    for grid, (w, b) in zip(grids, hidden, strict=True):
        picture = grid[:, :, 0].T.reshape(1, 2, height, width)
        factors = grid_sample(picture, where, padding_mode="border", align_corners=True)[0, :, 0]
        x = layer_norm(linear(x, w, b), (w.shape[0],), eps=reference_cam.EPS)
        x = activate(shape.mlp.activation, factors[0, :, None] * x + factors[1, :, None])
    return linear(x, weight, bias)


def learning(form: Form, data: Sequence[Tensor], d_out: Tensor) -> Callable[[], object]:
    """A call and all its gradients but those of the coordinates."""
    x, at, params, grids = data

    def call() -> None:
        x.grad = params.grad = grids.grad = None
        form(x, at, params, grids).backward(d_out)

    return call


def speed_rows(bench: Bench) -> Iterator[Row]:
    """Forward and backward of each case."""
    for case in cases():
        shape, g = case.shape, torch.Generator().manual_seed(0)
        params = torch.randn(shape.mlp.size, generator=g) / max(shape.mlp.dims) ** 0.5
        grids = 1 + 0.1 * torch.randn(shape.grids, generator=g)
        x, at = torch.randn(case.n, shape.mlp.dims[0], generator=g), torch.rand(case.n, len(shape.axes), generator=g)
        data = [x.requires_grad_(), at, params.requires_grad_(), grids.requires_grad_()]
        d_out = torch.randn(case.n, shape.mlp.dims[-1], generator=g)
        forms: dict[str, Form] = {
            "ours": partial(cam.cam, shape=shape),
            "eager": partial(reference_cam.cam, shape=shape),
        }
        if shape.axes == IMAGE:
            forms["eager, grid_sample"] = partial(sampled, shape=shape)
        rounds = bench.rounds()
        for name, form in forms.items():
            rounds.time(name, learning(form, data, d_out), bench.threads)
        if bench.threads > 1:
            rounds.time("ours on 1 thread", learning(forms["ours"], data, d_out), 1)
        flops = 6 * case.n * shape.mlp.size
        rounds.ask("limit", lambda flops=flops: flops / bench.limits.fma(bench.threads), bench.threads)
        rounds.run()
        asked = [Asked("eager", rounds.ratio("eager", "ours"), 4.0)]
        if "eager, grid_sample" in rounds:
            asked.append(Asked("eager, grid_sample", rounds.ratio("eager, grid_sample", "ours"), 4.0))
        asked.append(share("limit", rounds.ratio("limit", "ours"), 0.60))
        yield row(rounds, case.name, asked)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of ours and torch")
    parser.add_argument("--images", type=Path, metavar="DIR", help="compare fits of the images in this folder instead")
    parser.add_argument("--first", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--crop", type=int, default=512, help="edge of the square in the middle, pixels")
    parser.add_argument("--steps", type=int, default=2000, help="of each fit")
    parser.add_argument("--batch", type=int, default=2**14, help="pixels of a step; 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="of initial values and batches")
    parser.add_argument("--rate", type=float, default=1e-3, help="of the networks; that of the grids is 1e-2")
    parser.add_argument("--norm-alone", action="store_true", help="fit the normalised network without modulation too")
    parser.add_argument("--torch-init", action="store_true", help="begin with weights and biases as torch's layers do")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, whatever figures are met."""
    given, shown = options(argv), console()
    torch.set_num_threads(given.threads)
    shown.print(machine(given.threads))
    if given.images is not None:
        fits = Fits(
            crop=given.crop,
            steps=given.steps,
            batch=given.batch,
            seed=given.seed,
            rate=given.rate,
            norm_alone=given.norm_alone,
            torch_init=given.torch_init,
        )
        for line in compare_images(given.images, given.first, fits):
            print(line, flush=True)
        return 0
    with tempfile.TemporaryDirectory() as name:
        try:
            limits = Limits(Path(name), given.threads)
        except RuntimeError as error:
            sys.exit(str(error))
        bench = Bench(limits, given.threads, *((3, 2) if given.quick else (7, 5)), compile=False)
        rows = list(speed_rows(bench))
    shown.print(table(rows, given.threads))
    shown.print(tally(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
