"""Crops kept in a temporary file, so that memory does not grow with the number of faces in a video."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from typing import overload

import numpy as np

from extractors.contract import Int64

BUFFER_BYTES = 1 << 18


class Spool:
    """Byte strings, appended one after another to a file without a name and read back by number.

    The file lies in Python's temporary folder, is never visible to others and is gone with the object, however the process ends.
    An OSError (a full disk) is left to the caller. Not safe to share between threads: reading moves the file's position.
    """

    def __init__(self) -> None:
        with ExitStack() as opened:
            self._file = opened.enter_context(tempfile.TemporaryFile(buffering=BUFFER_BYTES))
            weakref.finalize(self, opened.pop_all().close)  # the file lives as long as the spool does
        self._offsets = array("q", [0])
        self._at_end = True  # a seek, even to where the file already is, would write out what is still in the buffer

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def sizes(self) -> Int64:
        """(len,) how many bytes each string has."""
        offsets = np.array(self._offsets, dtype=np.int64)
        return np.asarray(offsets[1:] - offsets[:-1], dtype=np.int64)

    def append(self, data: bytes) -> int:
        """The number under which `data` can be read again."""
        if not self._at_end:
            self._file.seek(self._offsets[-1])
            self._at_end = True
        self._file.write(data)
        self._offsets.append(self._offsets[-1] + len(data))
        return len(self) - 1

    def read(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"spool: expected a number below {len(self)}, got {number}")
        start, stop = self._offsets[number], self._offsets[number + 1]
        self._at_end = False
        self._file.seek(start)
        return bytes(self._file.read(stop - start))


class SpooledCrops(Sequence[bytes]):
    """Some of a spool's byte strings as a sequence that reads each one when asked. A negative number stands for b""."""

    def __init__(self, spool: Spool, numbers: Int64) -> None:
        self._spool, self._numbers = spool, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return SpooledCrops(self._spool, self._numbers[index])
        number = int(self._numbers[index])
        return b"" if number < 0 else self._spool.read(number)
