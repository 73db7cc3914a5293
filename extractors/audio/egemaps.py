"""The extended Geneva minimalistic acoustic parameter set, computed by openSMILE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from extractors.audio.smile import HOP_S, LICENCE, LONG_S, SHORT_S, process, smile
from extractors.contract import Float32, Float64, Kind, Runtime, Track, Waveform
from extractors.windows import Windows, masked_track, sounding_s

FeatureSet = Literal["eGeMAPSv02", "eGeMAPSv01b", "eGeMAPSv01a"]
LEAST_WINDOW_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class EgemapsLldParams:
    feature_set: FeatureSet = "eGeMAPSv02"


class EgemapsLld:
    """Low-level descriptors every 10 ms: 25 (v02) or 23 (v01a, v01b).

    Source: Eyben et al., "The Geneva minimalistic acoustic parameter set", IEEE Trans. Affective Computing 7(2), 2016.
    """

    name: ClassVar[str] = "egemaps_lld"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = EgemapsLldParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = LICENCE

    @staticmethod
    def reads(params: EgemapsLldParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def __init__(self, params: EgemapsLldParams, runtime: Runtime) -> None:
        self._smile = smile(params.feature_set, "LowLevelDescriptors")
        self._columns = tuple(self._smile.feature_names)
        self.dim = len(self._columns)

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 25 or 23) float32, one row per 10 ms from the first sample on.

        Row i starts at 0.01 i s in every column, but the columns' windows differ: 20 ms for loudness, spectrum and formants,
        60 ms for pitch, jitter, shimmer, HNR and harmonic differences (openSMILE smooths both over the neighbouring rows).
        times_s are the centres of the 20 ms; the centres of the 60 ms are 20 ms later. A row is valid where the source has sound
        in all the 60 ms; at the sound's end the last 10 ms may be missing, as in openSMILE's last row. Fewer than 60 ms of sound
        give no rows.
        """
        if len(waveform.samples) < math.ceil(LONG_S * waveform.rate_hz):
            return masked_track(
                np.empty((0, self.dim), np.float32), times_s=np.empty(0), valid=np.empty(0, np.bool_), columns=self._columns
            )
        values, start_s = process(self._smile, waveform.samples, waveform.rate_hz)
        end_s = sounding_s(waveform)[1]
        inside = start_s + LONG_S - HOP_S <= end_s + 1e-9
        valid = inside & waveform.covers(start_s, np.minimum(start_s + LONG_S, end_s)) & np.isfinite(values).all(axis=1)
        return masked_track(values, times_s=start_s + SHORT_S / 2, valid=valid, columns=self._columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgemapsFunctionalsParams:
    """hop: a window per timeline row, or windows one after the other. anchor: which part of its window a timeline row is.

    "start" looks ahead, as the published systems do; "end" looks back only.
    """

    feature_set: FeatureSet = "eGeMAPSv02"
    window_s: float = 1.0
    hop: Literal["timeline", "window"] = "timeline"
    anchor: Literal["start", "centre", "end"] = "start"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.window_s) and self.window_s >= LEAST_WINDOW_S):
            raise ValueError(f"window_s: expected {LEAST_WINDOW_S} s or more, got {self.window_s}")


class EgemapsFunctionals:
    """88 statistics of the low-level descriptors over windows of the sound, one per timeline row or one after the other.

    openSMILE needs about 30 ms for a window of one second, so a window per video frame takes about as long as the video.
    """

    name: ClassVar[str] = "egemaps_functionals"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = EgemapsFunctionalsParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = LICENCE

    @staticmethod
    def reads(params: EgemapsFunctionalsParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM, Kind.TIMELINE) if params.hop == "timeline" else (Kind.WAVEFORM,)

    def __init__(self, params: EgemapsFunctionalsParams, runtime: Runtime) -> None:
        self._smile = smile(params.feature_set, "Functionals")
        self._columns = tuple(self._smile.feature_names)
        self._params = params
        self.dim = len(self._columns)

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 88) float32.

        hop "timeline": a row per timeline row, at that row's time. A window that leaves the sound at its beginning or end is cut
        there; the row is valid where at least half of the window is left and the source has sound in all that is left.
        hop "window": only full windows, at their centres, valid where the source has sound in all of it.
        """
        if self._params.hop == "window":
            length = round(self._params.window_s * waveform.rate_hz)
            windows = Windows(length=length, hop=length, rate_hz=waveform.rate_hz)
            n = windows.count(len(waveform.samples))
            return self._track(waveform, windows.centre_s(n), windows.start_s(n), windows.stop_s(n))
        if row_times_s is None:
            raise ValueError("egemaps_functionals: expected the timeline's row times for hop 'timeline', got none")
        before_s = {"start": 0.0, "centre": self._params.window_s / 2, "end": self._params.window_s}[self._params.anchor]
        first_s, last_s = sounding_s(waveform)
        start_s = np.clip(row_times_s - before_s, first_s, last_s)
        stop_s = np.clip(row_times_s - before_s + self._params.window_s, first_s, last_s)
        return self._track(waveform, row_times_s, start_s, stop_s)

    def _track(self, waveform: Waveform, times_s: Float64, start_s: Float64, stop_s: Float64) -> Track:
        long_enough = stop_s - start_s >= self._params.window_s / 2 - 1e-9
        valid = np.asarray(long_enough & waveform.covers(start_s, stop_s), dtype=np.bool_)
        values = np.full((len(times_s), self.dim), np.nan, np.float32)
        for i, sound in zip(np.flatnonzero(valid), _cut(waveform, start_s[valid], stop_s[valid]), strict=True):
            values[i] = process(self._smile, sound, waveform.rate_hz)[0][0]
        return masked_track(values, times_s=times_s, valid=valid & np.isfinite(values).all(axis=1), columns=self._columns)


def _cut(waveform: Waveform, start_s: Float64, stop_s: Float64) -> Iterator[Float32]:
    firsts, lasts = (np.rint(at_s * waveform.rate_hz).astype(np.int64) for at_s in (start_s, stop_s))
    return (waveform.samples[first:last] for first, last in zip(firsts, lasts, strict=True))
