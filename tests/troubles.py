"""Extractors that get into trouble, as often as the file that TROUBLE names has lines: each is one trouble, taken out before it happens.

`Level` meets them on clips without sound, `Hungry` on every picture. What they compute otherwise does not depend on them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from extractors.contract import ExtractorError, Float32, Float64, Kind, Runtime, Track, UInt8, Waveform

MOST_BYTES = 4 << 30  # more than the tests' limits, less than a machine has


def segfault() -> None:
    ctypes.string_at(0)


def fill_memory() -> None:
    """Until one is killed for it."""
    taken = [b"x" * (32 << 20)]
    while len(taken) < MOST_BYTES // (32 << 20):
        taken.append(b"x" * (32 << 20))
        time.sleep(0.02)
    raise AssertionError("nobody minded")


def lose_a_disk() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def fill_a_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def use_temporary_space() -> None:
    """A megabyte."""
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * (1 << 20))


def refuse() -> None:
    raise ExtractorError("refused", why="it was told to", fix="take another")


def break_down() -> None:
    raise ZeroDivisionError("a defect")


TROUBLES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (segfault, fill_memory, lose_a_disk, fill_a_disk, use_temporary_space, refuse, break_down)
}


def meet_trouble() -> None:
    path = Path(os.environ["TROUBLE"])
    left = path.read_text(encoding="utf-8").split() if path.exists() else []
    if left:
        path.write_text("\n".join(left[1:]), encoding="utf-8")
        TROUBLES[left[0]]()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """seconds: that a clip takes at least, so that there is time to disturb it."""

    seconds: float = 0.0


class Level:
    """The largest sample of every 10 ms."""

    name, version, Params, yields, decoder = "level", 1, Slow, Kind.FEATURE, None
    precisions, needs_weights, origin, licence, dim = ("float32",), False, "", "CC0", 1

    def __init__(self, params: Slow, runtime: Runtime) -> None:
        self.params = params

    @staticmethod
    def reads(params: Slow) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        time.sleep(self.params.seconds)
        if not len(waveform.samples):
            meet_trouble()
        n = len(waveform.valid)
        values = np.abs(np.pad(waveform.samples, (0, n * 160 - len(waveform.samples)))).reshape(n, 160).max(axis=1, initial=0)
        return Track(values=values[:, None].astype(np.float32), times_s=np.arange(n) / 100 + 0.005, valid=np.ones(n, np.bool_))


class Hungry:
    """A crop's mean colour. Of more crops at once than TROUBLE says torch finds no memory, in earnest."""

    name, version, Params, yields, decoder, dim, size_px = "hungry", 1, Slow, Kind.FEATURE, None, 3, 112
    precisions, needs_weights, origin, licence = ("float32",), False, "", "CC0"
    batch: int = 64
    asked: ClassVar[list[int]] = []  # how many crops, each time

    def __init__(self, params: Slow, runtime: Runtime) -> None:
        self.params = params

    @staticmethod
    def reads(params: Slow) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    def embed(self, crops: UInt8) -> Float32:
        import torch

        self.asked.append(len(crops))
        path = Path(os.environ["TROUBLE"])
        if path.exists() and len(crops) > int(path.read_text(encoding="utf-8")):
            torch.empty(1 << 50, dtype=torch.uint8)
        values: Float32 = crops.mean(axis=(1, 2)).astype(np.float32)
        return values
