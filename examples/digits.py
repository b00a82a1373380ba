"""Classify handwritten digits by kernels that a coordinate network generates: as images, and pixel after pixel."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from fields.contracts import Initialised
from fields.kernel_generator import GatedKernel, GlobalKernel

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNELS, BLOCKS, EPOCHS, BATCH = 16, 2, 12, 64


class Pointwise(nn.Linear):
    """A linear map of the channels."""

    def forward(self, input: Float[Tensor, "B C *S"]) -> Float[Tensor, "B D *S"]:  # noqa: A002  torch's own name
        """[B, C, *S] to [B, D, *S]."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Z + mix(K * Z, (K * Z) * Z): a convolution from end to end, and a product that depends on the place."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.whole = GlobalKernel(dim, channels)
        self.gated = GatedKernel(dim, channels, "product")
        self.mix = nn.Sequential(Pointwise(2 * channels, 2 * channels), nn.GELU(), Pointwise(2 * channels, channels))

    def forward(self, z: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """Of the same shape."""
        normal = self.norm(z)
        return z + self.mix(torch.cat([self.whole(normal), self.gated(normal)], 1))


class Classifier(nn.Module):
    """Scores of ten digits for signals of any number of dimensions; no layer knows how large they are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lift = Pointwise(1, CHANNELS)
        self.blocks = nn.Sequential(*(Block(dim, CHANNELS) for _ in range(BLOCKS)))
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, z: Float[Tensor, "B 1 *S"]) -> Float[Tensor, "B 10"]:
        """Logarithms of probabilities, up to a constant."""
        return self.head(self.blocks(self.lift(z)).flatten(2).mean(2))


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, Initialised):
            module.initialise(generator)
        elif isinstance(module, nn.Linear):
            bound = math.sqrt(3 / module.in_features)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.zeros_(module.bias)


def accuracy(signals: Float[Tensor, "N 1 *S"], digits: Int[Tensor, " N"], held_out: Sequence[int]) -> float:
    """Fit to the others, and return the share of the held-out signals that is told right."""
    generator = torch.Generator().manual_seed(0)
    model = Classifier(signals.dim() - 2)
    initialise(model, generator)
    rest = torch.tensor(sorted(set(range(len(signals))) - set(held_out)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    n_steps = EPOCHS * math.ceil(len(rest) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=n_steps)
    for _ in range(EPOCHS):
        for chosen in rest[torch.randperm(len(rest), generator=generator)].split(BATCH):
            loss = functional.cross_entropy(model(signals[chosen]), digits[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        told = model.eval()(signals[list(held_out)]).argmax(1)
    return float((told == digits[list(held_out)]).float().mean())


def main() -> None:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    digits = torch.from_numpy(labels).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1)).tolist()
    held_out = order[: len(order) // 5]
    for name, signals in (("8 x 8 pixels", images), ("a sequence of 64 pixels", images.flatten(2))):
        started = time.perf_counter()
        share = accuracy(signals, digits, held_out)
        seconds = time.perf_counter() - started
        print(f"{name}: {share:.1%} of {len(held_out)} held-out digits are told right, after {seconds:.0f} s")


if __name__ == "__main__":
    main()
