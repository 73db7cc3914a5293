"""What is done to predictions: smoothing within a trial, clipping, and thresholds that a trial's own fold has no part in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.store import Index
from trainer.after import smoothed, tuned, with_thresholds
from trainer.decisions import tune_thresholds
from trainer.errors import TrainerError
from trainer.predictions import NO_FOLD, Predicted, Predictions, predictions_on
from trainer.recipe import After
from trainer.tasks import task_of

MakeIndex = Callable[..., Index]
ROWS = ("frame", "times_s", "values", "valid")
VA, AU = task_of("va"), task_of("au", ("AU1", "AU2"))


@pytest.fixture
def two(index_of: MakeIndex) -> Predictions:
    """Trial a of four rows, the third not valid, and b of three, far from a."""
    a = np.array([[0.0, 0.0], [0.4, 0.2], [0.0, 0.0], [0.2, 0.4]])
    parts = {
        "a": Predicted(values=a, valid=np.array([True, True, False, True])),
        "b": Predicted(values=np.array([[-0.5, 5.0], [-0.5, -5.0], [-0.8, 0.0]]), valid=np.ones(3, np.bool_)),
    }
    return predictions_on(index_of({"b": 3, "a": 4}), VA, parts)


def test_no_smoothing_clips_only(two: Predictions) -> None:
    found = smoothed(After(), two)
    np.testing.assert_array_equal(found.values, np.clip(two.values, -1, 1))
    assert found.values[two.slice_of("b")][:, 1].tolist() == [1, -1, 0]
    assert replace(found, values=two.values) == replace(two), "nothing else is changed"
    assert smoothed(After(smooth="mean", width_rows=(0.0,)), two).values[1, 0] == np.float32(0.4)


def test_each_trial_is_smoothed_by_itself(two: Predictions) -> None:
    """Means of three rows by hand, the first and the last held, a row that is not valid passed over; then clipped, not before."""
    found = smoothed(After(smooth="mean", width_rows=(3.0,)), two)
    a, b = found.values[two.slice_of("a")], found.values[two.slice_of("b")]
    np.testing.assert_allclose(a[:, 0], [0.4 / 3, 0.4 / 2, np.nan, 0.4 / 2], rtol=1e-6)
    np.testing.assert_allclose(a[:, 1], [0.2 / 3, 0.2 / 2, np.nan, 0.8 / 2], rtol=1e-6)
    np.testing.assert_allclose(b[:, 0], [-0.5, -1.8 / 3, -2.1 / 3], rtol=1e-6)
    np.testing.assert_allclose(b[:, 1], [1, 0, -1], rtol=0, atol=1e-6, err_msg="5/3, 0 and -5/3, clipped")
    assert found.values.dtype == np.float32
    alone = replace(two, trials=("a",), offsets=two.offsets[:2], fold=two.fold[:1], **{k: getattr(two, k)[:4] for k in ROWS})
    np.testing.assert_array_equal(smoothed(After(smooth="mean", width_rows=(3.0,)), alone).values, a)


def test_a_width_for_each_target(two: Predictions) -> None:
    found = smoothed(After(smooth="median", width_rows=(1.0, 3.0)), two).values[two.slice_of("b")]
    np.testing.assert_allclose(found, [[-0.5, 1.0], [-0.5, 0.0], [-0.8, 0.0]], rtol=1e-6)
    with pytest.raises(TrainerError, match=r"smoothing 'median': does not fit: there are 2 targets, and 3 widths; give one width, or one"):
        smoothed(After(smooth="median", width_rows=(1.0, 3.0, 5.0)), two)


def test_clips_are_not_smoothed_with_each_other(index_of: MakeIndex) -> None:
    emi = task_of("emi")
    parts = {name: Predicted(values=np.full((1, 6), value), valid=np.ones(1, np.bool_)) for name, value in (("a", 0.2), ("b", 1.7))}
    predictions = predictions_on(index_of({"a": 5, "b": 5}), emi, parts, per_trial=True)
    found = smoothed(After(smooth="mean", width_rows=(3.0,)), predictions).values
    np.testing.assert_array_equal(found, np.float32([[0.2] * 6, [1.0] * 6]))


def units(index_of: MakeIndex, folds: tuple[int, ...]) -> tuple[Predictions, Index]:
    """Of one trial for each fold, thirty rows of two action units: probabilities that mean yes from a level of the trial's own on."""
    rng, n, names = np.random.default_rng(5), 30, [f"t{i}" for i in range(len(folds))]
    values = {name: rng.random((n, 2)) for name in names}
    labels = {name: (values[name] > 0.2 + 0.15 * i).astype(float) for i, name in enumerate(names)}
    labels["t0"][:3] = np.nan
    index = index_of(dict.fromkeys(names, n), labels={"au": labels}, columns={"au": AU.columns})
    valid = {name: rng.random(n) < 0.9 for name in names}
    parts = {name: Predicted(values=values[name], valid=valid[name], fold=fold) for name, fold in zip(names, folds, strict=True)}
    return predictions_on(index, AU, parts), index


