"""`fieldfit decompress`: the picture or film of a file that `fieldfit compress` wrote."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fields.codec.bitstream import BitstreamError
from fields.codec.description import kind_of
from fields.codec.film_file import FILMS, decoded_frames, open_film
from fields.codec.image_file import read_image
from fields.codec.pictures import PIPE, SUFFIXES, as_file, check_writable, picture_bytes, write_bytes
from fields.commands.arguments import UsageError, parse
from fields.progress import counted
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
    PNG into the pipe. Of a film: .mkv for all samples as they are (FFV1), .mp4 or .mov for x264, or a folder, for a
    PNG of each frame; - writes .mkv into the pipe."""
    frames: tuple[int, int] | None = None
    """Of a film only the frames from the first number to the one before the second, without the sound; what lies
    before them is hardly decoded."""
    max_pixels: int = LoadOptions.max_pixels
    """Refuse a picture of more pixels than this."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    from viewer.video import SUFFIXES as FILM_SUFFIXES

    options = parse(DecompressOptions, argv, prog="fieldfit decompress", description=DESCRIPTION)
    if options.output != PIPE and Path(options.output).suffix:
        check_writable(options.output, (*SUFFIXES, *FILM_SUFFIXES))
    with as_file(options.input) as path:
        data = path.read_bytes()
    try:
        if kind_of(data) in FILMS:
            return run_film(options, data)
        check_writable(options.output, SUFFIXES)
        if options.frames is not None:
            raise UsageError(f"--frames: is for films, and {options.input} holds a picture")
        header, samples = read_image(data, options.max_pixels)
    except BitstreamError as error:
        raise InputError(f"{'the pipe' if options.input == PIPE else options.input}: {error}") from None
    write_bytes(options.output, picture_bytes(options.output, samples))
    if options.output != PIPE:
        shape = header.shape
        print(f"{options.output}: {shape.width} x {shape.height}, {shape.channels} channels of {header.depth} bits")
    return 0


def run_film(options: DecompressOptions, data: bytes) -> int:
    """Returns 0. Raises BitstreamError."""
    from viewer.video import SUFFIXES as FILM_SUFFIXES
    from viewer.video import check_target, film_bytes, write_frames

    folder = options.output != PIPE and not Path(options.output).suffix
    if folder:
        check_target(Path(options.output))
    else:
        check_writable(options.output, FILM_SUFFIXES)
    header, container = open_film(data, options.max_pixels)
    first, last = options.frames or (0, header.frames)
    if not 0 <= first < last <= header.frames:
        raise UsageError(f"--frames: expected two numbers from 0 to {header.frames} that rise, got {first} {last}")
    sound = container.sections.get("A") if options.frames is None else None
    frames = counted(decoded_frames(header, container, first, last), last - first, sys.stderr)
    if folder:
        write_frames(options.output, frames, float(header.rate))
    else:
        write_bytes(options.output, film_bytes(options.output, frames, header.rate, sound))
    if options.output != PIPE:
        told = "with its sound" if sound else "without sound"
        print(f"{options.output}: {last - first} frames of {header.width} x {header.height}, {told}")
    return 0
