"""Picture files of every format and depth, upright; those that are too large, broken or something else."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.codeccontext import VideoCodecContext
from PIL import Image as Pillow
from PIL import ImageOps
from tolerances import VALUES

import scenes
from scenes.errors import InputError
from scenes.image import Image
from scenes.scene import LoadOptions

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8)
RGBA = np.dstack((RGB, RNG.integers(0, 255, (21, 34), dtype=np.uint8)))
DEEP = RNG.integers(0, 65536, (21, 34, 4), dtype=np.uint16)
LINEAR = (RNG.random((21, 34, 4), dtype=np.float32) * 30) ** 2


def load(path: Path, max_pixels: int = 10_000) -> Image:
    image = scenes.load(path, options=LoadOptions(max_pixels=max_pixels))
    assert isinstance(image, Image)
    return image


def pixels(path: Path) -> np.ndarray:
    return load(path).pixels.numpy()


def by_ffmpeg(codec: str, pix_fmt: str, array: np.ndarray) -> bytes:
    """A picture of a kind that Pillow does not write."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.height, encoder.width = array.shape[:2]
    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(array, format=pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def exr(channels: dict[str, np.ndarray]) -> bytes:
    """An OpenEXR file without compression, by the format's specification: half or float channels by name."""

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value

    names = sorted(channels)
    height, width = channels[names[0]].shape
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    kinds = {"float16": 1, "float32": 2, "uint32": 0}
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<4i", kinds[channels[name].dtype.name], 0, 1, 1) for name in names
    )
    header = struct.pack("<2i", 20000630, 2)
    header += attribute("channels", "chlist", listed + b"\0") + attribute("compression", "compression", b"\0")
    header += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window)
    header += attribute("lineOrder", "lineOrder", b"\0") + attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    rows = []
    for y in range(height):
        data = b"".join(channels[name][y].tobytes() for name in names)
        rows.append(struct.pack("<2i", y, len(data)) + data)
    starts = np.cumsum([len(header) + 8 * height] + [len(row) for row in rows[:-1]])
    return header + struct.pack(f"<{height}Q", *starts.tolist()) + b"".join(rows)


def hdr(rgbe: np.ndarray, size: str, runs: bool) -> bytes:
    """A Radiance file of RGBE bytes, flat or with the newer run lengths."""
    data = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n" + size.encode() + b"\n"
    if not runs:
        return data + rgbe.tobytes()
    for row in rgbe:
        data += b"\2\2" + struct.pack(">H", len(row))
        for channel in row.T:
            x = 0
            while x < len(channel):
                same = 1
                while x + same < len(channel) and same < 127 and channel[x + same] == channel[x]:
                    same += 1
                data += bytes([128 + same, channel[x]]) if same > 2 else bytes([1, channel[x]])
                x += same if same > 2 else 1
    return data


def rgbe_values(rgbe: np.ndarray) -> np.ndarray:
    return rgbe[..., :3] * np.exp2(rgbe[..., 3:].astype(np.float64) - 136) * (rgbe[..., 3:] > 0)


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("a.png", "RGB", RGB),
        ("a.png", "RGBA", RGBA),
        ("a.png", "L", RGB[..., :1]),
        ("a.png", "LA", RGBA[..., 2:]),
        ("a.tif", "RGB", RGB),
        ("a.tiff", "RGBA", RGBA),
        ("a.bmp", "RGB", RGB),
        ("a.ppm", "RGB", RGB),
        ("a.pgm", "L", RGB[..., :1]),
    ],
)
def test_eight_bits_come_as_they_are(name: str, mode: str, expected: np.ndarray, tmp_path: Path):
    Pillow.fromarray(expected.squeeze()).convert(mode).save(tmp_path / name)
    assert np.array_equal(pixels(tmp_path / name), expected)
    assert load(tmp_path / name).transfer == "srgb"


@pytest.mark.parametrize("name", ["a.webp", "a.avif", "a.jpg"])
def test_lossy_formats_come_close(name: str, tmp_path: Path):
    smooth = np.stack(np.meshgrid(np.linspace(0, 255, 64), np.linspace(255, 0, 40)), -1)
    smooth = np.dstack((smooth, smooth.mean(-1))).astype(np.uint8)
    Pillow.fromarray(smooth).save(tmp_path / name, quality=95)
    found = pixels(tmp_path / name)
    assert found.shape == smooth.shape
    assert np.abs(found.astype(int) - smooth).mean() < 3


