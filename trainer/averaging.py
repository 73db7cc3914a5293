"""Predictions of overlapping windows, averaged onto the rows of one trial."""

from __future__ import annotations

import numpy as np

from trainer.arrays import Bool, Float64, Floats, Int64


class Average:
    """Takes the windows of a trial of `n_rows` rows one by one.

    average = Average(n_rows, n_columns)
    average.add(start, values)
    values, valid = average.result()
    """

    def __init__(self, n_rows: int, n_columns: int) -> None:
        self._sums = np.zeros((n_rows, n_columns))
        self._weights = np.zeros(n_rows)
        self._counts = np.zeros(n_rows, np.int64)

    def add(self, start: int, values: Floats, weights: Floats | Bool | None = None) -> None:
        """A window whose first row is the trial's row `start`. values: (w, D); weights: (w,) from 0, 1 where left out.

        A row of weight 0 (padding, a masked row) is not looked at, and may lie past the trial's end. Raises ValueError for another row
        past an end, for a weighted value that is not finite and for arrays of other shapes.
        """
        n, columns = self._sums.shape
        weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
        if values.shape != (len(weights), columns):
            raise ValueError(f"a window: expected values ({len(weights)}, {columns}), got {values.shape}")
        if not np.all(np.isfinite(weights) & (weights >= 0)):
            raise ValueError("a window: expected finite weights from 0, got others")
        (inside,) = np.nonzero(weights)
        rows = start + inside
        if len(rows) and (rows[0] < 0 or rows[-1] >= n):
            raise ValueError(f"a window: expected rows 0 to {n - 1}, got {rows[0]} to {rows[-1]}")
        if not np.isfinite(values[inside]).all():
            raise ValueError(f"a window from row {start}: expected finite values where the weight is not 0, got others")
        self._sums[rows] += values[inside] * weights[inside, None]
        self._weights[rows] += weights[inside]
        self._counts[rows] += 1

    @property
    def counts(self) -> Int64:
        """(n_rows,) how many windows each row is the mean of."""
        return self._counts.copy()

    def result(self) -> tuple[Float64, Bool]:
        """values (n_rows, D): weighted means, NaN where not valid. valid (n_rows,): rows that a window has."""
        valid = self._weights > 0
        values = np.full(self._sums.shape, np.nan)
        values[valid] = self._sums[valid] / self._weights[valid, None]
        return values, valid
