"""Fits a film's networks: every frame by itself, under integers from the first step on.

Steps see weights as a file has them, and gradients pass as if they were not rounded (straight-through). To the mean
squared error comes a weight times the bits of all integers under Laplace distributions. How many bits there are is told
by the size of latents and convolutions, for whose scale normalisations make up: they are made as large as asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fields.codec import network
from fields.codec.film_file import NETWORK, FilmHeader, Frames, digest
from fields.codec.fitting import Effort, Step, psnr_of, weight_for
from fields.codec.grouped_film import GroupedFilm
from fields.codec.network import NetworkShape
from fields.kernels.native import isa

PASSES = 100
"""Over all frames, of a fit that no time was given for."""
BATCH = 2
"""Frames in a step."""
LEARNING_RATE, WARMUP_STEPS, FINAL_RATE = 2e-2, 100, 0.01
SPREAD, SPREAD_OF_LAST = 0.15, 0.1
"""Of weights at first, of the largest that there can be."""
LEAST_SCALE = 0.01
"""Of a tensor's values, as their cost is fitted."""
PSNR_AT_FIRST, PSNR_OF_QUALITY = 26.0, 0.18
"""dB at quality 0, about, and for each step of quality, where a PSNR chooses sizes."""
RATE_AT_FIRST, RATE_OF_QUALITY = 0.035, 0.039
"""Bits a pixel at quality 0, and the logarithm of how much more for each step of quality."""
BITS_OF_WEIGHT = 3.5
"""That a weight is expected to take, where sizes are chosen."""
MOST_RESCALED, MOST_SPREAD, BISECTIONS = 4.0, 0.35, 10
AROUND = 8 * 80
"""Bits of a file that are not its group's weights, about."""
LATENT_SHARE = 0.5
"""Of the weights."""
LOOKS = 40
"""How often a fit finds out what its file would take."""
CONTROL, MOST_OFF = 0.05, 0.1
"""Of the logarithm of the bits, for each dB that a PSNR is missed by, and at most, at each look."""
RESCALED = 0.3
"""The part of a fit after which latents and convolutions are made as large as a size asks for."""


def shape_for(height: int, width: int, frames: int, bits: float) -> NetworkShape:
    """A network that takes about so many bits."""
    wanted = bits / BITS_OF_WEIGHT

    def of(latents: int, hidden: int) -> NetworkShape:
        return NetworkShape(height, width, frames, latents, hidden)

    one = of(1, 4)
    each = sum(math.prod(one.sizes[f"latents{i}"]) for i in range(2))
    latents = min(max(round(LATENT_SHARE * wanted / each), 1), network.MOST_CHANNELS)
    sizes = [of(latents, hidden) for hidden in range(4, network.MOST_CHANNELS + 1, 4)]
    return min(sizes, key=lambda shape: abs(shape.n_weights - wanted))


