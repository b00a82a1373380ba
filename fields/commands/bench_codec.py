"""`fieldfit bench-codec`: our codec beside JPEG, WebP, AVIF and JPEG XL on a folder of pictures, and beside x264, x265
and SVT-AV1 on films, in one session."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from fields.codec.clips import is_film, read_clip
from fields.codec.film_file import Frames
from fields.codec.film_rivals import CAM, film_codecs, film_points, our_film_point
from fields.codec.film_rivals import OUR_QUALITIES as FILM_QUALITIES
from fields.codec.fitting import Effort
from fields.codec.rivals import OUR_QUALITIES, OURS, Picture, Point, codecs, our_point, points
from fields.codec.shape import CodecShape
from fields.commands.arguments import UsageError, parse
from fields.files import read_json, version, write_json
from scenes.errors import InputError
from scenes.picture import read_picture
from scenes.scene import LoadOptions

DESCRIPTION = """Compress every picture of a folder by fieldfit and by JPEG, WebP, AVIF and, where imagecodecs is
installed, JPEG XL, all at several qualities in this session, and write points.json, rates.png, and report.html with
rates, BD-rates and seconds. Of a folder with films and no pictures, the films by fieldfit, x264, x265 and SVT-AV1. What
has been measured is not measured again, so that it can be interrupted."""
SUFFIXES = (".png", ".ppm", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class BenchOptions:
    """Options of `fieldfit bench-codec`."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """A folder of pictures without loss, or one picture; only 8 bits and three channels are compared. Or films."""
    out: Path = Path("bench-codec")
    """The folder for the report."""
    minutes: float | None = None
    """How long fieldfit fits each file; by default as `fieldfit compress` does."""
    qualities: tuple[float, ...] | None = None
    """Those of fieldfit; by default four, which are lower for films."""
    frames: tuple[int, int] | None = None
    """Of films only the frames from the first number to the one before the second."""
    cam: bool = False
    """Films by `--field cam` too."""
    downscale: int = 1
    """How many times smaller films are made, by averages over squares."""
    max_pixels: int = LoadOptions.max_pixels
    """Refuse a picture of more pixels than this."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(BenchOptions, argv, prog="fieldfit bench-codec", description=DESCRIPTION)
    if importlib.util.find_spec("bjontegaard") is None:
        raise InputError("bjontegaard is not installed, which computes BD-rates: pip install 'fieldfit[bench]'")
    if not all(1 <= quality <= 100 for quality in options.qualities or ()):
        raise UsageError("--qualities: expected numbers from 1 to 100")
    if not options.path.exists():
        raise InputError(f"{options.path}: there is no such folder")
    films = _films(options)
    pictures = {} if films else _pictures(options)
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [job for name, path in films.items() for job in _film_jobs(options, name, path)]
    jobs += [job for name, picture in pictures.items() for job in _picture_jobs(options, name, picture)]
    measured = _measure(options, jobs)
    from viewer import rates as report

    (options.out / "rates.png").write_bytes(report.plot(measured))
    shape = CodecShape(1, 1, 3, known=3) if films else CodecShape(1, 1, next(iter(pictures.values())).shape[2])
    shape = dataclasses.replace(shape, height=512, width=768)
    item = "film" if films else "picture"
    facts = {
        f"{item}s": ", ".join([*films, *pictures]),
        "fieldfit": f"{version()}, {macs_per_pixel(shape):,.0f} multiplications a pixel to decode",
        "effort": "the default" if options.minutes is None else f"{options.minutes:g} minutes a file",
        "command": f"fieldfit bench-codec {' '.join(argv)}",
    }
    (options.out / "report.html").write_text(report.page(facts, measured, item))
    print(report.summary(measured, item))
    files, items = report.counted(len(measured), "file"), report.counted(len(films or pictures), item)
    print(f"{options.out / 'report.html'}: {files} of {items}")
    return 0


