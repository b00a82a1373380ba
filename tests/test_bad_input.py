"""Whatever is wrong with what a person gives: one line that names it, an exit code, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_captures
from PIL import Image
from program import Program, assert_one_line
from tiny_runs import fit_image, write_image, write_tetrahedron


@dataclass(frozen=True)
class Mistake:
    """Bad input, and what the one line has to say."""

    make: Callable[[Path, Path], list[object]]
    """Writes the data into a folder and gives the arguments."""
    words: tuple[str, ...]
    code: int = 1


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def broken_capture(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], list[object]]:
    """`fit` of photographs whose transforms.json was changed."""

    def make(folder: Path, fitted: Path) -> list[object]:
        path = tiny_captures.write_transforms(folder / "photos", tiny_captures.ring(3))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return ["fit", "photos"]

    return make


def broken_run(change: Callable[[Path], object], *arguments: object) -> Callable[..., list[object]]:
    """A command on a changed copy of a run."""

    def make(folder: Path, fitted: Path) -> list[object]:
        shutil.copytree(fitted, folder / "run")
        change(folder / "run")
        return list(arguments)

    return make


def newer(run: Path) -> None:
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | {"format": 99, "fieldfit": "42.0"}))


def altered(run: Path) -> None:
    data = bytearray((run / "field.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "field.safetensors").write_bytes(data)


def matrix(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        frame = content["frames"][1]
        frame["transform_matrix"] = change(np.array(frame["transform_matrix"])).tolist()

    return apply


def usage(*arguments: object) -> Callable[..., list[object]]:
    return lambda folder, fitted: list(arguments)


def on_image(*arguments: object) -> Callable[..., list[object]]:
    def make(folder: Path, fitted: Path) -> list[object]:
        write_image(folder / "a.png")
        return ["fit", "a.png", *arguments]

    return make


NAN_MESH = "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
MISTAKES = {
    "no such path": Mistake(usage("fit", "nothing.png"), ("nothing.png: does not exist",)),
    "no known kind": Mistake(lambda f, r: ["fit", text(f / "notes.txt", "hello")], ("notes.txt: is of no known kind",)),
    "folder without data": Mistake(lambda f, r: ["fit", f], ("transforms",)),
    "truncated image": Mistake(lambda f, r: ["fit", cut(write_image(f / "a.png"), 0.6)], ("a.png: ",)),
    "empty image": Mistake(lambda f, r: ["fit", cut(write_image(f / "a.png"), 0)], ("a.png: ",)),
    "no JSON": Mistake(lambda f, r: ["fit", text(f / "transforms.json", "{")], ("transforms.json: ",)),
    "missing key": Mistake(broken_capture(lambda c: c["frames"][1].pop("transform_matrix")), ("transform_matrix",)),
    "NaN": Mistake(broken_capture(matrix(lambda m: m * np.nan)), ("transforms.json: ",)),
    "singular matrix": Mistake(broken_capture(matrix(lambda m: m * 0)), ("transforms.json: ",)),
    "non-rigid matrix": Mistake(broken_capture(matrix(lambda m: m * [3, 1, 1, 1])), ("transforms.json: ",)),
    "missing picture": Mistake(broken_capture(lambda c: c["frames"][0].update(file_path="x.png")), ("x.png",)),
    "path upward": Mistake(broken_capture(lambda c: c["frames"][0].update(file_path="../x.png")), ("--allow-outside",)),
    "absolute path": Mistake(broken_capture(lambda c: c["frames"][0].update(file_path="/x.png")), ("--allow-outside",)),
    "no frames": Mistake(broken_capture(lambda c: c.update(frames=[])), ("transforms.json: ",)),
    "mesh without faces": Mistake(lambda f, r: ["fit", write_tetrahedron(f / "a.obj", "")], ("a.obj: ",)),
    "NaN vertices": Mistake(lambda f, r: ["fit", text(f / "a.obj", NAN_MESH)], ("a.obj: ",)),
    "no such run": Mistake(usage("eval", "runs/x"), ("runs/x: there is no such run",)),
    "no run": Mistake(lambda f, r: ["render", f, "--out", "x.png"], ("is not a run",)),
    "missing field": Mistake(
        broken_run(lambda run: (run / "field.safetensors").unlink(), "eval", "run"), ("is missing",)
    ),
    "altered field": Mistake(broken_run(altered, "eval", "run"), ("run/field.safetensors: was altered",)),
    "newer run": Mistake(broken_run(newer, "export", "run", "x.ply"), ("written by a newer fieldfit (42.0",)),
    "cut checkpoint": Mistake(
        broken_run(lambda run: cut(run / "state.safetensors", 0.5), "fit", "run"),
        ("run/state.safetensors: is cut or altered",),
    ),
    "other data": Mistake(
        broken_run(
            lambda run: Image.new("RGB", (4, 4)).save(run.parent / "b.png"),
            "fit",
            "b.png",
            "--out",
            "run",
            "--resume",
        ),
        ("b.png: holds other data than run was fitted to",),
    ),
    "other loading": Mistake(
        broken_run(lambda run: None, "fit", "run", "--downscale", "2"), ("was made with --downscale 1",)
    ),
    "other field": Mistake(
        broken_run(lambda run: None, "fit", "run", "--field.encoding.levels", "3"),
        ("fixed once a run exists",),
    ),
    "nothing to resume": Mistake(on_image("--resume"), ("runs/a: there is no such run",)),
    "no surface": Mistake(
        broken_run(lambda run: None, "export", "run", "x.ply"), ("run: is of an image, which has no surface",)
    ),
    "no mesh format": Mistake(broken_run(lambda run: None, "export", "run", "x.doc"), ("x.doc: a mesh is",)),
    "no GPU": Mistake(on_image("--device", "cuda"), ("--device cuda: ", "fieldfit doctor")),
    "impossible pair": Mistake(on_image("--encoding", "coordinates", "--network", "mlp"), ("--network siren",)),
    "unknown command": Mistake(usage("fti"), ("unknown command 'fti'; did you mean fit?",), 2),
    "unknown option": Mistake(on_image("--minuts", "1"), ("unknown option --minuts; did you mean --minutes?",), 2),
    "unknown field": Mistake(on_image("--fit.bach", "1"), ("--fit.bach; did you mean --fit.batch?",), 2),
    "option of another preset": Mistake(on_image("--field.march.steps", "3"), ("--field.march.steps is not",), 2),
    "no number": Mistake(on_image("--minutes", "soon"), ("--minutes: expected a number, got soon",), 2),
    "no preset number": Mistake(
        on_image("--fit.batch", "many"), ("--fit.batch: expected a whole number, got many",), 2
    ),
    "no such encoding": Mistake(on_image("--encoding", "hsh"), ("--encoding hsh: expected one of hash, dense",), 2),
    "too few values": Mistake(on_image("--box", "1", "2"), ("--box: expected 6 numbers, got 1 2",), 2),
    "two durations": Mistake(on_image("--minutes", "1", "--steps", "3"), ("give one of them",), 2),
    "no duration": Mistake(on_image("--steps", "0"), ("--steps: expected a number above 0, got 0",), 2),
    "no path": Mistake(usage("fit"), ("PATH is missing",), 2),
    "two paths": Mistake(on_image("b.png"), ("what is 'b.png'?",), 2),
}


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def fitted(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an image; mistakes are made with copies of it."""
    return fit_image(fieldfit, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_behind(fieldfit: Program, fitted: Path, tmp_path: Path, name: str):
    mistake = MISTAKES[name]
    arguments = mistake.make(tmp_path, fitted)
    before = set(tmp_path.rglob("*"))
    done = fieldfit(tmp_path, *arguments)
    assert_one_line(done, mistake.code, *mistake.words)
    assert done.stdout == ""
    assert set(tmp_path.rglob("*")) == before
