"""Films in and out of the codec: frames, and the sound, which is carried over as it is."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fields.codec.film_file import MAX_RATE, MAX_SIDE, Frame, Frames
from scenes import VIDEO_SUFFIXES
from scenes.errors import InputError, InputWarning
from scenes.film import CONTAINERS, EVEN, read_film
from scenes.scene import LoadOptions

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

SUFFIXES = (".mkv", ".mp4", ".mov")
CRF = "12"
"""Constant rate factor of x264 where a film is written with loss."""
MOST_RATE_DENOMINATOR = 1001


def is_film(path: Path) -> bool:
    """Whether its name says that it is a film."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_clip(path: Path, options: LoadOptions) -> tuple[Frames, Fraction, bytes | None]:
    """Frames in RGB of 8 bits, frames a second, and the sound of that time as a Matroska file. Raises InputError."""
    film = read_film(path, options)
    if max(film.frames.shape[1:3]) > MAX_SIDE:
        raise InputError(f"{path}: has more than {MAX_SIDE:,} rows or columns; cut it into parts")
    if np.abs(film.times - np.arange(len(film.times)) - 0.5).max() > EVEN:
        warnings.warn(f"{path}: its frames are not evenly spaced; they will be", InputWarning, stacklevel=2)
    rate = Fraction(film.fps).limit_denominator(MOST_RATE_DENOMINATOR)
    if not 0 < rate.numerator <= MAX_RATE:
        raise InputError(f"{path}: has {film.fps:g} frames a second; expected 0.001 to 1,000,000,000")
    first = (options.frames or (0, None))[0]
    return film.frames, rate, read_sound(path, first / rate, (first + len(film.frames)) / rate)


def read_sound(path: Path, begin: Fraction, end: Fraction) -> bytes | None:
    """The packets of all sound between two times in seconds, as they are, in a Matroska file; None where there is
    none. Raises InputError where it cannot be carried over."""
    import av
    from av.error import FFmpegError

    out = io.BytesIO()
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        with av.open(str(path.resolve()), options=options) as source:
            if not source.streams.audio:
                return None
            with av.open(out, "w", format="matroska", options={"fflags": "+bitexact"}) as target:
                n = _copy(source, target, begin, end)
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: its sound cannot be carried over ({reason}); remove it first") from error
    return out.getvalue() if n else None


def _copy(source: InputContainer, target: OutputContainer, begin: Fraction, end: Fraction) -> int:
    """Packets of sound as they are, their times from `begin` on. Returns how many."""
    streams: dict[int, Any] = {s.index: target.add_stream_from_template(s) for s in source.streams.audio}
    n = 0
    for packet in source.demux(list(source.streams.audio)):
        if packet.dts is None or packet.pts is None or packet.time_base is None:
            continue  # the mark at the end
        at = packet.pts * packet.time_base
        if at < begin or at >= end:
            continue
        shift = round(begin / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = streams[packet.stream.index]
        target.mux(packet)
        n += 1
    return n


def film_bytes(name: str, frames: Iterable[Frame], rate: Fraction, sound: bytes | None) -> bytes:
    """A film in a file: .mkv holds all samples as they are (FFV1), .mp4 and .mov what x264 makes of them, nearly
    without loss but with half the colours' resolution. Raises InputError."""
    import av
    from av.error import FFmpegError

    lossless = Path(name).suffix.lower() not in (".mp4", ".mov")
    out = io.BytesIO()
    formats = {".mp4": "mp4", ".mov": "mov"}
    try:
        with av.open(out, "w", format=formats.get(Path(name).suffix.lower(), "matroska")) as target:
            if sound is None:
                _write(target, frames, rate, None, lossless=lossless)
            else:
                with av.open(io.BytesIO(sound), "r", format="matroska") as source:
                    _write(target, frames, rate, source, lossless=lossless)
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be written ({reason}); write a .mkv") from error
    return out.getvalue()


def _write(
    target: OutputContainer, frames: Iterable[Frame], rate: Fraction, sound: InputContainer | None, *, lossless: bool
) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    stream: Any = None
    sounds: Any = None
    for frame in frames:
        height, width, _ = frame.shape
        if stream is None:
            stream = target.add_stream("ffv1" if lossless else "libx264", rate=rate)
            stream.width, stream.height = (width, height) if lossless else (width + width % 2, height + height % 2)
            stream.pix_fmt = "bgr0" if lossless else "yuv420p"
            if not lossless:
                stream.options = {"crf": CRF, "preset": "medium"}
                context = stream.codec_context
                context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709 of ITU-T H.273
                context.color_range = 1  # limited
            if sound is not None:
                sounds = {s.index: target.add_stream_from_template(s) for s in sound.streams.audio}
        if lossless:
            made = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="bgr0")
        else:
            padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            made = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
        target.mux(stream.encode(made))
    target.mux(stream.encode(None))
    if sound is not None:
        for packet in sound.demux(list(sound.streams.audio)):
            if packet.dts is not None:
                packet.stream = sounds[packet.stream.index]
                target.mux(packet)
