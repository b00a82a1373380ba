"""`fieldfit compare`: fields of equal time or size, what is written of them, and that it goes on where it was."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from program import Done, Program, assert_one_line
from tiny_clips import disc, write_lossless
from tiny_runs import write_ball, write_image, write_tetrahedron
from tolerances import EXACT, VALUES

import scenes
from fields.encodings import Coordinates, Dense, DiF, Frequency, Hash, TriPlane
from fields.field import FieldConfig, RadianceFieldConfig, SignalFieldConfig
from fields.networks import CAM, GLU, MFN, MLP, RBF, Bottleneck
from fields.presets import mesh_preset
from fields.probe import probe
from fields.run import Run
from fields.sizing import n_parameters, with_parameters
from scenes.errors import InputError
from scenes.mesh import Mesh
from viewer.curves import HEIGHT, RIGHT, WIDTH, curve_plot

MINUTES = ("--minutes", "0.006")


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def compared(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("compared")
    write_image(folder / "stripes.png")
    return folder, fieldfit(folder, "compare", "stripes.png", "--fields", "ngp,hash+glu", *MINUTES)


class Page(HTMLParser):
    """All tags, closed in order, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def pictures(self) -> list[np.ndarray]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, data = (attributes["src"] or "").partition(",")
                assert kind == "data:image/png;base64"
                with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
                    found.append(np.array(picture))
        return found


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison.json").read_text())


def test_it_writes_runs_and_a_table(compared: tuple[Path, Done], fieldfit: Program) -> None:
    folder, done = compared
    assert done.code == 0, done.stderr
    made = folder / "runs" / "stripes-comparison"
    assert {path.name for path in made.iterdir()} == {"comparison.json", "report.html", "ngp", "hash+glu"}
    written = content(made)
    assert [one["name"] for one in written["fields"]] == ["ngp", "hash+glu"]
    for one in written["fields"]:
        opened = Run.open(made / one["name"])
        evaluation = opened.evaluation()
        assert evaluation is not None
        assert one["results"] == evaluation["results"]
        assert one["steps"] == opened.step() > 0
        assert one["bytes"] == (opened.path / "field.safetensors").stat().st_size
        assert one["parameters"] == sum(p.numel() for p in opened.field().parameters())
        assert 60 * 0.006 <= one["seconds"] < 60
        assert VALUES.allows(one["psnr_per_second"], one["results"]["psnr"] / one["seconds"])
        assert one["peak_memory"] is None or one["peak_memory"] > 1e7
        times = [seconds for seconds, _ in one["curve"]]
        assert times == sorted(times) and times[-1] == one["seconds"]
        assert all(math.isfinite(quality) for _, quality in one["curve"])
        assert re.search(rf"^{re.escape(one['name'])} +[\d,]+ +[\d,]+ +[\d.]+ +[\d.]+ dB", done.stdout, re.MULTILINE)
    evaluated = json.loads(fieldfit(folder, "eval", made / "ngp", "--json").stdout)
    assert evaluated["results"] == written["fields"][0]["results"]


