"""Scoring predictions against a store's labels: against the metric on rows that are put together by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.store import Index
from trainer.errors import TrainerError
from trainer.metrics import Tally
from trainer.predictions import Predicted, Predictions, predictions_on
from trainer.scores import evaluate
from trainer.tasks import ACTION_UNITS, EMOTIONS, EXPRESSIONS, VALENCE_AROUSAL, Task, task_of

MakeIndex = Callable[..., Index]
VA = task_of("va")
N_ROWS = {"b": 30, "a": 20, "c": 25, "empty": 10}


def va_labels(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = {trial: rng.uniform(-1, 1, (n, 2)) for trial, n in N_ROWS.items()}
    for values in labels.values():
        values[rng.random(values.shape) < 0.3] = np.nan
    labels["empty"][:] = np.nan
    return labels


@pytest.fixture
def index(index_of: MakeIndex) -> Index:
    return index_of(N_ROWS, labels={"va": va_labels()}, columns={"va": VALENCE_AROUSAL})


def va_values(seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {trial: rng.uniform(-1, 1, (n, 2)).astype(np.float32) for trial, n in N_ROWS.items()}


def made(
    index: Index, values: Mapping[str, np.ndarray], task: Task = VA, valid: Mapping[str, np.ndarray] | None = None, **more: Any
) -> Predictions:
    known = valid or {}
    parts = {t: Predicted(values=part, valid=known.get(t, np.ones(len(part), bool))) for t, part in values.items()}
    return predictions_on(index, task, parts, **more)


def by_hand(true: np.ndarray, pred: np.ndarray) -> float:
    """CCC as numpy's plain functions give it."""
    return float(2 * np.cov(true, pred, ddof=0)[0, 1] / (true.var() + pred.var() + (true.mean() - pred.mean()) ** 2))


def test_all_labelled_rows_of_all_trials_count_as_one(index: Index) -> None:
    values = va_values()
    found = evaluate(made(index, values), index)
    true = np.concatenate([va_labels()[trial].astype(np.float32) for trial in values]).astype(float)
    pred = np.concatenate(list(values.values())).astype(float)
    for i, target in enumerate(VALENCE_AROUSAL):
        kept = np.isfinite(true[:, i])
        # Sums of 60 products of numbers below 1 in float64.
        assert found.score.targets[target] == pytest.approx(by_hand(true[kept, i], pred[kept, i]), abs=1e-12)
        assert found.score.n_valid[target] == kept.sum()
    assert (found.score.n_rows, found.score.n_trials) == (85, 3)
    assert (found.filled, found.n_filled, found.unlabelled, found.unpredicted) == ({}, 0, ("empty",), ())


def test_some_trials(index: Index) -> None:
    values = va_values()
    some = evaluate(made(index, values), index, trials=["c", "a"])
    assert some.by_trial.trials == ("a", "c")
    assert some.unpredicted == ("b",)
    assert some.score == evaluate(made(index, {t: values[t] for t in "ac"}), index).score
    with pytest.raises(TrainerError, match="predictions of 'va': lacks b: 1 of 2 trials are not predicted; predict them too, or"):
        evaluate(made(index, {"a": values["a"]}), index, trials=["a", "b"])


def test_what_is_masked_changes_nothing(index: Index) -> None:
    """Labels: whatever stands where they are not valid. Predictions: whatever is said where nothing is labelled."""
    values = va_values()
    before = evaluate(made(index, values), index).score
    labels = index.labels["va"]
    labels.values[~labels.valid] = -5
    for trial, part in values.items():
        part[~labels.valid[index.rows(trial)]] = 0.123
    assert evaluate(made(index, values), index).score == before


def test_a_row_without_a_prediction_takes_the_nearest_in_time(index_of: MakeIndex) -> None:
    times_s = np.array([0.0, 0.25, 0.3125, 0.375, 0.5, 0.75])
    true = np.array([[1.0], [2], [3], [4], [5], [np.nan]])
    index = replace(index_of({"a": 6}, labels={"mine": {"a": true}}, columns={"mine": ["x"]}), times_s=times_s)
    task = task_of("mine", ["x"])
    valid = {"a": np.array([True, False, False, False, True, False])}  # 0.25 is as near to 0 as to 0.5: the earlier
    found = evaluate(made(index, {"a": np.array([[10.0], [np.nan], [7], [8], [50], [9]])}, task, valid), index)
    tally = Tally(task)
    tally.add(true[:5], [[10], [10], [50], [50], [50]], np.ones((5, 1), bool))
    assert found.score.value == tally.score().value
    assert (dict(found.filled), found.n_filled) == ({"a": 3}, 3)  # the last row has no label


def test_a_labelled_trial_without_any_prediction(index: Index) -> None:
    nothing = {"a": np.zeros(20, bool), "empty": np.zeros(10, bool)}
    text = "1 labelled trials have no valid prediction: a: there is nothing that their rows could take; see that the features"
    with pytest.raises(TrainerError, match=text):
        evaluate(made(index, va_values(), valid=nothing), index)
    found = evaluate(made(index, va_values(), valid={"empty": nothing["empty"]}), index)
    assert found.unlabelled == ("empty",)


