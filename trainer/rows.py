"""Rows of one feature: where they come from, and what stands in for those that are not valid. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from trainer.arrays import Bool, Floats, Int64
from trainer.errors import Problem, TrainerError

Fill = Literal["zero", "nearest", "previous"]


class RowSource(Protocol):
    """One feature on a store's row axis: `pipeline.store.Feature` in a file, `ArrayRows` in memory.

    dim: D. dtype: float16 or float32. valid: (N,) bool. Values of rows that are not valid mean nothing.
    """

    @property
    def dim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def valid(self) -> Bool: ...
    def read(self, start: int, out: npt.NDArray[Any]) -> None:
        """Fill out (R, D), C-contiguous and of dtype, with rows start : start + R."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRows:
    """A feature that is in no file, as scores of an earlier stage. values: (N, D) float32 or float16; valid: (N,) bool."""

    values: Floats
    valid: Bool

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype not in (np.float16, np.float32):
            raise ValueError(f"ArrayRows.values: expected (N, D) float16 or float32, got {self.values.shape} {self.values.dtype}")
        if self.valid.shape != self.values.shape[:1] or self.valid.dtype != np.bool_:
            raise ValueError(f"ArrayRows.valid: expected ({len(self.values)},) bool, got {self.valid.shape} {self.valid.dtype}")

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read(self, start: int, out: npt.NDArray[Any]) -> None:
        out[:] = self.values[start : start + len(out)]


def gather(source: RowSource, rows: Int64, out: npt.NDArray[Any]) -> None:
    """Fill out (R, D), C-contiguous and of the source's dtype, with these rows in their order. Each run of consecutive rows is one read."""
    edges = [*np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist(), len(rows)]  # rows count from 0, so that the first starts a run
    for start, stop in pairwise(edges):
        source.read(int(rows[start]), out[start:stop])


def check_fill(fill: str) -> None:
    """Raises TrainerError for a word that is none of the policies."""
    if fill not in get_args(Fill):
        known = ", ".join(get_args(Fill))
        raise TrainerError(Problem(what=f"unknown policy {fill!r}", where="fill", why=f"known: {known}", fix="give one of them"))


def stand_ins(valid: Bool, rows: Int64, trial: slice, policy: Fill) -> tuple[Int64, Bool]:
    """Of rows (R,) inside the trial: the row that each takes its values from (R,), and whether there is one (R,); without, it is zero.

    valid (N,): of the feature, on the whole axis. "zero": only itself, where valid. "nearest": the nearest valid row of the trial, the
    earlier of two. "previous": the last valid row at or before it. What an invalid row holds is never taken.
    """
    own = valid[rows]
    if policy == "zero" or own.all():
        return rows, own
    known = trial.start + np.flatnonzero(valid[trial])
    if not len(known):
        return rows, own
    before = np.searchsorted(known, rows, side="right") - 1
    has = before >= 0
    taken = known[np.maximum(before, 0)]
    if policy == "previous":
        return np.where(has, taken, rows), has
    after = known[np.minimum(before + 1, len(known) - 1)]
    return np.where(has & (rows - taken <= np.abs(after - rows)), taken, after), np.ones(len(rows), np.bool_)
