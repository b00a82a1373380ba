"""Work at the viewer's desk: what is urgent goes first, what is no longer wanted ends, and long work takes turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from viewer.live.desk import Desk, Urgency
from viewer.live.turns import Turns


def counting(to: list[str], name: str, n: int) -> Iterator[None]:
    for i in range(n):
        to.append(f"{name}{i}")
        yield


def run_dry(desk: Desk) -> None:
    while desk.advance():
        pass


def test_what_is_urgent_goes_first_and_the_rest_goes_on() -> None:
    desk, done = Desk(), []
    desk.submit("film", counting(done, "film", 3), Urgency.ASKED)
    assert desk.advance()
    desk.submit("frame", counting(done, "frame", 2), Urgency.MOVING)
    desk.submit("spare", counting(done, "spare", 1), Urgency.SPARE)
    assert desk.urgent() is Urgency.MOVING
    run_dry(desk)
    assert done == ["film0", "frame0", "frame1", "film1", "film2", "spare0"]
    assert desk.urgent() is None
    assert not desk.advance()


def test_another_job_of_the_same_key_replaces_the_first() -> None:
    desk, done, closed = Desk(), [], []

    def first() -> Iterator[None]:
        try:
            yield from counting(done, "old", 100)
        finally:
            closed.append(True)

    desk.submit("frame", first(), Urgency.RESTING)
    desk.advance()
    desk.submit("frame", counting(done, "new", 2), Urgency.RESTING)
    run_dry(desk)
    assert done == ["old0", "new0", "new1"]
    assert closed == [True]


def test_a_job_that_is_dropped_by_itself_under_way_ends_there() -> None:
    desk, done = Desk(), []

    def job() -> Iterator[None]:
        done.append("begun")
        desk.drop("frame")
        yield
        done.append("never")

    desk.submit("frame", job(), Urgency.RESTING)
    run_dry(desk)
    assert done == ["begun"]
    assert not desk.has("frame")


def test_a_job_that_waits_is_not_begun_early() -> None:
    desk, done = Desk(), []
    desk.submit("rest", counting(done, "rest", 1), Urgency.RESTING, after=3600.0)
    assert not desk.advance()
    assert desk.has("rest")
    desk.submit("rest", counting(done, "now", 1), Urgency.RESTING)
    run_dry(desk)
    assert done == ["now0"]


def test_a_job_may_pause_and_goes_on_by_itself() -> None:
    desk, done = Desk(), []

    def job() -> Iterator[float | None]:
        done.append("begun")
        yield 0.01
        done.append("ended")

    desk.submit("play", job(), Urgency.ASKED)
    assert desk.advance()
    assert desk.has("play")
    while desk.has("play"):
        desk.wait(60.0)
        desk.advance()
    assert done == ["begun", "ended"]


def test_a_failure_is_told_once_and_ends_only_its_job() -> None:
    desk, done, errors = Desk(), [], []

    def failing() -> Iterator[None]:
        yield
        raise ValueError("no such frame")

    desk.submit("bad", failing(), Urgency.MOVING, failed=errors.append)
    desk.submit("good", counting(done, "good", 1), Urgency.SPARE)
    run_dry(desk)
    assert [str(error) for error in errors] == ["no such frame"]
    assert done == ["good0"]


def test_jobs_come_from_any_thread() -> None:
    desk, done = Desk(), []
    threads = [
        threading.Thread(target=lambda i=i: desk.submit(i, counting(done, f"job{i}.", 5), Urgency.ASKED))
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_dry(desk)
    assert sorted(done) == sorted(f"job{i}.{k}" for i in range(20) for k in range(5))


def test_a_wait_ends_when_something_comes() -> None:
    desk = Desk()
    threading.Timer(0.05, lambda: desk.submit("late", iter(()), Urgency.SPARE)).start()
    desk.wait(600.0)
    assert desk.has("late")


def test_work_on_another_thread_calls_back_on_this_one() -> None:
    desk, turns, results = Desk(), Turns(), []
    here = threading.get_ident()

    def field(x: int) -> int:
        assert threading.get_ident() == here
        return x * x

    ask = turns.wrap(field)

    def work() -> int:
        assert threading.get_ident() != here
        return sum(ask(i) for i in range(10))

    desk.submit("mesh", turns.steps(work, results.append), Urgency.ASKED)
    run_dry(desk)
    assert results == [sum(i * i for i in range(10))]


@pytest.mark.parametrize("where", ["work", "call"])
def test_what_goes_wrong_is_raised_at_the_desk(where: str) -> None:
    desk, turns, results, errors = Desk(), Turns(), [], []

    def fail() -> None:
        raise ValueError(where)

    ask = turns.wrap(fail)
    work = fail if where == "work" else ask
    desk.submit("mesh", turns.steps(work, results.append), Urgency.ASKED, failed=errors.append)
    run_dry(desk)
    assert results == []
    assert [str(error) for error in errors] == [where]


def test_work_that_is_dropped_ends_its_thread() -> None:
    desk, turns, results = Desk(), Turns(), []
    ended, begun = threading.Event(), threading.Event()
    ask = turns.wrap(lambda: None)

    def work() -> None:
        begun.set()
        try:
            while True:
                ask()
        finally:
            ended.set()

    desk.submit("mesh", turns.steps(work, results.append), Urgency.ASKED)
    while not begun.is_set():
        desk.advance()
    desk.drop("mesh")
    run_dry(desk)
    assert ended.wait(60)
    assert results == []
