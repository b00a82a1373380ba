"""A film as a file of the codec: groups of frames that are decoded by themselves, and the sound as it came.

header:    kind (2, or 3 for networks), width, height, frames, frames a second (numerator, denominator)
sections:  A, the sound, a Matroska file; then a G for each group of at most 128 frames

A group begins with the SHA-256 of its samples and a picture, as pictures are. Other frames are predicted from one or
two others by blocks that have moved, and latents say, through networks that all of them share, what is to be added. Or
it is a network that makes all of them (`fields.codec.network`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Int, UInt8

from fields.codec import network
from fields.codec.bitstream import BitstreamError, Container, Reader, pack, unpack, varint
from fields.codec.image_file import MAX_SIDE, MOST_LATENT, largest, refuse_too_many, refuse_unknown
from fields.codec.shape import LEVELS, SCALE, UNIT, CodecShape
from fields.codec.weights import read_weights
from fields.kernels.native import core
from scenes.photographs import available_memory

KIND, NETWORK = FILMS = 2, 3
GROUP = 128
"""Frames."""
STRIDE = 8
"""From one frame that is predicted from those before to the next."""
BLOCK, MOTION = 8, 5
"""Samples along an edge of a block, and the numbers that say where it comes from."""
MAX_FRAMES = 1 << 24
MAX_RATE = 1 << 30
BYTES_PER_FRAME = 2
"""At least: the length of a motion, and which levels are not zero."""

Frames = UInt8[np.ndarray, "T H W 3"]
Frame = UInt8[np.ndarray, "H W 3"]
Planes = Int[np.ndarray, "3 H W"]
Motion = Int[np.ndarray, " M"]


@dataclass(frozen=True)
class FilmHeader:
    """What is known of a film before it is decoded."""

    width: int
    height: int
    frames: int
    rate: Fraction
    """Frames a second."""
    kind: int = KIND

    @property
    def first_shape(self) -> CodecShape:
        """Of the picture that a group begins with."""
        return CodecShape(self.height, self.width, 3)

    @property
    def shape(self) -> CodecShape:
        """Of frames that are predicted."""
        return CodecShape(self.height, self.width, 3, known=3)

    def n_groups(self) -> int:
        """Of the film."""
        return -(-self.frames // GROUP)

    def group_frames(self, group: int) -> int:
        """Of one group."""
        return min(GROUP, self.frames - group * GROUP)

    def to_bytes(self) -> bytes:
        """As in files."""
        numbers = self.width, self.height, self.frames, self.rate.numerator, self.rate.denominator
        return bytes([self.kind]) + b"".join(map(varint, numbers))

    @classmethod
    def from_bytes(cls, data: bytes) -> FilmHeader:
        """Raises BitstreamError."""
        reader = Reader(data)
        kind = reader.byte()
        if kind not in FILMS:
            raise BitstreamError("holds something else than a film")
        width, height, frames = reader.varint(MAX_SIDE), reader.varint(MAX_SIDE), reader.varint(MAX_FRAMES)
        numerator, denominator = reader.varint(MAX_RATE), reader.varint(MAX_RATE)
        if not (reader.at_end() and width and height and frames and numerator and denominator):
            raise BitstreamError("is damaged: its header makes no sense; copy it again")
        return cls(width, height, frames, Fraction(numerator, denominator), kind)


@dataclass(frozen=True)
class Predicted:
    """A frame of a group, and which it is predicted from."""

    index: int
    first: int
    second: int | None
    level: int
    """How many frames lie between it and the group's first one, in the order of prediction: at least 1."""

    @property
    def references(self) -> int:
        """How many."""
        return 1 if self.second is None else 2


def coding_order(n: int) -> list[Predicted]:
    """Of the frames of a group behind its first: every eighth, or the last, from the two such before; then those in
    the middle between two, again and again."""
    order: list[Predicted] = []

    def between(left: int, right: int, level: int) -> None:
        if right - left >= 2:
            middle = (left + right) // 2
            order.append(Predicted(middle, left, right, level))
            between(left, middle, level + 1)
            between(middle, right, level + 1)

    before, at = None, 0
    while at < n - 1:
        after = min(at + STRIDE, n - 1)
        order.append(Predicted(after, at, before, 1))
        between(at, after, 2)
        before, at = at, after
    return order


