"""Occupancy grids as marching reads them: one bit per cell."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fields.kernels import native, reference


def pack_bits(occupied: Bool[Tensor, "R R R"]) -> Int[Tensor, " W"]:
    """One bit per cell, 32 to an int32, x fastest, as marching reads them."""
    bits = occupied.flatten().to(torch.int64)
    bits = torch.nn.functional.pad(bits, (0, -len(bits) % 32)).view(-1, 32)
    words = (bits << torch.arange(32, device=bits.device)).sum(1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack_bits(words: Int[Tensor, " W"], resolution: int) -> Bool[Tensor, "R R R"]:
    """Inverse of `pack_bits`."""
    bits = (words[:, None] >> torch.arange(32, device=words.device)) & 1
    return bits.flatten()[: resolution**3].bool().view(resolution, resolution, resolution)


def set_bits(words: Int[Tensor, " W"], resolution: int) -> Int[Tensor, " N"]:
    """Cells whose bit is set, in order."""
    if words.device.type == "cpu":
        return native.core().set_bits(words)
    return unpack_bits(words, resolution).view(-1).nonzero()[:, 0]


def visit_cells(
    cells: Int[Tensor, " N"],
    found: Float[Tensor, " N"],
    decay: float,
    threshold: float,
    allowed: Int[Tensor, " W"],
    density: Float[Tensor, " C"],
    bits: Int[Tensor, " W"],
) -> None:
    """Bring the densities of visited cells up to date, and all bits, in place.

    A visited cell keeps `decay` of what it had, or has the largest density found there; infinity, of a cell that was
    never visited, is forgotten. Bits are set where allowed and above the threshold, or above the mean if that is less.
    """
    if density.device.type == "cpu":
        native.core().visit_cells(cells, found, decay, threshold, allowed, density, bits)
        return
    above = reference.visit_cells(cells, found, decay, threshold, density)
    n = round(len(density) ** (1 / 3))
    bits.copy_(pack_bits(above.view(n, n, n)) & allowed)
