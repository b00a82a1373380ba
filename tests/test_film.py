"""Video files: which frames they hold, in which colours and when, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tiny_clips import disc, write_lossless, write_planes
from tolerances import DECODED, EXACT, VALUES

import scenes
from scenes import InputError, InputWarning, LoadOptions
from scenes.video import Video

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = disc()


def load(path: Path, options: LoadOptions | None = None) -> Video:
    scene = scenes.load(path, options=options)
    assert isinstance(scene, Video)
    return scene


@pytest.mark.parametrize(("height", "width"), [(24, 32), (17, 33), (2, 2)])
@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov"])
def test_lossless_frames_come_back_exactly(tmp_path: Path, name: str, height: int, width: int):
    truth = disc(7, height, width)
    video = load(write_lossless(tmp_path / name, truth))
    assert np.array_equal(video.frames.numpy(), truth)
    assert video.kind == "video"
    assert video.box.hi == (width, height, 7)
    EXACT.check(video.times, torch.arange(7) + 0.5)
    described = json.loads(json.dumps(video.describe()))
    assert described["size"] == [width, height]
    assert (described["frames"], described["channels"], described["evenly_spaced"]) == (7, 3, True)
    assert VALUES.allows(described["fps"], 25.0)
    assert isinstance(video, scenes.Scene)


def test_x264_in_mp4_with_frames_out_of_order(tmp_path: Path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=Fraction(30000, 1001), options={"qp": "0", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        for frame in CLIP:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    video = load(tmp_path / "a.mp4")
    assert np.array_equal(video.frames.numpy(), CLIP)
    assert VALUES.allows(video.fps, 30000 / 1001)


def decode(planes: list[np.ndarray], luma: tuple[float, float], full: bool, depth: int) -> np.ndarray:
    """RGB in [0, 1] of Y'CbCr as ITU-T H.273 has it, equations 38 to 43 of `luma` = (K_R, K_B), in float64."""
    scale = 2.0 ** (depth - 8)
    y, u, v = [plane.astype(np.float64) for plane in planes]
    if full:
        y, u, v = [value / (2**depth - 1) for value in (y, u - 128 * scale, v - 128 * scale)]
    else:
        y, u, v = (y / scale - 16) / 219, (u / scale - 128) / 224, (v / scale - 128) / 224
    kr, kb = luma
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.stack((red, (y - kr * red - kb * blue) / (1 - kr - kb), blue), -1).clip(0, 1)


BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
COLOURS = [  # format, matrix, range, width, what it means
    ("yuv444p", 1, 1, 64, BT709),
    ("yuv444p", 1, 2, 64, BT709),
    ("yuv444p", 5, 1, 64, BT601),
    ("yuv444p", 6, 2, 64, BT601),
    ("yuv444p", 9, 1, 64, BT2020),
    ("yuv444p", 7, 1, 64, (0.212, 0.087)),
    ("yuv444p", 4, 1, 64, (0.30, 0.11)),
    ("yuv444p10le", 9, 1, 64, BT2020),
    ("yuv444p", 2, 0, 64, BT601),
    ("yuv444p", 2, 0, 1280, BT709),
]


@pytest.mark.parametrize(("form", "matrix", "span", "width", "luma"), COLOURS)
def test_colours_are_those_of_the_streams_matrix_and_range(
    tmp_path: Path, form: str, matrix: int, span: int, width: int, luma: tuple[float, float]
):
    rng = np.random.default_rng(0)
    depth = 10 if "10" in form else 8
    base = [rng.integers(0, 256, (4, width)), *rng.integers(100, 156, (2, 4, width))]
    planes = [(plane * 2 ** (depth - 8)).astype(np.uint16 if depth > 8 else np.uint8) for plane in base]
    video = load(write_planes(tmp_path / "a.mkv", planes, form, matrix, span))
    seen = torch.from_numpy(video.frames[0].numpy() / 255)
    DECODED.check(seen, torch.from_numpy(decode(planes, luma, span == 2, depth)))


