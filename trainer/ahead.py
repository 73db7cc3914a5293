"""Batches on a device, read while the one before is computed."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trainer.loader import BatchLoader
from trainer.samples import Sample

DEPTH = 2  # batches that wait


class Ahead:
    """Iterates over a loader and moves each batch to the device, where its memory is its own.

    Worker processes are ahead by themselves. A loader without them is read on a thread: that costs no start, and what reading takes long
    for, the disk and copying, does not hold Python's lock. (Not both: a process that is forked beside a thread that computes may hang.)
    waited_s: how long whoever took the batches has had to wait for them, in all.
    """

    def __init__(self, loader: BatchLoader, device: str) -> None:
        self._loader, self._device = loader, torch.device(device)
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Sample]:
        batches = self._moved() if self._loader.workers else self._read_ahead()
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _moved(self) -> Iterator[Sample]:
        for batch in self._loader:
            yield {name: self._value(value) for name, value in batch.items()}

    def _read_ahead(self) -> Iterator[Sample]:
        ready: queue.Queue[Any] = queue.Queue(DEPTH)
        stop = threading.Event()
        thread = threading.Thread(target=self._fill, args=(ready, stop), daemon=True, name="batches ahead")
        thread.start()
        try:
            while (found := ready.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stop.set()
            while thread.is_alive():  # it may be waiting for room
                with contextlib.suppress(queue.Empty):
                    ready.get(timeout=0.01)

    def _fill(self, ready: queue.Queue[Any], stop: threading.Event) -> None:
        end: BaseException | None = None
        try:
            for batch in self._moved():
                ready.put(batch)
                if stop.is_set():
                    return
        except BaseException as error:  # raised again where the batches are taken
            end = error
        ready.put(end)

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._value(one) for name, one in value.items()}
        if not isinstance(value, Tensor):
            return value
        if self._device.type == "cpu":
            return value.clone()
        return value.pin_memory().to(self._device, non_blocking=True)
