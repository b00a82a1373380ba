"""Shapes and types of calls are checked in tests, for up to two fifths of their time; spared where calls repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import config


@contextmanager
def unchecked() -> Iterator[None]:
    """As users run it, until the end of the block: for what calls the same thousands of times."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)
