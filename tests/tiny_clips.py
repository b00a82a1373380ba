"""Tiny clips, made when a test runs: a disc that crosses a gradient, and what writes frames to files without loss."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

MILLISECONDS = Fraction(1, 1000)


def disc(n_frames: int = 12, height: int = 24, width: int = 32) -> np.ndarray:
    """[T, H, W, 3], uint8: a bright disc that moves to the right and down over a gradient that turns."""
    t = (np.arange(n_frames)[:, None, None] + 0.5) / n_frames
    y = (np.arange(height)[None, :, None] + 0.5) / height
    x = (np.arange(width)[None, None, :] + 0.5) / width
    inside = 1 / (1 + np.exp(40 * (np.hypot((x - t) * width / height, y - 0.3 - 0.4 * t) - 0.25)))
    red, green, blue = 0.2 + 0.6 * inside + 0 * x, 0.8 * x * (1 - inside) + 0.1, 0.7 * y * (1 - 0.5 * t) + 0.2 * inside
    return np.round(255 * np.stack(np.broadcast_arrays(red, green, blue), -1).clip(0, 1)).astype(np.uint8)


def write_lossless(path: Path, frames: np.ndarray, pts: Sequence[int] | None = None, fps: int = 25) -> Path:
    """FFV1, or PNG in .mov, which knows no FFV1; frame k is at k / fps seconds, or at `pts` milliseconds."""
    n_frames, height, width, _ = frames.shape
    with av.open(str(path), "w") as container:
        codec, form = ("png", "rgb24") if path.suffix == ".mov" else ("ffv1", "bgr0")
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, form
        if pts is not None:
            stream.codec_context.time_base = stream.time_base = MILLISECONDS
        for k in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[k]), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[k], MILLISECONDS
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_planes(path: Path, planes: Sequence[np.ndarray], form: str, matrix: int, span: int) -> Path:
    """One frame of given planes, in FFmpeg's pixel format `form`, FFV1; `matrix` of ITU-T H.273, `span` 1 limited, 2
    full, 0 not said."""
    height, width = planes[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, form
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, span
        frame = av.VideoFrame(width, height, form)
        for plane, values in zip(frame.planes, planes, strict=True):
            line = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
            line[:, : values.shape[1]] = values
            plane.update(line.tobytes())
        frame.colorspace, frame.color_range = matrix, span
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
