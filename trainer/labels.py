"""The labels of a store: which trials have them, which rows they are, and how they are distributed, so that folds can be made alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.store import Index, Labels
from trainer.arrays import Bool, Float64, Floats
from trainer.errors import Problem, TrainerError
from trainer.tasks import Metric, Task, task_of

N_BINS = 5


def labels_of(index: Index, task: str) -> Labels:
    """Raises TrainerError where the store has no such task."""
    if task not in index.labels:
        why = f"it has: {', '.join(sorted(index.labels)) or 'none'}"
        fix = "choose one of these, or run again with the label files of the task"
        raise TrainerError(Problem(what=f"no labels for task {task!r}", where="index.h5", why=why, fix=fix))
    return index.labels[task]


def label_rows(index: Index, labels: Labels, trials: Sequence[str]) -> list[slice]:
    """Of each trial the rows of the labels' arrays that are its own. The store has all of them."""
    number = {trial: i for i, trial in enumerate(index.trials)}
    offsets = np.arange(len(index.trials) + 1) if labels.per_trial else index.offsets
    return [slice(int(offsets[number[trial]]), int(offsets[number[trial] + 1])) for trial in trials]


def labelled_trials(index: Index, task: str) -> tuple[str, ...]:
    """Those with a valid label of the task. Raises TrainerError where the store has no such task."""
    labels = labels_of(index, task)
    rows = label_rows(index, labels, index.trials)
    return tuple(trial for trial, part in zip(index.trials, rows, strict=True) if labels.valid[part].any())


def label_counts(index: Index, task: str, trials: Sequence[str]) -> Float64:
    """(V, B): valid label rows of each trial in each bin. Raises TrainerError where the store has no such task.

    Bins are the classes of MACRO_F1, yes and no of each action unit, and of any other target five bins with equally many rows of all
    these trials together.
    """
    labels = labels_of(index, task)
    rows = label_rows(index, labels, trials)
    values, valid = [labels.values[part] for part in rows], [labels.valid[part] for part in rows]
    n_labels = len(labels.columns)
    kind = task_of(task, () if task == "expr" else labels.columns)
    together = np.concatenate(values) if values else np.zeros((0, n_labels), np.float32)
    kept = np.concatenate(valid) if valid else np.zeros((0, n_labels), np.bool_)
    edges = [_edges(kind, together[kept[:, column], column]) for column in range(n_labels)]
    return np.array([_counts(one, mask, edges) for one, mask in zip(values, valid, strict=True)])


def _edges(task: Task, values: Floats) -> Float64:
    """Where the bins after the first begin."""
    if task.metric is Metric.MACRO_F1:
        return np.arange(0.5, len(task.columns) - 1)
    if task.metric is Metric.BINARY_F1:
        return np.array([0.5])
    if not len(values):
        return np.zeros(N_BINS - 1)
    return np.asarray(np.quantile(values, np.arange(1, N_BINS) / N_BINS), np.float64)


def _counts(values: Floats, valid: Bool, edges: Sequence[Float64]) -> Float64:
    per_column = [
        np.bincount(np.searchsorted(edges[i], values[kept, i], side="right"), minlength=len(edges[i]) + 1) for i, kept in enumerate(valid.T)
    ]
    return np.concatenate(per_column).astype(np.float64)
