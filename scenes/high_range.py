"""Pictures of linear light and of 16 bits: Radiance HDR and OpenEXR files, and what Pillow would cut down to 8 bits.

FFmpeg's decoders (through PyAV) do the work, without its container formats. They fill what is missing of a truncated
EXR file with zeros, so its chunks are looked for first; they do the same with HDR, which is simple enough to read here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped

EXR_LINES = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}
"""Rows of a chunk of an OpenEXR file, by its kind of compression."""


class PictureError(Exception):
    """A picture that cannot be read; the message says why and what to do, without naming the file."""


def read_hdr(data: bytes, max_pixels: int) -> Float[np.ndarray, "H W 3"]:
    """Radiance RGBE, linear RGB, flat or with either kind of run lengths (Ward, "Real Pixels", Graphics Gems II)."""
    header, _, body = data.partition(b"\n\n")
    line, _, body = body.partition(b"\n")
    size = re.fullmatch(rb"([-+])Y (\d+) ([-+])X (\d+)", line.strip())
    if not header.startswith(b"#?") or b"FORMAT=32-bit_rle_xyze" in header or size is None:
        raise PictureError("is no Radiance picture with RGB colours in rows; export it again as RGBE")
    height, width = int(size[2]), int(size[4])
    check_size(width, height, max_pixels)
    rows = np.empty((height, width, 4), np.uint8)
    at = 0
    for y in range(height):
        at = _read_hdr_row(body, at, rows[y])
    mantissa, exponent = rows[..., :3].astype(np.float32), rows[..., 3:].astype(np.int32)
    rgb = np.ldexp(mantissa, np.where(exponent > 0, exponent - 136, -1000))
    return np.ascontiguousarray(rgb[:: -1 if size[1] == b"+" else 1, :: -1 if size[3] == b"-" else 1])


def _read_hdr_row(data: bytes, at: int, row: Shaped[np.ndarray, "W 4"]) -> int:
    """Decode one row of RGBE bytes into `row`; where the next one begins."""
    width = len(row)
    if data[at : at + 2] == b"\2\2" and data[at + 2 : at + 4] == struct.pack(">H", width) and 8 <= width < 1 << 15:
        at += 4
        for channel in range(4):
            x = 0
            while x < width:
                n = data[at] if at < len(data) else 0
                run = n > 128
                n = n - 128 if run else n
                values = data[at + 1 : at + 2] if run else data[at + 1 : at + 1 + n]
                if n == 0 or x + n > width or len(values) != (1 if run else n):
                    raise PictureError("is truncated or damaged; copy or download it again")
                row[x : x + n, channel] = values[0] if run else np.frombuffer(values, np.uint8)
                x, at = x + n, at + 1 + len(values)
        return at
    x = shift = 0
    while x < width:
        pixel = data[at : at + 4]
        if len(pixel) < 4:
            raise PictureError("is truncated or damaged; copy or download it again")
        at += 4
        if pixel[:3] == b"\1\1\1":  # repeat the pixel before; several such in a row are digits of one count
            n = pixel[3] << shift
            if x == 0 or x + n > width:
                raise PictureError("is truncated or damaged; copy or download it again")
            row[x : x + n] = row[x - 1]
            x, shift = x + n, shift + 8
        else:
            row[x] = np.frombuffer(pixel, np.uint8)
            x, shift = x + 1, 0
    return at


def read_exr(data: bytes, max_pixels: int) -> Float[np.ndarray, "H W C"]:
    """OpenEXR: linear Y, YA, RGB or RGBA in half or float; colours are divided by alpha, which premultiplies them."""
    header = dict(_exr_header(data))
    try:
        x0, y0, x1, y1 = struct.unpack("<4i", header["dataWindow"])
        width, height = x1 - x0 + 1, y1 - y0 + 1
        check_size(width, height, max_pixels)
        if "tiles" in header:
            tile_width, tile_height = struct.unpack_from("<2I", header["tiles"])
            n_chunks, size_at = -(-width // tile_width) * -(-height // tile_height), 16
        else:
            n_chunks, size_at = -(-height // EXR_LINES[header["compression"][0]]), 4
        starts = struct.unpack_from(f"<{n_chunks}Q", data, len(header[""]))
        ends = [start + size_at + 4 + struct.unpack_from("<I", data, start + size_at)[0] for start in starts]
    except (KeyError, IndexError, struct.error, OverflowError, ZeroDivisionError) as error:
        raise PictureError("is truncated or damaged; copy or download it again") from error
    if min(starts) == 0 or max(ends) > len(data):
        raise PictureError("is truncated: some of its rows are missing; copy or download it again")
    pixels = decode("exr", data, max_pixels)
    if pixels.dtype != np.float32:
        raise PictureError("holds whole numbers; save its colours as half or float")
    if pixels.shape[2] in (2, 4):
        alpha = pixels[..., -1:]
        np.divide(pixels[..., :-1], alpha, out=pixels[..., :-1], where=alpha > 0)
    return pixels


def _exr_header(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and value of every attribute; last, under the empty name, all bytes up to the table of chunks."""
    if data[:4] != b"\x76\x2f\x31\x01":
        raise PictureError("is no OpenEXR file; export it again")
    if len(data) > 5 and data[5] & 0x18:
        raise PictureError("holds several parts or deep pixels; save one flat layer")
    at = 8
    while data[at : at + 1] != b"\0":
        name, kind = (part.decode("latin-1") for part in (data[at : at + 512].split(b"\0") + [b"", b""])[:2])
        at += len(name) + len(kind) + 2
        size = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + size >= len(data):
            raise PictureError("is truncated within its header; copy or download it again")
        yield name, data[at + 4 : at + 4 + size]
        at += 4 + size
    yield "", data[: at + 1]


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises PictureError for a picture that is empty or larger than allowed."""
    if width < 1 or height < 1:
        raise PictureError(f"is {width} x {height}; a picture needs at least one pixel")
    if width * height > max_pixels:
        raise PictureError(
            f"is {width} x {height}, more than the {max_pixels:,} pixels allowed; raise max_pixels or shrink it"
        )


def decode(codec: str, data: bytes, max_pixels: int) -> Shaped[np.ndarray, "H W C"]:
    """One picture by FFmpeg's decoder of that name, as uint8, uint16 or float32: Y, YA, RGB or RGBA."""
    import av
    from av.error import FFmpegError

    decoder = av.CodecContext.create(codec, "r")
    decoder.options = {"max_pixels": str(max_pixels)}
    try:
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
    except (FFmpegError, ValueError) as error:
        raise PictureError("is truncated, damaged or of an unknown kind; save it again") from error
    if not frames:
        raise PictureError("is truncated or damaged; copy or download it again")
    frame = frames[0]
    components = frame.format.components
    kind = "f" if "f16" in frame.format.name or "f32" in frame.format.name else "u"
    dtype = np.dtype(f"{'>' if frame.format.is_big_endian else '<'}{kind}{components[0].bits // 8}")
    planes = []
    for plane in frame.planes:
        row = np.frombuffer(plane, np.uint8).reshape(frame.height, -1).view(dtype)
        planes.append(row[:, : frame.width * len(components) // len(frame.planes)])
    if len(planes) == 1:
        pixels = planes[0].reshape(frame.height, frame.width, len(components))
    elif len(planes) == len(components):
        pixels = np.stack([planes[component.plane] for component in components], axis=-1)
    else:
        raise PictureError(f"has subsampled colours ({frame.format.name}); save it again as RGB")
    return np.ascontiguousarray(pixels, np.float32 if kind == "f" else dtype.newbyteorder("="))
