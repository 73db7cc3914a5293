"""Scores of an earlier model as features of a later one: no score is of a model that has seen its trial, by construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import pytest

from pipeline.store import Index
from trainer.predictions import Predicted
from trainer.stacking import LeftOut, models_needed, stack_scores, trials_for, trials_to_learn_from

N_COLUMNS = 2
MakeIndex = Callable[..., Index]


def made(index_of: MakeIndex, n_parts: int) -> tuple[Index, tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Parts of one to three trials each, and trials of one to four rows, in another order in the store."""
    parts = tuple(tuple(f"p{k}_{i}" for i in range(1 + k % 3)) for k in range(n_parts))
    others = ("other0", "other1")
    trials = [*others[:1], *(trial for part in reversed(parts) for trial in part), *others[1:], "never asked for"]
    return index_of({trial: 1 + i % 4 for i, trial in enumerate(trials)}), parts, others


class Witness:
    """Stands for the first models. Each score says of which model and target it is: the number of its model in `asked`, and the target."""

    def __init__(self, index: Index, parts: tuple[tuple[str, ...], ...], others: tuple[str, ...]) -> None:
        self.index, self.parts = index, parts
        self.part_of = {trial: k for k, part in enumerate(parts) for trial in part}
        self.asked: list[tuple[LeftOut, tuple[str, ...]]] = []
        self.scores = stack_scores(index, parts, others, N_COLUMNS, self.predict)

    def predict(self, left_out: LeftOut, trials: tuple[str, ...]) -> Mapping[str, Predicted]:
        number = len(self.asked)
        self.asked.append((left_out, trials))
        said = {}
        for trial in trials:
            rows = self.index.rows(trial)
            row = np.arange(rows.stop - rows.start)
            values = np.stack([1000 * (target + 1) + 10 * number + row for target in range(N_COLUMNS)], axis=1)
            said[trial] = Predicted(values=values.astype(np.float64), valid=np.ones(len(row), np.bool_))
        return said

    def model_of(self, value: float) -> tuple[LeftOut, int, int]:
        """The model of a score, its target and its row within the trial."""
        target, rest = divmod(round(value), 1000)
        number, row = divmod(rest, 10)
        return self.asked[number][0], target - 1, row


@pytest.mark.parametrize("n_parts", [2, 3, 5])
def test_no_score_is_of_a_model_that_has_seen_its_trial(n_parts: int, index_of: MakeIndex) -> None:
    """Every score of every row: the model of place k has seen neither the trial's own part nor part k, and all others."""
    index, parts, others = made(index_of, n_parts)
    witness = Witness(index, parts, others)
    assert witness.scores.values.shape == (len(index.times_s), N_COLUMNS * n_parts)
    for trial in (*witness.part_of, *others):
        own, rows = witness.part_of.get(trial), index.rows(trial)
        for row, scores in enumerate(witness.scores.values[rows]):
            for target in range(N_COLUMNS):
                for k in range(n_parts):
                    left_out, its_target, its_row = witness.model_of(scores[target * n_parts + k])
                    assert (its_target, its_row) == (target, row), "V1 to VK stand first, then A1 to AK"
                    assert set(left_out) == {k, own} - {None}
                    learnt_from = trials_to_learn_from(left_out, parts)
                    assert trial not in learnt_from
                    assert not set(parts[k]) & set(learnt_from)
                    assert set(learnt_from) == {name for j, part in enumerate(parts) if j not in (k, own) for name in part}


def test_each_model_scores_what_it_is_needed_for_and_once(index_of: MakeIndex) -> None:
    index, parts, others = made(index_of, 4)
    witness = Witness(index, parts, others)
    assert tuple(left_out for left_out, _ in witness.asked) == models_needed(4)
    scored = [(left_out, trial) for left_out, trials in witness.asked for trial in trials]
    assert len(scored) == len(set(scored)) == 4 * (len(witness.part_of) + len(others))
    for left_out, trials in witness.asked:
        assert trials == trials_for(left_out, parts, others)
        assert not set(trials) & set(trials_to_learn_from(left_out, parts))


@pytest.mark.parametrize("n_parts", [2, 3, 5, 8])
def test_how_many_models(n_parts: int) -> None:
    needed = models_needed(n_parts)
    assert len(needed) == n_parts * (n_parts + 1) // 2
    assert set(needed) == {(k,) for k in range(n_parts)} | set(combinations(range(n_parts), 2))
    assert needed[:n_parts] == tuple((k,) for k in range(n_parts)), "those that new trials need first"


def test_trials_of_nobody_have_no_scores(index_of: MakeIndex) -> None:
    index, parts, others = made(index_of, 3)
    scores = Witness(index, parts, others).scores
    asked_for = np.ones(len(index.times_s), np.bool_)
    asked_for[index.rows("never asked for")] = False
    assert np.array_equal(scores.valid, asked_for)
    assert not scores.values[~asked_for].any()
    assert (scores.values.dtype, scores.valid.dtype) == (np.float32, np.bool_)


def test_new_trials_alone(index_of: MakeIndex) -> None:
    """As when a run predicts: no part has a trial, and no model without two of them is asked."""
    index, _, others = made(index_of, 3)
    witness = Witness(index, ((), (), ()), others)
    assert witness.asked == [((k,), others) for k in range(3)]
    assert [witness.model_of(value)[0] for value in witness.scores.values[index.rows(others[0])][0]] == [(0,), (1,), (2,)] * 2


def test_a_row_is_valid_where_all_of_its_scores_are(index_of: MakeIndex) -> None:
    """One model that says nothing of a row, and whose value there is NaN, takes it away; nothing else."""
    index, parts, others = made(index_of, 3)
    silent = {((0, 2), parts[2][0]), ((1,), others[0]), ((1,), parts[1][1])}  # of their last rows

    def predict(left_out: LeftOut, trials: tuple[str, ...]) -> Mapping[str, Predicted]:
        said = {}
        for trial in trials:
            n = index.rows(trial).stop - index.rows(trial).start
            valid = np.ones(n, np.bool_)
            if (left_out, trial) in silent:
                valid[-1] = False
            said[trial] = Predicted(values=np.where(valid[:, None], np.ones((n, N_COLUMNS)), np.nan), valid=valid)
        return said

    scores = stack_scores(index, parts, others, N_COLUMNS, predict)
    expected = np.ones(len(index.times_s), np.bool_)
    expected[index.rows("never asked for")] = False
    for _, trial in silent:
        expected[index.rows(trial).stop - 1] = False
    assert np.array_equal(scores.valid, expected)
    assert np.isfinite(scores.values).all()
    assert (scores.values[expected] == 1).all()


def test_a_planted_label_does_not_come_through(index_of: MakeIndex) -> None:
    """Models that know by heart what they learnt from: had one seen its trial, its score would be the trial's number instead of 0."""
    index, parts, others = made(index_of, 5)
    number = {trial: i + 1.0 for i, trial in enumerate(index.trials)}

    def predict(left_out: LeftOut, trials: tuple[str, ...]) -> Mapping[str, Predicted]:
        known = set(trials_to_learn_from(left_out, parts))
        said = {}
        for trial in trials:
            n = index.rows(trial).stop - index.rows(trial).start
            said[trial] = Predicted(values=np.full((n, N_COLUMNS), number[trial] if trial in known else 0.0), valid=np.ones(n, np.bool_))
        return said

    assert not stack_scores(index, parts, others, N_COLUMNS, predict).values.any()
    assert predict((0,), (parts[1][0],))[parts[1][0]].values.any(), "such a model there is"
