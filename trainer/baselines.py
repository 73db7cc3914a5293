"""What a result is to be held against: predicting the mean of the training labels, and training on labels of other trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.store import Index, Labels, Store
from trainer.errors import Problem, TrainerError
from trainer.labels import label_rows, labelled_trials, labels_of
from trainer.metrics import Score
from trainer.model import Machine, task_for
from trainer.predictions import Predicted, predictions_on
from trainer.scores import evaluate
from trainer.splits import Folds
from trainer.tasks import Metric
from trainer.training import Result, score_data, train

MEAN, SHUFFLED = "the mean of the training labels", "trained on labels of other trials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """scores: by what was done."""

    scores: Mapping[str, Score]

    def as_data(self) -> dict[str, Any]:
        return {name: score_data(score) for name, score in self.scores.items()}


def baselines_of(
    result: Result, store: Store, *, machine: Machine, subjects: Mapping[str, str] | None = None, told: Callable[[str], None] | None = None
) -> Baselines:
    """On the folds of a result. The training on other labels is a run of its own beside it, in RUN/shuffled.

    Raises TrainerError as `train` does.
    """
    trained = result.trained
    other = dataclasses.replace(store, index=shuffled(store.index, trained.recipe.task, trained.recipe.folds.seed))
    again = train(trained.recipe, other, trained.folder.path / "shuffled", trained.folds, machine=machine, subjects=subjects, told=told)
    # What it learnt is judged by the true labels.
    on_true = evaluate(again.predictions, store.index).score
    return Baselines(scores={MEAN: mean_score(store, trained.recipe.task, trained.folds), SHUFFLED: on_true})


def mean_score(store: Store, task: str, folds: Folds) -> Score:
    """Of predicting for every held-out row the mean of the fold's training labels (of classes, their shares)."""
    index, kind = store.index, task_for(store, task)
    labels = labels_of(index, task)
    predicted = {}
    for fold in folds.folds:
        rows = label_rows(index, labels, fold.train)
        values = np.concatenate([labels.values[part] for part in rows]).astype(np.float64)
        valid = np.concatenate([labels.valid[part] for part in rows])
        if kind.metric is Metric.MACRO_F1:
            said = np.bincount(values[valid[:, 0], 0].astype(np.int64), minlength=len(kind.columns)) / max(valid.sum(), 1)
        else:
            said = np.where(valid, values, 0).sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
        for trial in fold.validation:
            part = index.rows(trial)
            n = 1 if labels.per_trial else part.stop - part.start
            predicted[trial] = Predicted(values=np.tile(said, (n, 1)), valid=np.ones(n, np.bool_))
    return evaluate(predictions_on(index, kind, predicted, per_trial=labels.per_trial), index).score


def shuffled(index: Index, task: str, seed: int) -> Index:
    """The index with the task's labels given to other trials: each labelled trial has those of the next one in an order drawn by the seed,
    over and over where that one is shorter. Raises TrainerError where there is no other trial."""
    labels = labels_of(index, task)
    trials = labelled_trials(index, task)
    if len(trials) < 2:
        why = f"there is {len(trials)} labelled trial"
        raise TrainerError(Problem(what="labels cannot be shuffled", where=f"task {task!r}", why=why, fix="add labelled trials"))
    drawn = [trials[i] for i in np.random.default_rng(seed).permutation(len(trials))]
    rows = dict(zip(trials, label_rows(index, labels, trials), strict=True))
    values, valid = labels.values.copy(), labels.valid.copy()
    for taker, giver in zip(drawn, [*drawn[1:], drawn[0]], strict=True):
        mine, theirs = rows[taker], rows[giver]
        taken = theirs.start + np.arange(mine.stop - mine.start) % max(theirs.stop - theirs.start, 1)
        values[mine], valid[mine] = labels.values[taken], labels.valid[taken]
    other = Labels(columns=labels.columns, values=values, valid=valid, per_trial=labels.per_trial)
    return dataclasses.replace(index, labels={**index.labels, task: other})
