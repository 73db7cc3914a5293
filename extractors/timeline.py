"""The timeline: which source frame each row shows, and when. Frames are selected by time, never re-encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from extractors.contract import ExtractorError, Float64, Kind, Rows, Runtime

# Presentation times are exact fractions turned into float64: a tick that means the same instant differs by far less than this.
TOLERANCE_S = 1e-6
# A container's coarse clock moves a frame by less than this: Matroska and FLV round to 1 ms, and so may be 1 ms off against frame 0.
COARSE_CLOCK_S = 2e-3
# MPEG's clock has 90,000 ticks per second; frame 0 and another frame may each be half a tick off.
MPEG_TICK_S = 1 / 90_000
MAX_RATE_HZ = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineParams:
    """rate_hz: "native" keeps every decoded frame at its own time; a number asks for a constant rate, in rows per second."""

    rate_hz: float | Literal["native"] = "native"

    def __post_init__(self) -> None:
        if self.rate_hz == "native":
            return
        if isinstance(self.rate_hz, bool) or not isinstance(self.rate_hz, (int, float)) or not 0 < self.rate_hz <= MAX_RATE_HZ:
            raise ValueError(f"rate_hz: expected 'native' or a number of rows per second up to {MAX_RATE_HZ:g}, got {self.rate_hz!r}")


class Timeline:
    """Rows of a source: its own frames, or a constant rate at which each tick shows the latest frame at or before it."""

    name: ClassVar[str] = "timeline"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = TimelineParams
    yields: ClassVar[Kind] = Kind.TIMELINE
    decoder: ClassVar[str | None] = "pyav"
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"

    def __init__(self, params: TimelineParams, runtime: Runtime) -> None:
        self.params = params

    @staticmethod
    def reads(params: TimelineParams) -> tuple[Kind, ...]:
        return ()

    def rows(self, source_times_s: Float64) -> Rows:
        """(F,) float64 presentation times, 0.0 first and never stepping back -> one row per frame, or one per tick.

        Ticks are at k / rate_hz for k = 0, 1, ... in the half-open interval [0, end). The last frame is shown for the median
        interval (for the mean interval where the rate is constant), so N frames at rate_hz give N rows. A one-frame source gives
        one row. "At or before" allows for TOLERANCE_S, and for the rounding of a coarse clock where the source has one (see
        `_clock_noise_s`): without it a 30 Hz Matroska file would show every third frame twice and every third never.

        Raises ExtractorError when there is no frame, or the times are not a clock.
        """
        times_s = np.asarray(source_times_s, dtype=np.float64)
        _check_clock(times_s)
        if self.params.rate_hz == "native":
            return Rows(times_s=times_s.copy(), frame=np.arange(len(times_s), dtype=np.int64))
        rate_hz = float(self.params.rate_hz)
        ticks_s = np.arange(_n_ticks(times_s, rate_hz), dtype=np.float64) / rate_hz
        frame = np.searchsorted(times_s, ticks_s + _slack_s(times_s, rate_hz), side="right") - 1
        return Rows(times_s=ticks_s, frame=frame.astype(np.int64))


def _check_clock(times_s: Float64) -> None:
    if times_s.ndim != 1 or not len(times_s):
        raise ExtractorError("no timeline", why="the source has no decodable frame", fix="check the file with `affectpipe doctor`")
    if not np.isfinite(times_s).all() or abs(times_s[0]) > TOLERANCE_S or np.any(np.diff(times_s) < 0):
        raise ExtractorError(
            "no timeline",
            why="frame times must start at 0 and never step back",
            fix="give the presentation times of the decoded frames, in presentation order, less the first",
        )


def _mean_interval_s(times_s: Float64) -> float:
    return float(times_s[-1]) / (len(times_s) - 1)


def _clock_noise_s(times_s: Float64) -> float | None:
    """How far a constant-rate source's times stray from a straight line, in seconds; None where the rate varies."""
    if len(times_s) < 3:
        return None
    noise_s = float(np.abs(times_s - np.arange(len(times_s)) * _mean_interval_s(times_s)).max())
    return noise_s if noise_s <= COARSE_CLOCK_S else None


def _slack_s(times_s: Float64, rate_hz: float) -> float:
    """How much later than a tick a frame may be and still count as shown at it: never more than a fifth of a row."""
    noise_s = _clock_noise_s(times_s)
    if noise_s is None:
        return TOLERANCE_S
    # Twice, and a tick at least: the straight line is drawn through times that are themselves rounded, so a little stays unseen.
    return TOLERANCE_S + min(max(2 * noise_s, MPEG_TICK_S), COARSE_CLOCK_S, 0.2 / rate_hz)


def _n_ticks(times_s: Float64, rate_hz: float) -> int:
    """How many ticks lie before the end of the last frame."""
    if len(times_s) == 1:
        return 1
    constant = _clock_noise_s(times_s) is not None
    last_shown_s = _mean_interval_s(times_s) if constant else float(np.median(np.diff(times_s)))
    end_s = float(times_s[-1]) + last_shown_s - _slack_s(times_s, rate_hz)
    return max(1, math.ceil(end_s * rate_hz))
