"""Networks that choose their activation spaces (S-KAN, Yang et al. 2024): a pool of bases per node, gates over them.

    y_o = b_o + W_o silu(x) + sum_k softmax(alpha_o / tau)_k sum_i sum_g C_k,oig B_k,g(x_i)

Three phases by the progress of the fit: all families are trained at tau = 1; then tau falls, so that each node settles
on few of them; then each node keeps the families with its largest gates, whose shares become part of their weights, and
the others are no longer computed or trained, nor are the gates. Phases and schedule are our reconstruction: the paper's
were not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fields.kernels.shapes import Activation
from fields.networks.configs import KanFamily, SelectableKAN
from fields.networks.kan.basis import Basis
from fields.networks.kan.layer import SILU_GAIN, KanStack
from fields.networks.kan.rational import RationalActivation
from scenes.errors import InputError

COLDEST = 0.1
"""tau when the pruning comes: two gates whose logits differ by 0.5 are 150 to 1 then."""
GROUPS = 8


def family(kind: KanFamily, n_in: int, n_basis: int) -> Basis | RationalActivation:
    """The functions of a family on each of `n_in` inputs."""
    if kind == "rational":
        return RationalActivation("swish", n_in, math.gcd(GROUPS, n_in))
    return Basis(kind, n_in, n_basis)


class SelectableLayer(nn.Module):
    """One layer. Its phase is in its buffers, and so in what is saved of a field."""

    temperature: Tensor
    kept: Tensor
    pruned: Tensor

    def __init__(self, config: SelectableKAN, n_in: int, n_out: int) -> None:
        super().__init__()
        self.select_at, self.prune_at, self.keep = config.select_at, config.prune_at, config.keep
        families = [family(kind, n_in, config.n_basis) for kind in config.pool]
        self.families = nn.ModuleList(families)
        self.weights = nn.ParameterList(torch.empty(n_out, n_in * f.terms) for f in families)
        n_gates = n_out if config.gates == "node" else 1
        self.alpha = nn.Parameter(torch.empty(n_gates, len(config.pool)))
        self.base = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("kept", torch.ones(n_gates, len(config.pool), dtype=torch.bool))
        self.register_buffer("pruned", torch.zeros((), dtype=torch.bool))

    def initialise(self, generator: torch.Generator) -> None:
        """Every family alone gives outputs of variance one half for standard normal inputs, and so does SiLU; equal
        gates."""
        n_in = self.base.shape[1]
        with torch.no_grad():
            for functions, weight in self._branches():
                weight.normal_(generator=generator).mul_(math.sqrt(0.5) * functions.deviation(n_in))
            self.base.normal_(generator=generator).mul_(math.sqrt(0.5 / n_in) * SILU_GAIN)
            self.bias.zero_()
            self.alpha.zero_()
            self.temperature.fill_(1.0)
            self.kept.fill_(True)
            self.pruned.fill_(False)

    def advance(self, progress: float) -> None:
        """The phase of this progress in [0, 1]; what was pruned stays pruned."""
        if self.is_pruned():
            return
        if progress >= self.prune_at:
            self._prune()
        elif progress >= self.select_at:
            self.temperature.fill_(COLDEST ** ((progress - self.select_at) / (self.prune_at - self.select_at)))

    @torch.no_grad()
    def _prune(self) -> None:
        best = self.alpha.topk(self.keep, dim=1).indices
        self.kept.zero_().scatter_(1, best, True)
        self.pruned.fill_(True)
        shares = self.gates() * self.kept
        shares = shares / shares.sum(1, keepdim=True)
        for k, weight in enumerate(self.weights):
            weight.copy_(torch.where(self.kept[:, k, None], weight * shares[:, k, None], weight))

    def is_pruned(self) -> bool:
        """Whether every node has its family."""
        return bool(self.pruned)

    def sparse_parameters(self) -> Sequence[nn.Parameter]:
        """Weights: of a family that some nodes have kept, those of the other nodes rest."""
        return list(self.weights)

    def gates(self) -> Float[Tensor, "O K"]:
        """Shares of the families at each node."""
        shares = (self.alpha / self.temperature).softmax(1)
        return shares.expand(len(self.bias), -1)

    def chosen(self) -> list[tuple[int, Int[Tensor, " M"]]]:
        """The families that were kept, each with its nodes."""
        nodes = self.kept.expand(len(self.bias), -1)
        return [(k, nodes[:, k].nonzero()[:, 0]) for k in self.kept.any(0).nonzero()[:, 0].tolist()]

    def update_grid(self, x: Float[Tensor, "N I"]) -> None:
        """Knots to where inputs like `x` lie; the layer stays the same function."""
        with torch.no_grad():
            for functions, weight in self._branches():
                if isinstance(functions, Basis):
                    each = weight.unflatten(1, (-1, functions.terms))
                    weight.copy_(functions.update_grid(x, each).flatten(1))

    def active_parameters(self) -> int:
        """How many weights its values depend on now."""
        shared = self.base.numel() + self.bias.numel()
        if not self.is_pruned():
            return (
                shared
                + sum(p.numel() for p in self.families.parameters())
                + sum(w.numel() for w in self.weights)
                + self.alpha.numel()
            )
        return shared + sum(
            sum(p.numel() for p in self.families[k].parameters()) + len(nodes) * self.weights[k].shape[1]
            for k, nodes in self.chosen()
        )

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """Gated sums; after pruning those of the families that were kept, for their nodes."""
        out = nn.functional.linear(nn.functional.silu(x), self.base, self.bias)
        none = torch.zeros_like(self.bias)
        if not self.is_pruned():
            for (functions, weight), gate in zip(self._branches(), self.gates().T, strict=True):
                out = out + functions.product(x, weight * gate[:, None], none)
            return out
        for k, nodes in self.chosen():
            if len(nodes) == len(self.bias):
                out = out + self._branch(k).product(x, self.weights[k], none)
            else:
                part = self._branch(k).product(x, self.weights[k][nodes], none[nodes])
                out = out.index_add(1, nodes, part)
        return out

    def _branch(self, k: int) -> Basis | RationalActivation:
        functions = self.families[k]
        assert isinstance(functions, Basis | RationalActivation)
        return functions

    def _branches(self) -> list[tuple[Basis | RationalActivation, Tensor]]:
        return [(self._branch(k), weight) for k, weight in enumerate(self.weights)]


class SelectableNetwork(KanStack):
    """Layers that choose, one after another."""

    def __init__(self, config: SelectableKAN, n_in: int, n_out: int, output_activation: Activation) -> None:
        if not config.pool or len(set(config.pool)) < len(config.pool):
            raise InputError(f"s-kan: expected a pool of different families, got {', '.join(config.pool) or 'none'}")
        if not 1 <= config.keep <= len(config.pool):
            raise InputError(f"s-kan: expected keep from 1 to the pool's {len(config.pool)}, got {config.keep}")
        if not 0 <= config.select_at < config.prune_at <= 1:
            raise InputError(
                f"s-kan: expected 0 <= select_at < prune_at <= 1, got {config.select_at} and {config.prune_at}"
            )

        def layer(a: int, b: int) -> SelectableLayer:
            return SelectableLayer(config, a, b)

        super().__init__("s-kan", config, n_in, n_out, output_activation, layer)

    def selectable(self) -> list[SelectableLayer]:
        """The layers."""
        return [layer for layer in self.layers if isinstance(layer, SelectableLayer)]

    def active_parameters(self) -> int:
        """How many parameters its values depend on now."""
        return sum(layer.active_parameters() for layer in self.selectable())
