"""Fits a group of a film's frames: a picture, then networks that all other frames share, then each frame's
motion and latents, from the frames as they are decoded.

Frames that others are predicted from are worth more bits: the weight of the rate is smaller for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fields.codec import weights
from fields.codec.bitstream import unpack
from fields.codec.film_file import (
    MOTION,
    STRIDE,
    FilmHeader,
    Frame,
    Frames,
    Motion,
    Planes,
    Predicted,
    block,
    blocks,
    coding_order,
    digest,
    head_bytes,
    planes_of,
    prediction,
    references_of,
    synthesised,
    write_latents,
)
from fields.codec.fitting import (
    ERROR_EXPONENT,
    RATE_EXPONENT,
    Effort,
    Fit,
    Schedule,
    Target,
    psnr_of,
    schedule,
)
from fields.codec.image_file import largest
from fields.codec.objective import Objective, model_of, whole
from fields.codec.rounding import rounded, weight_slope
from fields.codec.shape import SCALE, UNIT, CodecShape
from fields.kernels.native import core

FIRST_STEPS, JOINT_STEPS, TRAINED = 4.0, 0.3, 16
"""Of a group's first picture, over those of a frame; of each frame while networks are fitted to several, and to how
many."""
ALONG = 0.4
"""Steps of each frame with which the networks are fitted first, frame after frame, over those of a frame."""
LEVEL_WEIGHTS = (0.12, 0.16, 0.35, 0.75, 1.5)
"""Of the rate: of a group's picture, of frames predicted from those before, and of those between, level by level."""
LATENT_RATE, NETWORK_RATE = 0.08, 0.01
MOTION_WEIGHT = 0.85
WARMUP_STEPS = 10
MOST_STEERED = 0.7
"""Of the logarithm of the weight of the rate, after eight frames."""


class Networks:
    """What predicted frames share, and how it is fitted."""

    def __init__(self, shape: CodecShape) -> None:
        self.shape = shape
        self.model = model_of(shape)
        self.base = torch.from_numpy(weights.base(shape)).float() / 2**weights.UNIT
        self.values = self.base.clone()
        self.groups = [torch.from_numpy(index) for index in weights.layout(shape)]
        self._moments, self._taken = [torch.zeros_like(self.base) for _ in range(2)], 0

    def step(self, gradient: Float[Tensor, "P"], weight: float, rate: float) -> None:
        """Adam; `weight` of a nat of theirs against the loss."""
        gradient += weight * weight_slope(self.values, self.base, self.groups)
        self._taken += 1
        n = self._taken
        rate *= NETWORK_RATE * min(1.0, n / (2 * WARMUP_STEPS))
        m, v = self._moments
        core().adam(self.values, gradient, m, v, rate, 0.9, 0.999, 1e-10, 1 - 0.9**n, 1 - 0.999**n, False)

    def integers(self) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " Q"]]:
        """As a decoder would have them, without a thought of their cost."""
        whole = torch.round(self.values * 2**weights.UNIT).to(torch.int32).numpy()
        return whole[: self.shape.context_size].copy(), whole[self.shape.context_size :].copy()


