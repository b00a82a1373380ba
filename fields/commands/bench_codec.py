"""`fieldfit bench-codec`: our codec beside JPEG, WebP, AVIF and JPEG XL on a folder of pictures, in one session."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

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
rates, BD-rates and seconds. What has been measured is not measured again, so that it can be interrupted."""
SUFFIXES = (".png", ".ppm", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class BenchOptions:
    """Options of `fieldfit bench-codec`."""

    path: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """A folder of pictures without loss, or one picture; only 8 bits and three channels are compared."""
    out: Path = Path("bench-codec")
    """The folder for the report."""
    minutes: float | None = None
    """How long fieldfit fits each file; by default as `fieldfit compress` does."""
    qualities: tuple[float, ...] = OUR_QUALITIES
    """Those of fieldfit."""
    max_pixels: int = LoadOptions.max_pixels
    """Refuse a picture of more pixels than this."""


def run(argv: Sequence[str]) -> int:
    """Returns 0."""
    options = parse(BenchOptions, argv, prog="fieldfit bench-codec", description=DESCRIPTION)
    if importlib.util.find_spec("bjontegaard") is None:
        raise InputError("bjontegaard is not installed, which computes BD-rates: pip install 'fieldfit[bench]'")
    if not all(1 <= quality <= 100 for quality in options.qualities):
        raise UsageError("--qualities: expected numbers from 1 to 100")
    pictures = _pictures(options)
    options.out.mkdir(parents=True, exist_ok=True)
    measured = _measure(options, pictures)
    from viewer import rates as report

    (options.out / "rates.png").write_bytes(report.plot(measured))
    shape = next(iter(pictures.values())).shape
    facts = {
        "pictures": ", ".join(pictures),
        "fieldfit": f"{version()}, {macs_per_pixel(CodecShape(*shape)):,.0f} multiplications a pixel to decode",
        "effort": "the default" if options.minutes is None else f"{options.minutes:g} minutes a file",
        "command": f"fieldfit bench-codec {' '.join(argv)}",
    }
    (options.out / "report.html").write_text(report.page(facts, measured))
    print(report.summary(measured))
    print(f"{options.out / 'report.html'}: {len(measured)} files of {len(pictures)} pictures")
    return 0


def macs_per_pixel(shape: CodecShape) -> float:
    """Multiplications that decoding takes, for each pixel: context network, doubling, synthesis."""
    from fields.codec.shape import CONTEXT, CONTEXT_HIDDEN, LEVELS, TAPS

    k, c, m = CONTEXT_HIDDEN, shape.channels, shape.hidden
    context = shape.n_latents * (CONTEXT * k + k * k + 2 * k)
    doubling = sum((LEVELS - 1 - i) * h * w * TAPS * 1.5 for i, (h, w) in enumerate(shape.levels))
    synthesis = shape.levels[0][0] * shape.levels[0][1] * (LEVELS * m + m * c + 2 * 9 * c * c)
    return (context + doubling + synthesis) / (shape.height * shape.width)


def _pictures(options: BenchOptions) -> dict[str, Picture]:
    if not options.path.exists():
        raise InputError(f"{options.path}: there is no such folder")
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
            f"{options.path}: holds no picture of 8 bits and three channels that ends in {', '.join(SUFFIXES)}"
        )
    return found


def _measure(options: BenchOptions, pictures: Mapping[str, Picture]) -> list[Point]:
    file = options.out / "points.json"
    effort = Effort(minutes=options.minutes)
    known = read_json(file) if file.exists() else {"points": []}
    if known.get("minutes", options.minutes) != options.minutes:
        raise InputError(f"{file}: was measured with another --minutes; choose another --out")
    found = [Point(**point) for point in known["points"]]

    def keep(new: list[Point]) -> None:
        found.extend(new)
        write_json(file, {"minutes": options.minutes, "points": [dataclasses.asdict(p) for p in found]})
        p = new[-1]
        print(
            f"{p.picture} {p.codec}: {p.bpp:.3f} bits a pixel, {p.psnr:.2f} dB, {p.encode_seconds:.1f} s",
            file=sys.stderr,
        )

    have = {(p.picture, p.codec, p.quality) for p in found}
    for name, picture in pictures.items():
        for codec in codecs():
            if not any(p.picture == name and p.codec == codec for p in found):
                keep(list(points(name, codec, picture)))
        for quality in options.qualities:
            if (name, OURS, quality) not in have:
                keep([our_point(name, picture, quality, effort)])
    return [p for p in found if p.picture in pictures]
