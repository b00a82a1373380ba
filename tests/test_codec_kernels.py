"""The codec's kernels: fitting in float against torch in float64, decoding in integers against the same model in
floats."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_table import Case, run_table_forced
from tolerances import CODED_RATE, GRADIENTS, ROUNDED_PIXELS, VALUES
from torch import Tensor

from fields.codec import reference, weights
from fields.codec.shape import LEVELS, SCALE, CodecShape
from fields.kernels.native import available, core

SHAPES = [
    CodecShape(1, 1, 1, 8),
    CodecShape(2, 3, 2, 8),
    CodecShape(5, 17, 4, 13),
    CodecShape(37, 53, 3),
    CodecShape(64, 300, 3, 5),
    CodecShape(130, 259, 1, 24),
]
"""One pixel, fewer pixels than levels, odd sizes, rows longer than a strip."""


CASES: list[Case] = []  # none of the usual form: each kernel gives its value and its gradients at once


def drawn(shape: CodecShape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(shape.height)
    latents = torch.randn(shape.n_latents, generator=g) * 2
    context = torch.randn(shape.context_size, generator=g) * 0.15
    synthesis = torch.randn(shape.synthesis_size, generator=g) * 0.3
    wanted = torch.rand(shape.channels, shape.height, shape.width, generator=g) * SCALE
    return latents, context, synthesis, wanted


def model(shape: CodecShape) -> Any:
    return core().CodecModel(shape.height, shape.width, shape.channels, shape.hidden)


def check_rate(shape: CodecShape) -> None:
    latents, context, _, _ = drawn(shape)
    bits, d_latents, d_context = np.zeros(LEVELS), torch.ones_like(latents), torch.ones_like(context)
    model(shape).rate(latents, context, 0.7, bits, d_latents, d_context)
    leaves = latents.double().requires_grad_(), context.double().requires_grad_()
    expected = reference.rate(shape, *leaves)
    (0.7 * expected.sum()).backward()
    VALUES.check(torch.from_numpy(bits), expected.detach())
    for got, leaf in zip((d_latents, d_context), leaves, strict=True):
        assert leaf.grad is not None
        GRADIENTS.check(got - 1, leaf.grad)  # they are added to


def check_distortion(shape: CodecShape) -> None:
    latents, _, synthesis, wanted = drawn(shape)
    d_latents, d_synthesis = torch.zeros_like(latents), torch.zeros_like(synthesis)
    total = model(shape).distortion(latents, synthesis, wanted, 0.01, d_latents, d_synthesis)
    leaves = latents.double().requires_grad_(), synthesis.double().requires_grad_()
    expected = (reference.synthesis(shape, *leaves) - wanted).square().sum()
    (0.01 * expected).backward()
    assert VALUES.allows(total, expected.item())
    for got, leaf in zip((d_latents, d_synthesis), leaves, strict=True):
        assert leaf.grad is not None
        GRADIENTS.check(got, leaf.grad)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("check", [check_rate, check_distortion])
def test_values_and_gradients(check: Callable[[CodecShape], None], shape: CodecShape) -> None:
    check(shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_by_latents_alone_are_the_same(shape: CodecShape) -> None:
    latents, context, synthesis, wanted = drawn(shape)
    of, bits = model(shape), np.zeros(LEVELS)
    found = []
    for learn in (True, False):
        d_latents = torch.zeros_like(latents)
        of.rate(latents, context, 0.7, bits, d_latents, torch.zeros_like(context) if learn else None)
        of.distortion(latents, synthesis, wanted, 0.01, d_latents, torch.zeros_like(synthesis) if learn else None)
        found.append(d_latents)
    VALUES.check(*found)
    with pytest.raises(ValueError, match="comes with that by latents"):
        of.rate(latents, context, 0.7, bits, None, torch.zeros_like(context))


def test_a_scale_out_of_bounds_may_come_back_and_goes_no_further() -> None:
    shape = CodecShape(1, 1, 1, 8)
    context = torch.zeros(shape.context_size)
    for bias, value, sign in ((6.0, 0.0, 1), (6.0, 500.0, 0), (-6.0, 0.0, 0), (-6.0, 3.0, -1)):
        context[-1] = bias
        gradient = torch.zeros_like(context)
        latents = torch.full((shape.n_latents,), value)
        model(shape).rate(latents, context, 1.0, np.zeros(LEVELS), torch.zeros_like(latents), gradient)
        assert np.sign(gradient[-1].item()) == sign


@pytest.mark.parametrize(("temperature", "noise"), [(0.6, 2.0), (0.02, 1.0), (0.3, 1.4)])
def test_noise_is_that_of_soft_rounding(temperature: float, noise: float) -> None:
    latents = torch.linspace(-3, 3, 20001)
    out, slope, again = (torch.empty_like(latents) for _ in range(3))
    core().codec_perturb(latents, False, temperature, noise, 7, out, slope)
    core().codec_perturb(latents, False, temperature, noise, 7, again, slope)
    assert torch.equal(out, again)
    first = reference.soft_round(latents.double(), temperature)
    low, high = (reference.soft_round(first + u, temperature) for u in (-0.5001, 0.5001))
    assert (out >= low - VALUES.atol).all() and (out <= high + VALUES.atol).all()
    assert (out - first).abs().mean() > 0.01
    assert abs((out - first).mean().item()) < 0.02  # as often up as down
    core().codec_perturb(latents, True, temperature, noise, 7, out, slope)
    assert torch.equal(out, torch.floor(latents + 0.5))
    x = latents[1::97].double().requires_grad_()
    reference.soft_round(x, temperature).sum().backward()
    assert x.grad is not None
    GRADIENTS.check(slope[1::97], x.grad)


def fitted(shape: CodecShape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Integer latents, the largest of each level, and integer weights near those that fits begin with."""
    g = np.random.default_rng(shape.width)
    latents = np.rint(g.laplace(0, 1.2, shape.n_latents)).clip(-127, 127).astype(np.int32)
    parts = np.split(latents, np.cumsum([h * w for h, w in shape.levels])[:-1])
    most = np.array([np.abs(p).max() for p in parts], np.int32)
    networks = weights.base(shape) + g.integers(-40, 40, shape.context_size + shape.synthesis_size).astype(np.int32)
    return latents, most, networks[: shape.context_size].copy(), networks[shape.context_size :].copy()