class PredictedFit:
    """The latents of one frame."""

    def __init__(self, networks: Networks, frame: Frame, known: Planes, weight: float, seed: int) -> None:
        self.networks, self.known, self.seed = networks, known, seed
        self.objective = Objective(networks.shape, frame, 255, weight, known, networks.model)
        self.latents = torch.zeros(networks.shape.n_latents)
        self._seen, self._slope, self._gradient = (torch.empty_like(self.latents) for _ in range(3))
        self._moments, self._taken = [torch.zeros_like(self.latents) for _ in range(2)], 0

    def step(self, how: Schedule, share: float | None = None, rate: float = 1.0) -> None:
        """One of Adam; the networks too, of whose own cost a `share` counts, where that is given."""
        gradient = self._gradient.zero_()
        d_networks = None if share is None else torch.zeros_like(self.networks.values)
        seed = self.seed + 31 * self._taken
        core().codec_perturb(self.latents, how.rounded, how.temperature, how.noise, seed, self._seen, self._slope)
        self.objective.rate(self._seen, self.networks.values, gradient, d_networks)
        self.objective.error(self._seen, self.networks.values, gradient, d_networks)
        gradient.mul_(self._slope)
        self._taken += 1
        n, (m, v) = self._taken, self._moments
        factor = LATENT_RATE * how.rate * min(1.0, n / WARMUP_STEPS)
        core().adam(self.latents, gradient, m, v, factor, 0.9, 0.99, 1e-10, 1 - 0.9**n, 1 - 0.99**n, False)
        if share is not None and d_networks is not None:
            nat = self.objective.weight / (self.objective.n_pixels * math.log(2))
            self.networks.step(d_networks, share * nat, rate)

    def coded_bits(self) -> float:
        """Of the latents as a file has them: levels without any take none."""
        self.objective.rate(whole(self.latents), self.networks.values)
        coded = np.array(largest(self.networks.shape, self.integers())) > 0
        return float(self.objective.level_bits[coded].sum())

    def integers(self) -> Int[np.ndarray, " N"]:
        """The latents as a file has them."""
        return whole(self.latents).to(torch.int32).numpy()


