"""Ctrl-C and SIGTERM while there is something to save."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import Any

SHOW_CURSOR = "\x1b[?25h"


class StopSignals:
    """While active, the first Ctrl-C or SIGTERM is noted, so that a step can end and be saved; a second one ends the
    process at once."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if sys.stderr.isatty():  # a second signal leaves no time for it
            sys.stderr.write(SHOW_CURSOR)
