"""A picture as a file of the codec: what its header says, and decoding.

header:    kind (1), width, height, channels, bits a sample, largest latent of each level
sections:  W, the networks; L, the latents; S, the SHA-256 of the samples (row by row, 16-bit ones low byte first)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from fields.codec.bitstream import BitstreamError, Container, Reader, pack, unpack, varint
from fields.codec.shape import LEVELS, CodecShape
from fields.codec.weights import read_weights
from fields.kernels.native import core

KIND = 1
MAX_SIDE = 65535
MOST_LATENT = 127
PIXELS_PER_BYTE = 1 << 17
"""More pixels than this for a byte of a file are no picture that was compressed: a bound on what small files can ask
for."""
FREE_PIXELS = 1 << 22

Samples = Shaped[np.ndarray, "H W C"]


@dataclass(frozen=True)
class ImageHeader:
    """What is known of a picture before it is decoded."""

    shape: CodecShape
    depth: int
    """Bits of a sample, 1 to 16."""
    most: tuple[int, ...]
    """The largest magnitude of the latents of each level."""

    @property
    def white(self) -> int:
        """The largest sample."""
        return (1 << self.depth) - 1

    def to_bytes(self) -> bytes:
        """As in files."""
        s = self.shape
        return bytes([KIND]) + b"".join(map(varint, (s.width, s.height, s.channels, self.depth, *self.most)))

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageHeader:
        """Raises BitstreamError."""
        reader = Reader(data)
        if reader.byte() != KIND:
            raise BitstreamError("holds something else than a picture")
        width, height = reader.varint(MAX_SIDE), reader.varint(MAX_SIDE)
        channels, depth = reader.varint(4), reader.varint(16)
        most = tuple(reader.varint(MOST_LATENT) for _ in range(LEVELS))
        if not (reader.at_end() and width and height and channels and depth):
            raise BitstreamError("is damaged: its header makes no sense; copy it again")
        return cls(CodecShape(height, width, channels), depth, most)


def write_image(header: ImageHeader, weights: bytes, latents: Int[np.ndarray, " N"]) -> tuple[bytes, Samples]:
    """The bytes of a file, and the samples that it decodes to."""
    shape, most = header.shape, np.array(header.most, np.int32)
    context, synthesis = read_weights(shape, weights)
    coded = core().codec_write_latents(shape.height, shape.width, context, most, latents)
    samples = synthesise(header, latents, synthesis)
    sections = {"W": weights, "L": coded, "S": digest(samples)}
    data = pack(Container(header.to_bytes(), sections))
    missing = (shape.width * shape.height - FREE_PIXELS) // PIXELS_PER_BYTE + 1 - len(data)
    if missing > 0:  # a large picture of next to nothing
        data = pack(Container(header.to_bytes(), {**sections, "p": bytes(missing)}))
    return data, samples


def open_image(data: bytes, max_pixels: int) -> tuple[ImageHeader, Container]:
    """The parts of a file, checked so far as that needs no decoding. Raises BitstreamError."""
    container = unpack(data)
    header = ImageHeader.from_bytes(container.header)
    pixels = header.shape.width * header.shape.height
    if pixels > max_pixels:
        raise BitstreamError(
            f"is of {header.shape.width} x {header.shape.height} pixels, more than {max_pixels:,}; allow it with "
            f"--max-pixels"
        )
    refuse_too_many(pixels, len(data))
    missing = [tag for tag in "WLS" if tag not in container.sections]
    if missing:
        raise BitstreamError(f"is cut off: its section {missing[0]} is missing; copy it again")
    refuse_unknown([*container.sections, *("G" for _ in container.groups)], "WLS")
    return header, container


def refuse_unknown(tags: list[str], known: str) -> None:
    """Raises BitstreamError where there are sections that a decoder must know, and does not."""
    unknown = [tag for tag in tags if tag.isupper() and tag not in known]
    if unknown:
        raise BitstreamError(f"has a section {unknown[0]} that this fieldfit does not know; upgrade it")


def refuse_too_many(pixels: int, n_bytes: int) -> None:
    """Raises BitstreamError for more pixels than files of so many bytes have."""
    if pixels > FREE_PIXELS + PIXELS_PER_BYTE * n_bytes:
        raise BitstreamError(f"claims {pixels:,} pixels in {n_bytes:,} bytes, which no picture has")


def read_image(data: bytes, max_pixels: int) -> tuple[ImageHeader, Samples]:
    """Samples [H, W, C], uint8 up to a depth of 8 and uint16 above. Raises BitstreamError."""
    header, container = open_image(data, max_pixels)
    shape = header.shape
    try:
        context, synthesis = read_weights(shape, container.sections["W"])
        latents = np.zeros(shape.n_latents, np.int32)
        most = np.array(header.most, np.int32)
        if not core().codec_read_latents(shape.height, shape.width, context, most, container.sections["L"], latents):
            raise ValueError("latents are followed by something else")
        samples = synthesise(header, latents, synthesis)
    except ValueError as error:
        raise BitstreamError(f"is damaged ({error}); copy it again") from None
    if digest(samples) != container.sections["S"]:
        raise BitstreamError(
            "decodes to other samples than were compressed: its checksum does not match; copy it again"
        )
    return header, samples


def synthesise(header: ImageHeader, latents: Int[np.ndarray, " N"], synthesis: Int[np.ndarray, " P"]) -> Samples:
    """Samples of integer latents under integer weights."""
    shape = header.shape
    samples = np.zeros((shape.height, shape.width, shape.channels), np.uint16)
    core().codec_synthesise(shape.hidden, latents, synthesis, header.white, samples)
    return samples if header.depth > 8 else samples.astype(np.uint8)


def digest(samples: Samples) -> bytes:
    """SHA-256 of samples, row by row, 16-bit ones low byte first."""
    return hashlib.sha256(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).digest()


def largest(shape: CodecShape, latents: Int[np.ndarray, " N"]) -> tuple[int, ...]:
    """The largest magnitude of the latents of each level, as a header has them."""
    parts = np.split(latents, np.cumsum([h * w for h, w in shape.levels])[:-1])
    return tuple(int(np.abs(part).max(initial=0)) for part in parts)
