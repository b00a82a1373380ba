"""`fieldfit decompress`: the picture of a file that `fieldfit compress` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from fields.codec.bitstream import BitstreamError
from fields.codec.image_file import read_image
from fields.codec.pictures import PIPE, SUFFIXES, as_file, check_writable, picture_bytes, write_bytes
from fields.commands.arguments import parse
from scenes.errors import InputError
from scenes.scene import LoadOptions

DESCRIPTION = (
    "Decode a file of `fieldfit compress`. Its checksums are checked; the samples are the same on every machine."
)


@dataclass(frozen=True)
class DecompressOptions:
    """Options of `fieldfit decompress`."""

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """A file of `fieldfit compress`; - reads the pipe."""
    output: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """The picture to write: .png for all samples as they are, or .tif, .ppm, .bmp, .webp (without loss), .jpg; - writes
    PNG into the pipe."""
    max_pixels: int = LoadOptions.max_pixels
    """Refuse a picture of more pixels than this."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(DecompressOptions, argv, prog="fieldfit decompress", description=DESCRIPTION)
    check_writable(options.output, SUFFIXES)
    with as_file(options.input) as path:
        data = path.read_bytes()
    try:
        header, samples = read_image(data, options.max_pixels)
    except BitstreamError as error:
        raise InputError(f"{'the pipe' if options.input == PIPE else options.input}: {error}") from None
    write_bytes(options.output, picture_bytes(options.output, samples))
    if options.output != PIPE:
        shape = header.shape
        print(f"{options.output}: {shape.width} x {shape.height}, {shape.channels} channels of {header.depth} bits")
    return 0