def test_thresholds_are_tuned_on_other_folds(index_of: MakeIndex) -> None:
    """Those of a trial are what the rows of all trials of other folds give, where there are a label and a prediction."""
    folds = (0, 1, 0, 2)
    predictions, index = units(index_of, folds)
    found = tuned(predictions, index)
    labels = index.labels["au"]
    for i, fold in enumerate(folds):
        rows = np.concatenate([np.arange(30) + 30 * j for j, other in enumerate(folds) if other != fold])
        valid = labels.valid[rows] & predictions.valid[rows][:, None]
        expected = tune_thresholds(np.nan_to_num(predictions.values[rows]), labels.values[rows], valid)
        np.testing.assert_array_equal(found.thresholds_of(f"t{i}"), expected)
    assert found.thresholds is not None
    np.testing.assert_array_equal(found.thresholds[0], found.thresholds[2])
    assert len(np.unique(found.thresholds[:, 0])) == 3, "one for each fold"
    np.testing.assert_array_equal(found.values, predictions.values)


def test_a_trials_own_labels_do_not_move_its_thresholds(index_of: MakeIndex) -> None:
    predictions, index = units(index_of, (0, 1, 2))
    turned = replace(index.labels["au"], values=index.labels["au"].values.copy())
    turned.values[:30] = 1 - turned.values[:30]
    before, after = tuned(predictions, index), tuned(predictions, replace(index, labels={"au": turned}))
    np.testing.assert_array_equal(before.thresholds_of("t0"), after.thresholds_of("t0"))
    assert not np.array_equal(before.thresholds_of("t1"), after.thresholds_of("t1"))


def test_rows_without_a_prediction_do_not_tune(index_of: MakeIndex) -> None:
    """They are all there; taken for scores of 0 they would call for a threshold of 0."""
    labels, valid = np.zeros((12, 2)), np.arange(12) < 4
    labels[3:] = 1
    index = index_of({"t0": 12, "t1": 12}, labels={"au": {"t0": labels, "t1": labels}}, columns={"au": AU.columns})
    values = np.where(valid[:, None], np.array([0.1, 0.2, 0.3, 0.7] + [np.nan] * 8)[:, None], np.nan).repeat(2, axis=1)
    parts = {name: Predicted(values=values, valid=valid, fold=fold) for fold, name in enumerate(("t0", "t1"))}
    found = tuned(predictions_on(index, AU, parts), index)
    np.testing.assert_allclose(found.thresholds_of("t0"), [0.5, 0.5], rtol=1e-6)  # half way from 0.3 to 0.7, in float32


def test_one_fold_cannot_tune(index_of: MakeIndex) -> None:
    predictions, index = units(index_of, (0, 0))
    with pytest.raises(TrainerError, match="thresholds need other folds: tuned on the rows that they judge, they would flatter"):
        tuned(predictions, index)


def test_thresholds_of_new_trials_are_the_mean(index_of: MakeIndex) -> None:
    predictions, _ = units(index_of, (1, NO_FOLD, 0))
    by_fold = {0: np.array([0.2, 0.4]), 1: np.array([0.6, 0.9])}
    found = with_thresholds(predictions, by_fold)
    assert found.thresholds is not None
    np.testing.assert_allclose(found.thresholds, [[0.6, 0.9], [0.4, 0.65], [0.2, 0.4]], rtol=1e-12)
    assert with_thresholds(predictions, {}) is predictions