def test_halved_chroma_and_grey(tmp_path: Path):
    flat = [np.full(shape, value, np.uint8) for shape, value in (((6, 8), 120), ((3, 4), 90), ((3, 4), 200))]
    video = load(write_planes(tmp_path / "a.mkv", flat, "yuv420p", 1, 1))
    truth = decode([np.array([[120.0]]), np.array([[90.0]]), np.array([[200.0]])], BT709, False, 8)
    DECODED.check(video.frames[0] / 255, torch.from_numpy(np.broadcast_to(truth, (6, 8, 3)).copy()))
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    video = load(write_planes(tmp_path / "b.mkv", [grey], "gray", 2, 2))
    assert np.array_equal(video.frames[0].numpy(), np.repeat(grey[..., None], 3, -1))


def test_uneven_times_are_in_proportion(tmp_path: Path):
    pts = [0, 40, 120, 160, 400]
    video = load(write_lossless(tmp_path / "a.mkv", CLIP[:5], pts))
    VALUES.check(video.times, torch.tensor(pts) / 100 + 0.5)  # the mean gap is 100 ms
    assert VALUES.allows(video.fps, 10.0)
    assert video.describe()["evenly_spaced"] is False


def test_rounded_times_are_even(tmp_path: Path):
    """Matroska counts milliseconds: 33, 34, 33 for 30 frames a second."""
    video = load(write_lossless(tmp_path / "a.mkv", CLIP, fps=30))
    EXACT.check(video.times, torch.arange(12) + 0.5)


def test_times_that_do_not_rise_are_said_and_taken_as_even(tmp_path: Path):
    path = write_lossless(tmp_path / "a.mkv", CLIP[:4], [0, 40, 40, 80])
    with pytest.warns(InputWarning, match="evenly spaced"):
        EXACT.check(load(path).times, torch.arange(4) + 0.5)


def test_gif_with_transparency_over_the_background(tmp_path: Path):
    frames = [Pillow.new("RGBA", (5, 4), (200, 40 * i, 10, 255)) for i in range(3)]
    for i, frame in enumerate(frames):
        frame.putpixel((i, 1), (0, 0, 0, 0))
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50, disposal=2)
    for options, level in ((LoadOptions(background="white"), 255), (LoadOptions(background="black"), 0)):
        video = load(tmp_path / "a.gif", options)
        truth = np.stack([np.asarray(frame)[..., :3] for frame in frames])
        for i in range(3):
            truth[i, 1, i] = level
        assert np.array_equal(video.frames.numpy(), truth)
    assert VALUES.allows(video.fps, 20.0)


