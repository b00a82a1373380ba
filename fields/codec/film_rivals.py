"""Other codecs for films, as FFmpeg has them: bytes of their bare streams at each of a few settings, and what comes
back.

x264 and x265 with preset medium, SVT-AV1 with preset 6, one pass, 4:2:0, all else as they come; frames are turned into
YCbCr and back by swscale with BT.601.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from fields.codec.film import FilmFit
from fields.codec.film_file import Frames, decoded_frames, open_film
from fields.codec.fitting import Effort, Target
from fields.codec.network_fit import NetworkFilmFit
from fields.codec.rivals import OURS, Point, point

OUR_QUALITIES = (18.0, 28.0, 38.0, 48.0)
CAM = "fieldfit-cam"


@dataclass(frozen=True)
class Encoder:
    """How FFmpeg is asked for a codec."""

    name: str
    container: str
    """Of nothing but the stream, or with the least around it."""
    factors: tuple[int, ...]
    """Constant rate factors, from large to small files."""
    options: Mapping[str, str]


ENCODERS: Mapping[str, Encoder] = {
    "x264": Encoder("libx264", "h264", (16, 20, 24, 28, 32, 36, 40, 44), {"preset": "medium"}),
    "x265": Encoder("libx265", "hevc", (16, 20, 24, 28, 32, 36, 40, 44), {"preset": "medium"}),
    "svt-av1": Encoder("libsvtav1", "ivf", (20, 27, 34, 41, 48, 55, 62), {"preset": "6"}),
}


def film_codecs() -> list[str]:
    """Those that this installation has."""
    import av

    return [name for name, encoder in ENCODERS.items() if encoder.name in av.codecs_available]


def film_points(name: str, codec: str, frames: Frames, rate: Fraction) -> Iterator[Point]:
    """A film by another codec."""
    encoder = ENCODERS[codec]
    for factor in encoder.factors:
        started = time.perf_counter()
        data = _encoded(frames, rate, encoder, factor)
        middle = time.perf_counter()
        again = _decoded(data, encoder, len(frames))
        ended = time.perf_counter()
        yield point(name, codec, float(factor), data, frames, again, (middle - started, ended - middle))


def our_film_point(
    name: str, frames: Frames, rate: Fraction, quality: float, effort: Effort, codec: str = OURS
) -> Point:
    """A film by fieldfit, or by its networks."""
    started = time.perf_counter()
    fit = (FilmFit if codec == OURS else NetworkFilmFit)(frames, rate, Target(quality), effort)
    for _ in fit.steps():
        pass
    packed = fit.pack()
    middle = time.perf_counter()
    header, container = open_film(packed.data, frames[0].size)
    again = np.stack(list(decoded_frames(header, container, 0, len(frames))))
    ended = time.perf_counter()
    seconds = middle - started, ended - middle
    return point(name, codec, quality, packed.data, frames, again, seconds, packed.estimated)


@contextmanager
def _usual_priority() -> Iterator[None]:
    """Threads go on at the priority that they had before. Run by root, SVT-AV1 makes all of its own and the one that
    calls it real-time threads, and then whatever the latter starts: on a small machine nothing else gets a turn."""
    if sys.platform != "linux":
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it may have ended
            if os.sched_getscheduler(int(thread)) != policy:
                os.sched_setscheduler(int(thread), policy, parameters)


def _encoded(frames: Frames, rate: Fraction, encoder: Encoder, factor: int) -> bytes:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    os.environ.setdefault("SVT_LOG", "1")  # errors only
    out = io.BytesIO()
    with av.open(out, "w", format=encoder.container) as target:
        stream: Any = target.add_stream(encoder.name, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        quiet = {"x265-params": "log-level=none"} if encoder.name == "libx265" else {}
        stream.options = {**encoder.options, "crf": str(factor), **quiet}
        with _usual_priority():
            stream.codec_context.open(strict=False)
        for frame in frames:
            made = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
            )
            target.mux(stream.encode(made))
        target.mux(stream.encode(None))
    return out.getvalue()


def _decoded(data: bytes, encoder: Encoder, n: int) -> Frames:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    with av.open(io.BytesIO(data), "r", format=encoder.container) as source:
        found = [
            frame.reformat(
                format="rgb24",
                src_colorspace=Colorspace.ITU601,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
            ).to_ndarray()
            for frame in source.decode(video=0)
        ]
    assert len(found) == n, f"{len(found)} frames of {n} came back"
    return np.stack(found)