@dataclass
class GroupFit:
    """A group of frames, from the first picture to the last frame."""

    frames: Frames
    header: FilmHeader
    weight: float
    n_steps: int
    seed: int
    goal: Target | None = None
    """Bits of this group, or dB of its frames, that the weight of the rate is steered towards."""
    decoded: Frames = field(init=False)
    payload: bytes = b""
    estimated: float = 0.0
    """Bytes."""
    first_bytes: int = 0
    """Of the picture."""
    psnrs: dict[int, float] = field(default_factory=dict)
    """dB, of the frames that are finished."""

    def __post_init__(self) -> None:
        self.decoded = np.zeros_like(self.frames)
        self.order = coding_order(len(self.frames))
        self.trained = self.order[:TRAINED]
        self.along, self.joint = (max(round(x * self.n_steps), 10) for x in (ALONG, JOINT_STEPS))
        self.first_steps = round(FIRST_STEPS * self.n_steps)

    @property
    def psnr(self) -> float:
        """dB, the mean of the frames that are finished."""
        return float(np.mean(list(self.psnrs.values()))) if self.psnrs else 0.0

    def _decode(self, index: int, frame: Frame) -> None:
        self.decoded[index] = frame
        self.psnrs[index] = psnr_of(float(np.mean(((frame.astype(np.float64) - self.frames[index]) / 255) ** 2)))

    def work(self) -> int:
        """Steps of all frames."""
        return self.first_steps + len(self.trained) * (self.along + self.joint) + len(self.order) * self.n_steps

    def steps(self) -> Iterator[int]:
        """Fit all; after each step how many frames are finished by then."""
        fit = Fit(self.frames[0], 8, effort=Effort(self.first_steps), seed=self.seed)
        fit.objective.weight = self.weight * LEVEL_WEIGHTS[0]
        for _ in fit.steps():
            yield 0
        packed = fit.pack()
        self._decode(0, packed.samples)
        sections = unpack(packed.data).sections
        shape = self.header.first_shape
        context, _ = weights.read_weights(shape, sections["W"])
        latents = whole(fit.latents).to(torch.int32).numpy()
        body = block(sections["W"]) + write_latents(shape, context, latents)
        self.estimated = packed.estimated - len(packed.data) + len(body)
        self.first_bytes = len(body)
        if self.order:
            networks = Networks(self.header.shape)
            written = yield from self._fit_networks(networks)
            data = written.data()
            context, synthesis = weights.read_weights(self.header.shape, data)
            networks.values = torch.from_numpy(np.concatenate([context, synthesis])).float() / 2**weights.UNIT
            body += block(data)
            self.estimated += written.weight_bits / 8 + 2 * weights.N_GROUPS + 2
            before = len(body)
            for n, of in enumerate(self.order, start=2):
                body += yield from self._fit_frame(networks, of, (context, synthesis), n)
                if (n - 1) % STRIDE == 0 and n < len(self.frames):
                    self._steer(len(body), len(body) - before)
                    before = len(body)
        self.payload = digest(self.decoded) + body
        self.estimated += 32

    def _steer(self, done: int, lately: int) -> None:
        """Moves the weight of the rate, from the bytes of all frames so far and of the last few."""
        n_done, n = len(self.psnrs), len(self.frames)
        if self.goal is None:
            return
        if self.goal.bits is not None:
            needed = max(self.goal.bits / 8 - 32 - done, 1.0) / (n - n_done)
            off = RATE_EXPONENT * math.log(max(lately, 1) / STRIDE / needed)
        else:
            assert self.goal.psnr is not None
            needed = (self.goal.psnr * n - self.psnr * n_done) / (n - n_done)
            recent = float(np.mean(list(self.psnrs.values())[-STRIDE:]))
            off = ERROR_EXPONENT * (recent - needed) * math.log(10) / 10
        self.weight *= math.exp(max(-MOST_STEERED, min(MOST_STEERED, off)))

    def _weight_of(self, of: Predicted) -> float:
        return self.weight * LEVEL_WEIGHTS[min(of.level, len(LEVEL_WEIGHTS) - 1)]

    def _motion(self, of: Predicted) -> Motion:
        rows, columns = blocks(self.header.shape)
        motion = np.zeros(rows * columns * MOTION, np.int32)
        first, second = references_of(of, self.decoded)
        price = SCALE * UNIT * math.sqrt(self._weight_of(of)) * MOTION_WEIGHT
        core().codec_search_motion(first, second, planes_of(self.frames[of.index]), price, motion)
        return motion

    def _begun(self, networks: Networks, of: Predicted, motion: Motion) -> PredictedFit:
        known = prediction(of, self.decoded, motion)
        return PredictedFit(networks, self.frames[of.index], known, self._weight_of(of), self.seed + of.index)

    def _fit_networks(self, networks: Networks) -> Iterator[int]:
        """To the first frames: one after the other, each from those before as they are by then; then to all of them at
        once; then rounded."""
        fits = []
        share = 1 / len(self.trained)
        for of in self.trained:
            fit = self._begun(networks, of, self._motion(of))
            for i in range(self.along):
                how = schedule(0.88 * i / self.along)
                fit.step(how, share, min(how.rate / 0.2, 1.0))
                yield 1
            _, synthesis = networks.integers()
            self.decoded[of.index] = synthesised(self.header.shape, synthesis, fit.integers(), fit.known)
            fits.append(fit)
        for i in range(self.joint):
            how = schedule(0.5 + 0.5 * i / self.joint)
            for fit in fits:
                fit.step(how, share, how.rate)
                yield 1
        times = len(self.order) / len(fits)
        pairs = [(fit.objective, whole(fit.latents)) for fit in fits]

        def bits_of(values: Tensor) -> float:
            return times * sum(of.rate(y, values) for of, y in pairs)

        def error_of(values: Tensor) -> float:
            return times * sum(of.error(y, values) * of.n_pixels / of.weight for of, y in pairs)

        return rounded(self.header.shape, networks.values, bits_of, error_of, 1.0)

    def _fit_frame(
        self, networks: Networks, of: Predicted, integers: tuple[Int[np.ndarray, " P"], Int[np.ndarray, " Q"]], n: int
    ) -> Iterator[int]:
        """One frame under the networks that the file has. Returns its bytes."""
        shape, (context, synthesis) = self.header.shape, integers
        motion = self._motion(of)
        fit = self._begun(networks, of, motion)
        for i in range(self.n_steps):
            fit.step(schedule(i / self.n_steps))
            yield n - 1
        latents = fit.integers()
        self._decode(of.index, synthesised(shape, synthesis, latents, fit.known))
        coded = write_latents(shape, context, latents)
        moved = block(core().codec_write_motion(*blocks(shape), of.references, motion))
        self.estimated += len(moved) + head_bytes(shape, latents) + fit.coded_bits() / 8
        return moved + coded
