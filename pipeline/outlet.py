"""The decoding process's end of the line: requests come in, records and slots full of pictures go out (see `pipeline.records`)."""

from __future__ import annotations

import json
import mmap
import os
import select
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.records import BATCH_BYTES, BATCH_FRAMES, HEAD, ORDER

INPUT, OUTPUT = 0, 1
ALIVE_S = 5.0  # how long the decoder works in silence; its reader takes a much longer one for a hang
WATCH_MS = 500


def end_with_parent() -> None:
    """From now on this process ends when its parent does, or closes its input, even while it hangs in a library's code."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    closed = select.poll()
    closed.register(INPUT, 0)  # no event but the end of all who could write, which is always told
    # A process that the parent forked off may hold the pipe open after the parent's end: so whose child this is is looked at too.
    while os.getppid() == parent and not closed.poll(WATCH_MS):
        pass
    os._exit(1)


class Outlet:
    """slots: the descriptors of the files that are shared with the reader, each of BATCH_BYTES."""

    def __init__(self, slots: Sequence[int]) -> None:
        self._files = tuple(slots)
        self._slots = [np.frombuffer(mmap.mmap(file, BATCH_BYTES), np.uint8) for file in slots]
        self._free = list(range(len(self._slots)))
        self._sent_s = time.monotonic()

    def request(self) -> bytes:
        """The next request. Raises EOFError where there will be none."""
        while (length := self._order()) is None:
            pass
        self._sent_s = time.monotonic()
        return _read(length)

    def _order(self) -> int | None:
        """Take one order: the length of a request, or None where a slot was given back."""
        tag, number = ORDER.unpack(_read(ORDER.size))
        if tag == b"q":
            return int(number)
        self._free.append(number)
        return None

    def _wait(self, slot: int | None = None) -> None:
        """Until that slot is free; any, where none is named."""
        while not (self._free if slot is None else slot in self._free):
            if self._order() is not None:
                raise ValueError("a request came before the last one was done")

    def send(self, tag: bytes, data: bytes, *, slot: int = 0, height: int = 0, width: int = 0) -> None:
        message = memoryview(HEAD.pack(tag, len(data), slot, height, width) + data)
        while message:
            message = message[os.write(OUTPUT, message) :]
        self._sent_s = time.monotonic()

    def send_json(self, tag: bytes, data: dict[str, Any]) -> None:
        self.send(tag, json.dumps(data).encode())

    def is_at_work(self) -> None:
        """Tell so where nothing was sent for long: most of a video may be passed over between two frames that are wanted."""
        if time.monotonic() - self._sent_s > ALIVE_S:
            self.send(b"a", b"")

    def take(self, shape: tuple[int, int, int], n_frames: int) -> tuple[int, Any]:
        """A free slot, once there is one, and its (n_frames, H, W, 3) uint8. The one that came back last is in the processor's cache."""
        self._wait()
        slot = self._free.pop()
        return slot, self._slots[slot][: n_frames * int(np.prod(shape))].reshape(n_frames, *shape)

    def drop(self, slot: int) -> None:
        """A slot that was taken is not sent."""
        self._free.append(slot)

    def send_large(self, image: Any, record: bytes) -> None:
        """A picture that no slot holds: its file is made as long as it takes, and nothing goes on before the reader has it."""
        self._wait()
        slot = self._free.pop()
        rest, at = np.ascontiguousarray(image).data.cast("B"), 0
        while at < len(rest):
            at += os.pwrite(self._files[slot], rest[at:], at)
        self.send(b"b", record, slot=slot, height=image.shape[0], width=image.shape[1])
        self._wait(slot)


class Batches:
    """Pictures on their way into slots: batches of one size, sent as soon as they are full.

    How many frames are in one follows from the pictures alone, not from who was faster.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._numbers: list[int] = []
        self._times_s: list[float] = []
        self._slot, self._pictures = 0, np.empty((0, 0, 0, 3), np.uint8)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.flush()
        elif self._numbers:
            self._outlet.drop(self._slot)

    def add(self, number: int, time_s: float, image: Any) -> None:
        """image: (H, W, 3) uint8, laid out in whatever way."""
        if self._numbers and image.shape != self._pictures.shape[1:]:
            self.flush()
        if image.nbytes > BATCH_BYTES:
            self._outlet.send_large(image, _record([number], [time_s]))
            return
        if not self._numbers:
            n_frames = min(BATCH_FRAMES, BATCH_BYTES // image.nbytes)
            self._slot, self._pictures = self._outlet.take(image.shape, n_frames)
        self._pictures[len(self._numbers)] = image
        self._numbers.append(number)
        self._times_s.append(time_s)
        if len(self._numbers) == len(self._pictures):
            self.flush()

    def flush(self) -> None:
        """Send what there is, if anything."""
        if self._numbers:
            _, height, width, _ = self._pictures.shape
            self._outlet.send(b"b", _record(self._numbers, self._times_s), slot=self._slot, height=height, width=width)
        self._numbers, self._times_s = [], []


def _record(numbers: list[int], times_s: list[float]) -> bytes:
    return np.array(numbers, np.int64).tobytes() + np.array(times_s, np.float64).tobytes()


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(INPUT, size - len(data))
        if not more:
            raise EOFError("the reader is gone")
        data += more
    return data
