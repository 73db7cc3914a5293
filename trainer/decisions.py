"""From scores to decisions: the likeliest class, and action units above thresholds that are tuned on other folds."""

from __future__ import annotations

import numpy as np

from trainer.arrays import Bool, Float64, Floats, Int64
from trainer.errors import Problem, TrainerError
from trainer.tasks import Metric, Task

THRESHOLD = 0.5


def decide(task: Task, scores: Floats, thresholds: Float64 | None = None) -> Float64:
    """What is judged. scores: (R, D) with the task's columns -> (R, L).

    MACRO_F1: the number of the highest score, of equal ones the first. BINARY_F1: 1 where a probability is at least its column's
    threshold (0.5 where there are none). Else the scores themselves. Rows of NaN give something that is not to be looked at.
    """
    if scores.ndim != 2 or scores.shape[1] != len(task.columns):
        raise ValueError(f"scores of task {task.name!r}: expected (R, {len(task.columns)}), got {scores.shape}")
    if task.metric is Metric.MACRO_F1:
        return np.asarray(scores.argmax(axis=1)[:, None], np.float64)
    if task.metric is Metric.BINARY_F1:
        return (scores >= (THRESHOLD if thresholds is None else thresholds)).astype(np.float64)
    return scores.astype(np.float64)


def tune_thresholds(scores: Floats, true: Floats, valid: Bool) -> Float64:
    """(D,) thresholds that give each column its highest F1 on these rows: not the rows that are then judged.

    scores: (R, D) probabilities; true: (R, D) 0 or 1; valid: (R, D). Every cut between two different scores is tried; a threshold lies
    half way between them, and of equally good ones the nearest to 0.5 counts. A column without a positive row keeps 0.5.
    Raises TrainerError where a valid score is no probability.
    """
    wrong = valid & ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        why = f"the score is {scores[row, column]:g}, expected a probability in [0, 1]"
        raise TrainerError(Problem(what="cannot be tuned", where=f"column {column}, row {row}", why=why, fix="apply a sigmoid first"))
    return np.array([_best_threshold(scores[kept, i].astype(np.float64), true[kept, i] == 1) for i, kept in enumerate(valid.T)])


def tune_out_of_fold(scores: Floats, true: Floats, valid: Bool, fold: Int64) -> dict[int, Float64]:
    """Per fold the thresholds tuned on the rows of all other folds. fold: (R,) the fold that holds each row out.

    Raises TrainerError where there are fewer than two folds.
    """
    folds = np.unique(fold)
    if len(folds) < 2:
        why = f"tuned on the rows that they judge, they would flatter; there are rows of {len(folds)} fold"
        raise TrainerError(Problem(what="thresholds need other folds", where="thresholds", why=why, fix="train two folds or more"))
    return {int(held): tune_thresholds(scores[fold != held], true[fold != held], valid[fold != held]) for held in folds}


def _best_threshold(scores: Float64, is_true: Bool) -> float:
    if not is_true.any():
        return THRESHOLD
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], np.cumsum(is_true[order])
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # a cut never parts equal scores
    f1 = 2 * hits[last] / (last + 1 + hits[-1])
    below = np.append(falling[1:], 0.0)[last]
    thresholds = (falling[last] + below) / 2
    best = np.flatnonzero(f1 == f1.max())
    return float(thresholds[best[np.abs(thresholds[best] - THRESHOLD).argmin()]])
