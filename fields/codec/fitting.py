"""Fits latents and networks to a picture: mean squared error plus a weight times the bits that it costs.

Most of the time latents are softly rounded and carry noise, which becomes less (C3, Kim et al. 2024, section 3.2); at
the end they are rounded, so that the networks see what decoders will. Then the weights get their steps, one group after
the other, each by what it does to rate and distortion.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fields.codec import weights
from fields.codec.bitstream import unpack
from fields.codec.image_file import ImageHeader, largest, write_image
from fields.codec.objective import Objective, whole
from fields.codec.rounding import Written, rounded, weight_slope
from fields.codec.shape import CodecShape
from fields.kernels.native import core

STEPS = 1500
USUAL_PIXELS = 768 * 512
LEAST_STEPS = 300
TAIL = 0.12
"""The last part of a fit, in which latents are rounded."""
TEMPERATURE = (0.6, 0.02)
NOISE = (2.0, 1.0)
LATENT_RATE, NETWORK_RATE, FINAL_RATE = 0.2, 2e-2, 0.01
WARMUP_STEPS = 20
OVERHEAD = 8 * (66 + 2 * weights.N_GROUPS)
"""Bits of a file that are neither latents nor integers of weights, about."""
TYPICAL_WEIGHT_BITS = 5.5
REHEARSALS, REHEARSAL, LEAST_REHEARSAL = 2, 0.08, 60
"""Short fits before one with a target, and what part of the effort each takes."""
LOOKS = (0.3, 0.5, 0.7, 0.88, 0.94)
"""When a fit finds out what its file would really take, if that is what was asked for."""
RATE_EXPONENT, ERROR_EXPONENT = 1.9, 1.65
"""The weight of the rate goes about as these powers of one over the bits and of the error."""
UNCONTROLLED, CONTROL, MOST_OFF = 0.2, 15.0, 1.0
"""The first part of a fit, whose rate says little; how fast the weight of the rate follows; the largest correction."""
QUALITY_WEIGHTS = (3e-2, 1e-5)
"""Of a bit a pixel against mean squared error at quality 1 and 100."""


@dataclass(frozen=True)
class Target:
    """What a file should be like: at most one of the three is given."""

    quality: float = 60.0
    """1 to 100, which is a weight of the rate."""
    bits: float | None = None
    """Of the whole file."""
    psnr: float | None = None
    """dB."""


@dataclass(frozen=True)
class Effort:
    """How long a fit goes on: for a number of steps, or for a time."""

    steps: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Step:
    """How far a fit has come."""

    index: int
    part: float
    """Of the fit that is done, 0 to 1."""
    bits: float
    """That the file would have, about."""
    psnr: float
    """dB."""


@dataclass
class Packed:
    """A finished file and what it decodes to."""

    data: bytes
    samples: Shaped[np.ndarray, "H W C"]
    psnr: float
    """dB, of the samples that are decoded."""
    estimated: float
    """Bytes that the file should have by the model that was fitted: latents and weights, and what is around them."""


@dataclass
class Fit:
    """A picture's latents and networks. `steps` fits them; `pack` makes the file."""

    samples: Shaped[np.ndarray, "H W C"]
    depth: int
    target: Target = field(default_factory=Target)
    effort: Effort = field(default_factory=Effort)
    seed: int = 0

    def __post_init__(self) -> None:
        height, width, channels = self.samples.shape
        self.shape = shape = CodecShape(height, width, channels)
        self.n_pixels = height * width
        self.objective = Objective(shape, self.samples, (1 << self.depth) - 1, self._first_weight())
        self.latents = torch.zeros(shape.n_latents)
        self.base = torch.from_numpy(weights.base(shape)).float() / 2**weights.UNIT
        self.networks = self.base.clone()
        self.groups = [torch.from_numpy(index) for index in weights.layout(shape)]
        self.weight_bits, self.rounding_costs = TYPICAL_WEIGHT_BITS * len(self.networks), 1.0

    def _first_weight(self) -> float:
        if self.target.bits is not None:
            return 4e-3 * (0.3 * self.n_pixels / self.target.bits) ** RATE_EXPONENT
        if self.target.psnr is not None:
            return 4e-3 * (1e3 * 10 ** (-self.target.psnr / 10)) ** ERROR_EXPONENT
        return weight_for(self.target.quality)

    def n_steps(self) -> int:
        """Of a fit that no time was given for: fewer for large pictures, whose steps take longer."""
        usual = STEPS * min(1.0, math.sqrt(USUAL_PIXELS / self.n_pixels))
        return self.effort.steps or max(LEAST_STEPS, round(usual))

    def steps(self) -> Iterator[Step]:
        """Fit until the effort is spent."""
        begun = 0.0
        if self.target.bits is not None:
            for _ in range(REHEARSALS):
                yield from self._rehearse(begun)
                begun += REHEARSAL
        descent = Descent(self)
        started, part, n_steps = time.monotonic(), 0.0, self.n_steps()
        allowed = None if self.effort.minutes is None else 60 * self.effort.minutes * (1 - begun)
        while part < 1:
            before = part
            bits, error = descent.step(schedule(part))
            part = descent.taken / n_steps if allowed is None else min((time.monotonic() - started) / allowed, 1.0)
            if self.target.bits is not None and any(before < at <= part for at in LOOKS):
                self._look(bits)
            total = bits * self.rounding_costs + OVERHEAD + self.weight_bits
            self._control(part - before, part, total, error)
            yield Step(descent.taken, begun + (1 - begun) * part, total, psnr_of(error))

    def add_weight_rate(self, d_networks: Float[Tensor, "P"]) -> None:
        """Adds the gradient of what weights cost."""
        slope = weight_slope(self.networks, self.base, self.groups)
        d_networks += slope * (self.objective.weight / (self.n_pixels * math.log(2)))

    def _rehearse(self, begun: float) -> Iterator[Step]:
        """A short fit, to learn what weight of the rate the target needs."""
        steps = None if self.effort.minutes else max(round(REHEARSAL * self.n_steps()), LEAST_REHEARSAL)
        minutes = None if self.effort.minutes is None else REHEARSAL * self.effort.minutes
        short = Fit(self.samples, self.depth, effort=Effort(steps, minutes), seed=self.seed)
        short.objective.weight = self.objective.weight
        for step in short.steps():
            yield replace(step, part=begun + REHEARSAL * step.part)
        packed = short.pack()
        self.objective.weight = short.objective.weight * math.exp(self._off(8.0 * len(packed.data), packed.psnr))

    def _look(self, bits: float) -> None:
        """What weights would cost, and how much more rounded latents cost than those with noise."""
        written = self._choose_steps(whole(self.latents))
        self.weight_bits = written.weight_bits
        self.rounding_costs = written.latent_bits / max(bits, 1.0)

    def _off(self, bits: float, psnr: float) -> float:
        """How far the logarithm of the weight of the rate is from what the target needs, about."""
        if self.target.bits is not None:
            off = RATE_EXPONENT * math.log(bits / self.target.bits)
        elif self.target.psnr is not None:
            off = ERROR_EXPONENT * (psnr - self.target.psnr) * math.log(10) / 10
        else:
            return 0.0
        return max(-MOST_OFF, min(MOST_OFF, off))

    def _control(self, step: float, part: float, bits: float, error: float) -> None:
        """Moves the weight of the rate towards what the target needs, at a pace that depends on the part of the fit."""
        if part >= UNCONTROLLED:
            self.objective.weight *= math.exp(min(CONTROL * step, 1.0) * self._off(bits, psnr_of(error)))

    def pack(self) -> Packed:
        """The file of what has been fitted so far."""
        latents = whole(self.latents)
        written = self._choose_steps(latents)
        integers = latents.to(torch.int32).numpy()
        header = ImageHeader(self.shape, self.depth, largest(self.shape, integers))
        data, samples = write_image(header, written.data(), integers)
        error = float(np.mean(((samples.astype(np.float64) - self.samples) / header.white) ** 2))
        sections = unpack(data).sections
        around = len(data) - len(sections["L"]) - len(sections["W"]) + 2 * weights.N_GROUPS
        estimated = (written.weight_bits + written.latent_bits) / 8 + around
        return Packed(data, samples, psnr_of(error), estimated)

    def _choose_steps(self, latents: Float[Tensor, "N"]) -> Written:
        return rounded(
            self.shape,
            self.networks,
            lambda networks: self.objective.rate(latents, networks),
            lambda networks: self.objective.error(latents, networks),
            self.objective.weight / self.n_pixels,
        )


