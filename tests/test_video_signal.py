"""Videos as scenes: where samples lie, how a fit is judged, and what the program makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from program import Program, assert_one_line
from tiny_clips import disc, write_lossless
from tolerances import EIGHT_BIT, EXACT, METRICS, MONTE_CARLO, VALUES

import scenes
from fields.encodings import Hash
from fields.field import Field, SignalFieldConfig, build, initialise
from fields.fitting import FitConfig, fit
from fields.networks import MLP
from fields.playback import playback
from fields.presets import preset
from fields.rendering.render import predictor
from scenes import LoadOptions
from scenes.film import read_film
from scenes.metrics import PSNR_CEILING
from scenes.video import Video
from viewer import contact_sheet, read_video
from viewer.sheets import spread

pytestmark = pytest.mark.usefixtures("one_thread")

CLIP = disc()
SMALL = ("--steps", "60", "--fit.batch", "2048", "--field.encoding.log2-table-size", "12")


# The scene ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7, 20), (40, 3, 4), (1, 1, 1)])
def test_samples_are_pixels_where_they_belong(shape: tuple[int, int, int], generator: torch.Generator):
    t, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    video = Video.of(np.stack((x, y, t), -1).astype(np.uint8), "grid")
    at, values = video.sample(6000, generator)
    VALUES.check(at, video.box.to_unit(values * 255 + 0.5))
    assert float(at.min()) >= 0
    assert float(at.max()) <= 1
    for axis, size in enumerate(reversed(shape)):
        shares = torch.bincount((values[:, axis] * 255).round().long(), minlength=size) / 6000
        assert float((shares - 1 / size).abs().max()) < 5 * (1 / size / 6000) ** 0.5


def test_samples_lie_at_the_times_of_their_frames(generator: torch.Generator):
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    video = Video.of(np.ascontiguousarray(frames), "three", times=np.array([0.5, 0.75, 2.5]))
    at, values = video.sample(100, generator)
    VALUES.check(video.box.from_unit(at)[:, 2], video.times[(values[:, 0] * 255).round().long()])
    for times in ([0.5, 0.5, 2.5], [0.5, 1.5, 3.5]):
        with pytest.raises(ValueError, match="rise from 0 to 3"):
            Video.of(np.ascontiguousarray(frames), "three", times=np.array(times))


def test_psnr_of_every_frame_has_its_closed_form():
    """Predictions that are off by e_k in frame k have a PSNR of -20 log10 e_k."""
    video = Video.of(np.full((4, 50, 60, 3), 51, np.uint8), "flat")
    errors = torch.tensor([0.1, 0.01, 0.2, 0.0])
    asked: list[int] = []

    def predict(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        frame = (video.box.from_unit(x)[:, 2] - 0.5).round().long()
        return (0.2 + errors[frame])[:, None].expand(-1, 3)

    found = video.evaluate(predict)
    truth = [20.0, 40.0, -20 * np.log10(0.2), PSNR_CEILING]
    for psnr, expected in zip(found.per_item["psnr"], truth, strict=True):
        assert METRICS.allows(psnr, float(expected))
    for name, expected in (("psnr", np.mean(truth)), ("psnr_min", truth[2]), ("psnr_max", PSNR_CEILING)):
        assert METRICS.allows(found.results[name], float(expected))
    assert found.names == ["0", "1", "2", "3"]
    assert found.results.keys() == found.definitions.keys()
    assert VALUES.allows(found.per_item["ssim"][3], 1.0)
    assert VALUES.allows(found.results["ssim"], float(np.mean(found.per_item["ssim"])))
    assert sum(asked) == 4 * 50 * 60
    json.dumps(found.to_json(), allow_nan=False)


def test_a_large_frame_is_asked_for_in_bands():
    asked = []
    Video.of(np.zeros((2, 130, 1500, 3), np.uint8), "large").evaluate(
        lambda x: asked.append(len(x)) or torch.zeros(len(x), 3)
    )
    assert sum(asked) == 2 * 130 * 1500
    assert max(asked) < 130 * 1500 / 2


def test_the_loss_is_the_mean_square():
    assert VALUES.allows(float(Video.of(CLIP, "x").loss(torch.full((4, 3), 0.1), torch.zeros(4, 3))), 0.01)


def test_the_fingerprint_is_of_frames_and_times(tmp_path: Path):
    paths = [write_lossless(tmp_path / name, CLIP) for name in ("a.mkv", "b.avi")]
    prints = [scenes.load(path).fingerprint() for path in paths]
    assert prints[0] == prints[1] == Video.of(CLIP, "x").fingerprint()
    changed = CLIP.copy()
    changed[3, 2, 1, 0] ^= 1
    other_times = np.arange(12) + np.linspace(0.5, 0.6, 12)
    others = [Video.of(changed, "x"), Video.of(CLIP[:6], "x"), Video.of(CLIP, "x", times=other_times)]
    assert len({*prints, *(video.fingerprint() for video in others)}) == 4


# Fitting --------------------------------------------------------------------------------------------------------------


def tiny(video: Video) -> SignalFieldConfig:
    return SignalFieldConfig(Hash(levels=4, log2_table_size=13, base_resolution=8, finest_resolution=32), MLP())


def test_networks_see_time_from_zero_to_one():
    video = Video.of(disc(6, 10, 40), "wide")  # six frames are a sixth of the cube
    field = build(tiny(video), video.describe())
    assert isinstance(field, Field)
    seen = []
    field.network.register_forward_pre_hook(lambda _, given, named: seen.append(named["at"]), with_kwargs=True)
    x = video.box.to_unit(torch.tensor([[0.0, 0.0, 0.0], [40.0, 10.0, 6.0], [8.0, 5.0, 1.5]]))
    field(x)
    VALUES.check(seen[0].position[:, :2], x[:, :2])
    VALUES.check(seen[0].position[:, 2], torch.tensor([0.0, 1.0, 0.25]))
    VALUES.check(seen[0].time[:, 0], torch.tensor([0.0, 1.0, 0.25]))


def test_the_preset_suits_the_clip():
    small, large = (preset(Video.of(np.zeros(shape, np.uint8), "x")) for shape in ((4, 8, 8, 3), (90, 270, 480, 3)))
    coarse, fine = small.field.encoding, large.field.encoding
    assert isinstance(coarse, Hash)
    assert isinstance(fine, Hash)
    assert fine.finest_resolution == 480
    assert coarse.log2_table_size < fine.log2_table_size


def test_a_short_fit_shows_the_clip_between_frames_too():
    video = Video.of(CLIP[::2].copy(), "disc", fps=10.0)
    field = build(tiny(video), video.describe())
    initialise(field, 0)
    for step in fit(field, video, FitConfig(steps=400, minutes=None, batch=1024)):
        assert np.isfinite(step.loss)
    found = video.evaluate(predictor(field.eval())).results
    assert found["psnr_min"] > 38, "all but the rounding of bytes, which is 58.9 dB, and the edge of the disc"
    play = playback(video.describe(), n_frames=11, fps=None)
    assert VALUES.allows(play.fps, 11 / 0.6)
    assert len(list(replace(play, times=play.times[:2]).frames(field))) == 2


def test_going_on_is_bit_exact():
    video = Video.of(CLIP, "disc")
    config = FitConfig(steps=12, minutes=None, batch=512)

    def fitted(stop: int | None) -> dict[str, torch.Tensor]:
        field = build(tiny(video), video.describe())
        initialise(field, 0)
        state = None
        for step in fit(field, video, config):
            if step.index == stop:
                state = step.state()
                break
        if state is not None:
            fresh = build(tiny(video), video.describe())
            fresh.load_state_dict(field.state_dict())
            field = fresh
            assert sum(1 for _ in fit(field, video, config, state=state)) == 7
        return field.state_dict()

    straight, stopped = fitted(None), fitted(5)
    for name, tensor in straight.items():
        EXACT.check(stopped[name], tensor)


# The program ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def folder(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds clip.mkv and its run."""
    folder = tmp_path_factory.mktemp("video")
    write_lossless(folder / "clip.mkv", CLIP)
    done = fieldfit(folder, "fit", "clip.mkv", *SMALL)
    assert done.code == 0, done.stderr
    (folder / "out").write_text(done.stdout)
    return folder


