"""What a compressed file consists of, in words."""

from __future__ import annotations

from pathlib import Path

from fields.codec.bitstream import MAGIC, VERSION, BitstreamError
from fields.codec.image_file import open_image, read_image
from scenes.errors import InputError

SECTIONS = {"W": "weights", "L": "latents", "S": "SHA-256 of the samples"}
CHANNELS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}


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