@dataclass(frozen=True)
class Schedule:
    """How a step is taken."""

    rate: float
    """Factor of the learning rates."""
    rounded: bool
    """Whether latents are rounded, or softly rounded and with noise."""
    temperature: float
    """Of soft rounding."""
    noise: float
    """Shape of the noise's distribution."""


def schedule(part: float) -> Schedule:
    """Of a fit of which a part is done."""
    soft = min(part / (1 - TAIL), 1.0)
    return Schedule(
        max(0.5 * (1 + math.cos(math.pi * part)), FINAL_RATE),
        part >= 1 - TAIL,
        TEMPERATURE[0] + (TEMPERATURE[1] - TEMPERATURE[0]) * soft,
        NOISE[0] + (NOISE[1] - NOISE[0]) * soft,
    )


class Descent:
    """Adam on a fit's latents and networks, with the memory that it needs."""

    def __init__(self, fit: Fit) -> None:
        self.fit, self.taken = fit, 0
        self._seen, self._slope, self._d_latents = (torch.empty_like(fit.latents) for _ in range(3))
        self._d_networks = torch.empty_like(fit.networks)
        self._moments = [torch.zeros_like(x) for x in (fit.latents, fit.latents, fit.networks, fit.networks)]

    def step(self, how: Schedule) -> tuple[float, float]:
        """One step; bits of the latents and mean squared error before it."""
        fit, d_latents, d_networks = self.fit, self._d_latents, self._d_networks
        seed = fit.seed + self.taken
        core().codec_perturb(fit.latents, how.rounded, how.temperature, how.noise, seed, self._seen, self._slope)
        d_latents.zero_()
        d_networks.zero_()
        bits = fit.objective.rate(self._seen, fit.networks, d_latents, d_networks)
        error = fit.objective.error(self._seen, fit.networks, d_latents, d_networks)
        fit.add_weight_rate(d_networks)
        d_latents.mul_(self._slope)
        self.taken += 1
        n, factor = self.taken, how.rate * min(1.0, self.taken / WARMUP_STEPS)
        m1, m2, n1, n2 = self._moments
        for x, d, moments, rate, beta in (
            (fit.latents, d_latents, (m1, m2), LATENT_RATE, 0.99),
            (fit.networks, d_networks, (n1, n2), NETWORK_RATE, 0.999),
        ):
            core().adam(x, d, *moments, rate * factor, 0.9, beta, 1e-10, 1 - 0.9**n, 1 - beta**n, False)
        return bits, error


def weight_for(quality: float) -> float:
    """The weight of a bit a pixel against mean squared error, from a quality of 1 to 100."""
    low, high = QUALITY_WEIGHTS
    return low * (high / low) ** ((quality - 1) / 99)


def psnr_of(error: float) -> float:
    """dB of a mean squared error of values from 0 to 1."""
    return 10 * math.log10(1 / max(error, 1e-12))
