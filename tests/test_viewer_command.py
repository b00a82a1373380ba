"""`fieldfit view` and `fit --view` where something is wrong: one line, exit code 1, nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program, assert_one_line
from tiny_runs import fit_image, write_image


@pytest.fixture(scope="module")
def fieldfit() -> Iterator[Program]:
    with Program() as program:
        yield program


@pytest.fixture(scope="module")
def run(fieldfit: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_image(fieldfit, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken(fieldfit: Program, run: Path, taken: int, tmp_path: Path) -> None:
    assert_one_line(fieldfit(tmp_path, "view", run, "--port", taken), 1, f"port {taken} is taken", "--port")
    image = write_image(tmp_path / "stripes.png")
    assert_one_line(fieldfit(tmp_path, "fit", image, "--view", "--port", taken), 1, f"port {taken} is taken")
    assert [path.name for path in tmp_path.iterdir() if path.name != "runs"] == ["stripes.png"]
    assert not (tmp_path / "runs" / "stripes").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--port", 65536), "expected a port from 0 to 65535, got 65536"),
        (("--port", -1), "expected a port from 0 to 65535, got -1"),
        (("--host", "no.such.host.invalid"), "expected a host of this machine"),
        (("--token", "short"), "expected a token of 8 to 256"),
        (("--token", "with space in it"), "expected a token of 8 to 256"),
    ],
)
def test_a_door_that_cannot_be_opened(
    fieldfit: Program, run: Path, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    assert_one_line(fieldfit(tmp_path, "view", run, *options), 1, words)


def test_what_is_no_run(fieldfit: Program, tmp_path: Path) -> None:
    assert_one_line(fieldfit(tmp_path, "view", tmp_path / "nowhere"), 1, "there is no such run")
    assert_one_line(fieldfit(tmp_path, "view", tmp_path), 1, "is not a run")
