"""`fieldfit compress`: a picture or a film as fields of latents in a small, checksummed file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TextIO

import numpy as np
import tyro

from fields.codec.bitstream import BitstreamError
from fields.codec.clips import is_film, read_clip
from fields.codec.film import FilmFit
from fields.codec.film_file import open_film, read_group
from fields.codec.fitting import Effort, Fit, Packed, Step, Target
from fields.codec.grouped_film import PackedFilm
from fields.codec.image_file import read_image
from fields.codec.network_fit import NetworkFilmFit
from fields.codec.pictures import PIPE, as_file, check_writable, read_samples, write_bytes
from fields.commands.arguments import UsageError, parse
from fields.progress import PLAIN_SECONDS, REDRAW_SECONDS, clock
from scenes.errors import InputError
from scenes.photographs import available_memory
from scenes.scene import LoadOptions

SUFFIX = ".ff"
CLOSE = 0.03
"""How far a rate may be from the one that was asked for without a word."""
CLOSE_PSNR = 0.3
BYTES_PER_PIXEL, BYTES_PER_SAMPLE = 160, 28
"""Memory of a fit on two threads: latents, their moments and gradients, the pyramid; the picture at five stages."""
FILM_BYTES_PER_PIXEL = 2000
"""The same of the sixteen frames that a film's networks are fitted to at once."""
DESCRIPTION = (
    "Compress a picture or a film: fields are fitted to it, and written with checksums. `fieldfit decompress` undoes "
    "it. The sound of a film is carried over as it is."
)


