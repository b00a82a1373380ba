"""Long work of others, done bit by bit: their calls of the field take turns with everything else on the desk.

The work runs on a thread of its own, and stops at each call of a function that was given to it until the desk makes
that call on the desk's own thread. So a mesh can be extracted by code that knows nothing of the viewer, while pictures
come first.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class Dropped(BaseException):
    """The work is no longer wanted."""


class Turns:
    """Calls that wait for their turn."""

    def __init__(self) -> None:
        self._asked: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._dropped = threading.Event()

    def wrap(self, function: Callable[..., T]) -> Callable[..., T]:
        """The function, for the work to call."""

        def in_turn(*arguments: Any) -> T:
            answer: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue(1)

            def call() -> None:
                try:
                    answer.put((function(*arguments), None))
                except Exception as error:  # noqa: BLE001  raised again where it was called
                    answer.put((None, error))

            self._asked.put(call)
            while True:
                if self._dropped.is_set():
                    raise Dropped
                try:
                    value, error = answer.get(timeout=0.5)
                except queue.Empty:
                    continue
                if error is not None:
                    raise error
                return value  # type: ignore[return-value]

        return in_turn

    def steps(self, work: Callable[[], T], done: Callable[[T], None]) -> Iterator[None]:
        """A job for the desk: the work's calls one by one; at the end `done` gets the result. Raises what it raises."""
        result: list[T] = []
        failure: list[Exception] = []

        def target() -> None:
            try:
                result.append(work())
            except Dropped:
                pass
            except Exception as error:  # noqa: BLE001  handed to the desk
                failure.append(error)
            finally:
                self._asked.put(None)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        try:
            while True:
                try:
                    call = self._asked.get(timeout=0.02)  # it computes by itself meanwhile
                except queue.Empty:
                    yield
                    continue
                if call is None:
                    break
                call()
                yield
        finally:
            self._dropped.set()
        thread.join()
        if failure:
            raise failure[0]
        done(result[0])
