"""Predictions of one task for some trials of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.store import Index
from trainer.arrays import Bool, Float32, Float64, Floats, Int64
from trainer.errors import Problem, TrainerError
from trainer.tasks import Task, task_of

NO_FOLD = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Of V trials with N rows in all; trial i has the rows offsets[i] : offsets[i + 1].

    columns: D names (of "expr" one per class). frame, times_s: (N,) those of the store's rows. values: (N, D) float32, NaN where not
    valid: numbers, probabilities of action units, or scores of classes of which the highest is meant. valid: (N,). fold: (V,) the fold
    that holds a trial out and whose model predicted it, NO_FOLD where there is none. thresholds: (V, D) float64 from which on an action
    unit is meant, 0.5 where None. per_trial: one row stands for each whole trial, with frame -1 and time 0. rows: digest of the store's
    rows. made_by: whatever tells how it was made, as JSON has it. Raises TrainerError where a valid value is not finite.
    """

    task: str
    columns: tuple[str, ...]
    trials: tuple[str, ...]
    offsets: Int64
    frame: Int64
    times_s: Float64
    values: Float32
    valid: Bool
    fold: Int64
    thresholds: Float64 | None = None
    per_trial: bool = False
    rows: str = ""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    _number: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number", {trial: i for i, trial in enumerate(self.trials)})
        v, n, d = len(self.trials), len(self.values), len(self.columns)
        self._require(len(set(self.trials)) == v, "each trial once", "some twice")
        self._require(len(set(self.columns)) == d > 0, "different columns, one or more", self.columns)
        self._require(self.values.shape == (n, d), f"values ({n}, {d})", self.values.shape)
        for name, length in (("frame", n), ("times_s", n), ("valid", n), ("fold", v), ("offsets", v + 1)):
            shape = getattr(self, name).shape
            self._require(shape == (length,), f"{name} ({length},)", shape)
        steps = np.diff(self.offsets)
        whole = self.offsets[0] == 0 and self.offsets[-1] == n and bool(np.all(steps >= 0))
        self._require(bool(whole), f"offsets from 0 to {n}, ascending", self.offsets)
        self._require(not self.per_trial or bool(np.all(steps == 1)), "one row per trial", steps)
        if self.thresholds is not None:
            self._require(self.thresholds.shape == (v, d), f"thresholds ({v}, {d})", self.thresholds.shape)
            self._require(bool(np.isfinite(self.thresholds).all()), "finite thresholds", "others")
        self._require(self._never_steps_back(), "finite times, and times and frames that never step back within a trial", "others")
        bad = np.flatnonzero(self.valid & ~np.isfinite(self.values).all(axis=1))
        if len(bad):
            trial = int(np.searchsorted(self.offsets, bad[0], side="right")) - 1
            where = f"predictions of {self.task!r}, trial {self.trials[trial]}, row {int(bad[0] - self.offsets[trial])}"
            why, fix = f"{len(bad)} of {n} rows have a value that is not finite", "lower the learning rate, or look at the features there"
            raise TrainerError(Problem(what="predicts no number", where=where, why=why, fix=fix))

    def _never_steps_back(self) -> bool:
        """A frame of -1 is past the end, and so are the rows after it."""
        borders = self.offsets[(self.offsets > 0) & (self.offsets < len(self.values))] - 1
        steps_s = np.delete(np.diff(self.times_s), borders)
        before, after = (np.delete(part, borders) for part in (self.frame[:-1], self.frame[1:]))
        frames = (after < 0) | ((before >= 0) & (after >= before))
        return bool(np.isfinite(self.times_s).all() and np.all(steps_s >= 0) and np.all(frames))

    def _require(self, holds: bool, expected: str, got: object) -> None:
        if not holds:
            raise ValueError(f"predictions of {self.task!r}: expected {expected}, got {got}")

    def fold_of(self, trial: str) -> int:
        return int(self.fold[self._number[trial]])

    @property
    def judged_as(self) -> Task:
        return task_of(self.task, self.columns)

    def slice_of(self, trial: str) -> slice:
        i = self._number[trial]
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def thresholds_of(self, trial: str) -> Float64 | None:
        """(D,)"""
        return None if self.thresholds is None else self.thresholds[self._number[trial]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One trial's predictions on its rows of the store. values: (R, D); valid: (R,); thresholds: (D,)."""

    values: Floats
    valid: Bool
    fold: int = NO_FOLD
    thresholds: Float64 | None = None


def predictions_on(
    index: Index, task: Task, predicted: Mapping[str, Predicted], *, per_trial: bool = False, made_by: Mapping[str, Any] | None = None
) -> Predictions:
    """The trials in order of names, on the store's rows. Raises StoreError for a trial that the store does not have, ValueError where
    a trial has other rows than there, TrainerError where there is no trial or a valid value is not finite."""
    trials = tuple(sorted(predicted))
    if not trials:
        why, fix = "no trial was given", "name trials of the store"
        raise TrainerError(Problem(what="there is nothing to predict", where=f"task {task.name!r}", why=why, fix=fix))
    rows = [index.rows(trial) for trial in trials]
    parts = [predicted[trial] for trial in trials]
    lengths = [1 if per_trial else part.stop - part.start for part in rows]
    for trial, part, n in zip(trials, parts, lengths, strict=True):
        if part.values.shape != (n, len(task.columns)) or part.valid.shape != (n,):
            raise ValueError(f"trial {trial}: expected values ({n}, {len(task.columns)}) and valid ({n},), got {part.values.shape}")
    valid = np.concatenate([part.valid for part in parts])
    values = np.concatenate([part.values for part in parts]).astype(np.float32)
    values[~valid] = np.nan
    n = len(values)
    return Predictions(
        task=task.name,
        columns=task.columns,
        trials=trials,
        offsets=np.cumsum([0, *lengths]).astype(np.int64),
        frame=np.full(n, -1, np.int64) if per_trial else np.concatenate([index.frame[part] for part in rows]),
        times_s=np.zeros(n) if per_trial else np.concatenate([index.times_s[part] for part in rows]),
        values=values,
        valid=valid,
        fold=np.array([part.fold for part in parts], np.int64),
        thresholds=thresholds_by_trial([part.thresholds for part in parts], len(task.columns)),
        per_trial=per_trial,
        rows=index.rows_digest,
        made_by=made_by or {},
    )


def thresholds_by_trial(parts: Sequence[Float64 | None], n_columns: int) -> Float64 | None:
    """(D,) of each trial as (V, D), 0.5 where a trial has none; None where none has."""
    if all(part is None for part in parts):
        return None
    return np.array([np.full(n_columns, 0.5) if part is None else part for part in parts])
