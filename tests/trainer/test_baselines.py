"""What results are held against: the mean of the training labels, and labels that are of other trials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.store import Index, Labels, Store
from trainer.baselines import mean_score, shuffled
from trainer.errors import TrainerError
from trainer.splits import Fold, Folds, Scheme

MakeIndex = Callable[..., Index]


def store_of(index: Index, tmp_path: Any) -> Store:
    return Store(folder=tmp_path, index=index)


def official(train: tuple[str, ...], validation: tuple[str, ...]) -> Folds:
    return Folds(scheme=Scheme(), folds=(Fold(train=train, validation=validation),))


COUNTS = {"a": 4, "b": 9, "c": 2, "d": 1, "e": 7}


def numbered(index_of: MakeIndex, counts: dict[str, int] = COUNTS) -> Index:
    """Labels that say whose they are and of which row: 100 and the trial's number, the row."""
    labels = {name: np.stack([np.full(n, 100.0 + i), np.arange(n)], axis=1) for i, (name, n) in enumerate(counts.items())}
    return index_of(counts, labels={"va": labels})


@pytest.mark.parametrize("seed", range(20))
def test_nobody_keeps_its_own_labels(index_of: MakeIndex, seed: int) -> None:
    """Each trial has all those of another, from the first row on, and over and over where these are fewer; each is given once."""
    index = numbered(index_of)
    other = shuffled(index, "va", seed)
    givers = {}
    for i, trial in enumerate(COUNTS):
        values = other.labels["va"].values[index.rows(trial)]
        whose, rows = np.unique(values[:, 0]), values[:, 1]
        assert len(whose) == 1
        giver = int(whose[0]) - 100
        assert giver != i
        n = list(COUNTS.values())[giver]
        np.testing.assert_array_equal(rows, np.arange(COUNTS[trial]) % n)
        givers[i] = giver
    assert sorted(givers.values()) == list(range(len(COUNTS)))
    assert other.labels["va"].valid.all()
    assert other.rows_digest == index.rows_digest


def test_the_index_that_was_given_stays(index_of: MakeIndex) -> None:
    index = numbered(index_of)
    before = index.labels["va"].values.copy()
    shuffled(index, "va", 0)
    np.testing.assert_array_equal(index.labels["va"].values, before)


def test_a_seed_decides(index_of: MakeIndex) -> None:
    index = numbered(index_of)
    found = [shuffled(index, "va", seed).labels["va"].values for seed in (0, 0, 1, 2, 3)]
    assert np.array_equal(found[0], found[1])
    assert any(not np.array_equal(found[0], one) for one in found[2:])


def test_what_is_not_valid_goes_along(index_of: MakeIndex) -> None:
    """And trials without a label neither give nor take."""
    labels = {"a": np.array([[1.0], [np.nan], [3.0]]), "b": np.array([[4.0], [5.0], [6.0]]), "c": np.full((3, 1), np.nan)}
    index = index_of(dict.fromkeys("abc", 3), labels={"mine": labels})
    labels_of_b = shuffled(index, "mine", 0).labels["mine"]
    np.testing.assert_array_equal(labels_of_b.values[index.rows("b"), 0], np.float32([1, np.nan, 3]))
    np.testing.assert_array_equal(labels_of_b.values[index.rows("a"), 0], np.float32([4, 5, 6]))
    assert labels_of_b.valid[:, 0].tolist() == [True] * 3 + [True, False, True] + [False] * 3


def test_labels_per_clip_and_of_other_tasks(index_of: MakeIndex) -> None:
    index = numbered(index_of)
    clips = Labels(columns=("x",), values=np.float32([[0], [1], [2], [3], [4]]), valid=np.ones((5, 1), np.bool_), per_trial=True)
    index = replace(index, labels={**index.labels, "clips": clips})
    other = shuffled(index, "clips", 1)
    found = other.labels["clips"]
    assert found.per_trial
    assert sorted(found.values[:, 0].tolist()) == [0, 1, 2, 3, 4]
    assert (found.values != clips.values).all()
    assert other.labels["va"] is index.labels["va"]


