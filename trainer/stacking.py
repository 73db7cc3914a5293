"""An earlier model's scores as features of a later one, of which none comes from a model that has seen its trial.

Nguyen et al. (ABAW3), section 3.1 and equation 7: K models, each trained without one of K parts of the training trials, score every row,
and the K scores of each target are the features of the second stage. Taken as it stands, K - 1 of the scores of a training trial are of
models that learnt from it, and the second stage learns to trust what it will not meet again. Here the score in place k of a trial of part
j is of a model trained without part k *and without part j*; of a trial that is in no part, of the model without part k. So each place
means the same everywhere, and no score is of a model that has seen its trial. It takes K (K + 1) / 2 trainings in place of K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

import numpy as np

from pipeline.store import Index
from trainer.predictions import Predicted
from trainer.rows import ArrayRows

LeftOut = tuple[int, ...]  # numbers of the parts that a model has not seen, ascending


def models_needed(n_parts: int) -> tuple[LeftOut, ...]:
    """Those without one part first, then those without two."""
    return (*((k,) for k in range(n_parts)), *combinations(range(n_parts), 2))


def trials_for(left_out: LeftOut, parts: tuple[tuple[str, ...], ...], others: Iterable[str]) -> tuple[str, ...]:
    """Those that the model without these parts is to score. others: trials that are in no part."""
    if len(left_out) == 1:
        return (*parts[left_out[0]], *others)
    return tuple(trial for k in left_out for trial in parts[k])


def trials_to_learn_from(left_out: LeftOut, parts: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(trial for k, part in enumerate(parts) if k not in left_out for trial in part)


def stack_scores(
    index: Index,
    parts: tuple[tuple[str, ...], ...],
    others: tuple[str, ...],
    n_columns: int,
    predict: Callable[[LeftOut, tuple[str, ...]], Mapping[str, Predicted]],
) -> ArrayRows:
    """values (N, n_columns * K) on the store's rows: the K scores of the first column, then those of the next. Valid where all K are.

    parts: K of them, of the training trials; others: trials that are in none and want scores too. predict: of the model that has not seen
    these parts, the scores of these trials, (R, n_columns) each.
    """
    n_parts, n = len(parts), len(index.times_s)
    values = np.zeros((n, n_columns, n_parts), np.float32)
    n_scores = np.zeros((n, n_parts), np.bool_)
    part_of = {trial: k for k, part in enumerate(parts) for trial in part}
    for left_out in models_needed(n_parts):
        trials = trials_for(left_out, parts, others)
        if not trials:
            continue
        for trial, found in predict(left_out, trials).items():
            own = part_of.get(trial)
            place = left_out[0] if own is None or len(left_out) == 1 else next(k for k in left_out if k != own)
            rows = index.rows(trial)
            values[rows, :, place] = np.where(found.valid[:, None], found.values, 0.0)
            n_scores[rows, place] = found.valid
    return ArrayRows(values=values.reshape(n, -1), valid=np.asarray(n_scores.all(axis=1)))