@dataclass(frozen=True)
class CompressOptions:
    """Options of `fieldfit compress`."""

    input: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """A picture of 8 or 16 bits, grey or RGB, with or without alpha, or a film; - reads the pipe."""
    output: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """The file to write, usually .ff; - writes into the pipe."""
    quality: float | None = None
    """1 to 100: how much a difference counts against a bit; 60 unless something else is asked for."""
    bpp: float | None = None
    """Bits a pixel of each frame that the file should have."""
    bytes: int | None = None
    """Bytes that the file should have."""
    psnr: float | None = None
    """dB that the decoded picture, or the mean frame, should have."""
    minutes: float | None = None
    """How long to fit; longer is smaller. By default a number of steps: about a minute for a picture of half a
    megapixel, and ten for a film of fifty frames of 640 x 360."""
    field: Literal["grid", "cam"] = "grid"
    """Of films: grids of latents, each frame predicted from others; or CAM, a convolutional network that time
    modulates, which takes more bytes for the same quality."""
    frames: tuple[int, int] | None = None
    """Of a film only the frames from the first number to the one before the second."""
    seed: int = 0
    """Of the noise."""
    max_pixels: int = LoadOptions.max_pixels
    """Refuse a picture of more pixels than this."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(CompressOptions, argv, prog="fieldfit compress", description=DESCRIPTION)
    _check(options)
    check_writable(options.output, ())
    with as_file(options.input) as path:
        if is_film(path):
            return run_film(options, path)
        if options.frames is not None or options.field != "grid":
            name = "--frames" if options.frames is not None else "--field cam"
            raise UsageError(f"{name}: is for films, and {options.input} is none by its name")
        size = path.stat().st_size
        samples, depth = read_samples(path, options.max_pixels)
    height, width, channels = samples.shape
    _check_memory(options.input, height * width, BYTES_PER_PIXEL + channels * BYTES_PER_SAMPLE)
    target, started = _target(options, height * width), time.monotonic()
    fit = Fit(samples, depth, target, Effort(minutes=options.minutes), options.seed)
    show(fit.steps(), height * width, sys.stderr)
    packed = fit.pack()
    with _decoding():
        _, again = read_image(packed.data, options.max_pixels)
        _expect_same(again, packed.samples)
    bpp = 8 * len(packed.data) / (height * width)
    _finish(options, target, packed, started, f"({size:,} before), {bpp:.4f} bits a pixel")
    return 0


def run_film(options: CompressOptions, path: Path) -> int:
    """Returns 0."""
    frames, rate, sound = read_clip(path, LoadOptions(max_pixels=options.max_pixels, frames=options.frames))
    n, height, width, _ = frames.shape
    _check_memory(options.input, height * width, FILM_BYTES_PER_PIXEL)
    target, started = _target(options, n * height * width), time.monotonic()
    kind = FilmFit if options.field == "grid" else NetworkFilmFit
    fit = kind(frames, rate, target, Effort(minutes=options.minutes), options.seed, sound)
    show(fit.steps(), n * height * width, sys.stderr)
    packed = fit.pack()
    with _decoding():
        header, container = open_film(packed.data, options.max_pixels)
        for group, fitted in enumerate(fit.groups):
            _expect_same(read_group(header, container, group), fitted.decoded)
    bpp = 8 * len(packed.data) / (n * height * width)
    kbps = 8e-3 * len(packed.data) * float(rate) / n
    size = path.stat().st_size
    told = f"({size:,} before), {n} frames, {bpp:.4f} bits a pixel, {kbps:.1f} kbit/s"
    _finish(options, target, packed, started, told)
    return 0


def _target(options: CompressOptions, n_pixels: int) -> Target:
    bits = options.bpp * n_pixels if options.bpp is not None else None
    bits = 8.0 * options.bytes if options.bytes is not None else bits
    return Target(60.0 if options.quality is None else options.quality, bits, options.psnr)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except BitstreamError as error:
        raise InputError(f"the file cannot be decoded again ({error}); nothing was written") from error


def _expect_same(decoded: np.ndarray, fitted: np.ndarray) -> None:
    if (decoded != fitted).any():
        raise InputError("the file does not decode to what was compressed; please report this, nothing was written")


def _finish(options: CompressOptions, target: Target, packed: Packed | PackedFilm, started: float, told: str) -> None:
    """Writes the file and says what it is."""
    write_bytes(options.output, packed.data)
    seconds = time.monotonic() - started
    message = f"{options.output}: {len(packed.data):,} bytes {told}, {packed.psnr:.2f} dB, {seconds:.0f} s"
    print(message, file=sys.stderr if options.output == PIPE else sys.stdout)
    _say_how_close(target, packed)


def _check(options: CompressOptions) -> None:
    given = {"--quality": options.quality, "--bpp": options.bpp, "--bytes": options.bytes, "--psnr": options.psnr}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: expected one of them")
    for name, value in {**given, "--minutes": options.minutes}.items():
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name}: expected a number above 0, got {value:g}")
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise UsageError(f"--quality: expected 1 to 100, got {options.quality:g}")


def _check_memory(name: str, n_pixels: int, bytes_each: int) -> None:
    needed, free = n_pixels * bytes_each, available_memory()
    if needed > free:
        raise InputError(
            f"{name}: compressing {n_pixels:,} pixels needs about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free; shrink it, or cut it into parts"
        )


def _say_how_close(target: Target, packed: Packed | PackedFilm) -> None:
    if target.bits is not None:
        off = 8 * len(packed.data) / target.bits - 1
        if abs(off) > CLOSE:
            print(f"fieldfit: the file is {100 * off:+.1f} % off the size that was asked for", file=sys.stderr)
    elif target.psnr is not None and abs(packed.psnr - target.psnr) > CLOSE_PSNR:
        print(
            f"fieldfit: what is decoded is {packed.psnr - target.psnr:+.2f} dB off what was asked for", file=sys.stderr
        )


def show(steps: Iterable[Step], n_pixels: int, stream: TextIO) -> None:
    """Go through the steps of a fit, and on `stream` how far it is: a line that is rewritten on a terminal, some
    elsewhere."""
    started = shown = time.monotonic()
    on_terminal = stream.isatty()
    for step in steps:
        now = time.monotonic()
        if now - shown < (REDRAW_SECONDS if on_terminal else PLAIN_SECONDS):
            continue
        shown = now
        left = (now - started) * (1 - step.part) / max(step.part, 1e-6)
        text = (
            f"{100 * step.part:3.0f} %  {step.bits / n_pixels:.3f} bits a pixel  {step.psnr:.2f} dB  ETA {clock(left)}"
        )
        stream.write(f"\r{text}\x1b[K" if on_terminal else f"{text}\n")
        stream.flush()
    if on_terminal:
        stream.write("\r\x1b[K")
