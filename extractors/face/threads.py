"""Work shared among threads, of which the caller is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Crew:
    """n_threads: the caller's included. begin: what each of the others does first of all."""

    def __init__(self, n_threads: int, begin: Callable[[], object] = lambda: None) -> None:
        self._n_others = n_threads - 1
        self._others = ThreadPoolExecutor(max(self._n_others, 1), "faces", begin)

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
            for help in helping:
                if not help.cancel():
                    help.result()
        return [outcomes[number] for number in range(len(given))]
