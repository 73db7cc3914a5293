"""Putting a track on a row axis by time. Pure. The validity mask travels along: no policy makes an invalid row valid."""

from __future__ import annotations

import numpy as np

from extractors.contract import Bool, Float32, Float64, Int64, Track

SAME_TIME_S = 1e-6


def align(track: Track, row_times_s: Float64, method: str) -> tuple[Float32, Bool]:
    """values (R, D) float32 (NaN where not valid) and valid (R,) for rows at row_times_s (R,), in seconds, ascending.

    nearest: the row nearest in time. linear: between the two around it, both valid, else the nearer. previous: the latest at or
    before. mean: over the track's valid rows in [row, next row). A track row speaks for at most `reach_s` around its centre, so
    that a track that ends early, starts late or has a gap leaves rows invalid.
    """
    n, d = len(row_times_s), track.values.shape[1]
    if not len(track.times_s) or not n:
        return np.full((n, d), np.nan, np.float32), np.zeros(n, np.bool_)
    if method == "mean":
        return _mean(track, row_times_s)
    if method == "linear":
        return _linear(track, row_times_s)
    take = _nearest(track.times_s, row_times_s) if method == "nearest" else _previous(track.times_s, row_times_s)
    return _taken(track, take, row_times_s)


def reach_s(times_s: Float64) -> float:
    """How far from its centre a row still speaks: one and a half steps, so that the first window, centred half its length after
    the start, reaches the start; for a single row, from 0 to twice its centre."""
    if len(times_s) == 1:
        return float(times_s[0]) + SAME_TIME_S
    return 1.5 * float(np.median(np.diff(times_s))) + SAME_TIME_S


def _nearest(times_s: Float64, rows_s: Float64) -> Int64:
    right = np.clip(np.searchsorted(times_s, rows_s), 0, len(times_s) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(rows_s - times_s[left] <= times_s[right] - rows_s, left, right).astype(np.int64)


def _previous(times_s: Float64, rows_s: Float64) -> Int64:
    return (np.searchsorted(times_s, rows_s + SAME_TIME_S, side="right") - 1).astype(np.int64)


def _taken(track: Track, take: Int64, rows_s: Float64) -> tuple[Float32, Bool]:
    inside = take >= 0
    take = np.maximum(take, 0)
    near = np.abs(track.times_s[take] - rows_s) <= reach_s(track.times_s)
    valid = track.valid[take] & inside & near
    values = track.values[take].astype(np.float32)
    values[~valid] = np.nan
    return values, valid


def _linear(track: Track, rows_s: Float64) -> tuple[Float32, Bool]:
    values, valid = _taken(track, _nearest(track.times_s, rows_s), rows_s)
    left = np.clip(_previous(track.times_s, rows_s), 0, len(track.times_s) - 1)
    right = np.minimum(left + 1, len(track.times_s) - 1)
    before, after = track.times_s[left], track.times_s[right]
    between = (before <= rows_s) & (rows_s < after) & (after - before <= 2 * reach_s(track.times_s))
    both = between & track.valid[left] & track.valid[right]
    share = ((rows_s - before)[both] / (after - before)[both])[:, None]
    values[both] = track.values[left[both]] * (1 - share) + track.values[right[both]] * share
    valid = valid | both
    return values, valid


def _mean(track: Track, rows_s: Float64) -> tuple[Float32, Bool]:
    last = float(np.median(np.diff(rows_s))) if len(rows_s) > 1 else reach_s(track.times_s)
    edges = np.append(rows_s, rows_s[-1] + last)
    kept = np.flatnonzero(track.valid)
    bounds = np.searchsorted(track.times_s[kept] + SAME_TIME_S, edges)
    counts = np.diff(bounds)
    valid = counts > 0
    values = np.full((len(rows_s), track.values.shape[1]), np.nan, np.float32)
    if valid.any():
        # Each row's own sum, not a difference of running sums: one large value would cost every later row its last digits.
        inside = track.values[kept[: bounds[-1]]].astype(np.float64)
        values[valid] = np.add.reduceat(inside, bounds[:-1][valid], axis=0) / counts[valid][:, None]
    return values, valid


def fill(values: Float32, valid: Bool, times_s: Float64, policy: str) -> Float32:
    """values with the invalid rows filled: none (NaN), zero, nearest (valid row in time), previous (valid row; NaN before the first)."""
    gaps = np.flatnonzero(~valid)
    if policy == "none" or not len(gaps):
        return values
    filled = values.copy()
    if policy == "zero":
        filled[gaps] = 0
        return filled
    kept = np.flatnonzero(valid)
    if not len(kept):
        return filled
    if policy == "nearest":
        filled[gaps] = values[kept[_nearest(times_s[kept], times_s[gaps])]]
        return filled
    before = np.searchsorted(kept, gaps) - 1
    has = before >= 0
    filled[gaps[has]] = values[kept[before[has]]]
    return filled