def picture(path: Path) -> np.ndarray:
    with Pillow.open(path) as image:
        return np.array(image)


def test_fit_prints_the_metrics_and_draws_frames(folder: Path):
    printed = (folder / "out").read_text()
    assert printed.startswith("runs/clip: video, ")
    for words in ("evaluated over 12 frames", "psnr ", "psnr_min", "psnr_max", "ssim"):
        assert words in printed
    report = json.loads((folder / "runs/clip/eval.json").read_text())
    assert len(report["per_item"]["psnr"]) == len(report["names"]) == 12
    assert VALUES.allows(float(np.mean(report["per_item"]["psnr"])), report["results"]["psnr"])
    height, width, _ = picture(folder / "runs/clip/renders/comparison.png").shape
    assert height > 3 * 24
    assert width > 3 * 32


def test_rendered_frames_are_what_eval_measures(fieldfit: Program, folder: Path, tmp_path: Path):
    done = fieldfit(tmp_path, "render", folder / "runs/clip", "--out", "frames")
    assert done.stdout == "frames: 12 pictures\n", done.stderr
    per_frame = json.loads((folder / "runs/clip/eval.json").read_text())["per_item"]["psnr"]
    for k, psnr in enumerate(per_frame):
        error = np.sqrt((((picture(tmp_path / "frames" / f"{k:05}.png").astype(float) - CLIP[k]) / 255) ** 2).mean())
        assert EIGHT_BIT.allows(float(error), 10 ** (-psnr / 20)), "rounding moves an error by its own size at most"
    evaluated = json.loads(fieldfit(folder, "eval", "runs/clip", "--json").stdout)
    assert evaluated["per_item"]["psnr"] == per_frame


