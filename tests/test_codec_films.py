"""Compressed films: what comes back, group by group; what is refused; that old files decode for ever."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_films
from damage import cut_or_flipped, repaired
from PIL import Image
from program import Program, assert_one_line, command, environment
from tiny_films import LIMIT, read
from tolerances import CODEC_ESTIMATE

from fields.codec.bitstream import BitstreamError, Container, pack, unpack
from fields.codec.clips import read_clip
from fields.codec.film import FilmFit
from fields.codec.film_file import (
    GROUP,
    STRIDE,
    FilmHeader,
    Predicted,
    coding_order,
    decoded_frames,
    digest,
    open_film,
    read_group,
)
from fields.codec.fitting import Effort, Fit, Target, psnr_of
from fields.kernels.native import available
from scenes.film import read_film
from scenes.scene import LoadOptions
from viewer.video import write_video

GOLDEN = Path(__file__).with_name("golden") / "films"
FILES = sorted(GOLDEN.glob("*.ff"))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


def fitted(frames: np.ndarray, target: Target | None = None, steps: int = 40) -> FilmFit:
    fit = FilmFit(frames, tiny_films.RATE, target or Target(50.0), Effort(steps=steps))
    return tiny_films.followed(fit)


def refused(data: bytes) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(BitstreamError) as caught:
        read(data)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 10, 17, 24, 128])
def test_every_frame_is_predicted_once_from_frames_that_are_there(n: int) -> None:
    there = {0}
    for of in coding_order(n):
        assert of.first in there
        assert of.second is None or of.second in there
        assert of.index not in there
        there.add(of.index)
    assert there == set(range(n))


def test_the_order_of_a_group() -> None:
    order = coding_order(STRIDE + 3)
    assert order[0] == Predicted(8, 0, None, 1)
    assert order[1] == Predicted(4, 0, 8, 2)
    assert order[2:4] == [Predicted(2, 0, 4, 3), Predicted(1, 0, 2, 4)]
    assert order[-2:] == [Predicted(10, 8, 0, 1), Predicted(9, 8, 10, 2)]


def test_a_film_comes_back_and_is_smaller_than_its_pictures() -> None:
    frames = tiny_films.moving(12, 48, 64)
    fit = fitted(frames, steps=100)
    packed = fit.pack()
    decoded = read(packed.data)
    assert (decoded == fit.groups[0].decoded).all()
    errors = ((decoded / 255.0 - frames / 255.0) ** 2).mean((1, 2, 3))
    assert packed.psnr == pytest.approx(np.mean([psnr_of(float(e)) for e in errors]))
    assert packed.psnr > 30
    assert CODEC_ESTIMATE.allows(packed.estimated, len(packed.data))
    pictures = Fit(frames[5], 8, Target(psnr=packed.psnr), Effort(steps=300))
    for _ in pictures.steps():
        pass
    assert len(packed.data) < 0.5 * len(frames) * len(pictures.pack().data)


def test_groups_are_decoded_by_themselves() -> None:
    frames = tiny_films.moving(GROUP + 4, 10, 12)
    packed = fitted(frames, steps=10).pack()
    header, container = open_film(packed.data, LIMIT)
    assert header.n_groups() == 2
    whole = read(packed.data)
    broken = Container(container.header, {}, (b"?" * 40, container.groups[1]))
    last = np.stack(list(decoded_frames(header, broken, GROUP, GROUP + 4)))
    assert (last == whole[GROUP:]).all()
    both = np.stack(list(decoded_frames(header, container, GROUP - 2, GROUP + 1)))
    assert (both == whole[GROUP - 2 : GROUP + 1]).all()
    with pytest.raises(BitstreamError):
        list(decoded_frames(header, broken, 0, 1))


def test_the_same_film_gives_the_same_file_and_more_quality_a_larger_one() -> None:
    frames = tiny_films.moving(5, 24, 32)
    files = [fitted(frames, Target(q)).pack() for q in (30.0, 30.0, 80.0)]
    assert files[0].data == files[1].data
    assert len(files[2].data) > len(files[0].data)
    assert files[2].psnr > files[0].psnr


@pytest.mark.parametrize("target", [Target(bits=8 * 1200.0), Target(psnr=32.0)])
def test_targets_are_approached(target: Target) -> None:
    frames = tiny_films.moving(10, 48, 64)
    packed = fitted(frames, target, steps=120).pack()
    if target.bits is not None:
        assert 0.75 < 8 * len(packed.data) / target.bits < 1.3
    if target.psnr is not None:
        assert abs(packed.psnr - target.psnr) < 1.5


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_golden_films_decode_for_ever(file: Path) -> None:
    expected = json.loads((GOLDEN / "samples.json").read_text())[file.stem]
    frames = read(file.read_bytes())
    assert [*frames.shape, digest(frames).hex()] == expected


def test_golden_films_are_there() -> None:
    assert {file.stem for file in FILES} == set(tiny_films.GOLDEN)
    assert unpack((GOLDEN / "film.ff").read_bytes()).sections == {"A": b"carried over as it is"}


@pytest.mark.usefixtures("as_shipped")
def test_every_truncation_and_every_flipped_bit_is_noticed() -> None:
    for file in FILES:
        for damaged in cut_or_flipped(file.read_bytes()):
            refused(damaged)


@pytest.mark.usefixtures("as_shipped")
def test_damage_under_valid_checksums_is_noticed_too() -> None:
    """What is not refused decodes to the same samples."""
    n_refused, expected = 0, [read(file.read_bytes()) for file in FILES]
    for which, damaged in repaired([file.read_bytes() for file in FILES], 800, seed=2):
        try:
            assert np.array_equal(read(damaged), expected[which])
        except BitstreamError:
            n_refused += 1
    assert n_refused > 650


def test_what_else_is_refused() -> None:
    data = (GOLDEN / "film.ff").read_bytes()
    header, parts = open_film(data, LIMIT)
    assert "section X" in refused(pack(Container(parts.header, {"X": b""}, parts.groups)))
    assert "is cut off: 1 groups of frames are expected, and 0" in refused(pack(Container(parts.header, {}, ())))
    assert "checksum does not match" in refused(pack(Container(parts.header, {}, (bytes(32) + parts.groups[0][32:],))))
    assert "followed by something else" in refused(pack(Container(parts.header, {}, (parts.groups[0] + b"\0",))))
    wide = FilmHeader(60000, 60000, header.frames, header.rate).to_bytes()
    assert "--max-pixels" in refused(pack(Container(wide, {}, parts.groups)))
    long = FilmHeader(header.width, header.height, GROUP, header.rate).to_bytes()
    assert "which no film has" in refused(pack(Container(long, {}, (parts.groups[0][:200],))))
    large = FilmHeader(60000, 60000, GROUP, header.rate)
    with pytest.raises(BitstreamError, match="GB of memory"):
        read_group(large, Container(large.to_bytes(), {}, (bytes(100_000),)), 0)


@pytest.mark.parametrize("isa", available())
@pytest.mark.parametrize("threads", [1, 3])
def test_every_instruction_set_and_number_of_threads_decodes_the_same(isa: str, threads: int) -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import test_codec_films as t; "
        "[print(t.digest(t.read(f.read_bytes())).hex()) for f in t.FILES]"
    )
    forced = {"FIELDFIT_ISA": isa, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", code], env=forced, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads((GOLDEN / "samples.json").read_text())
    assert done.stdout.split()[-len(FILES) :] == [told[file.stem][-1] for file in FILES]


def packets(path: Path) -> bytes:
    import av

    with av.open(str(path)) as container:
        return b"".join(bytes(p) for p in container.demux(container.streams.audio[0]))


def test_from_a_film_with_sound_to_films(fieldfit: Program, tmp_path: Path) -> None:
    frames = tiny_films.moving(11, 20, 30)
    tiny_films.save_film(tmp_path / "in.mkv", frames, sound=True)
    done = fieldfit(tmp_path, "compress", "in.mkv", "out.ff", "--minutes", "0.03")
    assert done.code == 0, done.stderr
    size = (tmp_path / "out.ff").stat().st_size
    assert f"{size:,} bytes" in done.stdout and "11 frames" in done.stdout
    done = fieldfit(tmp_path, "info", "out.ff")
    assert done.code == 0, done.stderr
    for words in ("compressed film", "30 x 20, 11 frames, 25 a second", "sound", "all checksums match"):
        assert words in done.stdout, done.stdout
    expected = read((tmp_path / "out.ff").read_bytes())
    for name in ("out.mkv", "out.mp4"):
        done = fieldfit(tmp_path, "decompress", "out.ff", name)
        assert done.code == 0, done.stderr
        film = read_film(tmp_path / name, LoadOptions())
        assert film.frames.shape == expected.shape and round(film.fps) == 25
        exact = bool((film.frames == expected).all())
        assert exact == (name == "out.mkv")
        assert psnr_of(float(((film.frames / 255.0 - expected / 255.0) ** 2).mean())) > 25
        assert packets(tmp_path / name) == packets(tmp_path / "in.mkv")
    done = fieldfit(tmp_path, "decompress", "out.ff", "frames", "--frames", "4", "7")
    assert done.code == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    assert (np.asarray(Image.open(tmp_path / "frames" / "00001.png")) == expected[5]).all()


def test_some_frames_and_their_sound(fieldfit: Program, tmp_path: Path) -> None:
    tiny_films.save_film(tmp_path / "in.mkv", tiny_films.moving(20, 9, 14), sound=True)
    done = fieldfit(tmp_path, "compress", "in.mkv", "out.ff", "--minutes", "0.02", "--frames", "5", "10")
    assert done.code == 0 and "5 frames" in done.stdout, done
    assert fieldfit(tmp_path, "decompress", "out.ff", "out.mkv").code == 0
    whole, part = packets(tmp_path / "in.mkv"), packets(tmp_path / "out.mkv")
    assert part in whole
    assert 0.15 < len(part) / len(whole) < 0.35


def test_sound_before_the_first_frame_is_left_out(tmp_path: Path) -> None:
    for late in (0, 10):
        tiny_films.save_film(tmp_path / f"{late}.mkv", tiny_films.moving(10, 9, 14), sound=True, late=late)
    sounds = []
    for late in (0, 10):
        frames, rate, sound = read_clip(tmp_path / f"{late}.mkv", LoadOptions())
        assert (len(frames), rate) == (10, tiny_films.RATE) and sound is not None
        (tmp_path / "sound.mkv").write_bytes(sound)
        sounds.append(packets(tmp_path / "sound.mkv"))
    whole = packets(tmp_path / "10.mkv")
    assert sounds[0] == packets(tmp_path / "0.mkv")
    assert sounds[1] == whole[len(whole) // 2 :]


def test_a_film_from_the_pipe(tmp_path: Path) -> None:
    kept = {"env": environment(), "cwd": tmp_path, "capture_output": True, "check": True, "timeout": 120}
    for name in ("in.mkv", "in.avi", "in.mp4"):
        if name.endswith("mp4"):
            write_video(tmp_path / name, tiny_films.moving(4, 16, 24), 25.0)
        else:
            tiny_films.save_film(tmp_path / name, tiny_films.moving(4, 16, 24), sound=False)
        data = (tmp_path / name).read_bytes()
        subprocess.run(command("compress", "-", "out.ff", "--minutes", "0.01"), input=data, **kept)
        assert read((tmp_path / "out.ff").read_bytes()).shape == (4, 16, 24, 3)


def test_what_is_wrong_with_a_pipe_is_said_of_the_pipe(tmp_path: Path) -> None:
    tiny_films.save_film(tmp_path / "in.mkv", tiny_films.moving(2, 8, 8), sound=False)
    Image.fromarray(tiny_films.moving(1, 40, 40)[0]).save(tmp_path / "in.png")
    for name in ("in.mkv", "in.png"):
        data = (tmp_path / name).read_bytes()[:100]
        line = command("compress", "-", "out.ff")
        done = subprocess.run(line, input=data, cwd=tmp_path, env=environment(), capture_output=True, timeout=120)
        assert done.returncode == 1 and done.stderr.startswith(b"fieldfit: the pipe: "), done
        assert done.stderr.count(b"\n") == 1 and not (tmp_path / "out.ff").exists()


def test_a_film_into_the_pipe(tmp_path: Path) -> None:
    data = (GOLDEN / "single-frame.ff").read_bytes()
    kept = {"env": environment(), "cwd": tmp_path, "capture_output": True, "check": True, "timeout": 120}
    done = subprocess.run(command("decompress", "-", "-"), input=data, **kept)
    (tmp_path / "out.mkv").write_bytes(done.stdout)
    assert (read_film(tmp_path / "out.mkv", LoadOptions()).frames == read(data)).all()


def test_mistakes_are_one_line_and_leave_nothing(fieldfit: Program, tmp_path: Path) -> None:
    tiny_films.save_film(tmp_path / "in.mkv", tiny_films.moving(3, 8, 8), sound=False)
    Image.fromarray(tiny_films.moving(1, 8, 8)[0]).save(tmp_path / "in.png")
    (tmp_path / "cut.mkv").write_bytes((tmp_path / "in.mkv").read_bytes()[:100])
    data = (GOLDEN / "film.ff").read_bytes()
    (tmp_path / "film.ff").write_bytes(data)
    (tmp_path / "cut.ff").write_bytes(data[:-3])
    parts = unpack(data)
    (tmp_path / "other.ff").write_bytes(pack(Container(parts.header, {}, (bytes(32) + parts.groups[0][32:],))))
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, code, words in (
        (("compress", "no.mp4", "out.ff"), 1, ("no.mp4", "no such file")),
        (("compress", "cut.mkv", "out.ff"), 1, ("cut.mkv",)),
        (("compress", "in.mkv", "out.ff", "--frames", "3", "3"), 1, ("--frames 3 3", "names no frame")),
        (("compress", "in.png", "out.ff", "--frames", "0", "1"), 2, ("--frames", "is none by its name")),
        (("decompress", "film.ff", "out.png"), 1, ("out.png", ".mkv, .mp4")),
        (("decompress", "film.ff", "out.mkv", "--frames", "4", "99"), 2, ("--frames", "from 0 to 20")),
        (("decompress", "cut.ff", "out.mkv"), 1, ("cut.ff", "cut off")),
        (("decompress", "other.ff", "out.mkv"), 1, ("fieldfit: other.ff: decodes to other samples",)),
        (("info", "cut.ff"), 1, ("cut.ff", "cut off")),
    ):
        assert_one_line(fieldfit(tmp_path, *arguments), code, *words)
    assert {path.name for path in tmp_path.iterdir()} == before
