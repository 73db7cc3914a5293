"""Cutting trials into windows of equally many rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trainer.arrays import Bool, Int64
from trainer.errors import Problem, TrainerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """W windows of `rows` rows. Window i has the rows start[i] + step * k, for k of 0 : real[i]; the rest of it is padding.

    trial: (W,) int64 the trial's number in the store. start: (W,) int64 counted from the trial's first row. real: (W,) int64, 1 or more.
    """

    rows: int
    step: int
    trial: Int64
    start: Int64
    real: Int64

    def __len__(self) -> int:
        return len(self.trial)

    def of(self, i: int) -> Int64:
        """(real[i],) int64 window i's rows, counted from the trial's first."""
        return np.arange(int(self.real[i]), dtype=np.int64) * self.step + int(self.start[i])

    def where(self, kept: Bool) -> Windows:
        return Windows(rows=self.rows, step=self.step, trial=self.trial[kept], start=self.start[kept], real=self.real[kept])


def starts(n: int, rows: int, stride: int) -> Int64:
    """First rows of the windows over n rows: every stride, and the last one anchored to the end. One window where n <= rows."""
    if n <= rows:
        return np.zeros(min(n, 1), np.int64)
    regular = np.arange(0, n - rows + 1, stride, dtype=np.int64)
    return regular if regular[-1] == n - rows else np.append(regular, n - rows)


def cut_windows(offsets: Int64, trials: Iterable[int], *, rows: int, stride: int, step: int = 1) -> Windows:
    """All windows of the given trials, trial after trial; together they have every row. offsets: (V + 1,), as in a store's index.

    With a step, a window has every step-th row, and the trial is cut once for each row to begin with of 0 : step; stride counts the rows
    taken. So clips of 32 frames in sub-sequences of 16 are rows=16, step=32: each row is the end of one clip (the joint attention
    models' code). Raises TrainerError where a number makes no sense.
    """
    if rows < 1 or step < 1 or not 1 <= stride <= rows:
        why, fix = "there would be rows that no window has", "give rows and step of 1 or more, and a stride from 1 to rows"
        raise TrainerError(Problem(what=f"rows {rows}, stride {stride}, step {step}", where="windows", why=why, fix=fix))
    trial: list[Int64] = []
    start: list[Int64] = []
    real: list[Int64] = []
    for number in trials:
        n = int(offsets[number + 1] - offsets[number])
        for phase in range(min(step, n)):
            taken = -(-(n - phase) // step)
            found = starts(taken, rows, stride)
            trial.append(np.full(len(found), number, np.int64))
            start.append(phase + step * found)
            real.append(np.full(len(found), min(taken, rows), np.int64))
    return Windows(rows=rows, step=step, trial=_joined(trial), start=_joined(start), real=_joined(real))


def _joined(parts: list[Int64]) -> Int64:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