def test_expressions_are_the_highest_scores(index_of: MakeIndex) -> None:
    rng = np.random.default_rng(2)
    true = rng.integers(0, 8, (40, 1)).astype(float)
    scores = rng.random((40, 8))
    scores[np.arange(30), true[:30, 0].astype(int)] += 2  # the first thirty are right
    true[5] = np.nan
    index = index_of({"a": 40}, labels={"expr": {"a": true}}, columns={"expr": ["expression"]})
    found = evaluate(made(index, {"a": scores}, task_of("expr")), index).score
    decided = scores.astype(np.float32).argmax(axis=1)
    f1 = []
    for k in range(8):
        is_true, is_said = (true[:, 0] == k), (decided == k) & np.isfinite(true[:, 0])
        f1.append(2 * (is_true & is_said).sum() / max(is_true.sum() + is_said.sum(), 1))
    assert found.value == pytest.approx(np.mean(f1), abs=1e-12)
    assert list(found.targets) == list(EXPRESSIONS)
    seven = made(index, {"a": scores[:, :7]}, task_of("expr", EXPRESSIONS[:7]))
    with pytest.raises(TrainerError, match="the label of expression is 7, and valid: expected a whole number from 0 to 6"):
        evaluate(seven, index)


def test_each_trials_own_thresholds(index_of: MakeIndex) -> None:
    true = {"a": np.ones((2, 12)), "b": np.ones((2, 12))}
    index = index_of({"a": 2, "b": 2}, labels={"au": true}, columns={"au": ACTION_UNITS})
    low = {t: Predicted(values=np.full((2, 12), 0.4), valid=np.ones(2, bool)) for t in "ab"}
    assert evaluate(predictions_on(index, task_of("au"), low), index).score.value == 0.0
    low["a"] = replace(low["a"], thresholds=np.full(12, 0.3))
    assert evaluate(predictions_on(index, task_of("au"), low), index).score.value == pytest.approx(2 / 3)  # 2 of 4 found, all right


def test_clips(index_of: MakeIndex) -> None:
    rng = np.random.default_rng(3)
    true = {f"{i:05}": rng.random((1, 6)) for i in range(40)}
    true["00007"][:] = np.nan
    index = index_of(dict.fromkeys(true, 5), labels={"emi": true}, columns={"emi": EMOTIONS})
    pred = {trial: 0.5 * values + 0.5 * rng.random((1, 6)) for trial, values in true.items()}
    pred["00007"] = np.zeros((1, 6))
    found = evaluate(made(index, pred, task_of("emi"), per_trial=True), index)
    kept = [trial for trial in true if trial != "00007"]
    together = [np.concatenate([part[trial] for trial in kept]).astype(np.float32) for part in (true, pred)]
    expected = np.mean([np.corrcoef(together[0][:, i], together[1][:, i])[0, 1] for i in range(6)])
    assert found.score.value == pytest.approx(expected, abs=1e-9)
    assert (found.unlabelled, found.score.trial_mean, found.score.n_trials) == (("00007",), None, 39)


def test_nothing_is_labelled(index_of: MakeIndex) -> None:
    index = index_of({"a": 4}, labels={"va": {"a": np.full((4, 2), np.nan)}}, columns={"va": VALENCE_AROUSAL})
    with pytest.raises(TrainerError, match="task 'va': there is nothing to score: none of 4 rows of 1 trials has a valid label"):
        evaluate(made(index, {"a": np.zeros((4, 2))}), index)


def test_what_does_not_fit_the_labels(index: Index, index_of: MakeIndex) -> None:
    values = va_values()
    with pytest.raises(TrainerError, match=r"index\.h5: no labels for task 'au': it has: va; choose one of these"):
        evaluate(made(index, {"a": np.zeros((20, 12))}, task_of("au")), index)
    turned = task_of("va", ("arousal", "valence"))
    text = "predictions of 'va': has other columns than the labels: it predicts arousal, valence, the store's labels are valence, arousal"
    with pytest.raises(TrainerError, match=text):
        evaluate(made(index, values, turned), index)
    other = index_of({"a": 20, "new": 4}, labels={"va": {"a": np.zeros((20, 2)), "new": np.zeros((4, 2))}}, columns={"va": VALENCE_AROUSAL})
    with pytest.raises(TrainerError, match="has trials without labels: b, c, empty: the store lacks 3 of 4 trials; score on"):
        evaluate(made(index, values), other)
    clips = index_of({"a": 20}, labels={"va": {"a": np.zeros((1, 2))}}, columns={"va": VALENCE_AROUSAL})
    text = "is of another kind than the labels: it has rows over time, the labels have one row per trial"
    with pytest.raises(TrainerError, match=text):
        evaluate(made(index, {"a": values["a"]}), clips)


def test_another_stores_rows(index: Index, index_of: MakeIndex) -> None:
    """A store with more trials has another digest, and the same rows of those it shares; another rate has others."""
    values = va_values()
    more = index_of(N_ROWS | {"z": 5}, labels={"va": va_labels() | {"z": np.zeros((5, 2))}}, columns={"va": VALENCE_AROUSAL})
    found = evaluate(made(index, values), more)
    assert found.score == evaluate(made(index, values), index).score
    assert found.unpredicted == ("z",)
    faster = index_of(N_ROWS | {"z": 5}, labels={"va": va_labels() | {"z": np.zeros((5, 2))}}, columns={"va": VALENCE_AROUSAL}, rate_hz=30)
    text = "does not fit the store: a, b, c, empty: 4 of 4 trials have other rows in the store than when they were predicted; predict again"
    with pytest.raises(TrainerError, match=text):
        evaluate(made(index, values), faster)
