"""Adam over a field's parameters: one rate for tables and one for networks; a step touches what its samples touched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fields.contracts import Gridded, Sparse
from fields.encodings.table import GridTable
from fields.kernels import ops
from fields.kernels.table_gradient import TableGradient
from scenes.errors import InputError


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam (Kingma & Ba 2015)."""

    table_rate: float = 1e-2
    """Learning rate of grids."""
    network_rate: float = 5e-3
    """Learning rate of networks and of all else."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.99
    """Decay of the second moment."""
    eps: float = 1e-15
    """Added to the root of the second moment; tiny, since gradients of tables are."""
    warmup_steps: int = 10
    """Steps over which the rates rise from zero."""
    final_rate: float = 0.03
    """What is left of the rates at the end, reached by a cosine."""


@dataclass
class Group:
    """One parameter and what Adam keeps of it."""

    name: str
    param: Tensor
    rate: float
    is_grid: bool
    is_sparse: bool
    """Whether entries without a gradient stay as they are, as those of grids do."""
    table: GridTable | None
    """The module whose table this is, if it gathers its gradient."""
    moments: tuple[Tensor, Tensor]

    @property
    def gathered(self) -> TableGradient | None:
        """Where the gradient is, if not with the parameter."""
        return None if self.table is None else self.table.gathered


class Adam:
    """Moments live in plain tensors, so that `state` is all there is to save.

    Tables on a CPU get their gradients gathered in place (`TableGradient`) from now on.
    """

    def __init__(self, field: nn.Module, config: OptimiserConfig) -> None:
        self.config = config
        self.steps = 0
        tables = {id(m.table): m for m in field.modules() if isinstance(m, GridTable)}
        for table in tables.values():
            table.gathered = TableGradient(table.table) if ops.is_native(table.table) else None
        grids = {id(p) for m in field.modules() if isinstance(m, Gridded) for p in m.grid_parameters()}
        sparse = grids | {id(p) for m in field.modules() if isinstance(m, Sparse) for p in m.sparse_parameters()}
        self.groups = [
            Group(
                name,
                param,
                config.table_rate if id(param) in grids else config.network_rate,
                id(param) in grids,
                id(param) in sparse,
                tables.get(id(param)),
                (torch.zeros_like(param), torch.zeros_like(param)),
            )
            for name, param in field.named_parameters()
        ]

    def finite(self) -> bool:
        """Whether all gradients are finite, but for those that are gathered: a bad one shows in the network's too."""
        gradients = [g.param.grad for g in self.groups if g.gathered is None]
        return all(bool(torch.isfinite(d).all()) for d in gradients if d is not None)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step with all rates times `factor`, then forget the gradients."""
        c = self.config
        self.steps += 1
        warm = min(1.0, self.steps / max(c.warmup_steps, 1))
        for g in self.groups:
            rate, betas = g.rate * factor * warm, (c.beta1, c.beta2)
            if g.gathered is not None:
                if g.param.grad is not None:  # of a penalty on the table itself
                    g.gathered.gradient.add_(g.param.grad)
                    g.gathered.touched.fill_(1)
                ops.adam_touched(g.param, g.gathered, g.moments, rate, betas, c.eps, self.steps)
            elif g.param.grad is not None:
                ops.adam(g.param, g.param.grad, g.moments, rate, betas, c.eps, self.steps, skip_zero=g.is_sparse)
            g.param.grad = None

    def follow(self) -> None:
        """Start the moments of tables anew whose values moved to other entries."""
        for g in self.groups:
            if g.table is not None and g.table.resampled:
                g.table.resampled = False
                for moment in g.moments:
                    moment.zero_()

    def forget(self) -> None:
        """Drop all gradients."""
        for g in self.groups:
            g.param.grad = None
            if g.gathered is not None:
                g.gathered.clear()

    def state(self) -> dict[str, Tensor]:
        """Moments by parameter, and the count of steps."""
        tensors = {f"{g.name}.moment{i + 1}": m for g in self.groups for i, m in enumerate(g.moments)}
        return {**tensors, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`.

        Raises:
            InputError: the state is not of this field.
        """
        expected = self.state()
        if set(state) != set(expected) or any(state[k].shape != v.shape for k, v in expected.items()):
            raise InputError(
                "the optimiser's state belongs to another field; expected one saved with this configuration"
            )
        for key, value in expected.items():
            value.copy_(state[key])
        self.steps = int(state["steps"])
