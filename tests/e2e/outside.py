"""Extractors as anyone may bring them: quick, and their values tell what they were computed from.

Tests copy this module under another name and replace VALUE and REFUSE. Beside the copy, NAME.calls gets a line per construction and
per computation, so that a test sees what was tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from extractors.contract import ExtractorError, Float32, Float64, Kind, Rows, Runtime, Track, UInt8, Waveform

VALUE, REFUSE = 1.0, False
CALLS = Path(__file__).with_suffix(".calls")


def note(what: str) -> None:
    with CALLS.open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def compute(what: str) -> None:
    note(what)
    if REFUSE:
        raise ExtractorError("refused", why=what, fix="take another")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    scale: float = 1.0


class Outside:
    """What all of them have."""

    name: ClassVar[str]
    decoder: ClassVar[str | None] = None
    version, Params, precisions, needs_weights, origin, licence = 1, Scale, ("float32",), False, "", "CC0"
    dim = 1

    def __init__(self, params: Scale, runtime: Runtime) -> None:
        self.params = params
        note(f"new {self.name}")


class Count(Outside):
    """The timeline's row numbers from 1, times `scale`, at the rows' own times."""

    name, yields = "count", Kind.FEATURE

    @staticmethod
    def reads(params: Scale) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM, Kind.TIMELINE)

    def extract(self, waveform: Waveform, row_times_s: Float64) -> Track:
        compute("count")
        values = (np.arange(1, len(row_times_s) + 1) * self.params.scale * VALUE).astype(np.float32)
        return Track(values=values[:, None], times_s=row_times_s, valid=np.ones(len(values), np.bool_))


class Peak(Outside):
    """The largest sample, in a row every 10 ms."""

    name, yields = "peak", Kind.FEATURE

    @staticmethod
    def reads(params: Scale) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        compute("peak")
        n = len(waveform.valid)
        values = np.full((n, 1), np.abs(waveform.samples).max(initial=0), np.float32)
        return Track(values=values, times_s=np.arange(n) / 100 + 0.005, valid=np.ones(n, np.bool_))


class Colour(Outside):
    """A crop's mean colour."""

    name, yields, dim, size_px, batch = "colour", Kind.FEATURE, 3, 112, 64

    @staticmethod
    def reads(params: Scale) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    def embed(self, crops: UInt8) -> Float32:
        compute("colour")
        values: Float32 = (crops.mean(axis=(1, 2)) * self.params.scale * VALUE).astype(np.float32)
        return values


class Gain(Outside):
    """The source's sound, louder or softer."""

    name, yields, decoder, rate_hz = "gain", Kind.WAVEFORM, "ffmpeg", 16_000

    @staticmethod
    def reads(params: Scale) -> tuple[Kind, ...]:
        return ()

    def condition(self, waveform: Waveform) -> Waveform:
        compute("gain")
        return Waveform(samples=np.float32(VALUE) * waveform.samples, rate_hz=waveform.rate_hz, valid=waveform.valid)


class Clock(Outside):
    """The source's own frames, faster or slower."""

    name, yields, decoder = "clock", Kind.TIMELINE, "pyav"

    @staticmethod
    def reads(params: Scale) -> tuple[Kind, ...]:
        return ()

    def rows(self, source_times_s: Float64) -> Rows:
        compute("clock")
        return Rows(times_s=source_times_s * VALUE, frame=np.arange(len(source_times_s)))
