"""The challenge's metrics over masked rows, streaming: all valid rows of all trials count as one, with the trials kept apart as well.

Definitions and sources: docs/trainer-metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.arrays import Bool, Float64, Int64
from trainer.errors import Problem, TrainerError
from trainer.sums import Counts, Moments, Sums, added, ccc, f1, pearson, stacked
from trainer.tasks import Metric, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good predictions are.

    value: the mean over targets. targets: each target's CCC or Pearson correlation, each class's or action unit's F1.
    n_valid: of each target the rows that count, of n_rows. n_trials: those with a valid row. undefined: targets without a value of
    their own (no valid row, a constant in a Pearson correlation, a class that neither is nor is predicted), counted as 0.
    trial_mean: the mean over trials of each one's own value, secondary; None where there are no trials of several rows.
    """

    task: Task
    value: float
    targets: Mapping[str, float]
    n_valid: Mapping[str, int]
    n_rows: int
    n_trials: int
    undefined: tuple[str, ...]
    trial_mean: float | None

    @property
    def n_masked(self) -> Mapping[str, int]:
        """Of each target the rows that do not count."""
        return {target: self.n_rows - n for target, n in self.n_valid.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSums:
    """What a score follows from, by trial. sums: of (V, C) arrays; n_rows: (V,) int64, the masked ones included."""

    task: Task
    trials: tuple[str, ...]
    sums: Sums
    n_rows: Int64


class Tally:
    """Takes truth and prediction piece by piece, in any order.

    tally = Tally(task_of("va"))
    tally.add(true, predicted, valid, trial="106")
    tally.score().value
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._sums: dict[str, Sums] = {}
        self._n_rows: dict[str, int] = {}

    def add(self, true: npt.ArrayLike, predicted: npt.ArrayLike, valid: npt.ArrayLike, *, trial: str = "") -> None:
        """More rows of a trial. true, predicted, valid: (R, L) with L of `task.n_labels`; what is not valid is not looked at.

        For MACRO_F1 class numbers, for BINARY_F1 0 and 1: `decisions.decide` makes them of scores. Raises TrainerError where a valid
        cell is not finite or no such class, ValueError for arrays of other shapes.
        """
        true, predicted, valid = np.asarray(true, np.float64), np.asarray(predicted, np.float64), np.asarray(valid, np.bool_)
        expected = (len(valid), self.task.n_labels)
        for name, array in (("true", true), ("predicted", predicted), ("valid", valid)):
            if array.shape != expected:
                raise ValueError(f"{name}: expected {expected} for task {self.task.name!r}, got {array.shape}")
        self._check(true, valid, "label", trial)
        self._check(predicted, valid, "prediction", trial)
        sums = self._sum(true, predicted, valid)
        self._sums[trial] = added(self._sums[trial], sums) if trial in self._sums else sums
        self._n_rows[trial] = self._n_rows.get(trial, 0) + len(valid)

    def _check(self, values: Float64, valid: Bool, kind: str, trial: str) -> None:
        wrong, why = ~np.isfinite(values), "it is not finite"
        if self.task.metric in (Metric.MACRO_F1, Metric.BINARY_F1):
            highest = len(self.task.columns) - 1 if self.task.metric is Metric.MACRO_F1 else 1
            wrong, why = ~np.isin(values, np.arange(highest + 1)), f"expected a whole number from 0 to {highest}"
        wrong = wrong & valid
        if not wrong.any():
            return
        row, column = map(int, np.argwhere(wrong)[0])
        where = f"trial {trial}, row {row}" if trial else f"row {row}"
        name = "expression" if self.task.metric is Metric.MACRO_F1 else self.task.columns[column]
        what = f"the {kind} of {name} is {values[row, column]:g}, and valid"
        raise TrainerError(Problem(what=what, where=where, why=why, fix="mask what is not known, and mend what is wrong"))

    def _sum(self, true: Float64, predicted: Float64, valid: Bool) -> Sums:
        if self.task.metric is Metric.MACRO_F1:
            kept = valid[:, 0]
            return Counts.of_classes(true[kept, 0].astype(np.int64), predicted[kept, 0].astype(np.int64), len(self.task.columns))
        if self.task.metric is Metric.BINARY_F1:
            return Counts.of_units(true == 1, predicted == 1, valid)
        return Moments.of(true, predicted, valid)

    def by_trial(self) -> TrialSums:
        """Raises TrainerError where no trial has a valid row: there is nothing to score."""
        trials = tuple(sorted(self._sums))
        n_valid = sum(float(part.n.sum()) for part in self._sums.values())
        if not n_valid:
            n = sum(self._n_rows.values())
            why = f"none of {n} rows of {len(trials)} trials has a valid label"
            fix = "choose trials that are labelled, or another task"
            raise TrainerError(Problem(what="there is nothing to score", where=f"task {self.task.name!r}", why=why, fix=fix))
        n_rows = np.array([self._n_rows[trial] for trial in trials], np.int64)
        return TrialSums(task=self.task, trials=trials, sums=stacked([self._sums[trial] for trial in trials]), n_rows=n_rows)

    def score(self) -> Score:
        """Of all rows so far. Raises TrainerError where none is valid."""
        return score_of(self.by_trial())


def target_values(metric: Metric, sums: Sums) -> Float64:
    """Of sums of (..., C) arrays each target's value, (..., C)."""
    if isinstance(sums, Counts):
        return f1(sums)
    return pearson(sums) if metric is Metric.PEARSON else ccc(sums)


def score_of(by_trial: TrialSums) -> Score:
    """All valid rows of all trials as one."""
    task, sums = by_trial.task, by_trial.sums
    pooled = sums.pooled(np.ones((1, len(by_trial.trials))))
    values = target_values(task.metric, pooled)[0]
    undefined = _is_undefined(task.metric, pooled)[0]
    return Score(
        task=task,
        value=float(values.mean()),
        targets=dict(zip(task.columns, values.tolist(), strict=True)),
        n_valid=dict(zip(task.columns, pooled.n[0].astype(int).tolist(), strict=True)),
        n_rows=int(by_trial.n_rows.sum()),
        n_trials=int(sums.n.any(axis=1).sum()),
        undefined=tuple(column for column, is_undefined in zip(task.columns, undefined, strict=True) if is_undefined),
        trial_mean=_trial_mean(by_trial),
    )


def p_mtl(va: Score, expr: Score, au: Score) -> float:
    """The multi-task challenge's value: the sum of the three."""
    return va.value + expr.value + au.value


def _is_undefined(metric: Metric, sums: Sums) -> Bool:
    if isinstance(sums, Counts):
        return np.asarray(sums.true + sums.predicted == 0)
    return sums.is_constant if metric is Metric.PEARSON else np.asarray(sums.n == 0)


def _trial_mean(by_trial: TrialSums) -> float | None:
    kept = by_trial.sums.n.any(axis=1)
    if by_trial.trials == ("",) or by_trial.sums.n.max() <= 1:
        return None
    return float(target_values(by_trial.task.metric, by_trial.sums)[kept].mean())