FILED = [CodecShape(h, w, c) for h, w, c in ((1, 1, 1), (3, 2, 4), (41, 67, 3), (9, 300, 2), (150, 20, 3))]


@pytest.mark.parametrize("shape", FILED, ids=str)
def test_latents_come_back_and_cost_what_the_model_says(shape: CodecShape) -> None:
    latents, most, context, _ = fitted(shape)
    data = core().codec_write_latents(shape.height, shape.width, context, most, latents)
    back = np.full_like(latents, 99)
    assert core().codec_read_latents(shape.height, shape.width, context, most, data, back)
    assert (back == latents).all()
    assert not core().codec_read_latents(shape.height, shape.width, context, most, data + bytes(9), back)
    levels = torch.from_numpy(latents).double()
    bits = reference.rate(shape, levels, torch.from_numpy(context).double() / 2**weights.UNIT).sum().item()
    assert CODED_RATE.allows(8.0 * len(data), bits)


def test_a_level_of_zeros_takes_no_space() -> None:
    shape = CodecShape(64, 64, 3)
    _, _, context, _ = fitted(shape)
    latents, most = np.zeros(shape.n_latents, np.int32), np.zeros(LEVELS, np.int32)
    assert core().codec_write_latents(64, 64, context, most, latents) == b""
    back = np.full_like(latents, 99)
    assert core().codec_read_latents(64, 64, context, most, b"", back)
    assert not back.any()


