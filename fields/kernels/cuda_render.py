"""A radiance field seen along rays, on a GPU: in one kernel from march to colour, or sample by sample for fitting."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fields.kernels.cuda_arguments import blocks, expect, expect_tensor
from fields.kernels.cuda_grid import GridSpec
from fields.kernels.cuda_march import Evaluated, Rays, Samples, compact, march, write
from fields.kernels.cuda_mlp import MlpSpec
from fields.kernels.nvrtc import Machine, Program

MOST_CANDIDATES = 2**21
"""Up to this many samples in occupied cells it is quicker to evaluate them all at once and to drop those that cannot be
seen than to follow each ray to where it ends: with few rays, most of a GPU would wait (measured by bench/device.py)."""
UNLIMITED = 2**30


class RadianceModel(NamedTuple):
    """A 3-D grid, the perceptron behind it, whose first output is log density, and the one of colours."""

    grid: GridSpec
    table: Tensor
    density: MlpSpec
    density_params: Tensor
    color: MlpSpec | None = None
    color_params: Tensor | None = None
    degree: int = 1
    """Of the directions' harmonics."""

    def check(self) -> None:
        """Raise ValueError unless the parts fit together."""
        expect_tensor("table", self.table, (self.grid.entries, self.grid.features))
        fits = self.grid.dim == 3 and self.density.dims[0] == self.grid.width
        expect(fits, "the density network takes the features of a 3-D grid")
        expect_tensor("density_params", self.density_params, (self.density.size,))
        if self.color is None or self.color_params is None:
            return
        expect(1 <= self.degree <= 4, "harmonics have degree 1 to 4")
        expect(
            self.color.dims[0] == self.density.dims[-1] + self.degree**2 and self.color.dims[-1] == 3,
            "the colour network takes the latent and the harmonics, and gives three values",
        )
        expect_tensor("color_params", self.color_params, (self.color.size,))


def evaluate(model: RadianceModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """(features, latent) at samples."""
    features = x.new_empty(len(x), model.grid.width)
    model.grid.forward(x, model.table, features)
    latent = x.new_empty(len(x), model.density.dims[-1])
    model.density.forward(features, model.density_params, None, None, latent)
    return features, latent


def visible(model: RadianceModel, rays: Rays, least: float) -> Evaluated:
    """The samples up to where at most `least` of the light is left, and what the density network finds there."""
    found = march(rays, UNLIMITED)
    if len(found.t0) <= MOST_CANDIDATES:
        return compact(rays.machine, found, *evaluate(model, found.x), least)
    samples = follow(model, rays, least)
    features, latent = evaluate(model, samples.x)
    return Evaluated(samples, features, latent, latent[:, 0].clamp(max=15).exp())


def follow(model: RadianceModel, rays: Rays, least: float) -> Samples:
    """The same samples, found by following every ray."""
    counts = torch.zeros(rays.n + 1, dtype=torch.int64, device=rays.like.device)
    launch(model, rays, least, (None, None, None, counts))
    return write(rays, counts)


def launch(model: RadianceModel, rays: Rays, least: float, outputs: tuple[Tensor | None, ...]) -> Tensor:
    """Run the kernel that fits the field; returns how many [rays, samples] it took.

    `outputs`: rgb, opacity, depth, counts. With counts, nothing else is written.
    """
    queue = torch.zeros(2, dtype=torch.int32, device=rays.like.device)
    if rays.n == 0:
        return queue
    counting = outputs[-1] is not None
    color = None if counting else model.color
    behind = *rays.arguments, float(least), *outputs, queue
    grid, density, machine = model.grid, model.density, rays.machine
    program, shared = tensor_program(machine, grid, density, color, model.degree)
    if program is not None:
        shape = min(blocks(rays.n, 128), 4 * machine.processors), 1
        arguments = grid.levels, model.table, model.density_params, model.color_params, *behind
        machine.launch(program, "render_tensor", shape, 128, shared, arguments)
        return queue
    width = max(*density.dims, *(color.dims if color else ()))
    program, rows, shared = density.tile(machine, 2 * width + 23, "render.cu")
    program = Program("render.cu", (*program.defines, ("FF_FEATURES", grid.features)))
    shape = min(blocks(rays.n, rows), 2 * machine.processors), 1
    second = color or density
    networks = density.layers, model.density_params, second.layers, model.color_params, model.degree
    machine.launch(program, "render", shape, machine.side**2, shared, (grid.levels, model.table, *networks, *behind))
    return queue


def tensor_program(
    machine: Machine, grid: GridSpec, density: MlpSpec, color: MlpSpec | None, degree: int
) -> tuple[Program | None, int]:
    """(the tensor-core kernel of this field, bytes of shared memory), or None where it has to be float32."""
    of_density = density.layout(machine)
    of_color = None if color is None else color.layout(machine)
    sound = (
        of_density is not None and grid.features > 1 and density.dims[-1] % 16 == 0 and density.output_activation == 0
    )
    if not sound or (color is not None and of_color is None):
        return None, 0
    sizes = [("FEATURES", grid.features), ("DEGREE", degree), ("COUNT", int(color is None))]
    networks = [("", "LATENT", density), ("COLOR_", "", color or density)]
    for prefix, output, network in networks:
        sizes += [(f"{prefix}WIDTH", network.dims[1]), (f"{prefix}HIDDEN", len(network.dims) - 2)]
        sizes += [(f"{prefix}ACTIVATION", network.activation), (f"{prefix}BIAS", int(network.bias))]
        if output:
            sizes += [("IN", network.dims[0]), (output, network.dims[-1])]
        else:
            sizes.append((f"{prefix}OUTPUT_ACTIVATION", network.output_activation))
    warp = 32 * (blocks(grid.width, 16) * 8 + 4 + 12 + 4) * 4
    assert of_density is not None
    shared = of_density.forward_bytes + (of_color.forward_bytes if of_color else 0) + 4 * warp
    if shared > machine.shared_limit:
        return None, 0
    return Program("render_tensor.cu", tuple((f"FF_{name}", value) for name, value in sizes)), shared
