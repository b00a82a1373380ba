"""Films that are read again by the same library's decoder, and folders of frames."""

from __future__ import annotations

import resource
import signal
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from tolerances import FILM

from scenes import InputError
from viewer.video import read_video, write_frames, write_video

COLOURS = np.array([[200, 30, 40], [20, 180, 60], [30, 60, 220], [128, 128, 128]], np.uint8)


def frames(n, height=96, width=160):
    """Four broad columns of colour that grow brighter downward and from frame to frame."""
    columns = COLOURS[np.arange(width) * 4 // width].astype(int)
    for i in range(n):
        yield np.clip(columns[None] + np.linspace(0, 20, height)[:, None, None] + 4 * i, 0, 255).astype(np.uint8)


def test_colours_order_and_size_come_back(tmp_path):
    assert write_video(tmp_path / "film.mp4", frames(12), fps=25.0) == 12
    back, truth = list(read_video(tmp_path / "film.mp4")), list(frames(12))
    assert len(back) == 12
    for a, b in zip(back, truth, strict=True):
        inner = [8, 60, 100, 140]  # away from the borders of the columns, where chroma is shared
        assert np.abs(a[:, inner].astype(int) - b[:, inner]).max() <= 255 * FILM.atol


@pytest.mark.parametrize(("height", "width"), [(95, 161), (96, 161), (95, 160), (17, 33)])
def test_odd_sizes_repeat_their_last_row_and_column(tmp_path, height, width):
    write_video(tmp_path / "film.mp4", frames(3, height, width))
    back = next(read_video(tmp_path / "film.mp4"))
    assert back.shape == (height + height % 2, width + width % 2, 3)
    truth = next(frames(1, height, width))
    assert np.abs(back[-1, -1].astype(int) - truth[-1, -1]).max() <= 255 * FILM.atol


def test_players_find_what_they_expect(tmp_path):
    write_video(tmp_path / "film.mp4", frames(3), fps=30000 / 1001)
    with av.open(str(tmp_path / "film.mp4")) as film:
        video = film.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.average_rate == Fraction(30000, 1001)
        assert (video.codec_context.colorspace, video.codec_context.color_range) == (1, 1)
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # starts before all of it is there


def test_one_frame(tmp_path):
    assert write_video(tmp_path / "film.mp4", frames(1)) == 1
    assert len(list(read_video(tmp_path / "film.mp4"))) == 1


def test_a_folder_gets_pictures(tmp_path):
    assert write_frames(tmp_path / "out", frames(3)) == 3
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    for name, truth in zip(names, frames(3), strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), truth)


def test_the_ending_chooses(tmp_path):
    assert write_frames(tmp_path / "a.mp4", frames(2)) == 2
    assert len(list(read_video(tmp_path / "a.mp4"))) == 2


@pytest.mark.parametrize(("name", "said"), [("a.avi", ".mp4"), ("no/a.mp4", "does not exist"), ("file", "is a file")])
def test_a_path_that_cannot_be_written_is_refused_before_any_frame(tmp_path, name, said):
    def never():
        raise AssertionError
        yield

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=said):
        write_frames(tmp_path / name, never())


@pytest.mark.parametrize("name", ["a.mp4", "folder"])
def test_an_interrupted_film_leaves_no_half_file(tmp_path, name):
    def interrupted():
        yield from frames(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frames(tmp_path / name, interrupted())
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == (
        [] if name == "a.mp4" else ["00000.png", "00001.png"]
    )


def test_an_interrupted_film_leaves_the_old_one(tmp_path):
    write_video(tmp_path / "a.mp4", frames(2))
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ValueError, match="one size"):
        write_video(tmp_path / "a.mp4", [next(frames(1)), next(frames(1, 50, 50))])
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_no_frames(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (128, 128, 3), dtype=np.uint8) for _ in range(8)]
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(InputError, match=r"a\.mp4: the film cannot be written"):
            write_video(tmp_path / "a.mp4", noise)
        with pytest.raises(InputError, match=r"00000\.png: the picture cannot be written"):
            write_frames(tmp_path / "out", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_is_no_film(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a film")
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read"):
        list(read_video(tmp_path / "a.mp4"))