@pytest.mark.parametrize("shape", FILED, ids=str)
@pytest.mark.parametrize("depth", [8, 16])
def test_pixels_in_integers_are_those_in_floats(shape: CodecShape, depth: int) -> None:
    latents, _, _, synthesis = fitted(shape)
    samples = np.zeros((shape.height, shape.width, shape.channels), np.uint16)
    white = (1 << depth) - 1
    core().codec_synthesise(shape.hidden, latents, synthesis, white, samples)
    x = torch.from_numpy(synthesis).double() / 2**weights.UNIT
    expected = reference.synthesis(shape, torch.from_numpy(latents).double(), x).clamp(0, SCALE) / SCALE
    got = torch.from_numpy(samples.astype(np.float64) / white).permute(2, 0, 1)
    ROUNDED_PIXELS.check(got, expected)


def test_weights_that_could_overflow_are_refused() -> None:
    shape = CodecShape(4, 4, 3)
    latents, most, context, synthesis = fitted(shape)
    context[3] = 1 << 16
    with pytest.raises(ValueError, match="too large for 32 bits"):
        core().codec_write_latents(4, 4, context, most, latents)
    synthesis[-1] = 1 << 30
    with pytest.raises(ValueError, match="too large for 32 bits"):
        core().codec_synthesise(shape.hidden, latents, synthesis, 255, np.zeros((4, 4, 3), np.uint16))


def test_integers_come_back() -> None:
    g = np.random.default_rng(0)
    values = np.concatenate([np.rint(g.laplace(0, s, 200)).clip(-2047, 2047) for s in (0.05, 1, 30, 900)]).astype(
        np.int32
    )
    groups = [(200, 5, 3), (200, 24, 63), (200, 50, 2047), (200, 63, 2047)]
    values[:200] = values[:200].clip(-3, 3)
    values[200:400] = values[200:400].clip(-63, 63)
    data = core().codec_write_integers(groups, values)
    back = np.zeros_like(values)
    assert core().codec_read_integers(groups, data, back)
    assert (back == values).all()
    bits = np.zeros(weights.N_SCALES)
    total = 0.0
    for (n, scale, most), part in zip(groups, np.split(values, 4), strict=True):
        core().codec_integer_bits(part, most, bits)
        total += bits[scale]
        assert n == len(part)
    assert total / 8 - 2 <= len(data) <= total / 8 + 3  # the last bytes may be zeros that are left out


def test_a_payload_is_what_another_range_coder_of_the_same_probabilities_needs() -> None:
    """The entropy of 24-bit probabilities is the bound that no coder beats; ours is within a few bytes of it."""
    values = np.random.default_rng(1).integers(-1, 2, 20000).astype(np.int32)
    bits = np.zeros(weights.N_SCALES)
    core().codec_integer_bits(values, 1, bits)
    scale = int(bits.argmin())
    size = len(core().codec_write_integers([(len(values), scale, 1)], values))
    assert bits[scale] / 8 - 2 <= size <= bits[scale] / 8 * (1 + 1e-4) + 4


def digest() -> str:
    """Of files' bytes and pixels, all of which every machine makes the same."""
    of = hashlib.sha256()
    for shape in FILED:
        latents, most, context, synthesis = fitted(shape)
        of.update(core().codec_write_latents(shape.height, shape.width, context, most, latents))
        samples = np.zeros((shape.height, shape.width, shape.channels), np.uint16)
        core().codec_synthesise(shape.hidden, latents, synthesis, 65535, samples)
        of.update(samples.tobytes())
    return of.hexdigest()


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize("threads", [1, 3])
def test_every_instruction_set_and_number_of_threads_decodes_the_same(isa: str, threads: int) -> None:
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_codec_kernels as t; print(t.digest())"
    forced = {"FIELDFIT_ISA": isa, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", code], env=forced, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == digest()


@pytest.mark.parametrize("isa", available()[1:])
def test_every_instruction_set_fits_the_same(isa: str) -> None:
    run_table_forced(isa, "test_codec_kernels", "for s in t.SHAPES: t.check_rate(s); t.check_distortion(s)")
