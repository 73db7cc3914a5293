"""Work on several threads: shared among them, or done by one ahead of need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Crew:
    """n_threads work together, whoever calls `map` included."""

    def __init__(self, n_threads: int) -> None:
        self._n_others = n_threads - 1
        self._others = ThreadPoolExecutor(max(self._n_others, 1), "faces")

    def map(self, work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
        """What work makes of each item, in order. Raises what work raises.

        Nobody waits for a thread that has not begun: on a busy machine whoever asks does all of it.
        """
        given = list(items)
        outcomes: dict[int, Outcome] = {}
        left = iter(range(len(given)))  # the next number is taken in one step, by one thread

        def take() -> None:
            for number in left:
                outcomes[number] = work(given[number])

        helping = [self._others.submit(take) for _ in range(min(self._n_others, len(given) - 1))]
        try:
            take()
        finally:
            for helper in helping:
                if not helper.cancel():
                    helper.result()
        return [outcomes[number] for number in range(len(given))]


def ahead(work: Callable[[Item], Outcome], items: Iterable[Item]) -> Generator[Outcome, None, None]:
    """What work makes of each item, in order, by a thread of its own, one after the other, while the next item comes in.

    Two items are held at most. Whoever stops in the middle waits for the work that has begun.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        begun: deque[Future[Outcome]] = deque()
        try:
            for item in items:
                begun.append(thread.submit(work, item))
                if len(begun) > 1 or begun[0].done():
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for left in begun:
                left.cancel()
