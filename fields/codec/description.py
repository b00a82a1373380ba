"""What a compressed file consists of, in words."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fields.codec.bitstream import MAGIC, VERSION, BitstreamError, Reader, unpack
from fields.codec.film_file import FILMS, GROUP, NETWORK, network_shape, open_film, read_group
from fields.codec.image_file import open_image, read_image
from scenes.errors import InputError

SECTIONS = {"W": "weights", "L": "latents", "S": "SHA-256 of the samples"}
CHANNELS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}


def kind_of(data: bytes) -> int:
    """What a file holds, as its header says: `image_file.KIND` or one of `film_file.FILMS`. Raises BitstreamError."""
    return Reader(unpack(data).header).byte()


def is_compressed(path: Path) -> bool:
    """Whether it is a file that begins as those of `fieldfit compress` do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def described_file(path: Path, max_pixels: int) -> list[tuple[str, str]]:
    """Names and values: header, sections and their bytes, whether it decodes to what was compressed. Raises
    InputError."""
    data = path.read_bytes()
    try:
        if kind_of(data) in FILMS:
            return _described_film(data, max_pixels)
        header, container = open_image(data, max_pixels)
        read_image(data, max_pixels)
    except BitstreamError as error:
        raise InputError(f"{path}: {error}") from None
    shape = header.shape
    pixels = shape.width * shape.height
    sections = [f"{SECTIONS.get(tag, tag)} {len(payload):,}" for tag, payload in container.sections.items()]
    around = len(data) - sum(map(len, container.sections.values()))
    digest = container.sections["S"].hex()
    return [
        ("kind", f"compressed picture, format version {VERSION}"),
        ("size", f"{shape.width} x {shape.height}"),
        ("samples", f"{shape.channels} channels ({CHANNELS[shape.channels]}) of {header.depth} bits"),
        ("bytes", f"{len(data):,}, {8 * len(data) / pixels:.4f} bits a pixel"),
        ("of them", f"{', '.join(sections)}, header and checksums {around}"),
        ("largest latents", ", ".join(map(str, header.most)) + " (finest level first)"),
        ("sha256", digest),
        ("checksums", "all checksums match, and the file decodes to the samples that were compressed"),
    ]


def _described_film(data: bytes, max_pixels: int) -> list[tuple[str, str]]:
    header, container = open_film(data, max_pixels)
    for group in range(header.n_groups()):
        read_group(header, container, group)
    pixels = header.width * header.height * header.frames
    seconds = float(header.frames / header.rate)
    sound = len(container.sections.get("A", b""))
    groups = [len(group) for group in container.groups]
    digests = hashlib.sha256(b"".join(group[:32] for group in container.groups)).hexdigest()
    networks = []
    if header.kind == NETWORK:
        shape = network_shape(header, Reader(container.groups[0], 32), header.group_frames(0))
        told = f"{shape.n_weights:,} weights, {shape.macs_per_pixel:,.0f} multiplications a pixel to decode"
        networks = [("network", f"{told} (of the first group)")]
    return [
        ("kind", f"compressed film{' of networks' if header.kind == NETWORK else ''}, format version {VERSION}"),
        ("size", f"{header.width} x {header.height}, {header.frames} frames, {float(header.rate):g} a second"),
        ("samples", "3 channels (RGB) of 8 bits"),
        ("bytes", f"{len(data):,}, {8 * len(data) / pixels:.4f} bits a pixel, {8e-3 * len(data) / seconds:.1f} kbit/s"),
        ("of them", f"groups of at most {GROUP} frames {', '.join(f'{n:,}' for n in groups)}; sound {sound:,}"),
        *networks,
        ("sha256", f"{digests} (of those of the groups)"),
        ("checksums", "all checksums match, and the file decodes to the samples that were compressed"),
    ]