TURNS = {  # (a, b, c, d) of the display matrix, (x, y) to (a x + c y, b x + d y), and what that does
    (1, 0, 0, 1): lambda f: f,
    (-1, 0, 0, 1): lambda f: f[:, ::-1],
    (1, 0, 0, -1): lambda f: f[::-1],
    (-1, 0, 0, -1): lambda f: f[::-1, ::-1],
    (0, 1, -1, 0): lambda f: np.rot90(f, -1),  # x to down, y to left: clockwise
    (0, -1, 1, 0): lambda f: np.rot90(f, 1),
    (0, 1, 1, 0): lambda f: f.swapaxes(0, 1),
    (0, -1, -1, 0): lambda f: f[::-1, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_turned_as_the_display_matrix_says(tmp_path: Path, turn: tuple[int, int, int, int]):
    data = bytearray(write_lossless(tmp_path / "a.mov", CLIP[:2]).read_bytes())
    identity = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    a, b, c, d = turn
    turned = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + 36] = turned
    (tmp_path / "b.mov").write_bytes(data)
    video = load(tmp_path / "b.mov")
    assert np.array_equal(video.frames.numpy(), np.stack([TURNS[turn](frame) for frame in CLIP[:2]]))


def test_shrinking_averages_over_squares(tmp_path: Path):
    path = write_lossless(tmp_path / "a.mkv", CLIP)
    small = load(path, LoadOptions(downscale=5))
    whole = CLIP[:, :20, :30].reshape(12, 4, 5, 6, 5, 3).mean((2, 4))
    DECODED.check(small.frames / 255, torch.from_numpy(whole / 255))
    with pytest.raises(InputError, match="too small to be shrunk 25 times"):
        load(path, LoadOptions(downscale=25))
    with pytest.raises(InputError, match="--downscale is 0"):
        load(path, LoadOptions(downscale=0))


def test_some_of_the_frames(tmp_path: Path):
    path = write_lossless(tmp_path / "a.mkv", CLIP)
    part = load(path, LoadOptions(frames=(3, 8)))
    assert np.array_equal(part.frames.numpy(), CLIP[3:8])
    EXACT.check(part.times, torch.arange(5) + 0.5)
    assert len(load(path, LoadOptions(frames=(10, 99))).frames) == 2
    for frames, said in (((12, 20), "no frames from number 12 on"), ((4, 4), "names no frame"), ((-1, 4), "no frame")):
        with pytest.raises(InputError, match=said):
            load(path, LoadOptions(frames=frames))


def test_what_is_too_large_is_refused_before_it_is_decoded(tmp_path: Path):
    path = write_lossless(tmp_path / "a.mkv", CLIP)
    with pytest.raises(InputError, match=r"12 frames of 32 x 24 need 0\.00 GB .*--downscale"):
        load(path, LoadOptions(max_ram_gb=1e-5))
    with pytest.raises(InputError, match=r"32 x 24 is more than 700 pixels; raise --max-pixels"):
        load(path, LoadOptions(max_pixels=700))
    assert len(load(path, LoadOptions(max_ram_gb=12 * 24 * 32 * 3 / 1e9)).frames) == 12


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_files_without_a_usable_film(tmp_path: Path):
    whole = write_lossless(tmp_path / "a.mov", CLIP).read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at the end
    (tmp_path / "c.mp4").write_bytes(bytes(1000))
    (tmp_path / "d.mp4").write_bytes(b"")
    (tmp_path / "e.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mov\n#EXT-X-ENDLIST\n")
    (tmp_path / "f.mp4").write_text("ffconcat version 1.0\nfile a.mov\n")
    for name in "bcdef":
        with pytest.raises(InputError, match=rf"{name}\.mp4: cannot be read as a video \(.*\); copy or download"):
            load(tmp_path / f"{name}.mp4")
    write_sound(tmp_path / "g.mkv")
    with pytest.raises(InputError, match=r"g\.mkv: holds no video, only sound"):
        load(tmp_path / "g.mkv")
    with av.open(str(tmp_path / "h.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
        container.start_encoding()
    with pytest.raises(InputError, match=r"h\.avi: (holds no frames|cannot be read|holds no video)"):
        load(tmp_path / "h.avi")


def test_damage_inside_is_said(tmp_path: Path):
    data = bytearray(write_lossless(tmp_path / "a.mov", disc(12, 96, 128)).read_bytes())
    start = data.index(b"mdat") + 8
    middle = (start + data.index(b"moov")) // 2
    data[middle : middle + 6000] = bytes(6000)
    (tmp_path / "b.mov").write_bytes(data)
    with pytest.raises(InputError, match=r"b\.mov: is damaged after \d+ frames"):
        load(tmp_path / "b.mov")


def test_frames_of_several_sizes(tmp_path: Path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
        for k, width in enumerate((32, 32, 16)):  # each picture of MJPEG has a header of its own
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, 24, "yuvj420p"
            encoder.time_base = Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(CLIP[k, :, :width]), format="rgb24")
            for packet in [*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode(None)]:
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 25)
                container.mux(packet)
    with pytest.raises(InputError, match=r"a\.avi: frame 2 is 16 x 24, which those before are not"):
        load(tmp_path / "a.avi")
    assert len(load(tmp_path / "a.avi", LoadOptions(frames=(0, 2))).frames) == 2
