"""Films out of frames: an mp4 that plays everywhere, a mkv that has lost nothing, or a folder of PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from fields.files import check_folder, write_whole
from scenes.errors import InputError
from scenes.film import decoded
from viewer.pictures import save_png

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame

Frame = UInt8[np.ndarray, "_ _ 3"]
QUALITY, HIGH_QUALITY = 16, 12
"""Constant rate factors of x264: lower is better, 18 is hard to tell from the original."""
SUFFIXES = (".mkv", ".mp4", ".mov")
"""Of `film_bytes`."""


def write_frames(path: str | Path, frames: Iterable[Frame], fps: float = 30.0) -> int:
    """Frames as a film `path`.mp4, or as 00000.png and so on in the folder `path`. Returns their number.

    Raises InputError, before the first frame is asked for, when the path has another ending or no place to be.
    """
    path = Path(path)
    check_target(path)
    if path.suffix:
        return write_video(path, frames, fps)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be made ({error.strerror}); choose another path") from error
    n = 0
    for n, frame in enumerate(frames, start=1):
        save_png(path / f"{n - 1:05d}.png", frame)
    return n


def check_target(path: Path) -> None:
    """Raise InputError unless `path` is an .mp4 or a folder, inside of a folder that exists."""
    if path.suffix.lower() not in ("", ".mp4"):
        raise InputError(f"{path}: frames are written as a film .mp4, or into a folder without an ending")
    check_folder(path)
    if path.exists() and path.is_dir() != (path.suffix == ""):
        kind = "folder" if path.is_dir() else "file"
        raise InputError(f"{path}: is a {kind} already; choose another path")


def write_video(path: str | Path, frames: Iterable[Frame], fps: float = 30.0) -> int:
    """H.264 in mp4, written under a temporary name until complete. Returns the number of frames.

    Colour is BT.709 with 4:2:0 chroma, as players assume. A frame of odd width or height gets its last column or row
    twice. Raises InputError when the disk does not take it, ValueError without frames or for frames of several sizes.
    """
    path = Path(path)
    written = 0

    def write(temporary: Path) -> None:
        nonlocal written
        written = _encode(temporary, frames, fps)

    try:
        write_whole(path, write)
    except OSError as error:
        raise InputError(f"{path}: the film cannot be written ({error.strerror}); choose another path") from error
    return written


def _encode(path: Path, frames: Iterable[Frame], fps: float) -> int:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        return _mux(container, frames, Fraction(fps).limit_denominator(1001), QUALITY)


def film_bytes(name: str, frames: Iterable[Frame], rate: Fraction, sound: bytes | None = None) -> bytes:
    """A film as the file `name` would be: .mkv holds all samples as they are (FFV1), .mp4 and .mov what x264 makes of
    them, nearly without loss but with half the colours' resolution; the sound comes as a Matroska file. Raises
    InputError."""
    import av
    from av.error import FFmpegError

    container = {".mp4": "mp4", ".mov": "mov"}.get(Path(name).suffix.lower(), "matroska")
    factor = None if container == "matroska" else HIGH_QUALITY
    out = io.BytesIO()
    try:
        with av.open(out, "w", format=container) as target:
            if sound is None:
                _mux(target, frames, rate, factor)
            else:
                with av.open(io.BytesIO(sound), "r", format="matroska") as source:
                    _mux(target, frames, rate, factor, source)
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be written ({reason}); write a .mkv") from error
    return out.getvalue()


def _mux(
    target: OutputContainer,
    frames: Iterable[Frame],
    rate: Fraction,
    factor: int | None,
    sound: InputContainer | None = None,
) -> int:
    """FFV1 without a constant rate factor, x264 with; packets of sound as they are. Returns the number of frames."""
    n, shape, stream, sounds = 0, (0, 0, 3), None, {}
    for frame in frames:
        if stream is None:
            shape = frame.shape
            stream = _add_stream(target, shape, rate, factor)
            if sound is not None:
                sounds = _add_sound(target, sound)
        if frame.shape != shape:
            raise ValueError(f"frames of a film need one size, got {shape} and then {frame.shape}")
        target.mux(stream.encode(_converted(frame, lossless=factor is None)))
        n += 1
    if stream is None:
        raise ValueError("a film needs at least one frame")
    target.mux(stream.encode(None))
    if sound is not None:
        for packet in sound.demux(list(sound.streams.audio)):
            if packet.dts is not None:
                packet.stream = sounds[packet.stream.index]
                target.mux(packet)
    return n


def _add_stream(target: OutputContainer, shape: tuple[int, ...], rate: Fraction, factor: int | None) -> Any:
    height, width, _ = shape
    stream: Any = target.add_stream("ffv1" if factor is None else "libx264", rate=rate)
    if factor is None:
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        return stream
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    stream.options = {"crf": str(factor), "preset": "medium"}
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709 of ITU-T H.273
    context.color_range = 1  # limited
    return stream


def _add_sound(target: OutputContainer, source: InputContainer) -> dict[int, Any]:
    try:
        return {s.index: target.add_stream_from_template(s) for s in source.streams.audio}
    except ValueError as error:  # PyAV's for a container that does not take such sound
        raise OSError(str(error)) from error


def _converted(frame: Frame, *, lossless: bool) -> VideoFrame:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    if lossless:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="bgr0")
    padded = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )


def read_video(path: str | Path) -> Iterator[Frame]:
    """The frames of a film. Raises InputError when it cannot be read."""
    for frame, _, _ in decoded(Path(path)):
        yield frame
