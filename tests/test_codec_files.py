"""Compressed pictures as files: what comes back, what is refused, and that old files decode for ever."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_pictures
from damage import cut_or_flipped, mutated, repaired
from PIL import Image
from program import Program, assert_one_line, command, environment
from tolerances import CODEC_ESTIMATE, CODEC_TARGET

from fields.codec.bitstream import BitstreamError, pack, unpack, varint
from fields.codec.fitting import Effort, Fit, Target, psnr_of
from fields.codec.image_file import ImageHeader, read_image, write_image
from fields.codec.pictures import read_samples
from fields.codec.shape import LEVELS, CodecShape

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted(GOLDEN.glob("*.ff"))
LIMIT = 200_000_000
QUICK = Effort(steps=60)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


def refused(data: bytes) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(BitstreamError) as caught:
        read_image(data, LIMIT)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_golden_files_decode_for_ever(file: Path) -> None:
    expected = json.loads((GOLDEN / "samples.json").read_text())[file.stem]
    header, samples = read_image(file.read_bytes(), LIMIT)
    told = [
        *samples.shape,
        header.depth,
        hashlib.sha256(samples.astype(samples.dtype.newbyteorder("<")).tobytes()).hexdigest(),
    ]
    assert told == expected


def test_golden_files_are_of_all_kinds() -> None:
    headers = [read_image(file.read_bytes(), LIMIT)[0] for file in FILES]
    assert {h.shape.channels for h in headers} == {1, 2, 3, 4}
    assert {h.depth for h in headers} == {8, 16}
    assert len(FILES) == 6


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_truncation_and_every_flipped_bit_is_noticed(file: Path) -> None:
    for damaged in cut_or_flipped(file.read_bytes()):
        refused(damaged)


@pytest.mark.usefixtures("as_shipped")
def test_mutated_files_are_refused() -> None:
    """100,000 of them: bytes changed, cut out, doubled, exchanged between files."""
    for damaged in mutated([file.read_bytes() for file in FILES], 100_000):
        refused(damaged)


@pytest.mark.usefixtures("as_shipped")
def test_damage_under_valid_checksums_is_noticed_too() -> None:
    """Whoever repairs the checksums meets the decoders themselves, and at last the SHA-256 of the samples: what is not
    refused, such as another scale for weights that are all zero, decodes to the same samples."""
    n_refused, expected = 0, [read_image(file.read_bytes(), LIMIT)[1] for file in FILES]
    for which, damaged in repaired([file.read_bytes() for file in FILES], 3000, seed=1):
        try:
            _, samples = read_image(damaged, LIMIT)
            assert np.array_equal(samples, expected[which])
        except BitstreamError:
            n_refused += 1
    assert n_refused > 2700


def test_what_else_is_refused() -> None:
    data = FILES[0].read_bytes()
    parts = unpack(data)
    assert "other bytes" in refused(b"\x89PNG\r\n\x1a\n" + bytes(50))
    assert "cut off" in refused(b"\x89FFC")
    assert "version 2" in refused(b"\x89FFC\x02" + data[5:])
    assert "section X" in refused(pack(replace(parts, sections={**parts.sections, "X": b"?"})))
    assert "section L is missing" in refused(pack(replace(parts, sections={"W": b"", "S": b""})))
    assert "checksum does not match" in refused(pack(replace(parts, sections={**parts.sections, "S": bytes(32)})))
    assert "something else" in refused(pack(replace(parts, header=b"\7" + parts.header[1:])))
    read_image(pack(replace(parts, sections={**parts.sections, "x": b"may be skipped"})), LIMIT)
    large = ImageHeader(CodecShape(60000, 60000, 3), 8, (0,) * LEVELS).to_bytes()
    assert "--max-pixels" in refused(pack(replace(parts, header=large)))
    assert len(data) < 600
    bomb = ImageHeader(CodecShape(14000, 14000, 3), 8, (0,) * LEVELS).to_bytes()
    assert "no picture has" in refused(pack(replace(parts, header=bomb)))
    doubled = data + b"S" + varint(0) + zlib.crc32(b"S\0").to_bytes(4, "little")
    assert "no valid name" in refused(doubled)
    assert "length is out of range" in refused(data[:5] + b"\x80" * 10)


def picture(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    return tiny_pictures.waves(height, width, channels, dtype)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1, 1), np.uint8),
        ((3, 5, 2), np.uint8),
        ((33, 70, 4), np.uint16),
        ((24, 300, 1), np.uint16),
        ((90, 20, 3), np.uint8),
    ],
)
def test_a_fit_becomes_a_file_of_what_it_decodes_to(shape: tuple[int, int, int], dtype: type) -> None:
    samples = picture(*shape, dtype)
    depth = 8 * samples.dtype.itemsize
    fit = Fit(samples, depth, effort=QUICK)
    steps = list(fit.steps())
    assert len(steps) == 60 and steps[-1].part == 1
    packed = fit.pack()
    header, decoded = read_image(packed.data, LIMIT)
    assert header.depth == depth and decoded.dtype == samples.dtype
    assert (decoded == packed.samples).all()
    white = (1 << depth) - 1
    assert packed.psnr == pytest.approx(psnr_of(float(np.mean(((decoded - samples.astype(float)) / white) ** 2))))
    assert packed.psnr > psnr_of(float(np.var(samples / white))) or samples.size == 1


def test_more_weight_on_quality_gives_more_of_both() -> None:
    samples = picture(64, 96, 3)
    found = []
    for quality in (20.0, 60.0, 90.0):
        fit = Fit(samples, 8, Target(quality), Effort(steps=250))
        for _ in fit.steps():
            pass
        packed = fit.pack()
        found.append((len(packed.data), packed.psnr))
        assert CODEC_ESTIMATE.allows(packed.estimated, len(packed.data))
    assert found == sorted(found)
    assert found[0][1] > 25 and found[-1][1] > 35


@pytest.mark.parametrize("target", [Target(bits=8 * 900.0), Target(psnr=33.0)])
def test_targets_are_reached(target: Target) -> None:
    fit = Fit(picture(96, 128, 3), 8, target, Effort(steps=800))
    for _ in fit.steps():
        pass
    packed = fit.pack()
    if target.bits is not None:
        assert CODEC_TARGET.allows(8.0 * len(packed.data), target.bits)
    if target.psnr is not None:
        assert CODEC_TARGET.allows(packed.psnr, target.psnr)


def test_the_same_picture_gives_the_same_file() -> None:
    files = []
    for _ in range(2):
        fit = Fit(picture(40, 40, 3), 8, effort=QUICK)
        for _ in fit.steps():
            pass
        files.append(fit.pack().data)
    assert files[0] == files[1]


def save(path: Path, samples: np.ndarray) -> Path:
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(path)
    return path


def test_from_a_file_to_a_file(fieldfit: Program, tmp_path: Path) -> None:
    save(tmp_path / "in.png", picture(40, 60, 3))
    done = fieldfit(tmp_path, "compress", "in.png", "out.ff", "--minutes", "0.02", "--quality", "80")
    assert done.code == 0, done.stderr
    size = (tmp_path / "out.ff").stat().st_size
    assert f"{size:,} bytes" in done.stdout and f"{8 * size / 2400:.4f} bits a pixel" in done.stdout
    done = fieldfit(tmp_path, "info", "out.ff")
    assert done.code == 0, done.stderr
    for words in ("60 x 40", "3 channels", "latents", "weights", "all checksums match"):
        assert words in done.stdout, done.stdout
    _, expected = read_image((tmp_path / "out.ff").read_bytes(), LIMIT)
    for name in ("out.png", "out.bmp", "out.tif", "out.webp", "out.ppm"):
        done = fieldfit(tmp_path, "decompress", "out.ff", name)
        assert done.code == 0, done.stderr
        assert (np.asarray(Image.open(tmp_path / name).convert("RGB")) == expected).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back_as_sixteen(fieldfit: Program, tmp_path: Path, channels: int) -> None:
    from fields.codec.pictures import picture_bytes

    samples = picture(20, 30, channels, np.uint16)
    (tmp_path / "in.png").write_bytes(picture_bytes("in.png", samples))
    read, depth = read_samples(tmp_path / "in.png", LIMIT)
    assert depth == 16 and (read == samples).all()
    assert fieldfit(tmp_path, "compress", "in.png", "out.ff", "--minutes", "0.01").code == 0
    assert fieldfit(tmp_path, "decompress", "out.ff", "out.png").code == 0
    _, expected = read_image((tmp_path / "out.ff").read_bytes(), LIMIT)
    assert (read_samples(tmp_path / "out.png", LIMIT)[0] == expected).all()
    assert_one_line(fieldfit(tmp_path, "decompress", "out.ff", "out.tif"), 1, "written as .png only")


def test_pipes(tmp_path: Path) -> None:
    held = io.BytesIO()
    Image.fromarray(picture(16, 24, 3)).save(held, "PNG")
    kept = {"env": environment(), "cwd": tmp_path, "capture_output": True, "check": True, "timeout": 120}
    packed = subprocess.run(command("compress", "-", "-", "--minutes", "0.01"), input=held.getvalue(), **kept)
    assert b"bits a pixel" in packed.stderr
    _, expected = read_image(packed.stdout, LIMIT)
    again = subprocess.run(command("decompress", "-", "-"), input=packed.stdout, **kept)
    assert (np.asarray(Image.open(io.BytesIO(again.stdout))) == expected).all()


def test_mistakes_are_one_line_and_leave_nothing(fieldfit: Program, tmp_path: Path) -> None:
    save(tmp_path / "in.png", picture(16, 16, 3))
    (tmp_path / "cut.png").write_bytes((tmp_path / "in.png").read_bytes()[:200])
    data = FILES[0].read_bytes()
    (tmp_path / "cut.ff").write_bytes(data[:-9])
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, code, words in (
        (("compress", "no.png", "out.ff"), 1, ("no.png", "no such file")),
        (("compress", "cut.png", "out.ff"), 1, ("cut.png", "truncated")),
        (("compress", "in.png", "no/out.ff"), 1, ("the folder no does not exist",)),
        (("compress", "in.png"), 2, ("OUTPUT is missing",)),
        (("compress", "in.png", "out.ff", "--bpp", "1", "--psnr", "30"), 2, ("--bpp and --psnr", "one of them")),
        (("compress", "in.png", "out.ff", "--quality", "101"), 2, ("--quality", "1 to 100")),
        (("compress", "in.png", "out.ff", "--bpp", "-1"), 2, ("--bpp", "above 0")),
        (("decompress", "in.png", "out.png"), 1, ("in.png", "no file of `fieldfit compress`")),
        (("decompress", "cut.ff", "out.png"), 1, ("cut.ff", "cut off")),
        (("decompress", "cut.ff", "out.gif"), 1, ("out.gif", ".png")),
        (("info", "cut.ff"), 1, ("cut.ff", "cut off")),
    ):
        assert_one_line(fieldfit(tmp_path, *arguments), code, *words)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_size_that_cannot_be_reached_is_told(fieldfit: Program, tmp_path: Path) -> None:
    save(tmp_path / "in.png", picture(40, 40, 3))
    done = fieldfit(tmp_path, "compress", "in.png", "out.ff", "--bytes", "20", "--minutes", "0.02")
    assert done.code == 0 and "off the size that was asked for" in done.stderr
    assert (tmp_path / "out.ff").exists()


def test_float_pictures_are_refused_with_a_way_out(fieldfit: Program, tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "in.tif")
    assert_one_line(fieldfit(tmp_path, "compress", "in.tif", "out.ff"), 1, "floating-point", "fieldfit fit")


def test_a_file_without_latents_is_of_what_the_networks_make_of_nothing() -> None:
    data = FILES[0].read_bytes()
    header, samples = read_image(data, LIMIT)
    parts = unpack(data)
    latents = np.zeros(header.shape.n_latents, np.int32)
    written, made = write_image(replace(header, most=(0,) * LEVELS), parts.sections["W"], latents)
    assert unpack(written).sections["L"] == b""
    assert (read_image(written, LIMIT)[1] == made).all()
    assert made.shape == samples.shape