def test_lossless_webp_is_exact(tmp_path: Path):
    Pillow.fromarray(RGBA).save(tmp_path / "a.webp", lossless=True, exact=True)
    assert np.array_equal(pixels(tmp_path / "a.webp"), RGBA)


def test_palettes_bits_and_cmyk_become_colours(tmp_path: Path):
    flags = Pillow.new("P", (4, 1))
    flags.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    flags.putdata([0, 1, 2, 3])
    flags.save(tmp_path / "p.png")
    assert pixels(tmp_path / "p.png").tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]]
    flags.save(tmp_path / "pt.png", transparency=1)
    assert pixels(tmp_path / "pt.png")[0, :, 3].tolist() == [255, 0, 255, 255]

    bits = Pillow.new("1", (3, 1))
    bits.putdata([0, 255, 0])
    bits.save(tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").tolist() == [[[0], [255], [0]]]

    Pillow.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    red = pixels(tmp_path / "c.jpg")[8, 8]
    assert red[0] > 240
    assert red[1:].max() < 15


def test_an_opaque_alpha_is_left_out(tmp_path: Path):
    Pillow.fromarray(np.dstack((RGB, np.full(RGB.shape[:2], 255, np.uint8)))).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name", "channels"),
    [
        ("png", "rgb48be", "a.png", 3),
        ("png", "rgba64be", "a.png", 4),
        ("png", "gray16be", "a.png", 1),
        ("tiff", "rgb48le", "a.tif", 3),
        ("tiff", "rgba64le", "a.tif", 4),
        ("tiff", "gray16le", "a.tif", 1),
    ],
)
def test_sixteen_bits_stay_sixteen(codec: str, pix_fmt: str, name: str, channels: int, tmp_path: Path):
    deep = np.ascontiguousarray(DEEP[..., :channels])
    (tmp_path / name).write_bytes(by_ffmpeg(codec, pix_fmt, deep[..., 0] if channels == 1 else deep))
    image = load(tmp_path / name)
    assert image.format.depth == "uint16"
    assert np.array_equal(image.pixels.numpy(), deep)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("names", ["Y", "RGB", "RGBA"])
def test_openexr(kind: type, names: str, tmp_path: Path):
    channels = {name: LINEAR[..., i].astype(kind) for i, name in enumerate(names)}
    if "A" in channels:
        channels["A"] = (channels["A"] / LINEAR[..., 3].max()).astype(kind)
        channels["A"][0, 0] = 0
    (tmp_path / "a.exr").write_bytes(exr(channels))
    image = load(tmp_path / "a.exr")
    truth = np.stack([channels[name].astype(np.float32) for name in names], -1)
    if "A" in channels:
        truth[..., :3] /= np.where(truth[..., 3:] > 0, truth[..., 3:], 1)
    assert image.transfer == "log"
    VALUES.check(image.pixels, torch.from_numpy(truth))
    assert image.format.peak == np.abs(image.pixels[..., :3].numpy()).max()


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize(
    ("size", "flip"), [("-Y 21 +X 34", (1, 1)), ("+Y 21 +X 34", (-1, 1)), ("-Y 21 -X 34", (1, -1))]
)
def test_radiance(runs: bool, size: str, flip: tuple[int, int], tmp_path: Path):
    rgbe = np.concatenate((RGB, RNG.integers(120, 140, (21, 34, 1), dtype=np.uint8)), -1)
    rgbe[3, 5:30] = rgbe[3, 5]
    rgbe[4, 4, 3] = 0
    (tmp_path / "a.hdr").write_bytes(hdr(rgbe, size, runs))
    truth = rgbe_values(rgbe)[:: flip[0], :: flip[1]]
    VALUES.check(load(tmp_path / "a.hdr").pixels, torch.from_numpy(truth.copy()))


def test_radiance_with_the_older_runs(tmp_path: Path):
    first, second = [10, 20, 30, 130], [40, 50, 60, 128]
    data = bytes(first + [1, 1, 1, 2] + second + [1, 1, 1, 4] + [1, 1, 1, 1])  # 2, then 4 + 256 times the one before
    width = 1 + 2 + 1 + 4 + 256
    (tmp_path / "a.hdr").write_bytes(b"#?RGBE\n\n-Y 1 +X %d\n" % width + data)
    found = load(tmp_path / "a.hdr").pixels[0]
    truth = rgbe_values(np.array([first] * 3 + [second] * 261, np.uint8))
    VALUES.check(found, torch.from_numpy(truth))


