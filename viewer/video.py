"""Films out of frames: an mp4 that plays everywhere, or a folder of PNG files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fields.files import check_folder, write_whole
from scenes.errors import InputError
from scenes.film import decoded
from viewer.pictures import save_png

Frame = UInt8[np.ndarray, "_ _ 3"]
QUALITY = 16  # constant rate factor of x264: lower is better, 18 is hard to tell from the original


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
    from av.video.reformatter import ColorRange, Colorspace
    from av.video.stream import VideoStream

    n, shape = 0, (0, 0, 3)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream: VideoStream | None = None
        for frame in frames:
            if stream is None:
                shape = frame.shape
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height = (shape[1] + 1) // 2 * 2, (shape[0] + 1) // 2 * 2
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": str(QUALITY), "preset": "medium"}
                context = stream.codec_context
                context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709 of ITU-T H.273
                context.color_range = 1  # limited
            if frame.shape != shape:
                raise ValueError(f"frames of a film need one size, got {shape} and then {frame.shape}")
            padded = np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(picture))
            n += 1
        if stream is None:
            raise ValueError("a film needs at least one frame")
        container.mux(stream.encode(None))
    return n


def read_video(path: str | Path) -> Iterator[Frame]:
    """The frames of a film. Raises InputError when it cannot be read."""
    for frame, _, _ in decoded(Path(path)):
        yield frame
