"""Several files' predictions as one: folds of different trials put side by side, models of the same trials averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from trainer.errors import Problem, TrainerError, named
from trainer.predictions import NO_FOLD, Predictions, thresholds_by_trial


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Folds' predictions of different trials as one. Raises TrainerError where two have the same trial, or are of different kinds."""
    _check_alike(parts)
    trials = [trial for part in parts for trial in part.trials]
    if twice := [trial for trial, n in Counter(trials).items() if n > 1]:
        why, fix = "each trial is held out by one fold", "average them instead, or leave one of them out"
        raise TrainerError(Problem(what=f"two have trial {named(twice)}", where="predictions", why=why, fix=fix))
    pieces = sorted(((trial, part) for part in parts for trial in part.trials), key=lambda piece: piece[0])
    rows = [part.slice_of(trial) for trial, part in pieces]

    def gathered(name: str) -> Any:
        return np.concatenate([getattr(part, name)[row] for (_, part), row in zip(pieces, rows, strict=True)])

    return Predictions(
        task=parts[0].task,
        columns=parts[0].columns,
        trials=tuple(trial for trial, _ in pieces),
        offsets=np.cumsum([0, *(row.stop - row.start for row in rows)]).astype(np.int64),
        frame=gathered("frame"),
        times_s=gathered("times_s"),
        values=gathered("values"),
        valid=gathered("valid"),
        fold=np.array([part.fold_of(trial) for trial, part in pieces], np.int64),
        thresholds=thresholds_by_trial([part.thresholds_of(trial) for trial, part in pieces], len(parts[0].columns)),
        per_trial=parts[0].per_trial,
        rows=parts[0].rows,
        made_by={"joined": [dict(part.made_by) for part in parts]},
    )


def averaged(parts: Sequence[Predictions]) -> Predictions:
    """Several models' predictions of the same trials as one: of each row the mean over those that are valid there, and of thresholds.

    Raises TrainerError where they are of different trials, rows or kinds.
    """
    _check_alike(parts)
    first = parts[0]
    for part in parts[1:]:
        same = part.trials == first.trials and np.array_equal(part.offsets, first.offsets) and np.array_equal(part.frame, first.frame)
        if not same:
            differing = set(part.trials) ^ set(first.trials)
            why = f"only some have {named(differing)}" if differing else "their rows differ"
            raise TrainerError(Problem(what="cannot be averaged", where="predictions", why=why, fix="predict the same trials with each"))
    n_valid = np.sum([part.valid for part in parts], axis=0)
    total = np.sum([np.where(part.valid[:, None], part.values, 0).astype(np.float64) for part in parts], axis=0)
    values = np.where(n_valid[:, None] > 0, total / np.maximum(n_valid, 1)[:, None], np.nan).astype(np.float32)
    tuned = [part.thresholds for part in parts if part.thresholds is not None]
    return Predictions(
        task=first.task,
        columns=first.columns,
        trials=first.trials,
        offsets=first.offsets,
        frame=first.frame,
        times_s=first.times_s,
        values=values,
        valid=n_valid > 0,
        fold=np.full(len(first.trials), NO_FOLD, np.int64),
        thresholds=np.mean(tuned, axis=0) if tuned else None,
        per_trial=first.per_trial,
        rows=first.rows,
        made_by={"averaged": [dict(part.made_by) for part in parts]},
    )


def _check_alike(parts: Sequence[Predictions]) -> None:
    if not parts:
        raise ValueError("predictions: expected one or more, got none")
    kinds = {(part.task, part.columns, part.per_trial, part.rows) for part in parts}
    if len(kinds) > 1:
        found = "; ".join(sorted(f"{task}: {','.join(columns)} on rows {rows[:8]}" for task, columns, _, rows in kinds))
        raise TrainerError(Problem(what="do not go together", where="predictions", why=found, fix="give those of one task and one store"))
