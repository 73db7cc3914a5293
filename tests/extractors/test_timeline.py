"""The timeline against clocks of known rate: exact, rounded, truncated, variable."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.timeline import Timeline, TimelineParams

RATES = [Fraction(5), Fraction(15), Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30)]
RATES += [Fraction(50), Fraction(60000, 1001), Fraction(60), Fraction(120)]
COUNTS = [*range(3, 40), 71, 72, 168, 500, 4_321]
# How containers write a time: exactly, in whole milliseconds (Matroska, FLV; some tools cut instead of rounding), in 90 kHz (MPEG).
CLOCKS: dict[str, Callable[[Fraction], float]] = {
    "exact": lambda t: float(t),
    "ms_rounded": lambda t: float(round(t * 1000)) / 1000,
    "ms_truncated": lambda t: int(t * 1000) / 1000,
    "90kHz": lambda t: float(round(t * 90_000)) / 90_000,
}


def _timeline(rate_hz: float | Literal["native"]) -> Timeline:
    return Timeline(TimelineParams(rate_hz=rate_hz), Runtime())


def _latest_at_or_before(times_s: list[Fraction], tick: Fraction) -> int:
    """The rule itself, in exact arithmetic."""
    return bisect.bisect_right(times_s, tick) - 1


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("offset", [Fraction(0), Fraction(1, 7)], ids=["from 0", "from 1/7 s"])
def test_own_rate_gives_every_frame_once(rate: Fraction, clock: str, offset: Fraction) -> None:
    write = CLOCKS[clock]
    # A clock's step cannot be told from a handful of frames, and a coarse one then costs a row.
    for n in COUNTS if clock in ("exact", "90kHz") else [n for n in COUNTS if n >= 12]:
        times_s = np.array([write(offset + i / rate) for i in range(n)])
        rows = _timeline(float(rate)).rows(times_s - times_s[0])
        assert rows.frame.tolist() == list(range(n)), f"{n} frames"
        np.testing.assert_array_equal(rows.times_s, np.arange(n) / float(rate))


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("wanted", [1, 10, 25, 30, 60])
def test_other_rates_follow_the_rule(rate: Fraction, wanted: int) -> None:
    for n in (1, 2, 9, 73):
        times_s = [i / rate for i in range(n)]
        rows = _timeline(wanted).rows(np.array(times_s, dtype=np.float64))
        end = n / rate
        ticks = [Fraction(k, wanted) for k in range(n * 13) if k == 0 or (Fraction(k, wanted) < end and n > 1)]
        assert rows.frame.tolist() == [_latest_at_or_before(times_s, tick) for tick in ticks]


def test_variable_rate_follows_the_rule_strictly() -> None:
    rng = np.random.default_rng(0)
    ticks_ms = np.concatenate([[0], np.cumsum(rng.integers(17, 125, size=200))])
    times_s = ticks_ms / 1000
    rows = _timeline(30).rows(times_s)
    end_s = times_s[-1] + np.median(np.diff(times_s))
    assert len(rows.frame) == np.ceil(end_s * 30 - 1e-4)
    exact_s = [Fraction(int(t), 1000) for t in ticks_ms]
    assert rows.frame.tolist() == [_latest_at_or_before(exact_s, Fraction(k, 30)) for k in range(len(rows.frame))]


def test_a_tick_on_a_frame_shows_it_in_spite_of_rounding() -> None:
    # 0.1 * 3 > 0.3 in float64: the frame is at the tick, and a plain comparison misses it. The rate varies.
    times_s = np.array([0.0, 0.1 * 3, 0.5])
    assert times_s[1] > 0.3
    assert _timeline(10).rows(times_s).frame.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]  # 0.25 s for the last: the median interval


def test_native_keeps_every_frame_at_its_time() -> None:
    times_s = np.array([0.0, 0.04, 0.04, 0.3])
    rows = _timeline("native").rows(times_s)
    np.testing.assert_array_equal(rows.times_s, times_s)
    assert rows.frame.tolist() == [0, 1, 2, 3]


def test_long_source_does_not_drift() -> None:
    n = 3 * 3600 * 30
    rows = _timeline(30).rows(np.arange(n) / 30)
    assert np.array_equal(rows.frame, np.arange(n))


def test_real_variable_rate_clip(media: Path) -> None:
    import av

    with av.open(str(media / "noface_then_face_vfr.mov")) as container:
        times_s = np.array([frame.time for frame in container.decode(video=0)])
    times_s -= times_s[0]
    assert len(_timeline("native").rows(times_s).frame) == 169
    rows = _timeline(30).rows(times_s)
    assert len(rows.frame) == 192  # 6.345 s + 0.033 s, at 30 Hz: ticks 0 to 191
    assert np.all(times_s[rows.frame] <= rows.times_s + 1e-6)
    later = np.append(times_s, np.inf)[rows.frame + 1]
    assert np.all(later > rows.times_s)


@pytest.mark.parametrize("times_s", [[], [0.5, 0.6], [0.0, 0.2, 0.1], [0.0, np.nan]], ids=["none", "late", "back", "nan"])
def test_what_is_no_clock_is_refused(times_s: list[float]) -> None:
    why = "no decodable frame" if not times_s else "start at 0 and never step back"
    with pytest.raises(ExtractorError, match=why):
        _timeline(30).rows(np.array(times_s))


@pytest.mark.parametrize("rate_hz", [0, -1.0, 1001, float("nan"), "fast", True])
def test_bad_rate_is_named(rate_hz: Any) -> None:
    with pytest.raises(ValueError, match=r"^rate_hz: expected 'native' or a number"):
        TimelineParams(rate_hz=rate_hz)
