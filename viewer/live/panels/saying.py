"""Telling a person what went wrong, in their browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scenes.errors import InputError

if TYPE_CHECKING:
    from viewer.live.session import Session


@contextlib.contextmanager
def failing(session: Session) -> Iterator[None]:
    """Errors of input become a notification."""
    try:
        yield
    except InputError as error:
        tell(session, "That did not work", str(error), bad=True)


def tell(session: Session, title: str, text: str, *, bad: bool = False) -> None:
    """A notification."""
    session.client.add_notification(
        title, text, auto_close_seconds=None if bad else 6.0, color=(200, 60, 50) if bad else (52, 150, 80)
    )
