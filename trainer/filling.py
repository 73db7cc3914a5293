"""Which row's prediction a frame takes: its own, or the one nearest in time, of the same trial."""

from __future__ import annotations

import numpy as np

from trainer.arrays import Bool, Float64, Int64

OWN = -1.0


def nearest(known_s: Float64, wanted_s: Float64) -> Int64:
    """Of each wanted time the number of the nearest known one, of two as near the earlier. known_s: (K,) ascending, K > 0."""
    right = np.clip(np.searchsorted(known_s, wanted_s), 0, len(known_s) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(wanted_s - known_s[left] <= known_s[right] - wanted_s, left, right).astype(np.int64)


def nearest_valid(times_s: Float64, valid: Bool) -> Int64:
    """(R,) of each row itself where it is valid, else the valid row nearest in time. At least one is; times_s: (R,) ascending."""
    kept = np.flatnonzero(valid)
    taken = kept[nearest(times_s[kept], times_s)]
    return np.where(valid, np.arange(len(valid)), taken).astype(np.int64)


def rows_of_frames(wanted: Int64, frame: Int64, times_s: Float64, valid: Bool) -> tuple[Int64, Float64]:
    """Of each wanted source frame the row that is taken, and how far away in time it is; OWN where it is the frame's own row.

    wanted: (F,). frame, times_s, valid: (R,) of one trial's rows, frames never stepping back; at least one row is valid. Of several rows
    of one frame (a rate above the video's) the first valid one is taken. Of a frame without a row (a rate below) the time follows from
    the rows about it.
    """
    number, kept = numbers(frame), np.flatnonzero(valid)
    at = np.minimum(np.searchsorted(number[kept], wanted), len(kept) - 1)
    is_own = number[kept[at]] == wanted
    wanted_s = _times_of(wanted, number, times_s)
    near = kept[nearest(times_s[kept], wanted_s)]
    rows = np.where(is_own, kept[at], near).astype(np.int64)
    return rows, np.where(is_own, OWN, np.abs(times_s[rows] - wanted_s))


def numbers(frame: Int64) -> Int64:
    """Frame numbers where labelled rows past the video's end, -1 in a store, count on from the last frame."""
    is_past = frame < 0
    return np.where(is_past, frame.max(initial=-1) + np.cumsum(is_past), frame)


def _times_of(wanted: Int64, number: Int64, times_s: Float64) -> Float64:
    """By the rows' times, straight on past both ends."""
    known, first = np.unique(number, return_index=True)
    known_s = times_s[first]
    span = known[-1] - known[0]
    step_s = (known_s[-1] - known_s[0]) / span if span else 0.0
    inside = np.interp(wanted, known, known_s)
    return np.asarray(inside + step_s * (np.minimum(wanted - known[0], 0) + np.maximum(wanted - known[-1], 0)))