@pytest.mark.parametrize(
    ("options", "n_frames", "fps", "size"),
    [
        ((), 12, 25.0, (32, 24)),
        (("--fps", "50"), 24, 50.0, (32, 24)),
        (("--frames", "6"), 6, 12.5, (32, 24)),
        (("--frames", "5", "--fps", "10", "--width", "64"), 5, 10.0, (64, 48)),
    ],
)
def test_films_keep_their_duration(
    fieldfit: Program, folder: Path, tmp_path: Path, options: tuple[str, ...], n_frames: int, fps: float, size: tuple
):
    done = fieldfit(tmp_path, "render", folder / "runs/clip", "--out", "a.mp4", *options)
    assert done.stdout == f"a.mp4: {n_frames} pictures\n", done.stderr
    film = read_film(tmp_path / "a.mp4", LoadOptions())
    assert film.frames.shape == (n_frames, size[1], size[0], 3)
    assert VALUES.allows(film.fps, fps)
    assert len(list(read_video(tmp_path / "a.mp4"))) == n_frames


def test_what_a_run_of_a_video_cannot_do(fieldfit: Program, folder: Path, tmp_path: Path):
    run = folder / "runs/clip"
    for arguments, said in (
        (("render", run, "--out", "a.png"), "12 frames need a folder or an .mp4"),
        (("render", run, "--out", "a.mp4", "--show", "depth"), "has no cameras"),
        (("render", run, "--out", "a.mp4", "--path", "test"), "has no cameras"),
        (("render", run, "--out", "a.avi"), ".mp4"),
        (("export", run, "a.ply"), "is of a video, which has no surface; `fieldfit render` plays it back"),
        (("fit", "gone.mp4"), "give an image, a mesh, a video, or a folder"),
    ):
        assert_one_line(fieldfit(tmp_path, *arguments), 1, said)
    assert fieldfit(tmp_path, "render", run, "--out", "a.png", "--frames", "1").code == 0
    assert picture(tmp_path / "a.png").shape == (24, 32, 3)


def test_info_shows_a_sheet_of_frames(fieldfit: Program, folder: Path, tmp_path: Path):
    done = fieldfit(tmp_path, "info", folder / "clip.mkv")
    for words in ("kind:              video", "frames:            12", "fps:               25", "(32, 24)"):
        assert words in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["picture:", "clip-frames.png"]
    assert picture(tmp_path / "clip-frames.png").std() > 1
    done = fieldfit(folder, "info", "runs/clip")
    assert done.stdout.splitlines()[-1].split() == ["picture:", "runs/clip/renders/frames.png"]
    assert "PSNR" not in done.stderr


def test_other_data_must_be_a_video(fieldfit: Program, folder: Path):
    Pillow.fromarray(CLIP[0]).save(folder / "still.png")
    wrong = fieldfit(folder, "eval", "runs/clip", "--data", "still.png")
    assert_one_line(wrong, 1, "still.png: kind image cannot be compared")


def test_sheets_show_frames_in_order():
    frames = [np.full((20, 30, 3), 20 * k, np.uint8) for k in range(7)]
    sheet = contact_sheet(frames, [str(k) for k in range(7)])
    levels = [20 * k for k in range(7)]
    assert set(levels) <= set(np.unique(sheet[..., 0]))
    first, second = (np.argwhere((sheet == level).all(-1)).mean(0) for level in levels[1:3])
    assert second[1] > first[1]
    assert spread(100, 3) == [0, 50, 99]
    assert spread(2, 12) == [0, 1]
    assert spread(1, 3) == [0]


def test_uniform_over_frames(generator: torch.Generator):
    video = Video.of(np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, -1), "four")
    _, values = video.sample(200_000, generator)
    for k in range(4):
        assert MONTE_CARLO.allows(float((values[:, 0] * 255).round().eq(k).float().mean()), 0.25)
