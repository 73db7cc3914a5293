"""What is done to predictions once they are made: smoothing, clipping, and thresholds of action units. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from pipeline.store import Index
from trainer.arrays import Float64
from trainer.decisions import tune_out_of_fold
from trainer.labels import label_rows, labels_of
from trainer.predictions import Predictions
from trainer.recipe import After
from trainer.smoothing import clip, smooth


def smoothed(after: After, predictions: Predictions) -> Predictions:
    """Each trial by itself, then clipped to the task's range."""
    values = predictions.values.astype(np.float64)
    if after.smoothing is not None and not predictions.per_trial:
        for trial in predictions.trials:
            rows = predictions.slice_of(trial)
            values[rows] = smooth(values[rows], predictions.valid[rows], after.smoothing)
    return dataclasses.replace(predictions, values=clip(predictions.judged_as, values).astype(np.float32))


def tuned(predictions: Predictions, index: Index) -> Predictions:
    """With each action unit's threshold, tuned on the rows of the folds that do not hold the trial out.

    Raises TrainerError for another task, and where there are fewer than two folds.
    """
    rows = label_rows(index, labels_of(index, predictions.task), predictions.trials)
    labels = index.labels[predictions.task]
    true = np.concatenate([labels.values[part] for part in rows])
    valid = np.concatenate([labels.valid[part] for part in rows]) & predictions.valid[:, None]
    fold = np.repeat(predictions.fold, np.diff(predictions.offsets))
    by_fold = tune_out_of_fold(np.nan_to_num(predictions.values), true, valid, fold)
    return dataclasses.replace(predictions, thresholds=np.array([by_fold[int(number)] for number in predictions.fold]))


def thresholds_by_fold(predictions: Predictions) -> dict[int, Float64]:
    """(D,) of each fold; none where they were not tuned."""
    if predictions.thresholds is None:
        return {}
    return {int(fold): predictions.thresholds[i] for i, fold in enumerate(predictions.fold)}


def with_thresholds(predictions: Predictions, by_fold: Mapping[int, Float64]) -> Predictions:
    """Of trials that a fold held out that fold's thresholds, of others the mean of all folds'. No fold: as they are."""
    if not by_fold:
        return predictions
    mean = np.mean(list(by_fold.values()), axis=0)
    return dataclasses.replace(predictions, thresholds=np.array([by_fold.get(int(number), mean) for number in predictions.fold]))
