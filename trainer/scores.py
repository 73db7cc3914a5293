"""Scoring predictions against a store's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.store import Index, Labels
from trainer.arrays import Bool, Float64
from trainer.decisions import decide
from trainer.errors import Problem, TrainerError, named
from trainer.filling import nearest_valid
from trainer.labels import label_rows, labelled_trials, labels_of
from trainer.metrics import Score, Tally, TrialSums, score_of
from trainer.predictions import Predictions
from trainer.tasks import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A score, and what it is a score of.

    by_trial: what it follows from, for `compare`. filled: of each trial the labelled rows that had no prediction and took the nearest in
    time. unlabelled: predicted trials without a label, which count for nothing. unpredicted: the store's labelled trials that were not
    asked for.
    """

    score: Score
    by_trial: TrialSums
    filled: Mapping[str, int]
    unlabelled: tuple[str, ...]
    unpredicted: tuple[str, ...]

    @property
    def n_filled(self) -> int:
        return sum(self.filled.values())


def evaluate(predictions: Predictions, index: Index, *, trials: Sequence[str] | None = None) -> Evaluation:
    """All labelled rows of the trials that are asked for (left out: all that are predicted), as one.

    A labelled row without a prediction is not left out: it takes the prediction of the row nearest in time, of the same trial, as a
    submission must. Raises TrainerError where the store lacks the task or a trial, or has other columns or rows than were predicted; where
    a trial that is asked for is not predicted, or has labels but no valid prediction; and where there is no valid label.
    """
    labels = labels_of(index, predictions.task)
    asked = sorted(predictions.trials if trials is None else set(trials))
    _check(predictions, index, labels, asked)
    task = predictions.judged_as
    tally = Tally(task)
    filled: dict[str, int] = {}
    empty: list[str] = []
    for trial, rows in zip(asked, label_rows(index, labels, asked), strict=True):
        true, is_labelled = labels.values[rows], labels.valid[rows]
        mine = predictions.slice_of(trial)
        is_predicted = predictions.valid[mine]
        lacking = int((is_labelled.any(axis=1) & ~is_predicted).sum())
        if lacking and not is_predicted.any():
            empty.append(trial)
            continue
        if lacking:
            filled[trial] = lacking
        decided = decide(task, _filled(predictions, mine, is_predicted), predictions.thresholds_of(trial))
        tally.add(true, decided, is_labelled, trial=trial)
    if empty:
        what = f"{len(empty)} labelled trials have no valid prediction: {named(empty)}"
        why, fix = "there is nothing that their rows could take", "see that the features have valid rows there, or leave them out"
        raise TrainerError(_problem(predictions, what, why, fix))
    by_trial = tally.by_trial()
    with_labels = set(labelled_trials(index, predictions.task))
    return Evaluation(
        score=score_of(by_trial),
        by_trial=by_trial,
        filled=filled,
        unlabelled=tuple(trial for trial in asked if trial not in with_labels),
        unpredicted=tuple(sorted(with_labels - set(asked))),
    )


def _filled(predictions: Predictions, rows: slice, is_predicted: Bool) -> Float64:
    values = predictions.values[rows].astype(np.float64)
    if is_predicted.all() or not is_predicted.any():
        return values
    return values[nearest_valid(predictions.times_s[rows], is_predicted)]


def _check(predictions: Predictions, index: Index, labels: Labels, asked: Sequence[str]) -> None:
    task = predictions.judged_as
    if len(labels.columns) != task.n_labels or (task.metric is not Metric.MACRO_F1 and labels.columns != task.columns):
        why = f"it predicts {', '.join(predictions.columns)}, the store's labels are {', '.join(labels.columns)}"
        raise TrainerError(_problem(predictions, "has other columns than the labels", why, "predict with a model of these labels"))
    if labels.per_trial != predictions.per_trial:
        kinds = {True: "one row per trial", False: "rows over time"}
        why = f"it has {kinds[predictions.per_trial]}, the labels have {kinds[labels.per_trial]}"
        raise TrainerError(_problem(predictions, "is of another kind than the labels", why, "predict with a recipe for these labels"))
    if missing := set(asked) - set(predictions.trials):
        why = f"{len(missing)} of {len(asked)} trials are not predicted"
        raise TrainerError(_problem(predictions, f"lacks {named(missing)}", why, "predict them too, or score fewer"))
    if unknown := set(asked) - set(index.trials):
        why, fix = f"the store lacks {len(unknown)} of {len(asked)} trials", "score on the store that they were predicted on"
        raise TrainerError(_problem(predictions, f"has trials without labels: {named(unknown)}", why, fix))
    if not predictions.per_trial:
        _check_rows(predictions, index, asked)


def _check_rows(predictions: Predictions, index: Index, asked: Sequence[str]) -> None:
    if predictions.rows == index.rows_digest:
        return
    number = {trial: i for i, trial in enumerate(index.trials)}
    other = []
    for trial in asked:
        mine = predictions.slice_of(trial)
        theirs = slice(int(index.offsets[number[trial]]), int(index.offsets[number[trial] + 1]))
        if not np.array_equal(predictions.times_s[mine], index.times_s[theirs]):
            other.append(trial)
    if other:
        why = f"{len(other)} of {len(asked)} trials have other rows in the store than when they were predicted"
        raise TrainerError(_problem(predictions, f"does not fit the store: {named(other)}", why, "predict again on this store"))


def _problem(predictions: Predictions, what: str, why: str, fix: str) -> Problem:
    return Problem(what=what, where=f"predictions of {predictions.task!r}", why=why, fix=fix)
