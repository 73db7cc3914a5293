"""Alignment and filling against slow loops that follow the definitions word by word."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.contract import Track
from pipeline.align import align, fill, reach_s

unhurried = settings(deadline=None)  # a busy machine is no failure
METHODS = ["nearest", "linear", "previous", "mean"]
POLICIES = ["none", "zero", "nearest", "previous"]
SLACK_S = 1e-6
# Times are multiples of 1/64 s, which float64 adds and halves exactly: ties are true ties, and 1 us of slack decides nothing.
GRID = 64


def make_track(times_s: list[float], valid: list[bool], values: list[list[float]] | None = None) -> Track:
    v = np.array(values if values is not None else [[float(i)] for i in range(len(times_s))], np.float32).reshape(len(times_s), -1)
    v[~np.array(valid, bool)] = np.nan
    return Track(values=v, times_s=np.array(times_s, np.float64), valid=np.array(valid, np.bool_))


ascending = st.lists(st.integers(0, 400), max_size=14, unique=True).map(lambda ticks: [tick / GRID for tick in sorted(ticks)])
measured = st.floats(-100, 100, width=32)


@st.composite
def tracks(draw: Any) -> Track:
    times_s = draw(ascending)
    n = len(times_s)
    valid = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    if not n:
        return Track(values=np.zeros((0, 2), np.float32), times_s=np.zeros(0), valid=np.zeros(0, np.bool_))
    return make_track(times_s, valid, draw(st.lists(st.lists(measured, min_size=2, max_size=2), min_size=n, max_size=n)))


def slow_reach_s(times_s: list[float]) -> float:
    if len(times_s) == 1:
        return times_s[0] + SLACK_S
    return 1.5 * median(b - a for a, b in pairwise(times_s)) + SLACK_S


def slow_row(track: Track, row_s: float, next_s: float, method: str) -> list[float] | None:
    """One row's values, or None where it is not valid."""
    times_s, valid = track.times_s.tolist(), track.valid.tolist()
    values: list[list[float]] = track.values.astype(float).tolist()
    if not times_s:
        return None
    if method == "mean":
        inside = [values[i] for i, t in enumerate(times_s) if valid[i] and row_s - SLACK_S <= t < next_s - SLACK_S]
        return [math.fsum(column) / len(inside) for column in zip(*inside, strict=True)] if inside else None
    reach = slow_reach_s(times_s)
    earlier = [i for i, t in enumerate(times_s) if t <= row_s + SLACK_S]
    if method == "previous":
        nearest = earlier[-1] if earlier else None
    else:
        nearest = min(range(len(times_s)), key=lambda i: (abs(times_s[i] - row_s), i))
    if method == "linear" and earlier and earlier[-1] + 1 < len(times_s):
        a, b = earlier[-1], earlier[-1] + 1
        if valid[a] and valid[b] and times_s[b] - times_s[a] <= 2 * reach:
            share = (row_s - times_s[a]) / (times_s[b] - times_s[a])
            return [x * (1 - share) + y * share for x, y in zip(values[a], values[b], strict=True)]
    if nearest is None or not valid[nearest] or abs(times_s[nearest] - row_s) > reach:
        return None
    return values[nearest]


@pytest.mark.parametrize("method", METHODS)
@unhurried
@given(track=tracks(), rows=ascending)
def test_alignment_is_what_the_definition_says(method: str, track: Track, rows: list[float]) -> None:
    values, valid = align(track, np.array(rows, np.float64), method)
    assert values.shape == (len(rows), track.values.shape[1])
    assert values.dtype == np.float32
    assert valid.dtype == np.bool_
    steps = [b - a for a, b in pairwise(rows)]
    last = median(steps) if steps else (slow_reach_s(track.times_s.tolist()) if len(track.times_s) else 1.0)
    for i, row_s in enumerate(rows):
        expected = slow_row(track, row_s, rows[i + 1] if i + 1 < len(rows) else row_s + last, method)
        assert valid[i] == (expected is not None)
        if expected is None:
            assert np.isnan(values[i]).all()
        else:
            # Interpolated and averaged in float64, stored in float32: half a unit in the last place of values up to 100, and some.
            np.testing.assert_allclose(values[i], expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@unhurried
@given(track=tracks())
def test_a_tracks_own_times_give_the_track_itself(method: str, track: Track) -> None:
    values, valid = align(track, track.times_s, method)
    np.testing.assert_array_equal(valid, track.valid)
    np.testing.assert_array_equal(values[valid], track.values[valid])
    assert np.isnan(values[~valid]).all()


@pytest.mark.parametrize("method", METHODS)
@unhurried
@given(track=tracks(), rows=ascending, broken=st.integers(0, 13))
def test_a_mask_only_ever_spreads(method: str, track: Track, rows: list[float], broken: int) -> None:
    """Losing a row of the track makes no row of the store valid."""
    if not len(track.times_s):
        return
    worse = track.valid.copy()
    worse[broken % len(worse)] = False
    values = np.where(worse[:, None], track.values, np.nan).astype(np.float32)
    _, before = align(track, np.array(rows), method)
    _, after = align(Track(values=values, times_s=track.times_s, valid=worse), np.array(rows), method)
    assert not (after & ~before).any()


def test_ties_go_to_the_earlier_row() -> None:
    values, valid = align(make_track([0, 1, 2], [True] * 3), np.array([0.5, 1.5]), "nearest")
    assert values[:, 0].tolist() == [0.0, 1.0]
    assert valid.all()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Rows every half second from -1 s to 6 s. Ties, at 1.5, 2.5 and 3.5 s, go to the earlier row; a row speaks 1.5 s far.
        ("nearest", "-00000" + "11" + "--" + "3333" + "-"),
        ("previous", "----" + "0011" + "--" + "3333" + "-"),
    ],
)
def test_the_ends_and_gaps_by_eye(method: str, expected: str) -> None:
    track = make_track([1, 2, 3, 4], [True, True, False, True])
    values, valid = align(track, np.arange(-1, 6.01, 0.5), method)
    assert "".join(str(int(value)) if ok else "-" for value, ok in zip(values[:, 0], valid, strict=True)) == expected