def macs_per_pixel(shape: CodecShape) -> float:
    """Multiplications that decoding takes, for each pixel: context network, doubling, synthesis."""
    from fields.codec.shape import CONTEXT, CONTEXT_HIDDEN, LEVELS, TAPS

    k, c, m = CONTEXT_HIDDEN, shape.channels, shape.hidden
    context = shape.n_latents * (CONTEXT * k + k * k + 2 * k)
    doubling = sum((LEVELS - 1 - i) * h * w * TAPS * 1.5 for i, (h, w) in enumerate(shape.levels))
    synthesis = shape.levels[0][0] * shape.levels[0][1] * ((LEVELS + shape.known) * m + m * c + 2 * 9 * c * c)
    return (context + doubling + synthesis) / (shape.height * shape.width)


@dataclass(frozen=True)
class Job:
    """Something to measure: all points of another codec, or one of fieldfit."""

    item: str
    codec: str
    quality: float | None
    measure: Callable[[], list[Point]]


def _films(options: BenchOptions) -> dict[str, Path]:
    """Those of the folder, unless it has pictures too."""
    folder = sorted(options.path.iterdir()) if options.path.is_dir() else [options.path]
    if any(path.suffix.lower() in SUFFIXES for path in folder):
        return {}
    return {path.stem: path for path in folder if is_film(path)}


def _film_jobs(options: BenchOptions, name: str, path: Path) -> Iterator[Job]:
    load = LoadOptions(max_pixels=options.max_pixels, frames=options.frames, downscale=options.downscale)

    @functools.cache
    def clip() -> tuple[Frames, Fraction]:
        frames, rate, _ = read_clip(path, load)
        return frames, rate

    for codec in film_codecs():
        yield Job(name, codec, None, lambda codec=codec: list(film_points(name, codec, *clip())))
    effort = Effort(minutes=options.minutes)
    ours, qualities = (OURS, CAM) if options.cam else (OURS,), options.qualities or FILM_QUALITIES
    for codec, quality in itertools.product(ours, qualities):
        yield Job(
            name,
            codec,
            quality,
            lambda codec=codec, quality=quality: [our_film_point(name, *clip(), quality, effort, codec)],
        )


def _picture_jobs(options: BenchOptions, name: str, picture: Picture) -> Iterator[Job]:
    for codec in codecs():
        yield Job(name, codec, None, lambda codec=codec: list(points(name, codec, picture)))
    effort = Effort(minutes=options.minutes)
    for quality in options.qualities or OUR_QUALITIES:
        yield Job(name, OURS, quality, lambda quality=quality: [our_point(name, picture, quality, effort)])


def _pictures(options: BenchOptions) -> dict[str, Picture]:
    folder = sorted(options.path.iterdir()) if options.path.is_dir() else [options.path]
    found = {}
    for path in folder:
        if path.suffix.lower() not in SUFFIXES:
            continue
        pixels = read_picture(path, options.max_pixels)
        if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
            found[path.stem] = pixels
    if not found:
        raise InputError(
            f"{options.path}: holds no picture of 8 bits and three channels that ends in {', '.join(SUFFIXES)}, and no "
            f"film"
        )
    return found


def _measure(options: BenchOptions, jobs: Sequence[Job]) -> list[Point]:
    file = options.out / "points.json"
    how = {
        "minutes": options.minutes,
        "frames": options.frames and list(options.frames),
        "downscale": options.downscale,
    }
    known = read_json(file) if file.exists() else {"points": []}
    for name, value in how.items():
        if known.get(name, value) != value:
            raise InputError(f"{file}: was measured with another --{name}; choose another --out")
    found = [Point(**point) for point in known["points"]]
    for job in jobs:
        if any(_is_of(p, job) for p in found):
            continue
        found += job.measure()
        write_json(file, {**how, "points": [dataclasses.asdict(p) for p in found]})
        p = found[-1]
        print(
            f"{p.picture} {p.codec}: {p.bpp:.3f} bits a pixel, {p.psnr:.2f} dB, {p.encode_seconds:.1f} s",
            file=sys.stderr,
        )
    return [p for p in found if any(_is_of(p, job) for job in jobs)]


def _is_of(point: Point, job: Job) -> bool:
    return (point.picture, point.codec) == (job.item, job.codec) and job.quality in (None, point.quality)