def test_one_trial_cannot_be_shuffled(index_of: MakeIndex) -> None:
    index = index_of({"a": 3, "b": 3}, labels={"va": {"a": np.zeros((3, 2)), "b": np.full((3, 2), np.nan)}})
    with pytest.raises(TrainerError, match=r"^task 'va': labels cannot be shuffled: there is 1 labelled trial; add labelled trials$"):
        shuffled(index, "va", 0)
    with pytest.raises(TrainerError, match="no labels for task 'au': it has: va; choose one of these"):
        shuffled(index, "au", 0)


def test_the_mean_has_no_concordance(index_of: MakeIndex, tmp_path: Any) -> None:
    """A constant has CCC 0, whichever it is: exactly, as its product with anything's deviations is."""
    rng = np.random.default_rng(0)
    labels = {name: rng.uniform(-1, 1, (n, 2)) for name, n in COUNTS.items()}
    store = store_of(index_of(COUNTS, labels={"va": labels}), tmp_path)
    score = mean_score(store, "va", official(("a", "b", "c"), ("d", "e")))
    assert score.value == pytest.approx(0, abs=1e-12)
    assert score.n_trials == 2


def test_two_folds_have_means_of_their_own(index_of: MakeIndex, tmp_path: Any) -> None:
    """Of the training rows that are valid, of each fold: 0.5 for a, whose labels are -0.25, and -0.25 for b. CCC by its formula."""
    labels = {"a": np.full((4, 1), -0.25), "b": np.array([[0.5], [0.5], [np.nan], [0.5]])}
    store = store_of(index_of({"a": 4, "b": 4}, labels={"mine": labels}), tmp_path)
    folds = Folds(scheme=Scheme(n_folds=2), folds=(Fold(train=("b",), validation=("a",)), Fold(train=("a",), validation=("b",))))
    true, pred = np.array([-0.25] * 4 + [0.5] * 3), np.array([0.5] * 4 + [-0.25] * 3)
    product = ((true - true.mean()) * (pred - pred.mean())).mean()
    ccc = 2 * product / (true.var() + pred.var() + (true.mean() - pred.mean()) ** 2)
    assert mean_score(store, "mine", folds).value == pytest.approx(ccc, rel=1e-6)
    assert ccc < -0.5


def test_of_classes_the_commonest(index_of: MakeIndex, tmp_path: Any) -> None:
    """Class 3 is said everywhere: of the held-out rows 2 of 6 are, so F1 is 2 * 2 / (6 + 2) = 0.5, and 0 of the other seven."""
    labels = {"a": [[3.0], [3.0], [1.0], [np.nan]], "b": [[3.0], [3.0], [1.0], [1.0], [0.0], [7.0]]}
    store = store_of(index_of({"a": 4, "b": 6}, labels={"expr": labels}, columns={"expr": ["expression"]}), tmp_path)
    score = mean_score(store, "expr", official(("a",), ("b",)))
    assert score.value == pytest.approx(0.5 / 8, rel=1e-9)


def test_of_units_those_that_are_mostly_there(index_of: MakeIndex, tmp_path: Any) -> None:
    """AU1 is in three of four training rows and is said everywhere: F1 2 * 1 / (2 + 1); AU2 is in one of four and never said: 0."""
    labels = {"a": [[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], "b": [[1.0, 1.0], [0.0, 1.0]]}
    store = store_of(index_of({"a": 4, "b": 2}, labels={"au": labels}, columns={"au": ["AU1", "AU2"]}), tmp_path)
    score = mean_score(store, "au", official(("a",), ("b",)))
    assert dict(score.targets) == {"AU1": pytest.approx(2 / 3), "AU2": 0.0}


def test_of_clips(index_of: MakeIndex, tmp_path: Any) -> None:
    """A constant has no correlation with anything either."""
    labels = {name: [list(row)] for name, row in zip("abcd", np.random.default_rng(1).random((4, 6)), strict=True)}
    store = store_of(index_of({"a": 3, "b": 9, "c": 2, "d": 5}, labels={"emi": labels}), tmp_path)
    score = mean_score(store, "emi", official(("a", "b"), ("c", "d")))
    assert score.value == pytest.approx(0, abs=1e-12)
    assert score.n_trials == 2
