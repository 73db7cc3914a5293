"""Sums over rows, from which every metric follows. They can be added up, so that a data set is scored in pieces, and again with
trials drawn at random, without its rows.

float64 throughout. Moments are about the mean of their own rows: sums of plain squares would lose their digits where the mean is large.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from trainer.arrays import Bool, Float64, Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of truth and prediction over the valid rows of each of C targets: arrays (C,), or (V, C) of V trials or resamples.

    n: rows. mean_*: 0 where there are none. square_*: sum of squared distances from the mean; product: of the products of both
    distances. low_*, high_*: the extremes (inf and -inf without rows), which tell a constant exactly, as rounded sums cannot.
    """

    n: Float64
    mean_true: Float64
    mean_pred: Float64
    square_true: Float64
    square_pred: Float64
    product: Float64
    low_true: Float64
    high_true: Float64
    low_pred: Float64
    high_pred: Float64

    @classmethod
    def of(cls, true: Float64, pred: Float64, valid: Bool) -> Self:
        """true, pred, valid: (R, C). What is not valid is not looked at."""
        columns = [_moments(true[kept, i], pred[kept, i]) for i, kept in enumerate(valid.T)]
        return cls(**{field.name: np.array([column[j] for column in columns]) for j, field in enumerate(fields(cls))})

    @property
    def is_constant(self) -> Bool:
        """Truth or prediction has one value only, or there is no row."""
        return (self.low_true >= self.high_true) | (self.low_pred >= self.high_pred)

    def pooled(self, weights: Float64) -> Self:
        """(V, C) -> (B, C): as if trial v's rows had come weights[b, v] times. weights (B, V): whole numbers from 0."""
        total = np.maximum(self.n.sum(axis=0), 1)
        shift_true, shift_pred = (self.n * self.mean_true).sum(axis=0) / total, (self.n * self.mean_pred).sum(axis=0) / total
        off_true, off_pred = self.mean_true - shift_true, self.mean_pred - shift_pred
        n = weights @ self.n
        rows = np.maximum(n, 1)
        sum_true, sum_pred = weights @ (self.n * off_true), weights @ (self.n * off_pred)
        square_true = weights @ (self.square_true + self.n * off_true**2) - sum_true**2 / rows
        square_pred = weights @ (self.square_pred + self.n * off_pred**2) - sum_pred**2 / rows
        return type(self)(
            n=n,
            mean_true=np.where(n > 0, shift_true + sum_true / rows, 0.0),
            mean_pred=np.where(n > 0, shift_pred + sum_pred / rows, 0.0),
            square_true=np.maximum(square_true, 0.0),
            square_pred=np.maximum(square_pred, 0.0),
            product=weights @ (self.product + self.n * off_true * off_pred) - sum_true * sum_pred / rows,
            low_true=_lowest(self.low_true, weights),
            high_true=-_lowest(-self.high_true, weights),
            low_pred=_lowest(self.low_pred, weights),
            high_pred=-_lowest(-self.high_pred, weights),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of C classes, or of C yes-or-no labels: arrays (C,), or (V, C). n: valid rows; hit: rows that are and are predicted."""

    n: Float64
    true: Float64
    predicted: Float64
    hit: Float64

    @classmethod
    def of_classes(cls, true: Int64, predicted: Int64, n_classes: int) -> Self:
        """true, predicted: (R,) class numbers of the valid rows."""
        is_hit = true == predicted
        return cls(
            n=np.full(n_classes, float(len(true))),
            true=np.bincount(true, minlength=n_classes).astype(np.float64),
            predicted=np.bincount(predicted, minlength=n_classes).astype(np.float64),
            hit=np.bincount(true[is_hit], minlength=n_classes).astype(np.float64),
        )

    @classmethod
    def of_units(cls, true: Bool, predicted: Bool, valid: Bool) -> Self:
        """(R, C) each. What is not valid is not counted."""
        parts = (valid, true & valid, predicted & valid, true & predicted & valid)
        n, is_true, is_predicted, hit = (part.sum(axis=0).astype(np.float64) for part in parts)
        return cls(n=n, true=is_true, predicted=is_predicted, hit=hit)

    def pooled(self, weights: Float64) -> Self:
        """(V, C) -> (B, C): as if trial v's rows had come weights[b, v] times."""
        return type(self)(**{field.name: weights @ getattr(self, field.name) for field in fields(self)})


Sums = Moments | Counts


def stacked(parts: list[Sums]) -> Sums:
    """V sums of (C,) arrays as one of (V, C) arrays."""
    kind = type(parts[0])
    return kind(**{field.name: np.stack([getattr(part, field.name) for part in parts]) for field in fields(kind)})


def added(first: Sums, second: Sums) -> Sums:
    """Two sums of (C,) arrays as one."""
    both = stacked([first, second]).pooled(np.ones((1, 2)))
    return type(both)(**{field.name: getattr(both, field.name)[0] for field in fields(both)})


def ccc(moments: Moments) -> Float64:
    """Lin's concordance correlation coefficient with population moments; 0 for a constant truth or prediction, and without rows."""
    rows = np.maximum(moments.n, 1)
    apart = (moments.mean_true - moments.mean_pred) ** 2
    below = (moments.square_true + moments.square_pred) / rows + apart
    return _ratio(2 * moments.product / rows, below, moments.is_constant)


def pearson(moments: Moments) -> Float64:
    """Pearson's correlation; 0 where it is undefined: for a constant truth or prediction, and without rows."""
    below = np.sqrt(moments.square_true) * np.sqrt(moments.square_pred)
    return np.clip(_ratio(moments.product, below, moments.is_constant), -1.0, 1.0)


def f1(counts: Counts) -> Float64:
    """2 hit / (true + predicted); 0 where nothing is and nothing is predicted."""
    below = counts.true + counts.predicted
    return _ratio(2 * counts.hit, below, below == 0)


def _ratio(above: Float64, below: Float64, is_zero: Bool) -> Float64:
    is_zero = is_zero | (below <= 0)
    return np.where(is_zero, 0.0, above / np.where(is_zero, 1.0, below))


def _moments(true: Float64, pred: Float64) -> tuple[float, ...]:
    """In the order of the fields of Moments."""
    n = len(true)
    if not n:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.inf, -np.inf, np.inf, -np.inf
    mean_true, mean_pred = true.mean(), pred.mean()
    off_true, off_pred = true - mean_true, pred - mean_pred
    squares = (off_true**2).sum(), (off_pred**2).sum(), (off_true * off_pred).sum()
    return float(n), mean_true, mean_pred, *squares, true.min(), true.max(), pred.min(), pred.max()


def _lowest(values: Float64, weights: Float64) -> Float64:
    """(V, C), (B, V) -> (B, C): the least of the values whose weight is not 0, inf where all are."""
    lowest = np.empty((len(weights), values.shape[1]))
    is_drawn = weights > 0
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column], kind="stable")
        drawn = is_drawn[:, order]
        first = order[drawn.argmax(axis=1)]
        lowest[:, column] = np.where(drawn.any(axis=1), values[first, column], np.inf)
    return lowest