class Synthesis(nn.Module):
    """The network in float, which agrees with decoders but for the rounding of values between layers."""

    def __init__(self, shape: NetworkShape, seed: int) -> None:
        super().__init__()
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        self.values = nn.ParameterDict()
        for name, size in shape.sizes.items():
            spread = SPREAD if network.bits_of(name) == network.ROUGH else SPREAD_OF_LAST * (name == "weights")
            self.values[name] = nn.Parameter(spread * torch.randn(size, generator=generator))

    def rounded(self, name: str) -> Float[Tensor, "..."]:
        """A tensor as a file has it, of values from -1 to 1."""
        value, unit = self.values[name], 2.0 ** network.bits_of(name)
        return value + ((value.detach() * unit).round().clamp(1 - unit, unit - 1) / unit - value.detach())

    def integers(self, factor: float = 1.0) -> network.Integers:
        """As a file has them, with latents and convolutions so many times larger."""
        found = {}
        for name, value in self.values.items():
            unit = 2.0 ** network.bits_of(name)
            larger = value.detach() * (unit * factor if network.bits_of(name) == network.ROUGH else unit)
            found[name] = larger.round().clamp(1 - unit, unit - 1).int().contiguous().numpy()
        return found

    def rescale(self, bits: float) -> None:
        """Makes latents and convolutions larger or smaller, so that a file takes so many bits. Normalisations undo it,
        but for what rounding makes of it; what becomes too large is cut off, so that there is an end to it."""
        rough = [value for name, value in self.values.items() if network.bits_of(name) == network.ROUGH]
        if not self.shape.doublings:
            return
        spread = max(float(value.detach().square().mean().sqrt()) for value in rough)
        low, high = 1 / MOST_RESCALED, min(MOST_RESCALED, MOST_SPREAD / max(spread, 1e-6))
        for _ in range(BISECTIONS):
            factor = math.sqrt(low * high)
            too_large = network.write(self.shape, self.integers(factor))[1] > bits
            low, high = (low, factor) if too_large else (factor, high)
        with torch.no_grad():
            for value in rough:
                value *= low

    def forward(self, frames: list[int]) -> Float[Tensor, "B 3 H W"]:
        """Frames by their numbers, as values from 0 to 1."""

        def at(name: str) -> Float[Tensor, "B C ..."]:
            q = self.rounded(name)
            places = [network.place(frame, self.shape.frames, q.shape[1]) for frame in frames]
            first, second, part = zip(*places, strict=True)
            along = torch.tensor(part).view(-1, *[1] * (q.ndim - 1))
            begin, end = (q[:, list(index)].transpose(0, 1) for index in (first, second))
            return begin + (end - begin) * along

        x = torch.cat([at(f"latents{i}") for i in range(2)], 1)
        for i in range(self.shape.doublings):
            x = functional.pixel_shuffle(functional.conv2d(x, self.rounded(f"weights{i}"), padding=1), 2)
            variance, mean = torch.var_mean(x, (2, 3), keepdim=True, unbiased=False)
            scale, shift = (network.MODULATION * at(name)[:, :, None, None] for name in (f"scale{i}", f"shift{i}"))
            factor = (scale + 1) * torch.rsqrt(variance + 1e-6)
            x = functional.hardswish(x * factor + (shift - mean * factor))
        x = functional.conv2d(x, network.CONTRAST * self.rounded("weights"), padding=1)
        return (x + (self.rounded("bias") + 0.5)[:, None, None])[..., : self.shape.height, : self.shape.width]

    def add_rate(self, weight: float) -> None:
        """Adds to gradients that of `weight` times the bits under a Laplace distribution of each tensor's own scale."""
        for value in self.values.values():
            assert value.grad is not None
            size = value.detach().abs()
            scale = size.mean().clamp(min=LEAST_SCALE)
            value.grad += weight / math.log(2) * value.detach() / (size + LEAST_SCALE) / scale


