"""Films as arrays of 8-bit RGB frames [T, H, W, 3], and the time of each.

Colours are what a display is sent: YCbCr is decoded with the matrix and the range that the stream names, by swscale in
its exact and repeatable mode, chroma interpolated linearly. Where no matrix is named it is BT.709 for pictures from
1280 pixels of width or 577 of height, BT.601 for smaller ones, as players have it; where no range is named it is the
limited one. Frames are turned and mirrored as the display matrix says. Transparent frames are composited. Pixels are
taken as square.
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from scenes.errors import InputError, InputWarning
from scenes.photographs import available_memory
from scenes.scene import LoadOptions

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,yuv4mpegpipe"
"""Formats that FFmpeg may find in a file, whatever its name says; playlists, which name other files, are not among."""
EVEN = 0.1
"""Frames whose times are at most this part of a frame from even spacing are evenly spaced: containers round times."""


@dataclass(frozen=True)
class Film:
    """All frames of a film, or those that were asked for."""

    frames: UInt8[np.ndarray, "T H W 3"]
    times: Float[np.ndarray, " T"]
    """Where frames lie on an axis on which the film is T long: i + 0.5 for evenly spaced frames; in general the first
    and the last one lie where these do."""
    fps: float
    """Frames a second, in the mean."""
    start: float | None = None
    """Seconds into the file at which the first of them is shown, where the file says so."""


def read_film(path: Path, options: LoadOptions) -> Film:
    """Decode a film. Raises InputError when it cannot be read whole, or needs more memory than allowed."""
    first, last = options.frames or (0, None)
    if first < 0 or (last is not None and last <= first):
        raise InputError(f"{path}: --frames {first} {last} names no frame; give the first, and the one behind the last")
    if options.downscale < 1:
        raise InputError(f"{path}: --downscale is {options.downscale}; give a whole factor of 1 or more")
    expected = max(_count(path, options.max_pixels, last) - first, 1)
    room = np.empty((0, 0, 0, 3), np.uint8)
    seconds: list[float | None] = []
    fps = 0.0
    for i, (frame, at, rate) in enumerate(decoded(path, options.background)):
        if last is not None and i == last:
            break
        if i < first:
            continue
        small = _shrunk(path, frame, options.downscale)
        if not seconds:
            fps = rate
            _check_memory(path, expected, small.shape, options)
            room = np.empty((expected, *small.shape), np.uint8)
        elif small.shape != room.shape[1:]:
            raise InputError(
                f"{path}: frame {i} is {frame.shape[1]} x {frame.shape[0]}, which those before are not; cut the video "
                f"into parts of one size, or take a part with --frames"
            )
        if len(seconds) == len(room):  # more frames than the container has packets
            _check_memory(path, 2 * len(room), small.shape, options)
            room = np.concatenate((room, np.empty_like(room)))
        room[len(seconds)] = small
        seconds.append(at)
    if not seconds:
        raise InputError(f"{path}: holds no frames" + (f" from number {first} on" if first else ""))
    times, fps = _on_axis(path, seconds, fps)
    return Film(room[: len(seconds)], times, fps, seconds[0])


def decoded(path: Path, background: str = "white") -> Iterator[tuple[UInt8[np.ndarray, "_ _ 3"], float | None, float]]:
    """Frame by frame: (RGB, upright; seconds, if the file has them; frames a second as the container has it).

    Raises InputError when there is no film or it is damaged.
    """
    n = n_damaged = 0
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        frames = container.decode(stream)
        while True:
            with _explained(path, f"is damaged after {n} frames"):
                frame = next(frames, None)
                if frame is None:
                    break
                pixels = _upright(_to_rgb(path, frame, background), frame)
            n, n_damaged = n + 1, n_damaged + frame.is_corrupt
            yield pixels, frame.time, rate
    if n_damaged:
        warnings.warn(f"{path}: {n_damaged} of {n} frames are damaged", InputWarning, stacklevel=2)


def read_sound(path: Path, begin: Fraction, end: Fraction) -> bytes | None:
    """The packets of all sound between two times in seconds, as they are, in a Matroska file; None where there is
    none. Raises InputError where it cannot be carried over."""
    import av

    out, n = io.BytesIO(), 0
    explained = _explained(path, "its sound cannot be carried over", "remove it first")
    with explained, _container(path) as source:
        if not source.streams.audio:
            return None
        with av.open(out, "w", format="matroska", options={"fflags": "+bitexact"}) as target:
            streams: dict[int, Any] = {s.index: target.add_stream_from_template(s) for s in source.streams.audio}
            for packet in source.demux(list(source.streams.audio)):
                if packet.dts is None or packet.pts is None or packet.time_base is None:
                    continue  # the mark at the end
                if not begin <= packet.pts * packet.time_base < end:
                    continue
                shift = round(begin / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
                n += 1
    return out.getvalue() if n else None


@contextmanager
def _explained(path: Path, what: str, remedy: str = "copy or download it again") -> Iterator[None]:
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: {what} ({reason}); {remedy}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with _explained(path, "cannot be read as a video"):
        container = _container(path)
    with container:
        streams = [s for s in container.streams.video if not s.disposition & s.disposition.__class__.attached_pic]
        if not streams:
            sound = ", only sound" if container.streams.audio else ""
            raise InputError(f"{path}: holds no video{sound}; give a film")
        yield container, streams[0]


def _container(path: Path) -> InputContainer:
    import av

    return av.open(str(path.resolve()), options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})


def _count(path: Path, max_pixels: int, most: int | None) -> int:
    """Packets of the film, nearly always one for each frame, counted up to `most`.

    Raises InputError, before anything large is decoded.
    """
    with _opened(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels:
            raise InputError(f"{path}: {width} x {height} is more than {max_pixels:,} pixels; raise --max-pixels")
        with _explained(path, "is truncated or damaged"):
            packets = (packet for packet in container.demux(stream) if packet.size > 0)
            return sum(1 for _ in itertools.islice(packets, most))


def _check_memory(path: Path, n_frames: int, shape: tuple[int, ...], options: LoadOptions) -> None:
    needed = n_frames * int(np.prod(shape))
    allowed = available_memory() / 2 if options.max_ram_gb is None else options.max_ram_gb * 1e9
    if needed > allowed:
        raise InputError(
            f"{path}: {n_frames} frames of {shape[1]} x {shape[0]} need {needed / 1e9:.2f} GB of memory, more than the "
            f"{allowed / 1e9:.2f} GB allowed; shrink them with --downscale, take some with --frames, or raise "
            "--max-ram-gb"
        )


def _to_rgb(path: Path, frame: VideoFrame, background: str) -> UInt8[np.ndarray, "H W 3"]:
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    large = frame.width >= 1280 or frame.height > 576
    match frame.colorspace:  # matrix coefficients of ITU-T H.273
        case 0:
            matrix = Colorspace.ITU709  # RGB: there is nothing to decode
        case 1:
            matrix = Colorspace.ITU709
        case 2 | 3:
            matrix = Colorspace.ITU709 if large else Colorspace.ITU601
        case 4:
            matrix = Colorspace.FCC
        case 5 | 6:
            matrix = Colorspace.ITU601
        case 7:
            matrix = Colorspace.SMPTE240M
        case 9 | 10:
            matrix = Colorspace.BT2020
        case other:
            raise InputError(f"{path}: has colours by matrix {other} of ITU-T H.273, which is not read; convert it")
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    transparent = any(component.is_alpha for component in frame.format.components)
    flags = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
    pixels = frame.reformat(
        format="rgba" if transparent else "rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.BILINEAR | flags,
    ).to_ndarray()
    if not transparent:
        return pixels
    alpha = pixels[..., 3:].astype(np.uint16)
    behind = 255 * (background == "white")
    return ((pixels[..., :3] * alpha + behind * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: UInt8[np.ndarray, "H W 3"], frame: VideoFrame) -> UInt8[np.ndarray, "_ _ 3"]:
    """Turned and mirrored by the display matrix, which takes (x, y) to (a x + c y, b x + d y), up to multiples of a
    right angle."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _shrunk(path: Path, frame: UInt8[np.ndarray, "H W 3"], factor: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """The average over squares; a rest at the right and lower edge is cut off."""
    from PIL import Image

    if factor == 1:
        return frame
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    if not height or not width:
        raise InputError(f"{path}: is too small to be shrunk {factor} times")
    return np.asarray(Image.fromarray(frame).reduce(factor, (0, 0, width * factor, height * factor)))


def _on_axis(path: Path, seconds: list[float | None], fps: float) -> tuple[Float[np.ndarray, " T"], float]:
    """Times as `Film` has them, and the mean rate."""
    even = np.arange(len(seconds)) + 0.5
    known = [at for at in seconds if at is not None]
    if len(seconds) == 1:
        return even, fps
    gaps = np.diff(known)
    if len(known) < len(seconds) or (gaps <= 0).any():
        warnings.warn(
            f"{path}: not all frames have a time after that of the frame before; they are taken as evenly spaced",
            InputWarning,
            stacklevel=3,
        )
        return even, fps
    mean = float(gaps.sum() / len(gaps))
    times = (np.array(known) - known[0]) / mean + 0.5
    return (even if np.abs(times - even).max() <= EVEN else times), 1 / mean