def test_radiance_of_ffmpeg(tmp_path: Path):
    """Against another encoder; its exponents are shared by three colours, so that 8 bits of the largest are kept."""
    (tmp_path / "a.hdr").write_bytes(by_ffmpeg("hdr", "gbrpf32le", np.ascontiguousarray(LINEAR[..., :3])))
    found = load(tmp_path / "a.hdr").pixels.numpy()
    assert (np.abs(found - LINEAR[..., :3]) <= LINEAR[..., :3].max(-1, keepdims=True) / 128).all()


def test_float_tiffs(tmp_path: Path):
    import tifffile

    Pillow.fromarray(LINEAR[..., 0]).save(tmp_path / "grey.tif")
    assert np.array_equal(pixels(tmp_path / "grey.tif"), LINEAR[..., :1])
    tifffile.imwrite(tmp_path / "rgb.tif", LINEAR[..., :3], photometric="rgb")
    assert np.array_equal(pixels(tmp_path / "rgb.tif"), LINEAR[..., :3])
    tifffile.imwrite(tmp_path / "half.tif", LINEAR[..., :3].astype(np.float16), photometric="rgb")
    with pytest.raises(InputError, match="32-bit floats"):
        load(tmp_path / "half.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_exif_orientation_is_applied(orientation: int, name: str, tmp_path: Path):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(RGB).save(tmp_path / name, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Pillow.open(tmp_path / name)))
    assert upright.shape[0] == (21 if orientation < 5 else 34)
    assert np.array_equal(pixels(tmp_path / name), upright)


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size; no pixels follow."""
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.png", png_header(60_000, 50_000) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))),
        ("a.hdr", b"#?RADIANCE\n\n-Y 50000 +X 60000\n"),
        ("a.exr", exr({"Y": LINEAR[..., 0]}).replace(struct.pack("<2i", 33, 20), struct.pack("<2i", 59_999, 49_999))),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(name: str, data: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=r"60000 x 50000, more than the 10,000 pixels allowed"):
        load(tmp_path / name)


def test_pillows_own_limit_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), RGB)
    assert Pillow.MAX_IMAGE_PIXELS == 10


def encoded() -> dict[str, bytes]:
    """A small picture in every format."""
    files = {}
    noisy = Pillow.fromarray(np.tile(RGB, (3, 3, 1)))
    for name in ("a.png", "a.jpg", "a.webp", "a.avif", "a.tif", "a.bmp", "a.ppm"):
        buffer = io.BytesIO()
        noisy.save(buffer, Pillow.registered_extensions()[Path(name).suffix])
        files[name] = buffer.getvalue()
    deep = np.ascontiguousarray(DEEP[..., :3])
    files["deep.png"], files["deep.tif"] = by_ffmpeg("png", "rgb48be", deep), by_ffmpeg("tiff", "rgb48le", deep)
    files["a.exr"] = exr({name: LINEAR[..., i] for i, name in enumerate("RGB")})
    rgbe = np.concatenate((RGB, np.full((21, 34, 1), 130, np.uint8)), -1)
    files["flat.hdr"], files["runs.hdr"] = hdr(rgbe, "-Y 21 +X 34", False), hdr(rgbe, "-Y 21 +X 34", True)
    return files


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9])
@pytest.mark.parametrize("name", encoded())
def test_a_truncated_file_is_refused_in_one_line(name: str, keep: float, tmp_path: Path):
    data = encoded()[name]
    (tmp_path / name).write_bytes(data)
    load(tmp_path / name)
    (tmp_path / name).write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError) as caught:
        load(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "a.png").write_text("a letter")
    (tmp_path / "a.exr").write_bytes(encoded()["a.png"])
    (tmp_path / "a.hdr").write_bytes(encoded()["a.png"])
    for name in ("a.png", "a.exr", "a.hdr"):
        with pytest.raises(InputError, match=name):
            load(tmp_path / name)


def test_values_that_are_not_finite_are_refused(tmp_path: Path):
    bad = LINEAR[..., :3].copy()
    bad[2, 3, 1], bad[4, 5, 0] = np.nan, np.inf
    (tmp_path / "a.exr").write_bytes(exr({name: bad[..., i] for i, name in enumerate("RGB")}))
    with pytest.raises(InputError, match="2 of 714 pixels are not finite"):
        load(tmp_path / "a.exr")
