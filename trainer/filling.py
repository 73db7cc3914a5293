"""Rows without a prediction take the one nearest in time, of the same trial."""

from __future__ import annotations

import numpy as np

from trainer.arrays import Bool, Float64, Int64


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
