"""What every test gets: shapes and types checked at every call (but see `shapes.py`), two torch threads, a seeded
generator.

The import hook has to be in place before the first import of a package it watches, so it is installed while this
file loads. It is not part of what is shipped: users pay nothing for it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import shapes
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["fields", "scenes", "viewer"], "beartype.beartype")

if TYPE_CHECKING:
    from cuda_shim import Shim

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50, database=None)
settings.load_profile("repeatable")

# A shell starts what runs in the background with Ctrl-C ignored, and programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST_FIRST = [
    f"test_{name}.py"
    for name in (
        "matrix",
        "viewer_browser",
        "cuda_shim",
        "viewer_kinds",
        "cuda_barriers",
        "viewer_controls",
        "cuda_fitting",
        "cuda_compiles",
        "codec_films",
        "cli",
        "codec_files",
        "cuda_layers",
        "codec_network",
    )
]
"""Files that take a minute or more; what begins last should be short, or one process waits for the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are given to processes."""
    rank = {name: i for i, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Every machine that runs the tests sums in the same order; a test may choose another count for itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(two_threads: None) -> None:
    """For small arrays, where a second thread costs more than it brings, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def as_shipped() -> Iterator[None]:
    """Without checks of shapes and types, for tests that read thousands of files of few kinds."""
    with shapes.unchecked():
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator with the same seed for each test."""
    return torch.Generator().manual_seed(20)


@pytest.fixture(scope="session")
def shim_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs of the thread shim stay built."""
    return tmp_path_factory.mktemp("shim")


@pytest.fixture(params=["address", "thread"])
def shim(request: pytest.FixtureRequest, shim_folder: Path) -> Shim:
    """The thread shim under each sanitizer."""
    from cuda_shim import Shim

    return Shim(request.param, shim_folder)