@dataclass
class NetworkFit:
    """A group of frames."""

    frames: Frames
    bits: float
    """That it should take."""
    wanted: float | None
    """dB that its frames should have, for which bits may change."""
    weight: float
    """Of a bit a pixel against mean squared error."""
    shape: NetworkShape
    effort: Effort
    seed: int
    decoded: Frames = field(init=False)
    payload: bytes = b""
    estimated: float = 0.0
    """Bytes."""
    psnr: float = 0.0
    """dB, the mean of frames."""

    def __post_init__(self) -> None:
        self.decoded = np.zeros_like(self.frames)
        self.model = Synthesis(self.shape, self.seed)

    def steps(self) -> Iterator[Step]:
        """Fit, then make the bytes."""
        n = len(self.frames)
        n_steps = self.effort.steps or max(PASSES * n // BATCH, 2 * LOOKS)
        allowed = None if self.effort.minutes is None else 60 * self.effort.minutes
        optimiser = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, betas=(0.9, 0.99), eps=1e-12)
        random = np.random.default_rng(self.seed)
        queue: list[int] = []
        begun, taken, part, looked, errors, bits = time.monotonic(), 0, 0.0, 0.0, [], 0.0
        while part < 1:
            if len(queue) < BATCH:
                queue = random.permutation(n).tolist() + queue
            chosen = [queue.pop() for _ in range(min(BATCH, n))]
            rate = LEARNING_RATE * min(1.0, (taken + 1) / WARMUP_STEPS) * max(_cosine(part), FINAL_RATE)
            for group in optimiser.param_groups:
                group["lr"] = rate
            errors.append(self._step(optimiser, chosen))
            taken += 1
            part = taken / n_steps if allowed is None else min((time.monotonic() - begun) / allowed, 1.0)
            if not bits or part - looked >= 1 / LOOKS or part >= 1:
                looked, (_, bits) = part, network.write(self.shape, self.model.integers())
                self.psnr, errors = psnr_of(float(np.mean(errors))), []
                self._steer(part)
            yield Step(taken, part, bits, self.psnr)
        self._finish()

    def _step(self, optimiser: torch.optim.Adam, chosen: list[int]) -> float:
        wanted = torch.from_numpy(self.frames[chosen]).permute(0, 3, 1, 2).float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=isa() in ("avx512bf16", "amx")):
            found = self.model(chosen)
        loss = functional.mse_loss(found.float(), wanted)
        optimiser.zero_grad()
        loss.backward()
        self.model.add_rate(self.weight / (self.frames.size // 3))
        optimiser.step()
        return loss.item()

    def _steer(self, part: float) -> None:
        """Towards the target."""
        if part < RESCALED:
            return
        if self.wanted is not None:
            self.bits *= math.exp(max(-MOST_OFF, min(MOST_OFF, CONTROL * (self.wanted - self.psnr))))
        self.model.rescale(self.bits - AROUND)

    def _finish(self) -> None:
        integers = self.model.integers()
        data, bits = network.write(self.shape, integers)
        for i, frame in enumerate(network.decoded(self.shape, integers)):
            self.decoded[i] = frame
        pairs = zip(self.decoded, self.frames, strict=True)
        errors = [float(np.mean(((a.astype(np.float64) - b) / 255) ** 2)) for a, b in pairs]
        self.psnr = float(np.mean([psnr_of(error) for error in errors]))
        self.payload, self.estimated = digest(self.decoded) + data, bits / 8 + 32


@dataclass
class NetworkFilmFit(GroupedFilm[NetworkFit]):
    """A film as networks. `steps` fits all of it; `pack` makes the file."""

    def __post_init__(self) -> None:
        n, height, width, _ = self.frames.shape
        self.header = FilmHeader(width, height, n, self.rate, NETWORK)
        self.groups = [self._group(i) for i in range(self.header.n_groups())]

    def _group(self, index: int) -> NetworkFit:
        n = self.header.group_frames(index)
        begin, share = sum(self.header.group_frames(i) for i in range(index)), n / self.header.frames
        frames = self.frames[begin : begin + n]
        quality, pixels = self.target.quality, frames.size // 3
        if self.target.psnr is not None:
            quality = min(max((self.target.psnr - PSNR_AT_FIRST) / PSNR_OF_QUALITY, 1.0), 100.0)
        bits = pixels * RATE_AT_FIRST * math.exp(RATE_OF_QUALITY * quality)
        if self.bits is not None:
            bits = self.bits * share
            quality = math.log(max(bits / pixels / RATE_AT_FIRST, 1.0)) / RATE_OF_QUALITY
        weight = weight_for(min(max(quality, 1.0), 100.0))
        minutes = None if self.effort.minutes is None else self.effort.minutes * share
        shape = shape_for(frames.shape[1], frames.shape[2], n, bits)
        return NetworkFit(
            frames, bits, self.target.psnr, weight, shape, Effort(self.effort.steps, minutes), self.seed + index
        )

    def steps(self) -> Iterator[Step]:
        """Fit all groups."""
        done = 0
        for group in self.groups:
            before = sum(len(g.payload) for g in self.groups)
            share = len(group.frames) / self.header.frames
            for step in group.steps():
                bits = (8 * before + step.bits) / (done + share)
                yield Step(step.index, done + share * step.part, bits, step.psnr)
            done += share


def _cosine(part: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * part))
