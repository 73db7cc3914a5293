"""Work on several threads: shared among them, or done by one ahead of need. None of it depends on how many there are."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """In here torch does what it does in this thread alone, and afterwards with as many threads as before.

    How it and its libraries divide a layer, a sum or a product among threads decides in which order numbers are added, and so the last
    bits. It takes a fifth of a microsecond.
    """
    import torch

    n_threads = torch.get_num_threads()
    if n_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class Crew:
    """n_threads work together, whoever calls `map` included; each with one thread of torch's."""

    def __init__(self, n_threads: int) -> None:
        self._n_others = n_threads - 1
        self._others = ThreadPoolExecutor(max(self._n_others, 1), "crew")

    def map(self, work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
        """What work makes of each item, in order. Raises what work raises.

        Nobody waits for a thread that has not begun: on a busy machine whoever asks does all of it. So work may share work in turn.
        """
        given = list(items)
        outcomes: dict[int, Outcome] = {}
        left = iter(range(len(given)))  # the next number is taken in one step, by one thread

        def take() -> None:
            with one_torch_thread():
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


@cache
def crew(n_threads: int) -> Crew:
    """The one of so many threads: all that is shared in this process is shared among the same ones."""
    return Crew(n_threads)


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
