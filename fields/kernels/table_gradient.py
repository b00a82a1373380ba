"""The gradient of a big table, gathered over a step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fields.kernels.shapes import ALIGNMENT


class TableGradient:
    """Where the gradient of a big table is gathered in place, step after step, with marks of what was touched.

    An optimiser that reads the marks does nothing for the rest of the table, and no step allocates a table anew.
    """

    def __init__(self, table: Float[Tensor, "E F"]) -> None:
        self.gradient = torch.zeros_like(table, requires_grad=False)
        self.touched = torch.zeros(len(table) // ALIGNMENT, dtype=torch.uint8, device=table.device)

    def clear(self) -> None:
        """Forget what was gathered."""
        self.gradient.zero_()
        self.touched.zero_()
