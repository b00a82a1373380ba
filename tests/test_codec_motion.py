"""Films in the codec's kernels: frames predicted by blocks that moved, how their motion is found and written, and a
synthesis that adds to a prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kernel_table import Case, run_table_forced
from numpy.lib.stride_tricks import sliding_window_view
from test_codec_kernels import FILED, SHAPES, drawn, fitted
from tolerances import GRADIENTS, ROUNDED_PIXELS, VALUES

from fields.codec import reference, weights
from fields.codec.reference import BLOCK, WHITE
from fields.codec.shape import LEVELS, SCALE, TAPS, CodecShape
from fields.kernels.native import available, core

pytestmark = pytest.mark.usefixtures("one_thread")

CASES: list[Case] = []  # none of the usual form
SIZES = [(1, 1), (7, 9), (37, 53), (64, 300)]
BOUND = 1023
"""Quarters of a sample, of a motion."""
FIRST, SECOND, BOTH = range(3)
KNOWN = [replace(shape, known=shape.channels) for shape in SHAPES]

Ints = np.ndarray[Any, np.dtype[np.int32]]


def grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // BLOCK), -(-width // BLOCK)


def noise(channels: int, height: int, width: int, seed: int) -> Ints:
    return np.random.default_rng(seed).integers(0, WHITE + 1, (channels, height, width), np.int32)


def texture(channels: int, height: int, width: int, seed: int) -> Ints:
    """Noise whose neighbours look alike, as in pictures."""
    rough = np.random.default_rng(seed).normal(0, 1, (channels, height + 8, width + 8))
    smooth = sliding_window_view(rough, (9, 9), (1, 2)).sum((-1, -2)) / 9  # of unit variance again
    return (smooth * WHITE / 8 + WHITE / 2).clip(0, WHITE).astype(np.int32)


def any_motion(rows: int, columns: int, references: int, reach: int, seed: int) -> Ints:
    g = np.random.default_rng(seed)
    motion = g.integers(-reach, reach + 1, (rows, columns, 5), np.int32)
    motion[..., 0] = g.integers(0, 3, (rows, columns)) if references == 2 else FIRST
    return motion


def smooth_motion(rows: int, columns: int, references: int) -> Ints:
    """As of a camera that turns and comes closer; with two frames in bands."""
    y, x = np.indices((rows, columns), np.int32)
    motion = np.stack([x * 0, 9 + y // 3, x // 4 - 14, y // 4 - 5, x // 3], -1).astype(np.int32)
    if references == 2:
        motion[..., 0] = x // 8 % 3
    return motion


def predict(first: Ints, second: Ints | None, motion: Ints) -> Ints:
    to = np.full_like(first, -1)
    core().codec_predict(first, second, motion.ravel(), to)
    return to


def write(motion: Ints, references: int) -> bytes:
    return core().codec_write_motion(*motion.shape[:2], references, motion.ravel())


def read(rows: int, columns: int, references: int, data: bytes) -> tuple[bool, Ints]:
    to = np.full(rows * columns * 5, 9999, np.int32)
    done = core().codec_read_motion(rows, columns, references, data, to)
    return done, to.reshape(rows, columns, 5)


def search(first: Ints, second: Ints | None, wanted: Ints, weight: float, guesses: Ints | None = None) -> Ints:
    rows, columns = grid(*first.shape[1:])
    motion = np.zeros(rows * columns * 5, np.int32) if guesses is None else guesses.flatten()
    core().codec_search_motion(first, second, wanted, weight, motion)
    return motion.reshape(rows, columns, 5)


def same(a: Ints, b: Ints) -> np.ndarray:
    """Which blocks come from the same frames, and from the same places in them."""
    equal = a[..., 0] == b[..., 0]
    for unused, numbers in ((SECOND, slice(1, 3)), (FIRST, slice(3, 5))):
        equal &= (b[..., 0] == unused) | (a[..., numbers] == b[..., numbers]).all(-1)
    return equal


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_prediction_is_that_of_the_reference(size: tuple[int, int], channels: int, references: int):
    first = noise(channels, *size, 0)
    second = noise(channels, *size, 1) if references == 2 else None
    for reach in (0, 3, 60, BOUND):
        motion = any_motion(*grid(*size), references, reach, reach)
        assert np.array_equal(predict(first, second, motion), reference.predicted(first, second, motion))


def test_by_whole_samples_a_prediction_is_a_copy_and_between_equal_ones_nothing_changes():
    first, motion = noise(2, 40, 48, 0), np.zeros((5, 6, 5), np.int32)
    motion[..., 1:3] = 4 * 3, 4 * -5
    assert np.array_equal(predict(first, None, motion)[:, :-3, 5:], first[:, 3:, :-5])
    motion[..., 1:3] = BOUND, -BOUND  # far outside: the lower left corner, whatever lies between
    assert (predict(first, None, motion) == first[:, -1:, :1]).all()


def check_distortion(shape: CodecShape) -> None:
    rate = 1e-3  # so that gradients, each a sum over all pixels whose terms cancel, are of order one
    latents, _, synthesis, wanted = drawn(shape)
    known = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(5)) * SCALE
    model = core().CodecModel(shape.height, shape.width, shape.channels, shape.hidden, shape.known)
    assert model.synthesis_size == shape.synthesis_size
    leaves = latents.double().requires_grad_(), synthesis.double().requires_grad_()
    expected = (reference.synthesis(shape, *leaves, known.double()) - wanted).square().sum()
    (rate * expected).backward()
    for _ in range(2):  # a model's memory holds nothing of the call before
        d_latents, d_synthesis = torch.zeros_like(latents), torch.zeros_like(synthesis)
        total = model.distortion(latents, synthesis, wanted, rate, d_latents, d_synthesis, known)
        assert VALUES.allows(total, expected.item())
        for got, leaf in zip((d_latents, d_synthesis), leaves, strict=True):
            assert leaf.grad is not None
            GRADIENTS.check(got, leaf.grad)
    assert VALUES.allows(model.distortion(latents, synthesis, wanted, rate, None, None, known), expected.item())


@pytest.mark.parametrize("shape", KNOWN, ids=str)
def test_values_and_gradients_with_known_planes(shape: CodecShape):
    check_distortion(shape)


@pytest.mark.parametrize("shape", [replace(shape, known=shape.channels) for shape in FILED], ids=str)
@pytest.mark.parametrize("depth", [8, 16])
def test_pixels_in_integers_are_those_in_floats(shape: CodecShape, depth: int):
    latents, _, _, synthesis = fitted(shape)
    known = noise(shape.channels, shape.height, shape.width, 0)
    samples, white = np.zeros((shape.height, shape.width, shape.channels), np.uint16), (1 << depth) - 1
    core().codec_synthesise(shape.hidden, latents, synthesis, white, samples, known)
    x = torch.from_numpy(synthesis).double() / 2**weights.UNIT
    planes = torch.from_numpy(known).double() / WHITE * SCALE
    expected = reference.synthesis(shape, torch.from_numpy(latents).double(), x, planes).clamp(0, SCALE) / SCALE
    ROUNDED_PIXELS.check(torch.from_numpy(samples.astype(np.float64) / white).permute(2, 0, 1), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_fit_begins_with_the_prediction_itself(channels: int):
    shape = CodecShape(19, 70, channels, known=channels)
    known, latents = noise(channels, 19, 70, 0), np.zeros(shape.n_latents, np.int32)
    samples = np.zeros((19, 70, channels), np.uint16)
    synthesis = weights.base(shape)[shape.context_size :].copy()
    core().codec_synthesise(shape.hidden, latents, synthesis, WHITE, samples, known)
    assert np.abs(samples.transpose(2, 0, 1).astype(np.int32) - known).max() <= 1


def test_what_is_added_to_a_prediction_cannot_overflow():
    shape = CodecShape(1, 1, 1, 1)
    samples, latents = np.zeros((1, 1, 1), np.uint16), np.zeros(shape.n_latents, np.int32)
    for known, bias, fits in ((0, (1 << 23) - 8193, True), (1, 8_000_000, True), (1, (1 << 23) - 8193, False)):
        synthesis = np.zeros(replace(shape, known=known).synthesis_size, np.int32)
        synthesis[(LEVELS - 1) * TAPS + LEVELS + known + 2] = bias  # behind W1, b1 and W2
        planes = np.full((1, 1, 1), WHITE, np.int32) if known else None
        if fits:
            core().codec_synthesise(1, latents, synthesis, 255, samples, planes)
            assert samples.item() == 255
        else:
            with pytest.raises(ValueError, match="too large for 32 bits"):
                core().codec_synthesise(1, latents, synthesis, 255, samples, planes)


def digest() -> str:
    """Of predictions, motions and pixels, of frames large enough for several threads."""
    of, shape = hashlib.sha256(), CodecShape(220, 250, 3, known=3)
    motion = any_motion(*grid(220, 250), 2, 200, 0)
    of.update(write(motion, 2))
    known = predict(noise(3, 220, 250, 0), noise(3, 220, 250, 1), motion)
    of.update(known.tobytes())
    latents, _, _, synthesis = fitted(shape)
    samples = np.zeros((220, 250, 3), np.uint16)
    core().codec_synthesise(shape.hidden, latents, synthesis, 65535, samples, known)
    of.update(samples.tobytes())
    return of.hexdigest()


def test_every_number_of_threads_decodes_the_same():
    digests = set()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        digests.add(digest())
    assert len(digests) == 1


@pytest.mark.parametrize("isa", available()[1:])
def test_every_instruction_set_decodes_and_fits_the_same(isa: str):
    fits = "t.torch.set_num_threads(1)\nfor s in t.KNOWN: t.check_distortion(s)"
    run_table_forced(isa, "test_codec_motion", f"assert t.digest() == {digest()!r}\n{fits}")


MOTIONS: dict[str, Callable[[int, int, int], Ints]] = {
    "random": lambda rows, columns, references: any_motion(rows, columns, references, BOUND, 3),
    "near": lambda rows, columns, references: any_motion(rows, columns, references, 2, 4),
    "zero": lambda rows, columns, references: np.zeros((rows, columns, 5), np.int32),
    "smooth": smooth_motion,
}


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 1), (12, 20)], ids=str)
@pytest.mark.parametrize("kind", MOTIONS)
def test_motion_comes_back(kind: str, size: tuple[int, int], references: int):
    motion = MOTIONS[kind](*size, references)
    data = write(motion, references)
    done, back = read(*size, references, data)
    assert done and same(back, motion).all()
    assert write(back, references) == data
    first, second = (noise(1, BLOCK * size[0] - 3, BLOCK * size[1] - 5, seed) for seed in (0, 1))
    second = second if references == 2 else None
    assert np.array_equal(predict(first, second, back), predict(first, second, motion))
    for more in (9, 100):  # up to 8 may still be taken for a part of the last number
        assert not read(*size, references, data + bytes(more))[0]


def test_motion_that_can_be_foretold_takes_little_space():
    blocks = 40 * 60
    sizes = {kind: [len(write(make(40, 60, n), n)) for n in (1, 2)] for kind, make in MOTIONS.items()}
    assert sizes["zero"][0] == 0  # each decision is at the start of its interval
    assert sizes["zero"][1] < blocks / 100
    for references in (1, 2):
        assert sizes["smooth"][references - 1] < blocks / 4 < sizes["random"][references - 1] / 10
    entropy = 2 * np.log2(2 * BOUND + 1) / 8 * blocks  # bytes
    assert entropy < sizes["random"][0] < 1.25 * entropy
    assert np.log2(25) / 8 * blocks < sizes["near"][0] < 2 * np.log2(25) / 8 * blocks


@pytest.mark.parametrize("references", [1, 2])
def test_data_that_nobody_wrote_are_refused_or_give_some_motion(references: int):
    g, seen = np.random.default_rng(references), {True: 0, False: 0}

    def check(data: bytes) -> Ints | None:
        done, motion = read(6, 7, references, data)
        seen[done] += 1
        if not done:
            return None
        assert ((motion[..., 0] >= 0) & (motion[..., 0] <= (BOTH if references == 2 else FIRST))).all()
        assert np.abs(motion[..., 1:]).max() <= BOUND
        again, back = read(6, 7, references, write(motion, references))
        assert again and np.array_equal(back, motion)
        return motion

    for make in MOTIONS.values():
        motion = make(6, 7, references)
        data = write(motion, references)
        whole = check(data)
        assert whole is not None
        for n in range(len(data)):  # none of the bytes can be left out
            cut = check(data[:n])
            assert cut is None or not np.array_equal(cut, whole)
            check(data[:n] + g.bytes(1) + data[n + 1 :])
    for n in range(200):
        check(g.bytes(n))
    assert seen[True] > 50 and seen[False] > 50


def share(found: Ints, expected: Ints) -> float:
    """How many are right of the blocks two or more away from the edge."""
    return float(same(found, expected)[2:-2, 2:-2].mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_search_finds_how_a_frame_moved(channels: int):
    first = texture(channels, 117, 150, 0)
    motion = np.zeros((*grid(117, 150), 5), np.int32)
    motion[..., 1:3] = 9, -14  # 2.25 samples down, 3.5 to the left
    found = search(first, None, predict(first, None, motion), 4.0)
    assert share(found, motion) > 0.95
    assert len(write(found, 1)) < len(write(any_motion(*motion.shape[:2], 1, 20, 0), 1)) / 2
    assert read(*motion.shape[:2], 1, write(found, 1))[1].tolist() == found.tolist()


def test_search_finds_which_frame_a_block_comes_from():
    wanted, g = texture(3, 128, 192, 0), np.random.default_rng(1)
    first, second = (
        (np.roll(wanted, by, (1, 2)) + g.normal(0, WHITE / 100, wanted.shape)).clip(0, WHITE).astype(np.int32)
        for by in ((2, -3), (-1, 5))
    )
    first[:, :, 64:128], second[:, :, 128:] = texture(3, 128, 64, 2), texture(3, 128, 64, 3)  # something in front
    motion = np.zeros((16, 24, 5), np.int32)
    motion[..., 1:] = 8, -12, -4, 20
    found = search(first, second, wanted, 4.0)
    for source, columns in ((BOTH, slice(0, 8)), (SECOND, slice(8, 16)), (FIRST, slice(16, 24))):
        motion[:, columns, 0] = source  # of both, the mean has less noise than either
        assert share(found[:, columns], motion[:, columns]) > 0.95
    assert read(16, 24, 2, write(found, 2))[1].tolist() == found.tolist()


@pytest.mark.parametrize("references", [1, 2])
def test_search_takes_a_guess_that_it_would_not_have_found(references: int):
    size = (61, 83)
    first, second = noise(1, *size, 0), noise(1, *size, 1) if references == 2 else None
    guesses = any_motion(*grid(*size), references, 90, 7)
    guesses[..., 0] %= references  # for a mean of both, the search changes each as if it were alone
    wanted = predict(first, second, guesses)
    found = search(first, second, wanted, 1e-3, guesses)
    assert np.array_equal(predict(first, second, found), wanted)
    blind = search(first, second, wanted, 1e-3)
    assert not np.array_equal(predict(first, second, blind), wanted)


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_search_makes_no_block_worse(size: tuple[int, int], references: int):
    first, second, wanted = (texture(1, *size, seed) for seed in (0, 1, 2))
    second = second if references == 2 else None
    rows, columns = grid(*size)
    found = search(first, second, wanted, 0.0, any_motion(rows, columns, references, 30, 1))
    assert np.abs(found[..., 1:]).max() <= BOUND

    def errors(motion: Ints) -> Ints:
        difference = np.zeros((rows * BLOCK, columns * BLOCK), np.int32)
        difference[: size[0], : size[1]] = np.abs(predict(first, second, motion) - wanted)[0]
        return difference.reshape(rows, BLOCK, columns, BLOCK).sum((1, 3))

    still = np.zeros_like(found)
    for source in range(references):
        still[..., 0] = source
        assert (errors(found) <= errors(still)).all()
    assert size == (1, 1) or errors(found).sum() < errors(still).sum()


@pytest.mark.parametrize("references", [1, 2])
def test_where_bits_cost_too_much_nothing_moves(references: int):
    first, second, wanted = (texture(3, 64, 64, seed) for seed in (0, 1, 2))
    second = second if references == 2 else None
    guesses = any_motion(8, 8, references, 30, 1)
    assert search(first, second, wanted, 0.0, guesses)[..., 1:].any()
    found = search(first, second, wanted, 1e20, guesses)
    assert not found[..., 1:].any()
    assert len(write(found, references)) <= 2


FRAME, OTHER, STILL = noise(3, 16, 24, 0), noise(3, 16, 25, 0), np.zeros((2, 3, 5), np.int32)


def changed(index: int, value: int) -> Ints:
    motion = STILL.copy()
    motion[1, 1, index] = value
    return motion


def distortion(known: int, planes: torch.Tensor | None) -> None:
    shape = CodecShape(16, 24, 3, 8, known)
    latents, _, synthesis, wanted = drawn(shape)
    core().CodecModel(16, 24, 3, 8, known).distortion(latents, synthesis, wanted, 1.0, None, None, planes)


def synthesise(known: Ints, size: int = 0) -> None:
    shape = CodecShape(16, 24, 3, 8, 3)
    latents, synthesis = np.zeros(shape.n_latents, np.int32), np.zeros(shape.synthesis_size + size, np.int32)
    core().codec_synthesise(8, latents, synthesis, 255, np.zeros((16, 24, 3), np.uint16), known)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "second frame": (lambda: predict(FRAME, OTHER, STILL), "one shape"),
    "result": (lambda: core().codec_predict(FRAME, None, STILL.ravel(), OTHER.copy()), "one shape"),
    "wanted": (lambda: search(FRAME, None, OTHER, 1.0), "one shape"),
    "blocks": (lambda: predict(FRAME, None, STILL[:1]), "motion must have 30 values, got 15"),
    "weight": (lambda: search(FRAME, None, FRAME, float("nan")), "finite"),
    "blocks to write": (lambda: core().codec_write_motion(2, 4, 1, STILL.ravel()), "motion must have 40 values"),
    "blocks to read": (lambda: core().codec_read_motion(3, 3, 1, b"", STILL.ravel()), "motion must have 45 values"),
    "no second frame": (lambda: predict(FRAME, None, changed(0, SECOND)), "comes from no frame"),
    "no third frame": (lambda: write(changed(0, 3), 2), "comes from no frame"),
    "too far": (lambda: predict(FRAME, None, changed(1, BOUND + 1)), "moves too far"),
    "too far back": (lambda: write(changed(2, -BOUND - 1), 1), "moves too far"),
    "farthest": (lambda: write(changed(4, -(2**31)), 2), "moves too far"),
    "some known": (lambda: core().CodecModel(16, 24, 3, 8, 2), "a prediction of each channel, or nothing"),
    "known missing": (lambda: distortion(3, None), "missing, or too many"),
    "known too many": (lambda: distortion(0, torch.zeros(3, 16, 24)), "missing, or too many"),
    "known of another size": (lambda: distortion(3, torch.zeros(3, 24, 16)), "known must be"),
    "known of other channels": (lambda: synthesise(FRAME[:2].copy()), "known must be"),
    "known too bright": (lambda: synthesise(FRAME * 0 + WHITE + 1), "out of range"),
    "known below black": (lambda: synthesise(FRAME * 0 - 1), "out of range"),
    "weights": (lambda: synthesise(FRAME, 1), "synthesis must have"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str):
    call, says = REFUSED[name]
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
