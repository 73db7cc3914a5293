"""Submission files: the rows of the organisers' template, each with what is predicted for it.

A row without a prediction takes the one nearest in time, of the same trial, and is counted. Nothing else is made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.store import publish_text
from trainer.arrays import Bool, Float64, Int64
from trainer.decisions import decide
from trainer.errors import Problem, TrainerError, named
from trainer.filling import OWN, numbers, rows_of_frames
from trainer.predictions import Predictions
from trainer.tasks import Metric
from trainer.template import Template, read_template


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What was written. filled: of each trial the rows that took a neighbour's prediction, where there are any; farthest_s: how far
    away in time the farthest of these was. n_clipped: rows with a value that was out of its legal range. unused: predicted trials that
    the template does not have."""

    path: Path
    n_rows: int
    filled: Mapping[str, int]
    farthest_s: float
    n_clipped: int
    unused: tuple[str, ...]

    @property
    def n_filled(self) -> int:
        return sum(self.filled.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One task's columns of some rows of one trial: a text per row; which rows were filled, from how far, and which were clipped."""

    texts: list[str]
    filled: Bool
    away_s: Float64
    clipped: Bool


def write_submission(template: Path, predictions: Sequence[Predictions], target: Path) -> Submitted:
    """Row for row the template's rows. predictions: one for each task that its header wants.

    Raises TrainerError, with everything that is missing, for a bad template, a task or a trial that is not predicted, a trial without a
    valid prediction, and other columns than the header wants; the pipeline's PassingError where the disk is full.
    """
    form = read_template(template)
    chosen = _chosen(form, predictions)
    _check_trials(form.trials, str(form.path), [one for one, _ in chosen])
    texts = [""] * len(form.names)
    filled: dict[str, int] = {}
    farthest_s, n_clipped = 0.0, 0
    order = np.argsort(form.trial, kind="stable")
    for trial, rows in zip(form.trials, np.split(order, np.cumsum(np.bincount(form.trial))[:-1]), strict=True):
        parts = [_part(one, columns, trial, form.frame[rows]) for one, columns in chosen]
        for i, row in enumerate(rows.tolist()):
            texts[row] = ",".join([form.names[row], *(part.texts[i] for part in parts)])
        if n := int(np.any([part.filled for part in parts], axis=0).sum()):
            filled[trial] = n
        farthest_s = max(farthest_s, *(float(part.away_s.max()) for part in parts))
        n_clipped += int(np.any([part.clipped for part in parts], axis=0).sum())
    header = form.header if form.wants else ",".join([form.header, *chosen[0][1]])
    publish_text(target, "\n".join([header, *texts]) + "\n")
    return Submitted(
        path=target,
        n_rows=len(texts),
        filled=filled,
        farthest_s=farthest_s,
        n_clipped=n_clipped,
        unused=tuple(sorted({trial for one, _ in chosen for trial in one.trials} - set(form.trials))),
    )


def write_label_files(predictions: Predictions, trials: Sequence[str], folder: Path) -> Submitted:
    """One `TRIAL.txt` for each trial, in the form of its label file and with a row for each frame up to the last: ABAW 1 and 2.

    Raises TrainerError for a trial that is not predicted, or has no valid prediction, and for a name that is no file's.
    """
    if predictions.per_trial:
        raise TrainerError(_problem(f"predictions of {predictions.task!r}", "have no frames", "a row stands for a clip", "use a template"))
    if wrong := [trial for trial in trials if Path(trial).name != trial or trial.startswith(".")]:
        raise TrainerError(_problem("the list of trials", f"has names of no files: {named(wrong)}", "", "give names of trials alone"))
    _check_trials(trials, "the list of trials", [predictions])
    n_rows, n_clipped, farthest_s = 0, 0, 0.0
    filled: dict[str, int] = {}
    for trial in trials:
        frames = np.arange(numbers(predictions.frame[predictions.slice_of(trial)]).max() + 1)
        part = _part(predictions, predictions.columns, trial, frames)
        publish_text(folder / f"{trial}.txt", "\n".join([",".join(predictions.columns), *part.texts]) + "\n")
        if part.filled.any():
            filled[trial] = int(part.filled.sum())
        n_rows, n_clipped = n_rows + len(frames), n_clipped + int(part.clipped.sum())
        farthest_s = max(farthest_s, float(part.away_s.max()))
    unused = tuple(sorted(set(predictions.trials) - set(trials)))
    return Submitted(path=folder, n_rows=n_rows, filled=filled, farthest_s=farthest_s, n_clipped=n_clipped, unused=unused)


def _chosen(form: Template, predictions: Sequence[Predictions]) -> list[tuple[Predictions, tuple[str, ...]]]:
    """Of each task the predictions, and their columns in the header's order."""
    by_task = {one.task: one for one in predictions}
    if len(by_task) < len(predictions):
        tasks = [one.task for one in predictions]
        raise TrainerError(_problem("predictions", "are of the same task", f"given are {', '.join(tasks)}", "join or average them first"))
    if not form.wants:
        if len(predictions) != 1:
            why = f"its header names no columns, and {len(predictions)} tasks are predicted"
            raise TrainerError(_problem(str(form.path), "does not tell the task", why, "give predictions of one task"))
        _check_kind(form, predictions[0])
        return [(predictions[0], predictions[0].columns)]
    found = []
    for task, columns in form.wants:
        if task not in by_task:
            why = f"predicted are: {', '.join(sorted(by_task)) or 'none'}"
            raise TrainerError(_problem(str(form.path), f"wants predictions of {task!r}", why, "give them, or another template"))
        one = by_task[task]
        _check_kind(form, one)
        units = one.judged_as.metric is Metric.BINARY_F1
        if not (set(columns) <= set(one.columns) if units else set(columns) == set(one.columns)):
            why = f"it wants {len(columns)} ({','.join(columns)}), predicted are {len(one.columns)} ({','.join(one.columns)})"
            raise TrainerError(_problem(str(form.path), f"wants other columns of {task!r}", why, "use the template of the same edition"))
        found.append((one, columns))
    return found


def _check_kind(form: Template, predictions: Predictions) -> None:
    by_clip = bool((form.frame < 0).all())
    if by_clip != predictions.per_trial:
        kinds = {True: "clips", False: "frames"}
        why = f"its rows are {kinds[by_clip]}, predictions of {predictions.task!r} are of {kinds[predictions.per_trial]}"
        raise TrainerError(_problem(str(form.path), "is of another kind than the predictions", why, "use the template of this task"))


def _check_trials(trials: Sequence[str], where: str, predictions: Sequence[Predictions]) -> None:
    problems = []
    for one in predictions:
        if missing := set(trials) - set(one.trials):
            why = f"{len(missing)} of {len(trials)} trials"
            what = f"has trials without predictions of {one.task!r}: {named(missing)}"
            problems.append(_problem(where, what, why, "predict them too: run the pipeline on their videos, and `affectpipe predict`"))
        known = zip(one.trials, one.offsets[:-1].tolist(), one.offsets[1:].tolist(), strict=True)
        if empty := {trial for trial, start, stop in known if not one.valid[start:stop].any()} & set(trials):
            what = f"has trials of which no row has a valid prediction of {one.task!r}: {named(empty)}"
            fix = "see `affectpipe doctor` for what is wrong with their videos"
            problems.append(_problem(where, what, "there is nothing that their rows could take", fix))
    if problems:
        raise TrainerError(problems)


def _part(predictions: Predictions, columns: Sequence[str], trial: str, frames: Int64) -> _Part:
    mine = predictions.slice_of(trial)
    valid = predictions.valid[mine]
    if predictions.per_trial:
        rows, away_s = np.zeros(len(frames), np.int64), np.full(len(frames), OWN)
    else:
        rows, away_s = rows_of_frames(frames, predictions.frame[mine], predictions.times_s[mine], valid)
    task = predictions.judged_as
    values = predictions.values[mine][rows].astype(np.float64)
    order = [predictions.columns.index(column) for column in columns]
    filled = away_s != OWN
    away_s = np.where(filled, away_s, 0.0)
    if task.metric is Metric.MACRO_F1:
        decided = decide(task, values)[:, 0].astype(int)
        number = np.argsort(order)  # of a predicted column, its number in the header
        return _Part(texts=list(map(str, number[decided].tolist())), filled=filled, away_s=away_s, clipped=np.zeros(len(rows), np.bool_))
    if task.metric is Metric.BINARY_F1:
        decided = decide(task, values, predictions.thresholds_of(trial)).astype(int)[:, order]
        texts = [",".join(map(str, row)) for row in decided.tolist()]
        return _Part(texts=texts, filled=filled, away_s=away_s, clipped=np.zeros(len(rows), np.bool_))
    legal = np.clip(values, task.low, task.high)
    texts = [",".join(f"{value:.6f}" for value in row) for row in legal[:, order].tolist()]
    return _Part(texts=texts, filled=filled, away_s=away_s, clipped=np.asarray((legal != values).any(axis=1)))


def _problem(where: str, what: str, why: str, fix: str) -> Problem:
    return Problem(what=what, where=where, why=why, fix=fix)
