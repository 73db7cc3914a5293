"""Decoding processes, kept from one request to the next: starting one takes longer than decoding a short clip.

A request has its process to itself. What is done with it goes back to the idle ones, of which each process has its own few; one that
was left in the middle of a request is ended.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import mmap
import os
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Frames
from pipeline.process import Process
from pipeline.records import BATCH_BYTES, HEAD, ORDER, SLOTS

IDLE = 2


class EndedError(Exception):
    """The decoding process ended by itself. Its first request was this one, so this one did it."""

    def __init__(self, status: int, said: str) -> None:
        self.status, self.said = status, said
        super().__init__(f"exit status {status}: {said.splitlines()[-1] if said else 'it said nothing'}")


class LostError(EndedError):
    """As EndedError, but it had served other requests before: one of these, or whoever killed it, may have done it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record: its tag and data, and for a batch its slot and the pictures' size."""

    tag: bytes
    data: bytes
    slot: int
    height: int
    width: int


class Decoder:
    """A decoding process and the slots shared with it."""

    def __init__(self, stall_s: float) -> None:
        self.python, self.is_idle, self._n_served = sys.executable, True, 0
        self._files = [_nameless_file() for _ in range(SLOTS)]
        self._slots = [mmap.mmap(file, BATCH_BYTES) for file in self._files]
        self._held: set[int] = set()  # slots that are not the process's, but in use here
        self._freed: deque[int] = deque()  # slots of `held` that are no longer in use
        # -P: the working folder may hold anything, and is no place to import from.
        argv = [sys.executable, "-P", "-m", "pipeline.decoder", *map(str, self._files)]
        self.process = Process(argv, stall_s=stall_s, asked=True, inherits=self._files)
        try:
            self.process.start()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        for file in self._files:
            os.close(file)

    def stop(self) -> None:
        """Pictures that were handed out stay."""
        self.process.stop()
        self._close()

    def ask(self, path: Path, task: str, given: bytes) -> None:
        self.process.said()  # what was said of earlier requests is not of this one
        self.is_idle = False
        request = json.dumps({"path": str(path.absolute()), "task": task}).encode() + b"\n" + given
        self.process.write(ORDER.pack(b"q", len(request)) + request)

    def receive(self) -> Record:
        """The next record; j and e are a request's last. Raises StalledError, EndedError or LostError."""
        while self._freed:
            self._give_back(self._freed.popleft())
        tag = b"a"
        while tag == b"a":
            tag, length, slot, height, width = HEAD.unpack(self._read(HEAD.size))
        record = Record(tag=tag, data=self._read(length), slot=slot, height=height, width=width)
        if tag in (b"j", b"e"):
            self.is_idle, self._n_served = True, self._n_served + 1
        return record

    def _read(self, size: int) -> bytes:
        data = self.process.read(size)
        if len(data) < size:
            raise (LostError if self._n_served else EndedError)(*self.process.finish())
        return data

    def _give_back(self, slot: int) -> None:
        self._held.discard(slot)
        self.process.write(ORDER.pack(b"r", slot))

    def frames(self, record: Record) -> Frames:
        """The batch of a record b. Its pictures lie in the slot, which is given back when the last array that shows them is gone.

        Where the process would have no slot left to go on with, or the picture is larger than one, they are a copy.
        """
        n_frames = len(record.data) // 16
        index = np.frombuffer(record.data, np.int64, n_frames).copy()  # as it is, it could not be written to
        times_s = np.frombuffer(record.data, np.float64, offset=8 * n_frames).copy()
        shape = (n_frames, record.height, record.width, 3)
        return Frames(images=self._pictures(record.slot, shape), times_s=times_s, index=index)

    def _pictures(self, slot: int, shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape))
        if size > BATCH_BYTES:
            pictures = self._large(self._files[slot], shape)
        elif len(self._held) + 1 < SLOTS:
            lent = np.frombuffer(self._slots[slot], np.uint8, size)
            self._held.add(slot)
            # Every array that is made of this one holds on to it. Only noted here: this may run anywhere, at any time.
            weakref.finalize(lent, self._freed.append, slot).atexit = False
            return lent.reshape(shape)
        else:
            pictures = np.frombuffer(self._slots[slot], np.uint8, size).reshape(shape).copy()
        self._give_back(slot)
        return pictures

    @staticmethod
    def _large(file: int, shape: tuple[int, ...]) -> Any:
        pictures = np.empty(shape, np.uint8)
        rest, at = pictures.data.cast("B"), 0
        while at < len(rest):
            got = os.preadv(file, [rest[at:]], at)
            if got == 0:
                raise ValueError(f"a slot's file: expected {len(rest)} bytes, got {at}")
            at += got
        os.ftruncate(file, BATCH_BYTES)
        return pictures


def _nameless_file() -> int:
    """A file of BATCH_BYTES in memory, which takes room only where it is written to. Elsewhere than on Linux it is a temporary one."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("pictures")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, BATCH_BYTES)
    return file


class _Pool:
    """The idle processes of this process."""

    def __init__(self) -> None:
        self.owner, self._lock = os.getpid(), threading.Lock()
        self._idle: list[Decoder] = []

    def take(self, stall_s: float) -> Decoder | None:
        """One that is there and is run by the present interpreter."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                decoder = self._idle.pop()
            if decoder.python == sys.executable and not decoder.process.has_ended():
                decoder.process.stall_s = stall_s
                return decoder
            decoder.stop()

    def put(self, decoder: Decoder) -> None:
        with self._lock:
            if len(self._idle) < IDLE:
                self._idle.append(decoder)
                return
        decoder.stop()

    def stop_all(self) -> None:
        while self._idle:
            self._idle.pop().stop()


_pool = _Pool()


def _own_pool() -> _Pool:
    """A process that was forked off has a copy of its parent's pool, which it leaves alone."""
    global _pool
    if _pool.owner != os.getpid():
        _pool.stop_all()  # closes its copies of the pipes
        _pool = _Pool()
    return _pool


def stop_idle() -> None:
    """End the idle processes. The next request starts one."""
    _own_pool().stop_all()


@cache
def _stop_idle_at_exit() -> None:
    atexit.register(stop_idle)


@contextlib.contextmanager
def lent(stall_s: float, *, fresh: bool = False) -> Iterator[Decoder]:
    """A decoding process for one request. fresh: one that has served none before."""
    _stop_idle_at_exit()
    pool = _own_pool()
    decoder = (None if fresh else pool.take(stall_s)) or Decoder(stall_s)
    try:
        yield decoder
    finally:
        if decoder.is_idle and pool.owner == os.getpid():
            pool.put(decoder)
        else:
            decoder.stop()
