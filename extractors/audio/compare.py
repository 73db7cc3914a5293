"""The low-level descriptors of the ComParE challenges' feature set, computed by openSMILE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from extractors.audio.smile import LICENCE, LONG_S, SHORT_S, process, smile
from extractors.contract import Float32, Float64, Kind, Runtime, Track, Waveform
from extractors.windows import masked_track

FEATURE_SET = "ComParE_2016"
LEVELS = ("LowLevelDescriptors", "LowLevelDescriptors_Deltas")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareLldParams:
    """deltas: whether each descriptor's slope is given too."""

    deltas: bool = False


class CompareLld:
    """The 65 low-level descriptors of ComParE_2016 every 10 ms, and on request their 65 slopes after them.

    Sources: Schuller et al., "The INTERSPEECH 2016 computational paralinguistics challenge", 2016; the set itself is that of
    Weninger et al., "On the acoustics of emotion in audio: what speech, music, and sound have in common", Frontiers in
    Psychology 4, 2013.
    """

    name: ClassVar[str] = "compare_lld"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = CompareLldParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = LICENCE

    @staticmethod
    def reads(params: CompareLldParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def __init__(self, params: CompareLldParams, runtime: Runtime) -> None:
        self._engines = [smile(FEATURE_SET, level) for level in (LEVELS if params.deltas else LEVELS[:1])]
        self._columns = tuple(name for engine in self._engines for name in engine.feature_names)
        self.dim = len(self._columns)

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 65 or 130) float32, one row per 10 ms from the first sample on. Some exceed float16: the spectral variance is
        in Hz squared.

        Row i starts at 0.01 i s in every column, but the columns' windows differ: 60 ms for pitch, voicing, jitter, shimmer and
        HNR, 20 ms for all others. times_s are the centres of the 20 ms; the centres of the 60 ms are 20 ms later. A row is valid
        where the source has sound in all the 60 ms. What openSMILE smooths reaches further, and is not masked for it: all
        columns take in a row to each side, slopes two more, the best path of the pitch 30 rows after, and the RASTA-filtered
        bands, fading, all rows before. Fewer than 60 ms of sound give no rows.
        """
        values, start_s = self._rows(waveform)
        valid = waveform.covers(start_s, start_s + LONG_S) & np.isfinite(values).all(axis=1)
        return masked_track(values, times_s=start_s + SHORT_S / 2, valid=valid, columns=self._columns)

    def _rows(self, waveform: Waveform) -> tuple[Float32, Float64]:
        """(T, dim) and (T,) seconds: the rows that both levels have, by openSMILE's own times."""
        if len(waveform.samples) < math.ceil(LONG_S * waveform.rate_hz):
            return np.empty((0, self.dim), np.float32), np.empty(0)
        levels = [_timed(engine, waveform) for engine in self._engines]
        ticks = [np.rint(start_s * 1000).astype(np.int64) for _, start_s in levels]
        shared = ticks[0][np.isin(ticks[0], ticks[-1])]
        parts = [values[np.isin(of_level, shared)] for (values, _), of_level in zip(levels, ticks, strict=True)]
        return np.concatenate(parts, axis=1), shared / 1000


def _timed(engine: Any, waveform: Waveform) -> tuple[Float32, Float64]:
    """The rows before the first whose time is not a new one. At its end openSMILE makes a few more, out of a repeated tail (one of
    descriptors, four of slopes), and times them by its last window: what they are of is not said."""
    values, start_s = process(engine, waveform.samples, waveform.rate_hz)
    repeated = np.flatnonzero(np.diff(start_s) <= 0)
    n = int(repeated[0]) + 1 if len(repeated) else len(start_s)
    return values[:n], start_s[:n]
