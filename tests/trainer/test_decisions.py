"""Decisions, and thresholds against a search over every threshold there is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from trainer.decisions import decide, tune_out_of_fold, tune_thresholds
from trainer.errors import TrainerError
from trainer.tasks import task_of

unhurried = settings(deadline=None)  # a busy machine is no failure
UNITS = task_of("au", ("AU1", "AU2"))


def test_the_highest_score_is_the_class_and_of_equal_ones_the_first() -> None:
    scores = np.zeros((3, 8), np.float32)
    scores[0, 5], scores[1, [2, 6]] = 0.1, -0.1
    assert decide(task_of("expr"), scores).tolist() == [[5], [0], [0]]


def test_action_units_from_their_threshold_on() -> None:
    scores = np.array([[0.5, 0.5], [0.49, 0.6]])
    assert decide(UNITS, scores).tolist() == [[1, 1], [0, 1]]
    assert decide(UNITS, scores, np.array([0.4, 0.55])).tolist() == [[1, 0], [1, 1]]


def test_numbers_stay() -> None:
    scores = np.array([[0.25, -0.5]], np.float32)
    assert decide(task_of("va"), scores).tolist() == [[0.25, -0.5]]
    with pytest.raises(ValueError, match=r"scores of task 'va': expected \(R, 2\), got \(1, 3\)"):
        decide(task_of("va"), np.zeros((1, 3)))


@unhurried
@given(rows=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), min_size=1, max_size=25))
def test_no_threshold_is_better(rows: list[tuple[int, bool, bool]]) -> None:
    scores = np.array([[score / 12] for score, _, _ in rows])
    true = np.array([[is_true] for _, is_true, _ in rows], float)
    valid = np.array([[is_valid] for _, _, is_valid in rows])
    kept = valid[:, 0]

    def f1(threshold: float) -> float:
        return float(f1_score(true[kept, 0], scores[kept, 0] >= threshold, zero_division=0))

    (threshold,) = tune_thresholds(scores, true, valid)
    assert 0 <= threshold <= 1
    if not true[kept].any():
        assert threshold == 0.5
        return
    tried = {t: f1(t) for t in (0.5, *np.linspace(-1 / 24, 25 / 24, 27))}  # between and at all the scores that there can be
    assert f1(threshold) == pytest.approx(max(tried.values()), abs=1e-12)


def test_of_equally_good_thresholds_the_nearest_to_a_half() -> None:
    scores, true = np.array([[0.1], [0.45], [0.8], [0.9]]), np.array([[0.0], [0.0], [1.0], [1.0]])
    assert tune_thresholds(scores, true, np.ones((4, 1), bool)).tolist() == [pytest.approx(0.625)]
    late = np.array([[0.9], [0.8], [0.3], [0.2]])  # 1 1 0 1: F1 of the four cuts is 1/2, 4/5, 2/3, 6/7
    assert tune_thresholds(late, np.array([[1.0], [1.0], [0.0], [1.0]]), np.ones((4, 1), bool)).tolist() == [pytest.approx(0.1)]
    tied = np.array([[0.95], [0.9], [0.8], [0.55], [0.3]])  # 1 0 0 1 0: 2/3 after the first and after the fourth, less between
    true = np.array([[1.0], [0.0], [0.0], [1.0], [0.0]])
    assert tune_thresholds(tied, true, np.ones((5, 1), bool)).tolist() == [pytest.approx(0.425)]


def test_masked_rows_tune_nothing() -> None:
    rng = np.random.default_rng(0)
    scores, true, valid = rng.random((50, 2)), (rng.random((50, 2)) < 0.4).astype(float), rng.random((50, 2)) < 0.7
    before = tune_thresholds(scores, true, valid)
    scores[~valid], true[~valid] = math.nan, -1
    np.testing.assert_array_equal(tune_thresholds(scores, true, valid), before)


def test_a_fold_is_judged_by_thresholds_of_the_others() -> None:
    """What a fold itself holds, however it would tempt, does not move its own thresholds."""
    rng = np.random.default_rng(1)
    scores, true, fold = rng.random((90, 2)), (rng.random((90, 2)) < 0.4).astype(float), np.repeat([0, 1, 2], 30)
    valid = np.ones((90, 2), bool)
    before = tune_out_of_fold(scores, true, valid, fold)
    assert list(before) == [0, 1, 2]
    true[fold == 1] = (scores[fold == 1] > 0.93).astype(float)
    after = tune_out_of_fold(scores, true, valid, fold)
    np.testing.assert_array_equal(after[1], before[1])
    assert not np.array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], tune_thresholds(scores[fold != 1], true[fold != 1], valid[fold != 1]))


def test_what_cannot_be_tuned() -> None:
    ones = np.ones((4, 1))
    with pytest.raises(TrainerError, match="thresholds need other folds: tuned on the rows that they judge, they would flatter; there are"):
        tune_out_of_fold(ones, ones, ones.astype(bool), np.zeros(4, np.int64))
    with pytest.raises(TrainerError, match=r"column 0, row 0: cannot be tuned: the score is 2, expected a probability in \[0, 1\]"):
        tune_thresholds(2 * ones, ones, ones.astype(bool))
    with pytest.raises(TrainerError, match="the score is nan, expected a probability"):
        tune_thresholds(np.nan * ones, ones, ones.astype(bool))