def test_the_page_holds_its_pictures_and_nothing_from_elsewhere(compared: tuple[Path, Done]) -> None:
    text = (compared[0] / "runs" / "stripes-comparison" / "report.html").read_text()
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(names)
    for _, attributes in page.tags:
        for key, value in attributes.items():
            assert key not in ("href", "srcset", "data", "poster", "onload", "onclick")
            assert key != "src" or (value or "").startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import|https?://", text)
    truth, *fields = page.pictures()[:3]
    assert truth.shape == (16, 24, 3) == fields[0].shape
    assert np.array_equal(truth, np.array(Image.open(compared[0] / "stripes.png")))
    assert len(page.pictures()) == 3 + 3 + 2, "the whole, a part of it, the errors there"
    (plot,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert {"ngp", "hash+glu"} <= {element.text for element in ElementTree.fromstring(plot).iter("text")}


def test_what_is_finished_is_not_fitted_again_and_more_can_be_added(
    compared: tuple[Path, Done], fieldfit: Program
) -> None:
    folder, _ = compared
    made = folder / "runs" / "stripes-comparison"
    before = {name: (made / name / "field.safetensors").stat().st_mtime_ns for name in ("ngp", "hash+glu")}
    done = fieldfit(folder, "compare", "stripes.png", "--fields", "ngp,hash+glu,frequency+mlp", *MINUTES)
    assert done.code == 0, done.stderr
    assert "ngp: is there already" in done.stdout and "frequency+mlp: fitting" in done.stdout
    assert {name: (made / name / "field.safetensors").stat().st_mtime_ns for name in before} == before
    assert [one["name"] for one in content(made)["fields"]] == ["ngp", "hash+glu", "frequency+mlp"]


def test_an_interrupted_fit_goes_on(fieldfit: Program, tmp_path: Path) -> None:
    """As a kill leaves it: saved, not evaluated, and notes in the log that are later than the save."""
    write_image(tmp_path / "a.png")
    line = ("compare", "a.png", "--fields", "ngp", *MINUTES, "--out", "c")
    assert fieldfit(tmp_path, *line).code == 0
    (tmp_path / "c/ngp/eval.json").unlink()
    opened = Run.open(tmp_path / "c/ngp")
    step, curve = opened.step(), content(tmp_path / "c")["fields"][0]["curve"]
    opened.log({"step": step + 1000, "seconds": 1e9, "held_out": 1.0})
    done = fieldfit(tmp_path, *line)
    assert done.code == 0, done.stderr
    (one,) = content(tmp_path / "c")["fields"]
    assert (one["steps"], one["curve"], one["peak_memory"]) == (step, curve, None)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--fields", "ngp,nerf"), 2, ("--fields nerf", "ENCODING+NETWORK", "siren")),
        (("--fields", "hash+mpl"), 2, ("mpl", "mlp")),
        (("--fields", "hsh+mlp"), 2, ("hsh", "hash")),
        (("--fields", "ngp,ngp"), 2, ("ngp", "twice")),
        (("--fields", ","), 2, ("--fields", "commas")),
        (("--fields", "coordinates+mlp"), 1, ("coordinates+mlp", "--network siren")),
        (("--fields", "ngp,tensorf"), 1, ("tensorf",)),
        (("--fields", "ngp", "--minutes", "0"), 2, ("--minutes", "above 0")),
        (("--fields", "frequency+mlp", "--params", "7"), 1, ("--params 7", "no closer")),
        (("--fields", "ngp", "--out", "full"), 1, ("full", "not a comparison")),
        (("--fields", "ngp", "--out", "a.png"), 1, ("a.png", "not a comparison")),
        ((), 2, ("--fields is missing",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_mistakes_are_one_line(
    fieldfit: Program, tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert_one_line(fieldfit(tmp_path, "compare", "a.png", *arguments), code, *words)
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before


def test_a_comparison_keeps_its_data_and_settings(compared: tuple[Path, Done], fieldfit: Program) -> None:
    folder, _ = compared
    out = ("--out", "runs/stripes-comparison", "--fields", "ngp")
    Image.new("RGB", (24, 16)).save(folder / "black.png")
    assert_one_line(fieldfit(folder, "compare", "black.png", *out, *MINUTES), 1, "other data", "--out")
    done = fieldfit(folder, "compare", "stripes.png", *out, "--minutes", "0.007")
    assert_one_line(done, 1, "--minutes 0.006", "--out")


def test_meshes_films_and_captures_are_compared(fieldfit: Program, tmp_path: Path) -> None:
    for data, metric, rows in (
        (write_tetrahedron(tmp_path / "t.obj"), "iou", [3]),
        (write_lossless(tmp_path / "v.mkv", disc(4, 12, 16)), "psnr", [3, 2]),
        (write_ball(tmp_path / "ball"), "psnr", [3, 2]),
    ):
        fields = "ngp,hash+bottleneck"
        made = tmp_path / f"{data.stem}-compared"
        asked = ("--fields", fields, "--minutes", "0.03", "--params", "60000", "--out", made.name)
        done = fieldfit(tmp_path, "compare", data, *asked)
        assert done.code == 0, done.stderr
        written = content(made)
        assert written["probe"]["metric"] == metric
        sizes = [one["parameters"] for one in written["fields"]]
        assert all(60000 / 1.25 < size < 60000 * 1.25 for size in sizes)
        assert len(Page((made / "report.html").read_text()).pictures()) == sum(rows)


IMAGE = {"kind": "image", "channels": 3}
HASH = Hash(levels=8, log2_table_size=14, finest_resolution=512)


@pytest.mark.parametrize("n", [20_000, 300_000])
@pytest.mark.parametrize(
    "config",
    [
        SignalFieldConfig(HASH, MLP()),
        SignalFieldConfig(Dense(), MLP()),
        SignalFieldConfig(Coordinates(), MFN()),
        SignalFieldConfig(Frequency(), Bottleneck(256, 32, 2)),
        SignalFieldConfig(Frequency(), GLU(hidden_dim=96)),
        SignalFieldConfig(Frequency(), CAM()),
        SignalFieldConfig(DiF(), RBF()),
        RadianceFieldConfig(HASH, MLP(hidden_layers=1), MLP(hidden_layers=1)),
        RadianceFieldConfig(TriPlane(), MLP(hidden_layers=1), MLP(hidden_layers=1)),
    ],
    ids=["hash", "dense", "mfn", "bottleneck", "glu", "cam", "dif", "radiance", "planes"],
)
def test_a_field_is_made_as_large_as_asked(config: FieldConfig, n: int) -> None:
    radiance = isinstance(config, RadianceFieldConfig)
    described = (
        {"kind": "capture", "box": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], "unbounded": False} if radiance else IMAGE
    )
    found = with_parameters(config, described, n)
    assert n / 1.25 < n_parameters(found, described) < n * 1.25
    assert type(found.encoding) is type(config.encoding)
    if not isinstance(found.encoding, Hash | Dense | DiF | TriPlane):
        assert found.encoding == config.encoding


def test_a_size_that_cannot_be_had_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no closer than \d"):
        with_parameters(mesh_preset().field, {"kind": "mesh"}, 100)


def test_probes_are_fixed_and_right(tmp_path: Path) -> None:
    image = scenes.load(write_image(tmp_path / "a.png"))
    first, again = probe(image, 3), probe(image, 3)
    assert isinstance(first.inputs, torch.Tensor) and isinstance(again.inputs, torch.Tensor)
    EXACT.check(first.inputs, again.inputs)
    mesh = scenes.load(write_tetrahedron(tmp_path / "t.obj"))
    assert isinstance(mesh, Mesh)
    asked = probe(mesh)
    assert isinstance(asked.inputs, torch.Tensor)
    world = mesh.box.from_unit(asked.inputs)
    inside = (world >= 0).all(1) & (world.sum(1) <= 1)
    assert float((inside == asked.truth).double().mean()) > 0.999
    ball = probe(scenes.load(write_ball(tmp_path / "ball")))
    assert ball.sample.endswith("pixels drawn once, of 2 test views")
    assert len(ball.inputs) == len(ball.truth) == 2048


def test_a_plot_spreads_its_names_and_survives_nothing() -> None:
    same = [(0.1, 20.0), (1.0, 30.0)]
    root = ElementTree.fromstring(curve_plot({"a": same, "b<": same, "c": [], "d": [(0.5, 25.0)]}, "dB"))
    names = {e.text: float(e.attrib["y"]) for e in root.iter("text") if e.attrib["x"] == str(WIDTH - RIGHT + 10)}
    heights = sorted(names.values())
    assert set(names) == {"a", "b<", "c", "d"}
    assert all(b - a > 16 for a, b in itertools.pairwise(heights))
    assert heights[0] > 0 and heights[-1] < HEIGHT
    assert len(list(ElementTree.fromstring(curve_plot({}, "dB")).iter("polyline"))) == 0