def test_a_wide_gap_is_not_bridged() -> None:
    track = make_track([0, 1, 2, 10, 11, 12], [True] * 6)
    values, valid = align(track, np.array([2.0, 3.0, 6.0, 9.0, 10.0]), "linear")
    assert valid.tolist() == [True, True, False, True, True]
    assert values[valid, 0].tolist() == [2.0, 2.0, 3.0, 3.0]


def test_a_single_window_speaks_for_its_own_length() -> None:
    _, valid = align(make_track([0.5], [True]), np.array([0.0, 0.5, 1.0, 1.25]), "nearest")
    assert valid.tolist() == [True, True, True, False]


def test_rounding_of_a_time_decides_nothing() -> None:
    # 0.1 + 0.2 is a little more than 0.3: the frame at "0.3" is not yet the next one's.
    track = make_track([0.0, 0.1, 0.2, 0.1 + 0.2, 0.4], [True] * 5)
    values, valid = align(track, np.array([0.3]), "previous")
    assert (values[0, 0], valid[0]) == (3.0, True)
    values, valid = align(make_track([0.0, 0.3], [True] * 2), np.array([0.0, 0.1 + 0.2]), "mean")
    assert values[:, 0].tolist() == [0.0, 1.0]


def test_a_mean_keeps_its_digits_after_a_large_value() -> None:
    values, valid = align(make_track([0, 1, 2], [True] * 3, [[1e30], [1.0], [2.0]]), np.array([0.0, 1.0, 2.0]), "mean")
    assert valid.all()
    assert values[1:, 0].tolist() == [1.0, 2.0]


def test_frames_of_one_time_do_not_stop_it() -> None:
    track = make_track([0.0, 1.0, 1.0, 2.0], [True] * 4)
    for method in METHODS:
        values, valid = align(track, np.array([0.0, 1.0, 2.0]), method)
        assert valid.all()
        assert values[1, 0] in (1.0, 2.0, 1.5)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_tracks_become_float32(method: str) -> None:
    half = Track(values=np.array([[1.0], [2.0]], np.float16), times_s=np.array([0.0, 1.0]), valid=np.ones(2, np.bool_))
    values, _ = align(half, np.array([0.0, 1.0]), method)
    assert values.dtype == np.float32
    assert values[:, 0].tolist() == [1.0, 2.0]


def test_the_reach_is_one_and_a_half_steps() -> None:
    assert reach_s(np.array([0.0, 1.0, 2.0, 9.0])) == pytest.approx(1.5, abs=2e-6)
    assert reach_s(np.array([0.48])) == pytest.approx(0.48, abs=2e-6)


@pytest.mark.parametrize("policy", POLICIES)
@unhurried
@given(track=tracks())
def test_filling_is_what_the_definition_says(policy: str, track: Track) -> None:
    kept = [i for i, ok in enumerate(track.valid) if ok]
    before = track.values.copy()
    filled = fill(track.values, track.valid, track.times_s, policy)
    np.testing.assert_array_equal(track.values, before)
    assert filled.dtype == np.float32
    for i, ok in enumerate(track.valid):
        earlier = [j for j in kept if j < i]
        if ok:
            expected: Any = before[i]
        elif policy == "zero":
            expected = np.zeros(2)
        elif policy == "nearest" and kept:
            expected = before[min(kept, key=lambda j: (abs(track.times_s[j] - track.times_s[i]), j))]
        elif policy == "previous" and earlier:
            expected = before[earlier[-1]]
        else:
            expected = np.full(2, np.nan)
        np.testing.assert_array_equal(filled[i], expected)
