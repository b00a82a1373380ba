"""`fieldfit bench-codec`: what is measured is measured, and BD-rates mean what they say."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_films
import tiny_pictures
from PIL import Image
from program import Program, assert_one_line
from tolerances import VALUES

from fields.codec.film_rivals import ENCODERS, film_codecs, film_points
from fields.codec.rivals import QUALITIES, Point, codecs, points
from fields.codec.shape import CodecShape
from fields.commands.bench_codec import macs_per_pixel
from viewer import rates


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


def curve(codec: str, factor: float, name: str = "a") -> list[Point]:
    """A codec of 6 dB a bit, whose files are `factor` times as large."""
    return [Point(name, codec, b, int(100 * b), factor * b, 24 + 6 * b, 1.0, 0.1) for b in (0.5, 1.0, 2.0, 3.0, 4.0)]


def test_bd_rate_is_what_is_needed_more() -> None:
    for factor in (0.5, 1.0, 1.3):
        found = rates.bd_rate(curve("jpeg", 1.0), curve("fieldfit", factor))
        assert found is not None and VALUES.allows(found / 100, factor - 1)
    far = [replace(p, psnr=p.psnr + 90) for p in curve("fieldfit", 1.0)]
    assert rates.bd_rate(curve("jpeg", 1.0), far) is None


def test_rates_are_means_over_pictures_that_overlap() -> None:
    measured = [*curve("jpeg", 1.0, "a"), *curve("jpeg", 1.0, "b"), *curve("fieldfit", 0.5, "a")]
    measured += [replace(p, psnr=p.psnr + 90) for p in curve("fieldfit", 1.0, "b")]
    against = rates.rates_against(measured)["jpeg"]
    assert against["b"] is None and against["a"] is not None and VALUES.allows(against["a"] / 100, -0.5)
    assert "jpeg:     -50.0 % (mean of 1 picture)" in rates.summary(measured)
    assert "(mean of 1 film)" in rates.summary(measured, "film")
    assert Image.open(io.BytesIO(rates.plot(measured))).size[0] > 500


@pytest.mark.parametrize("codec", codecs())
def test_others_are_measured_by_their_bytes(codec: str) -> None:
    picture = tiny_pictures.waves(64, 80, 3, np.uint8)
    found = list(points("waves", codec, picture))
    assert [p.quality for p in found] == list(QUALITIES[codec])
    for p in found:
        assert VALUES.allows(p.bpp, 8 * p.bytes / (64 * 80))
    assert found[-1].bytes > found[0].bytes and found[-1].psnr > found[0].psnr
    if codec == "jpeg":
        held = io.BytesIO()
        Image.fromarray(picture).save(held, "JPEG", quality=50, optimize=True)
        assert found[4].bytes == len(held.getvalue())


def test_decoding_takes_as_many_multiplications_as_promised() -> None:
    assert macs_per_pixel(CodecShape(512, 768, 3)) <= 1500


def test_a_folder_becomes_a_report(fieldfit: Program, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("one", (40, 60)), ("two", (48, 32))):
        Image.fromarray(tiny_pictures.waves(*size, 3, np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "grey.png")
    (folder / "notes.txt").write_text("not a picture")
    call = ("bench-codec", "pictures", "--out", "report", "--minutes", "0.01", "--qualities", "20", "60", "90")
    done = fieldfit(tmp_path, *call)
    assert done.code == 0, done.stderr
    assert "BD-rate of fieldfit against jpeg" in done.stdout
    found = json.loads((tmp_path / "report" / "points.json").read_text())["points"]
    assert {p["picture"] for p in found} == {"one", "two"}
    assert {p["codec"] for p in found} == {"fieldfit", *codecs()}
    page = (tmp_path / "report" / "report.html").read_text()
    assert "data:image/png;base64," in page and "<td>mean</td>" in page and "http" not in page
    again = fieldfit(tmp_path, *call)
    assert again.code == 0 and "bits a pixel" not in again.stderr  # nothing was measured again
    assert_one_line(fieldfit(tmp_path, *call[:5], "0.02"), 1, "another --minutes")
    assert_one_line(fieldfit(tmp_path, "bench-codec", "nowhere"), 1, "nowhere", "no such folder")
    (tmp_path / "empty").mkdir()
    assert_one_line(fieldfit(tmp_path, "bench-codec", "empty"), 1, "holds no picture")
    assert_one_line(fieldfit(tmp_path, "bench-codec", "pictures", "--qualities", "0"), 2, "from 1 to 100")


def policies() -> set[int]:
    """How this process's threads are scheduled."""
    return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}


@pytest.mark.skipif(sys.platform != "linux", reason="what is run as root is given no other priority on this system")
@pytest.mark.parametrize("codec", film_codecs())
def test_encoders_leave_the_priority_of_threads_alone(codec: str) -> None:
    """SVT-AV1, run by root, makes real-time threads of the one that calls it and of what that starts later."""
    before = policies()
    for _ in zip(range(2), film_points("film", codec, tiny_films.moving(4, 64, 80), tiny_films.RATE), strict=False):
        assert policies() == before


@pytest.mark.parametrize("codec", film_codecs())
def test_other_films_are_measured_by_their_bytes(codec: str) -> None:
    frames = tiny_films.moving(10, 64, 80)
    found = list(film_points("film", codec, frames, tiny_films.RATE))
    assert [p.quality for p in found] == list(ENCODERS[codec].factors)
    assert found[0].psnr > 30 and found[0].bytes > found[-1].bytes
    assert found[0].psnr > found[-1].psnr
    for p in found:
        assert p.bpp == pytest.approx(8 * p.bytes / (10 * 64 * 80))
        assert p.encode_seconds > 0 and p.decode_seconds > 0


def test_a_folder_of_films_becomes_a_report(fieldfit: Program, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    tiny_films.save_film(tmp_path / "films" / "one.mkv", tiny_films.moving(9, 64, 80), sound=True)
    call = ("bench-codec", "films", "--out", "report", "--minutes", "0.02", "--frames", "1", "6", "--qualities", "40")
    done = fieldfit(tmp_path, *call)
    assert done.code == 0, done.stderr
    assert "files of 1 film\n" in done.stdout
    found = json.loads((tmp_path / "report" / "points.json").read_text())["points"]
    assert {p["codec"] for p in found} == {"fieldfit", *film_codecs()}
    assert "x264" in film_codecs() and "<td>one</td>" in (tmp_path / "report" / "report.html").read_text()
    assert_one_line(fieldfit(tmp_path, *call, "--downscale", "2"), 1, "another --downscale")
