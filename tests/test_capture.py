"""Captures: what is sampled is what was photographed, and the box holds what was photographed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_captures import (
    ball,
    frame,
    load,
    look_at,
    ring,
    sky,
    write_blender,
    write_json,
    write_picture,
    write_transforms,
)
from tolerances import EIGHT_BIT, EXACT, METRICS, POSES, VALUES

from scenes import Box, Cameras, InputError, LoadOptions, Scene
from scenes.framing import find_focus, find_up
from scenes.hull import box_of_object

WHOLE = LoadOptions(hold_out_every=0)


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    """Arrays are small here: a second thread costs more than it brings, above all on a busy machine."""
    torch.set_num_threads(1)


def write_solid(folder, colours, size=(8, 8), **fields):
    """One picture of one colour for each of these, from cameras in a circle."""
    todo = iter(colours)
    return write_transforms(
        folder,
        ring(len(colours)),
        lambda m, w, h: np.full((h, w, len(colours[0])), next(todo), np.uint8),
        size,
        **fields,
    )


def rig(matrices, focal=100.0, size=80):
    """Cameras with these OpenGL poses."""
    n = len(matrices)
    return Cameras(
        T_world_camera=torch.tensor(np.stack(matrices)[:, :3] * (1, -1, -1, 1), dtype=torch.float32),
        focal=torch.full((n, 2), focal),
        centre=torch.full((n, 2), size / 2),
        size=torch.full((n, 2), size),
        distortion=torch.zeros(n, 6),
    )


# Sampling


def test_is_a_scene(tmp_path):
    assert isinstance(load(write_transforms(tmp_path, ring(2))), Scene)


def test_samples_are_spread_evenly_over_all_training_views(tmp_path, generator):
    """Views of different sizes and colours: each pixel is as likely as any other; the held-out view never comes."""
    sizes, frames = [(8, 8), (4, 4), (16, 4), (8, 2)], []
    for i, (width, height) in enumerate(sizes):
        write_picture(tmp_path / f"{i}.png", np.full((height, width, 3), 60 * i, np.uint8))
        frames.append(frame(f"{i}.png", ring(4)[i]))
    write_json(tmp_path / "transforms.json", {"camera_angle_x": 0.8, "frames": frames})
    n = 40_000
    rays, colour = load(tmp_path).sample(n, generator)
    assert len(rays) == n
    views = (colour[:, 0] * 255 / 60).round().long()
    share = torch.bincount(views, minlength=4) / n
    expected = torch.tensor([0, 16, 64, 16]) / 96
    deviation = 5 * (expected * (1 - expected) / n).sqrt()
    assert ((share - expected).abs() <= deviation).all()


def test_every_pixel_is_drawn_with_the_ray_through_its_centre(tmp_path, generator):
    matrices = ring(2)
    capture = load(write_transforms(tmp_path, matrices, sky, (5, 3)), WHOLE)
    rays, _ = capture.sample(2000, generator)
    seen = set()
    for origin, direction in zip(rays.origins, rays.directions, strict=True):
        view = int((capture.cameras.position - origin).norm(dim=-1).argmin())
        xy, _ = capture.cameras.project(view, (origin + direction)[None])
        seen.add((view, *(2 * xy[0]).round().int().tolist()))
    assert seen == {(v, 2 * x + 1, 2 * y + 1) for v in range(2) for x in range(5) for y in range(3)}


def test_samples_repeat_with_the_generator(tmp_path):
    capture = load(write_solid(tmp_path, [(1, 2, 3, 40)] * 3))
    draws = [capture.sample(50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    EXACT.check(draws[0][1], draws[1][1])
    EXACT.check(draws[0][0].directions, draws[1][0].directions)
    assert not torch.equal(draws[0][0].directions, draws[2][0].directions)


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_transparent_pixels_are_composited_over_a_random_background(tmp_path, generator, alpha):
    """Beside a transparent picture, so that even opaque ones keep their alpha."""
    capture = load(write_solid(tmp_path, [(102, 0, 255, alpha), (0, 0, 0, 0)]), WHOLE)
    rays, colour = capture.sample(4000, generator)
    first = (capture.cameras.position[:1] - rays.origins).norm(dim=-1) < 1e-3
    assert first.any()
    a = alpha / 255
    VALUES.check(colour[first], a * torch.tensor([0.4, 0.0, 1.0]) + (1 - a) * rays.background[first])
    assert abs(rays.background.mean() - 0.5) < 0.02
    assert rays.background.std() > 0.25


def test_plain_photographs_have_no_background(tmp_path, generator):
    capture = load(write_solid(tmp_path, [(10, 20, 30)] * 2))
    rays, colour = capture.sample(20, generator)
    EXACT.check(rays.background, torch.zeros(20, 3))
    VALUES.check(colour, (torch.tensor([10, 20, 30]) / 255).expand(20, 3))
    assert capture.unbounded


def test_opaque_pictures_with_alpha_are_plain_photographs(tmp_path):
    capture = load(write_solid(tmp_path, [(10, 20, 30, 255)] * 2))
    assert not capture.has_alpha
    assert capture.unbounded
    assert capture.pixels.shape == (128, 3)


def test_loss_is_the_mean_squared_error(tmp_path):
    capture = load(write_solid(tmp_path, [(0, 0, 0)] * 2))
    assert capture.loss(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])) == pytest.approx(5 / 3)


# Masks


def mask_left_half(folder, name, value):
    pixels = np.full((8, 8), 255 - value, np.uint8)
    pixels[:, :4] = value
    write_picture(folder / name, pixels)


@pytest.mark.parametrize("kind", ["mask_path", "dynamic_mask"])
def test_masked_pixels_are_never_drawn(tmp_path, generator, kind):
    """The left half is masked and white, the right half black. A mask keeps white, a dynamic mask keeps black."""
    half = np.zeros((8, 8, 3), np.uint8)
    half[:, :4] = 255
    frames = []
    for i, matrix in enumerate(ring(3)):
        write_picture(tmp_path / f"{i}.png", half)
        frames.append(frame(f"{i}.png", matrix, **({"mask_path": f"m/{i}"} if kind == "mask_path" else {})))
        (tmp_path / "m").mkdir(exist_ok=True)
        name, value = (f"m/{i}.png", 0) if kind == "mask_path" else (f"dynamic_mask_{i}.png", 255)
        mask_left_half(tmp_path, name, value)
    capture = load(write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": frames}))
    _, colour = capture.sample(3000, generator)
    assert len(colour) == 3000
    assert colour.max() == 0
    # a prediction that is wrong only where masked is perfect
    assert capture.evaluate(lambda rays: torch.zeros(len(rays), 3)).results["psnr"] == 100
    wrong = capture.evaluate(lambda rays: torch.full((len(rays), 3), 0.1))
    assert METRICS.allows(wrong.results["psnr"], 20.0)
    assert "masked" in wrong.definitions["psnr"]


def test_a_mask_over_everything_leaves_nothing_to_train_on(tmp_path, generator):
    frames = [frame(f"{i}.png", matrix, mask_path="m.png") for i, matrix in enumerate(ring(2))]
    for i in range(2):
        write_picture(tmp_path / f"{i}.png", np.zeros((8, 8, 3), np.uint8))
    write_picture(tmp_path / "m.png", np.zeros((8, 8), np.uint8))
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": frames})
    with pytest.raises(InputError, match="no pixels to train on"):
        load(tmp_path, WHOLE).sample(1, generator)


def test_a_mask_of_another_size_is_refused(tmp_path):
    write_picture(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    write_picture(tmp_path / "m.png", np.zeros((8, 9), np.uint8))
    entry = frame("0.png", np.eye(4), mask_path="m.png")
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [entry]})
    with pytest.raises(InputError, match=r"m.png: the mask is 9 x 8, but its picture is 8 x 8"):
        load(tmp_path, WHOLE)


# Evaluation


def test_the_truth_gives_what_is_left_by_rounding_to_bytes(tmp_path):
    """Rounding to 1/255 leaves a mean squared error of 1 / (12 * 255^2): 58.9 dB."""
    capture = load(write_transforms(tmp_path, ring(9), sky, (24, 16)))
    evaluation = capture.evaluate(lambda rays: 0.5 + 0.5 * rays.directions)
    assert evaluation.names == ["images/000.png", "images/008.png"]
    assert evaluation.results["psnr"] == pytest.approx(10 * math.log10(12 * 255**2), abs=0.5)
    assert evaluation.results["ssim"] > 0.99
    assert evaluation.background is None
    assert evaluation.results["psnr"] == pytest.approx(sum(evaluation.per_item["psnr"]) / 2)
    train = capture.evaluate(lambda rays: 0.5 + 0.5 * rays.directions, "train")
    assert len(train.names) == 7
    json.dumps(evaluation.to_json())


@pytest.mark.parametrize("background", ["white", "black"])
def test_evaluation_composites_over_its_background(tmp_path, background):
    path = write_solid(tmp_path, [(255, 0, 0, 51)] * 2)
    capture = load(path, LoadOptions(background=background))
    behind = 1.0 if background == "white" else 0.0
    EXACT.check(capture.image_rays(0).background, torch.full((64, 3), behind))
    truth = 0.2 * torch.tensor([1.0, 0.0, 0.0]) + 0.8 * behind
    evaluation = capture.evaluate(lambda rays: truth.expand(len(rays), 3))
    assert evaluation.results["psnr"] == 100
    assert evaluation.background == background


def test_predictions_are_clamped(tmp_path):
    capture = load(write_solid(tmp_path, [(255, 255, 255)] * 2))
    assert capture.evaluate(lambda rays: torch.full((len(rays), 3), 7.0)).results["psnr"] == 100


def test_pictures_smaller_than_the_window_have_no_ssim(tmp_path):
    capture = load(write_solid(tmp_path, [(0, 0, 0)] * 2, size=(8, 8)))
    assert set(capture.evaluate(lambda rays: torch.zeros(len(rays), 3)).results) == {"psnr"}


def test_a_split_without_views(tmp_path):
    capture = load(write_solid(tmp_path, [(0, 0, 0)] * 3), WHOLE)
    with pytest.raises(InputError, match=r"no test views, only train \(3\)"):
        capture.evaluate(lambda rays: torch.zeros(len(rays), 3))


# Loading


def test_shrinking_averages_and_keeps_rays(tmp_path):
    """9 x 7 by 2: the last column and row are cut; transparent pixels do not bleed their colour."""
    pixels = np.zeros((7, 9, 4), np.uint8)
    pixels[0:2, 0:2] = [[(200, 0, 0, 255), (0, 200, 0, 255)], [(0, 0, 90, 0), (0, 0, 90, 0)]]
    write_picture(tmp_path / "0.png", pixels)
    write_json(tmp_path / "transforms.json", {"fl_x": 9.0, "cx": 4.2, "frames": [frame("0.png", ring(1)[0])]})
    whole = load(tmp_path, WHOLE)
    small = load(tmp_path, LoadOptions(hold_out_every=0, downscale=2))
    assert small.cameras.size.tolist() == [[4, 3]]
    assert small.pixels.shape == (12, 4)
    EIGHT_BIT.check(small.pixels[0] / 255, torch.tensor([100, 100, 0, 127.5]) / 255)
    corners = torch.tensor([[2.0, 4.0], [6.0, 2.0]])
    view = torch.zeros(2, dtype=torch.int64)
    POSES.check(small.cameras.rays(view, corners / 2).directions, whole.cameras.rays(view, corners).directions)


def test_shrinking_keeps_only_what_no_mask_touches(tmp_path):
    mask = np.full((4, 4), 255, np.uint8)
    mask[0, 1] = 0
    write_picture(tmp_path / "0.png", np.zeros((4, 4, 3), np.uint8))
    write_picture(tmp_path / "m.png", mask)
    entry = frame("0.png", np.eye(4), mask_path="m.png")
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [entry]})
    capture = load(tmp_path, LoadOptions(hold_out_every=0, downscale=2))
    assert capture.keep is not None
    assert capture.keep.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("factor", "message"), [(0, "--downscale is 0"), (9, "too small to be shrunk 9 times")])
def test_shrinking_to_nothing(tmp_path, factor, message):
    with pytest.raises(InputError, match=message):
        load(write_transforms(tmp_path, ring(2)), LoadOptions(downscale=factor))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16", "RGBA", "CMYK"])
def test_every_kind_of_picture_becomes_bytes_of_colour(tmp_path, mode):
    name = "0.tif" if mode == "CMYK" else "0.png"
    write_picture(tmp_path / "grey.png", np.full((8, 8), 255, np.uint8))
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / name)
    else:
        Image.open(tmp_path / "grey.png").convert("RGB").convert(mode).save(tmp_path / name)
    write_json(tmp_path / "transforms.json", {"fl_x": 8.0, "frames": [frame(name, np.eye(4))]})
    capture = load(tmp_path, WHOLE)
    assert capture.pixels.shape == (64, 3)
    assert int(capture.pixels.min()) == 255


def test_damaged_pictures(tmp_path):
    path = write_transforms(tmp_path, ring(3), sky, (64, 64))
    picture = tmp_path / "images" / "001.png"
    whole = picture.read_bytes()
    draw = np.random.default_rng(3)
    refused = 0
    cuts = [whole[:n] for n in (0, 10, 30, 60, len(whole) // 2, len(whole) - 100)]
    for data in cuts + [flipped(whole, draw) for _ in range(60)]:
        picture.write_bytes(data)
        try:
            load(path)
        except InputError as error:
            refused += 1
            one_line = str(error)
            assert "001.png" in one_line
            assert "\n" not in one_line
        else:
            assert len(data) == len(whole)
    assert refused > len(cuts)
    picture.write_bytes(whole)
    load(path)


def flipped(data, draw):
    """The bytes with a few of them changed."""
    changed = bytearray(data)
    for i in draw.integers(8, len(data), 3):
        changed[i] ^= int(draw.integers(1, 256))
    return bytes(changed)


def test_too_much_memory_is_refused_before_decoding(tmp_path):
    path = write_transforms(tmp_path, ring(3), sky, (64, 64))
    for picture in (tmp_path / "images").iterdir():
        picture.write_bytes(picture.read_bytes()[:60])  # the size can be read, the pixels cannot
    with pytest.raises(InputError, match=r"transforms.json: the photographs need 0.00 GB.*--downscale"):
        load(path, LoadOptions(max_ram_gb=1e-6))
    with pytest.raises(InputError, match="damaged"):
        load(path)


def test_too_large_a_picture_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\d.png: 8 x 8 is more than 60 pixels; raise --max-pixels"):
        load(write_transforms(tmp_path, ring(2)), LoadOptions(max_pixels=60))


def test_fingerprint_is_of_content(tmp_path):
    first = load(write_transforms(tmp_path / "a", ring(4))).fingerprint()
    assert load(write_transforms(tmp_path / "b", ring(4))).fingerprint() == first
    others = [
        load(write_transforms(tmp_path / "c", ring(4, height=2.1))),
        load(write_transforms(tmp_path / "d", ring(4), lambda *a: sky(*a) // 2)),
        load(tmp_path / "a", LoadOptions(hold_out_every=2)),
        load(tmp_path / "a", LoadOptions(downscale=2)),
    ]
    assert len({first} | {other.fingerprint() for other in others}) == 5


def test_a_description_is_enough_to_render_from(tmp_path):
    applied = np.eye(4)[:3].tolist()
    capture = load(write_transforms(tmp_path, ring(5), applied_transform=applied))
    description = json.loads(json.dumps(capture.describe()))
    assert description["kind"] == "capture"
    assert description["applied_transform"] == applied
    assert Box.from_json(description["box"]) == capture.box
    cameras = Cameras.from_json(description["cameras"]["test"])
    EXACT.check(cameras.image_rays(0).directions, capture.image_rays(capture.views["test"][0]).directions)
    assert len(description["names"]["train"]) == 4


# Boxes


@pytest.mark.parametrize(("centre", "radius"), [((0, 0, 0), 0.5), ((1.1, -0.7, 0.4), 0.3), ((0.5, 0.5, -0.5), 0.8)])
def test_the_box_of_an_object_is_tight_and_holds_it(tmp_path, centre, radius):
    """A ball cut out, seen from 24 sides, not in the middle of the pictures. Its visual hull is hardly larger."""
    matrices = ring(12, radius=5, height=3) + ring(12, radius=5, height=-2)
    write_blender(tmp_path, {"train": matrices}, lambda m, w, h: ball(m, w, h, centre, radius), (160, 160))
    capture = load(tmp_path)
    assert capture.has_alpha
    assert not capture.unbounded
    lo, hi = np.array(capture.box.lo), np.array(capture.box.hi)
    assert (lo <= np.subtract(centre, radius)).all()
    assert (hi >= np.add(centre, radius)).all()
    assert capture.box.side < 2 * radius * 1.3


def test_an_empty_photograph_does_not_lose_the_box(tmp_path):
    matrices = ring(9, height=3) + ring(9, height=-1)
    blank = lambda m, w, h: ball(m, w, h, (0, 0, 0), 0.0 if m is matrices[3] else 0.5)  # noqa: E731
    write_blender(tmp_path, {"train": matrices}, blank, (64, 64))
    box = load(tmp_path).box
    assert max(box.lo) <= -0.5
    assert min(box.hi) >= 0.5
    assert box.side < 1.5


def test_the_box_of_nothing_is_what_the_cameras_see(tmp_path):
    write_blender(tmp_path, {"train": ring(5)}, lambda m, w, h: np.zeros((h, w, 4), np.uint8))
    box = load(tmp_path).box
    assert 1 < box.side < 8
    assert max(box.lo) < 0 < min(box.hi)


def test_a_box_in_the_file_bounds_the_object(tmp_path):
    """instant-ngp: x * scale + offset is in the unit cube, so scale 0.25 and offset 0.5 are [-2, 2]."""
    fields = {"scale": 0.25, "offset": [0.5, 0.5, 0.5]}
    photographs = load(write_transforms(tmp_path / "a", ring(3), **fields, aabb_scale=8))
    assert photographs.box == Box((-2.0,) * 3, (2.0,) * 3)
    assert photographs.unbounded
    assert not load(write_transforms(tmp_path / "b", ring(3), **fields)).unbounded
    aabb = load(write_transforms(tmp_path / "c", ring(3), aabb=[[-1, -2, -3], [1, 2, 4]], aabb_scale=2))
    assert aabb.box == Box((-1.0, -2.0, -3.0), (1.0, 2.0, 4.0))


def test_a_box_of_the_users_wins(tmp_path):
    path = write_transforms(tmp_path, ring(3), scale=0.25)
    capture = load(path, LoadOptions(box=(0.0, 0.0, 0.0, 1.0, 2.0, 3.0)))
    assert capture.box == Box((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    assert not capture.unbounded
    with pytest.raises(InputError, match="--box cannot be used"):
        load(path, LoadOptions(box=(0.0, 0.0, 0.0, 1.0, 2.0, 0.0)))


@pytest.mark.parametrize("target", [(0, 0, 0), (10, -20, 5)])
def test_the_focus_of_a_circle_of_cameras_is_its_middle(target):
    focus = find_focus(rig(ring(20, radius=4, height=3, target=target)))
    VALUES.check(focus.point, torch.tensor(target).float())
    assert focus.distance == pytest.approx(5)
    assert 1 < focus.radius <= 5


def test_a_few_cameras_that_look_elsewhere_do_not_move_the_focus():
    matrices = ring(20, radius=4, height=3)
    stray = [look_at((50, 50, 50), (60, 70, 80)), look_at((4, 0, 3), (9, 9, 9)), look_at((-300, 0, 0), (0, 500, 0))]
    focus = find_focus(rig(matrices + stray))
    assert focus.point.norm() < 0.1
    assert focus.distance == pytest.approx(5, rel=0.05)


def forward_facing(distance):
    """Cameras in a plane that look at a point so far in front of them, or straight ahead."""
    places = [(x, 0, z) for x in (-1, 0, 1) for z in (-0.5, 0, 0.5)]
    return [look_at(p, (0, distance, 0) if distance else (p[0], 1, p[2])) for p in places]


@pytest.mark.parametrize("distance", [3, 10, None])
def test_cameras_in_one_direction_get_a_box_in_front_of_them(distance):
    focus = find_focus(rig(forward_facing(distance)))
    assert focus.point[1] > 2
    assert abs(focus.point[0]) < 0.1
    assert abs(focus.point[2]) < 0.1
    if distance:
        assert focus.point[1] == pytest.approx(distance, rel=0.05)
    assert 0.2 * focus.point[1] < focus.radius <= focus.point[1]


def test_cameras_that_look_outward_get_a_box_around_them():
    matrices = [
        look_at((np.cos(a), np.sin(a), 0), (9 * np.cos(a), 9 * np.sin(a), 0)) for a in np.arange(12) * np.pi / 6
    ]
    focus = find_focus(rig(matrices))
    assert focus.point.norm() < 0.1
    assert focus.radius > 1


@pytest.mark.parametrize(
    "matrices",
    [
        [np.eye(4)],
        [look_at((3, 2, 1), (0, 0, 0))],
        [np.eye(4)] * 5,
        [look_at((0, 0, 0), (np.cos(a), np.sin(a), 0)) for a in (0, 1, 2, 3, 4, 5)],
        [look_at((1e5, 0, 0), (1e5, 1e-3, 0)), look_at((1e5 + 1e-3, 0, 0), (1e5, 1e-3, 0))],
    ],
    ids=["one at the origin", "one", "five at one place", "turning on the spot", "far away"],
)
def test_degenerate_cameras_still_have_a_box(matrices):
    focus = find_focus(rig(matrices))
    assert focus.point.isfinite().all()
    assert 0 < focus.radius < 1e6
    assert 0 < focus.distance < 1e6
    assert find_up(rig(matrices)).norm() == pytest.approx(1)


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 1, 0), (0.6, 0, -0.8)])
def test_up_is_where_level_cameras_agree(up):
    """Half a circle of cameras that look down: their mean upward direction leans, their horizons do not."""
    up = np.asarray(up, float)
    side = np.cross(up, (0.3, 0.5, 0.7))
    side = side / np.linalg.norm(side)
    ahead = np.cross(up, side)
    angles = np.linspace(0, np.pi, 9)
    matrices = [look_at(4 * np.cos(a) * side + 4 * np.sin(a) * ahead + 3 * up, (0, 0, 0), up) for a in angles]
    POSES.check(find_up(rig(matrices)), torch.tensor(up).float())


def test_up_of_cameras_side_by_side_is_that_of_their_pictures():
    POSES.check(find_up(rig(forward_facing(None))), torch.tensor([0.0, 0.0, 1.0]))


def test_an_object_larger_than_the_first_guess():
    """Cameras close to a long object, which look at points along it: each sees a part."""
    angles, places = np.arange(9) * 2 * np.pi / 9, np.linspace(-4, 4, 9)
    cameras = [look_at((4 * np.cos(a), y, 4 * np.sin(a)), (0, y, 0), (0, 1, 0)) for y in places for a in angles]
    rigged = rig(cameras, focal=110.0)

    def alpha(view):
        rays = rigged.image_rays(view)  # a rod along y of radius 0.3, for |y| < 4
        d, o = rays.directions, rays.origins
        a = d[:, 0] ** 2 + d[:, 2] ** 2
        b = d[:, 0] * o[:, 0] + d[:, 2] * o[:, 2]
        inside = b * b - a * (o[:, 0] ** 2 + o[:, 2] ** 2 - 0.09)
        y = o[:, 1] + (-b - inside.clamp(min=0).sqrt()) / a * d[:, 1]
        return ((inside > 0) & (y.abs() < 4)).view(80, 80).to(torch.uint8) * 255

    box = box_of_object(rigged, alpha)
    assert box.lo[1] < -3.9
    assert box.hi[1] > 3.9
    assert box.size[0] < 1.4
    assert box.size[2] < 1.4