def planes_of(frame: Frame) -> Planes:
    """Samples as values between layers, in 256ths of `SCALE` for white."""
    white = int(SCALE) * UNIT
    table = ((np.arange(256) * white + 127) // 255).astype(np.int32)
    return np.ascontiguousarray(table[frame].transpose(2, 0, 1))


def prediction(of: Predicted, decoded: Frames, motion: Motion) -> Planes:
    """What the blocks of other frames make of a frame."""
    first, second = references_of(of, decoded)
    to = np.empty_like(first)
    core().codec_predict(first, second, motion, to)
    return to


def references_of(of: Predicted, decoded: Frames) -> tuple[Planes, Planes | None]:
    """The frames that it is predicted from."""
    return planes_of(decoded[of.first]), None if of.second is None else planes_of(decoded[of.second])


def blocks(shape: CodecShape) -> tuple[int, int]:
    """Rows and columns of blocks."""
    return -(-shape.height // BLOCK), -(-shape.width // BLOCK)


def write_latents(shape: CodecShape, context: Int[np.ndarray, " P"], latents: Int[np.ndarray, " N"]) -> bytes:
    """Which levels are not all zero, the largest latent of each of these, then the latents with their length."""
    most = largest(shape, latents)
    head = bytes([sum((m > 0) << i for i, m in enumerate(most)), *(m for m in most if m)])
    if not any(most):
        return head
    coded = core().codec_write_latents(shape.height, shape.width, context, np.array(most, np.int32), latents)
    return head + block(coded)


def head_bytes(shape: CodecShape, latents: Int[np.ndarray, " N"]) -> int:
    """What `write_latents` writes before the latents themselves, whose length is taken to need two bytes."""
    n = sum(m > 0 for m in largest(shape, latents))
    return 1 + n + 2 * (n > 0)


def read_latents(shape: CodecShape, context: Int[np.ndarray, " P"], reader: Reader) -> Int[np.ndarray, " N"]:
    """The inverse. Raises BitstreamError and ValueError."""
    latents, levels = np.zeros(shape.n_latents, np.int32), reader.byte()
    if not levels:
        return latents
    most = np.array([reader.byte() if levels >> i & 1 else 0 for i in range(LEVELS)], np.int32)
    if levels >> LEVELS or (most > MOST_LATENT).any():
        raise ValueError("a latent is out of range")
    if not core().codec_read_latents(shape.height, shape.width, context, most, take_block(reader), latents):
        raise ValueError("latents are followed by something else")
    return latents


def synthesised(
    shape: CodecShape, synthesis: Int[np.ndarray, " P"], latents: Int[np.ndarray, " N"], known: Planes | None
) -> Frame:
    """A frame."""
    samples = np.zeros((shape.height, shape.width, 3), np.uint16)
    core().codec_synthesise(shape.hidden, latents, synthesis, 255, samples, known)
    return samples.astype(np.uint8)


def block(data: bytes) -> bytes:
    """With its length."""
    return varint(len(data)) + data


def take_block(reader: Reader) -> bytes:
    """The inverse."""
    return reader.take(reader.varint(len(reader.data)))


def digest(frames: Frames) -> bytes:
    """SHA-256 of samples, frame by frame and row by row."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).digest()


def write_film(header: FilmHeader, groups: list[bytes], sound: bytes | None) -> bytes:
    """The bytes of a file."""
    return pack(Container(header.to_bytes(), {} if sound is None else {"A": sound}, tuple(groups)))


def open_film(data: bytes, max_pixels: int) -> tuple[FilmHeader, Container]:
    """The parts of a file, checked so far as that needs no decoding. Raises BitstreamError."""
    container = unpack(data)
    header = FilmHeader.from_bytes(container.header)
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise BitstreamError(
            f"is of {header.width} x {header.height} pixels, more than {max_pixels:,}; allow it with --max-pixels"
        )
    refuse_unknown(list(container.sections), "A")
    if len(container.groups) != header.n_groups():
        raise BitstreamError(
            f"is cut off: {header.n_groups()} groups of frames are expected, and {len(container.groups)} are there"
        )
    return header, container


def read_group(header: FilmHeader, container: Container, group: int) -> Frames:
    """The frames of a group. Raises BitstreamError."""
    reader = Reader(container.groups[group])
    n = header.group_frames(group)
    if header.kind == KIND and BYTES_PER_FRAME * (n - 1) > len(reader.data):
        raise BitstreamError(f"claims {n} frames in {len(reader.data)} bytes, which no film has")
    refuse_too_many(header.width * header.height, len(reader.data))
    needed = 3 * n * header.width * header.height
    if needed > available_memory():
        raise BitstreamError(f"needs {needed / 1e9:.1f} GB of memory to be decoded, which are not free")
    try:
        expected = reader.take(32)
        frames = (_decoded if header.kind == KIND else _of_network)(header, reader, n)
    except ValueError as error:
        if isinstance(error, BitstreamError):
            raise
        raise BitstreamError(f"is damaged ({error}); copy it again") from None
    if not reader.at_end():
        raise BitstreamError("is damaged: a group of frames is followed by something else; copy it again")
    if digest(frames) != expected:
        raise BitstreamError(
            "decodes to other samples than were compressed: its checksum does not match; copy it again"
        )
    return frames


def _decoded(header: FilmHeader, reader: Reader, n: int) -> Frames:
    first, shape = header.first_shape, header.shape
    context, synthesis = read_weights(first, take_block(reader))
    frame = synthesised(first, synthesis, read_latents(first, context, reader), None)
    frames = np.zeros((n, header.height, header.width, 3), np.uint8)
    frames[0] = frame
    if n == 1:
        return frames
    context, synthesis = read_weights(shape, take_block(reader))
    rows, columns = blocks(shape)
    for of in coding_order(n):
        motion = np.zeros(rows * columns * MOTION, np.int32)
        if not core().codec_read_motion(rows, columns, of.references, take_block(reader), motion):
            raise ValueError("the motion of a frame makes no sense")
        latents = read_latents(shape, context, reader)
        frames[of.index] = synthesised(shape, synthesis, latents, prediction(of, frames, motion))
    return frames


def network_shape(header: FilmHeader, reader: Reader, n: int) -> network.NetworkShape:
    """The first two bytes of a group's network, behind the checksum. Raises ValueError."""
    shape = network.NetworkShape(header.height, header.width, n, reader.byte(), reader.byte())
    if not (0 < shape.latents <= network.MOST_CHANNELS and 0 < shape.hidden <= network.MOST_CHANNELS):
        raise ValueError("a network of no or too many channels")
    return shape


def _of_network(header: FilmHeader, reader: Reader, n: int) -> Frames:
    shape = network_shape(header, reader, n)
    data = reader.take(len(reader.data) - reader.at)
    if n * shape.height * shape.width > (1 << 18) + (len(data) << 12):
        raise ValueError("more samples than networks of its size make")
    if shape.decoding_bytes > available_memory():
        raise BitstreamError(f"needs {shape.decoding_bytes / 1e9:.1f} GB of memory to be decoded, which are not free")
    frames = np.zeros((n, header.height, header.width, 3), np.uint8)
    for i, frame in enumerate(network.decoded(shape, network.read(shape, data))):
        frames[i] = frame
    return frames


def decoded_frames(header: FilmHeader, container: Container, first: int, last: int) -> Iterator[Frame]:
    """Frames from `first` to the one before `last`, of which only the groups are decoded. Raises BitstreamError."""
    for group in range(first // GROUP, -(-last // GROUP)):
        frames = read_group(header, container, group)
        begin = group * GROUP
        yield from frames[max(first - begin, 0) : last - begin]
