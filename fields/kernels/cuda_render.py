"""Marching with the field in view, and rendering in one pass, on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from fields.kernels.cuda_arguments import blocks, expect, expect_tensor, march_steps
from fields.kernels.cuda_grid import GridSpec
from fields.kernels.cuda_mlp import MlpSpec
from fields.kernels.nvrtc import Argument, Machine, Program

DENSITY = "the density network takes the features of a 3-D grid"


def launch(
    field: tuple[GridSpec, Tensor, MlpSpec, Tensor, MlpSpec | None, Tensor | None, int],
    rays: tuple[Argument, ...],
    occupancy: Tensor,
    steps: tuple[int | float, ...],
    outputs: tuple[Tensor | None, ...],
) -> Tensor:
    """Run the kernel that fits the field; returns how many [rays, samples] it took.

    `field`: grid, table, density and its parameters, colour and its, harmonics' degree; `steps` ends with the least
    transmittance; `outputs`: rgb, opacity, depth, counts.
    """
    grid, table, density, density_params, color, color_params, degree = field
    grid.check(table.new_empty(0, 3), table)
    expect(grid.dim == 3 and density.dims[0] == grid.width, DENSITY)
    expect_tensor("density_params", density_params, (density.size,))
    rule, least = march_steps(occupancy, steps[:-1]), steps[-1]
    queue = torch.zeros(2, dtype=torch.int32, device=table.device)
    n = rays[0]
    assert isinstance(n, int)
    machine = grid.machine_of(table)
    behind = *rays, occupancy, rule, float(least), *outputs, queue
    program, shared = tensor_program(machine, grid, density, color, degree)
    if program is not None:
        shape = min(blocks(n, 128), 4 * machine.processors), 1
        arguments = grid.levels, table, density_params, color_params, *behind
        machine.launch(program, "render_tensor", shape, 128, shared, arguments)
        return queue
    width = max(*density.dims, *(color.dims if color else ()))
    program, rows, shared = density.tile(machine, 2 * width + 23, "render.cu")
    program = Program("render.cu", (*program.defines, ("FF_FEATURES", grid.features)))
    shape = min(blocks(n, rows), 2 * machine.processors), 1
    second = color or density
    arguments = grid.levels, table, density.layers, density_params, second.layers, color_params, degree, *behind
    machine.launch(program, "render", shape, machine.side**2, shared, arguments)
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
