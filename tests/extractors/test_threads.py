"""Work that threads share: all of it, once, in order; and what one of them raises reaches who asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from extractors.threads import Crew, ahead


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_everything_is_done_once_and_in_order(n_threads: int) -> None:
    crew, done = Crew(n_threads), []

    def work(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        done.append(number)
        return number * number

    for n in (0, 1, 2, 40):
        done.clear()
        assert crew.map(work, iter(range(n))) == [number * number for number in range(n)]
        assert sorted(done) == list(range(n))


def test_others_help_and_are_waited_for() -> None:
    meeting, who = threading.Barrier(2, timeout=10), set()

    def work(number: int) -> None:
        who.add(threading.get_ident())
        meeting.wait()  # one thread alone would wait for ever

    Crew(2).map(work, range(6))
    assert len(who) == 2


def test_a_busy_crew_is_not_waited_for() -> None:
    """Where the other threads have something else to do, whoever asks does it all."""
    crew, busy, free = Crew(2), threading.Event(), threading.Event()

    def block(number: int) -> None:
        if number:
            busy.set()
            free.wait(10)
        else:
            assert busy.wait(10)

    blocking = threading.Thread(target=crew.map, args=(block, range(2)))
    blocking.start()
    assert busy.wait(10)
    assert crew.map(lambda number: threading.get_ident(), range(4)) == [threading.get_ident()] * 4
    free.set()
    blocking.join(10)
    assert not blocking.is_alive()


def test_what_work_raises_is_raised() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("number three")
        return number

    crew = Crew(2)
    with pytest.raises(ValueError, match="number three"):
        crew.map(work, range(8))
    assert crew.map(work, range(3)) == [0, 1, 2]


def test_ahead_is_ahead_of_who_asks_and_by_no_more_than_two() -> None:
    given: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            given.append(number)
            yield number

    for number, outcome in enumerate(ahead(lambda item: -item, items())):
        assert outcome == -number
        assert len(given) <= number + 2
    assert len(given) == 10


def test_ahead_stops_with_who_asks() -> None:
    worked: list[int] = []

    def work(item: int) -> int:
        worked.append(item)
        return item

    outcomes = ahead(work, iter(range(100)))
    assert next(outcomes) == 0
    outcomes.close()
    n_worked = len(worked)
    assert n_worked <= 3
    time.sleep(0.05)
    assert len(worked) == n_worked


def test_ahead_raises_what_work_raises_in_its_turn() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("item two")
        return item

    outcomes = ahead(work, range(5))
    assert [next(outcomes), next(outcomes)] == [0, 1]
    with pytest.raises(ValueError, match="item two"):
        next(outcomes)
