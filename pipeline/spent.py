"""Where a job's time goes: loading the model, waiting for the decoder, inference, writing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Spent:
    """Seconds by name, measured where the work waits for them. Decoding goes on beside inference: only waiting for it counts."""

    def __init__(self) -> None:
        self.seconds = {"load": 0.0, "decode": 0.0, "write": 0.0}

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def each(self, name: str, items: Generator[Item, None, None]) -> Generator[Item, None, None]:
        """The items, the wait for each counted. None is held on to."""
        with contextlib.closing(items):
            while True:
                with self.on(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item
                del item

    def shares(self, seconds: float) -> dict[str, float]:
        """The seconds by name; inference is what is left of the whole."""
        return {**self.seconds, "inference": max(0.0, seconds - sum(self.seconds.values()))}
