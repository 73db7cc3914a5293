"""Metrics against exact fractions, hand-computed values, scikit-learn and torchmetrics."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from trainer.errors import TrainerError
from trainer.metrics import Score, Tally, p_mtl, score_of
from trainer.sums import Moments, ccc, pearson
from trainer.tasks import ACTION_UNITS, EXPRESSIONS, Metric, Task, task_of

unhurried = settings(deadline=None)  # a busy machine is no failure
# Sums of up to 40 float64 products of numbers up to 100: some hundred units in the last place, and as many again where means cancel.
CLOSE = 1e-10
JUNK = (math.nan, math.inf, -5.0, 1e300)


def score(task: Task, true: Any, pred: Any, valid: Any = None) -> Score:
    true, pred = np.array(true, float), np.array(pred, float)
    tally = Tally(task)
    tally.add(true, pred, np.ones(true.shape, bool) if valid is None else np.array(valid))
    return tally.score()


def regression(*columns: str) -> Task:
    return task_of("mine", columns or ("x",))


def exact_ccc(true: list[float], pred: list[float]) -> float:
    """The definition in exact fractions: 2 cov / (var + var + squared distance of means), all moments over n."""
    t, p = [Fraction(x) for x in true], [Fraction(x) for x in pred]
    n = len(t)
    mt, mp = sum(t) / n, sum(p) / n
    cov = sum((a - mt) * (b - mp) for a, b in zip(t, p, strict=True)) / n
    below = sum((a - mt) ** 2 for a in t) / n + sum((b - mp) ** 2 for b in p) / n + (mt - mp) ** 2
    return float(2 * cov / below) if below else 0.0


numbers = st.floats(-100, 100, width=16)
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40)


@unhurried
@given(pairs=pairs)
def test_ccc_is_what_the_definition_says(pairs: list[tuple[float, float]]) -> None:
    true, pred = [a for a, _ in pairs], [b for _, b in pairs]
    got = score(regression(), [[x] for x in true], [[x] for x in pred]).value
    assert got == pytest.approx(exact_ccc(true, pred), abs=CLOSE)
    assert -1 - CLOSE <= got <= 1 + CLOSE


def test_ccc_by_hand() -> None:
    # truth 0..4: mean 2, variance 2. prediction 0 1 2 3 10: mean 3.2, variance 12.56. cov (0 + 1 + 4 + 9 + 40) / 5 - 2 * 3.2 = 4.4.
    got = score(regression(), [[0], [1], [2], [3], [4]], [[0], [1], [2], [3], [10]])
    assert got.value == pytest.approx(2 * 4.4 / (2 + 12.56 + 1.2**2), rel=1e-14)
    assert got.targets == {"x": got.value}
    assert (got.n_valid, got.n_rows, got.n_masked, got.n_trials, got.undefined) == ({"x": 5}, 5, {"x": 0}, 1, ())


def test_torchmetrics_ccc_has_other_moments() -> None:
    """Why the library's is not used: it divides by n - 1, and a constant prediction has no value."""
    import torch
    from torchmetrics.functional.regression import concordance_corrcoef

    true, pred = [0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0, 10.0]
    theirs = concordance_corrcoef(torch.tensor(pred).double(), torch.tensor(true).double()).item()
    assert theirs == pytest.approx(2 * 5.5 / (2.5 + 15.7 + 1.2**2), rel=1e-12)  # the same sums over 4
    assert exact_ccc(true, pred) == pytest.approx(0.55, abs=1e-12)
    assert theirs == pytest.approx(0.5601, abs=1e-4)
    with pytest.warns(UserWarning, match="variance of predictions or target is close to zero"):
        assert math.isnan(concordance_corrcoef(torch.zeros(5).double(), torch.tensor(true).double()).item())


@unhurried
@given(pairs=pairs)
def test_pearson_is_torchmetrics_where_that_is_defined(pairs: list[tuple[float, float]]) -> None:
    import torch
    from torchmetrics.functional.regression import pearson_corrcoef

    true, pred = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    if true.std() < 1e-3 or pred.std() < 1e-3:  # theirs is NaN at a constant, and warns near one
        return
    theirs = pearson_corrcoef(torch.from_numpy(pred), torch.from_numpy(true)).item()
    ours = float(pearson(Moments.of(true[:, None], pred[:, None], np.ones((len(true), 1), bool)))[0])
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e8 + 0.1])
@pytest.mark.parametrize("which", ["prediction", "truth", "both"])
def test_a_constant_has_a_ccc_of_exactly_nought(constant: float, which: str) -> None:
    """0.1 added up 1001 times and divided by 1001 is not 0.1: a rounded variance would not do."""
    rng = np.random.default_rng(0)
    varied, same = rng.normal(size=(1001, 1)), np.full((1001, 1), constant)
    true, pred = (varied, same) if which == "prediction" else (same, varied) if which == "truth" else (same, same)
    assert score(regression(), true, pred).value == 0.0
    assert score(regression(), true, pred).undefined == ()  # it is defined: 0
    tally = Tally(regression())
    for start in range(0, 1001, 77):
        tally.add(true[start : start + 77], pred[start : start + 77], np.ones((len(true[start : start + 77]), 1), bool))
    assert tally.score().value == 0.0


def test_an_undefined_correlation_counts_as_nought_and_is_said() -> None:
    rng = np.random.default_rng(1)
    true = rng.uniform(size=(50, 6))
    pred = true.copy()
    pred[:, 3] = 0.3
    got = score(task_of("emi"), true, pred)
    assert got.targets["Empathic Pain"] == 0.0
    assert got.undefined == ("Empathic Pain",)
    assert got.value == pytest.approx(5 / 6, abs=1e-12)
    assert got.task.title == "P_EMI"


def test_a_large_mean_costs_no_digits() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(size=(500, 1))
    pred = 0.7 * true + 0.1
    small = Moments.of(true, pred, np.ones((500, 1), bool))
    large = Moments.of(true + 1e6, pred + 1e6, np.ones((500, 1), bool))
    # 1e6 costs the inputs themselves seven of sixteen digits.
    np.testing.assert_allclose(ccc(large), ccc(small), rtol=1e-8)
    np.testing.assert_allclose(pearson(large), 1.0, rtol=1e-8)


def test_va_is_the_mean_of_two() -> None:
    true, pred = [[0, 1], [1, 0], [1, 1]], [[0, 1], [1, 0], [1, 1]]
    pred_worse = [[0, 0.5], [1, 0.5], [1, 0.5]]
    assert score(task_of("va"), true, pred).value == 1.0
    worse = score(task_of("va"), true, pred_worse)
    assert (worse.targets, worse.value) == ({"valence": 1.0, "arousal": 0.0}, 0.5)


classes = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=40)


@unhurried
@given(pairs=classes)
def test_macro_f1_is_scikit_learns_over_eight_fixed_classes(pairs: list[tuple[int, int]]) -> None:
    true, pred = [a for a, _ in pairs], [b for _, b in pairs]
    got = score(task_of("expr"), [[x] for x in true], [[x] for x in pred])
    assert got.value == pytest.approx(f1_score(true, pred, labels=range(8), average="macro", zero_division=0), abs=1e-12)
    each = f1_score(true, pred, labels=range(8), average=None, zero_division=0)
    assert list(got.targets.values()) == pytest.approx(each.tolist(), abs=1e-12)
    assert list(got.targets) == list(EXPRESSIONS)
    assert set(got.undefined) == {EXPRESSIONS[i] for i in range(8) if i not in (*true, *pred)}


def test_an_absent_class_counts_as_nought() -> None:
    """All that is there is right, but four of eight classes are not there: 0.5, where scikit-learn by itself would say 1."""
    got = score(task_of("expr"), [[0], [1], [2], [3]], [[0], [1], [2], [3]])
    assert got.value == 0.5
    assert got.undefined == EXPRESSIONS[4:]
    assert f1_score([0, 1, 2, 3], [0, 1, 2, 3], average="macro") == 1.0


@unhurried
@given(data=st.data(), n=st.integers(1, 30))
def test_au_is_the_mean_of_twelve_binary_f1_each_over_its_own_valid_rows(data: st.DataObject, n: int) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    true, pred, valid = rng.random((n, 12)) < 0.4, rng.random((n, 12)) < 0.4, rng.random((n, 12)) < 0.8
    if not valid.any():
        return
    got = score(task_of("au"), true, pred, valid)
    expected = [f1_score(true[kept, i], pred[kept, i], zero_division=0) if (kept := valid[:, i]).any() else 0.0 for i in range(12)]
    assert list(got.targets.values()) == pytest.approx(expected, abs=1e-12)
    assert got.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert list(got.n_valid.values()) == valid.sum(axis=0).tolist()


def test_p_mtl_is_the_sum_of_three() -> None:
    va = score(task_of("va"), [[0, 1], [1, 0]], [[0, 1], [1, 0]])
    expr = score(task_of("expr"), [[0], [1], [2], [3]], [[0], [1], [2], [3]])
    au = score(task_of("au"), np.eye(12), np.eye(12))
    assert p_mtl(va, expr, au) == 1.0 + 0.5 + 1.0


TASKS = [task_of("va"), task_of("expr"), task_of("au"), task_of("emi"), regression("only")]


def random_rows(task: Task, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (n, task.n_labels)
    if task.metric in (Metric.CCC, Metric.PEARSON):
        true, pred = rng.uniform(size=shape), rng.uniform(size=shape)
    else:
        highest = 8 if task.metric is Metric.MACRO_F1 else 2
        true, pred = rng.integers(0, highest, shape).astype(float), rng.integers(0, highest, shape).astype(float)
    return true, pred, rng.random(shape) < 0.7


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("junk", JUNK)
def test_what_is_masked_changes_nothing_at_all(task: Task, junk: float) -> None:
    true, pred, valid = random_rows(task, np.random.default_rng(3), 60)
    before = score(task, true, pred, valid)
    true[~valid] = junk
    pred[~valid] = junk
    assert score(task, true, pred, valid) == before


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_masking_a_row_is_leaving_it_out(task: Task) -> None:
    true, pred, valid = random_rows(task, np.random.default_rng(4), 60)
    valid[:] = valid[:, :1]
    kept = valid[:, 0]
    masked, without = score(task, true, pred, valid), score(task, true[kept], pred[kept])
    assert (masked.value, masked.targets) == (without.value, without.targets)  # to the last digit
    assert (masked.n_rows, without.n_rows) == (60, int(kept.sum()))
    assert set(masked.n_masked.values()) == {60 - int(kept.sum())}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@unhurried
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 50), max_size=6))
def test_pieces_in_any_order_give_the_whole(task: Task, seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    true, pred, valid = random_rows(task, rng, 50)
    valid[0] = True
    whole = score(task, true, pred, valid)
    pieces = np.split(np.arange(50), sorted(cuts))
    tally = Tally(task)
    for i in rng.permutation(len(pieces)):
        tally.add(true[pieces[i]], pred[pieces[i]], valid[pieces[i]], trial=str(i % 3))
    got = tally.score()
    assert got.value == pytest.approx(whole.value, abs=CLOSE)
    assert (got.n_valid, got.n_rows) == (whole.n_valid, whole.n_rows)


def test_all_rows_count_as_one_and_trials_are_secondary() -> None:
    """Two trials, each predicted perfectly but for an offset between them: 1 within, less over both."""
    tally = Tally(regression())
    ramp = np.arange(10.0)[:, None]
    tally.add(ramp, ramp + 0.0, np.ones((10, 1), bool), trial="a")
    tally.add(ramp, ramp + 9.0, np.ones((10, 1), bool), trial="b")
    tally.add(ramp, ramp, np.zeros((10, 1), bool), trial="masked")
    got = tally.score()
    both = [*range(10)] * 2
    assert got.value == pytest.approx(exact_ccc(both, [*range(10), *range(9, 19)]), abs=1e-12)
    second = exact_ccc([*range(10)], [*range(9, 19)])
    assert got.trial_mean == pytest.approx((1 + second) / 2, abs=1e-12)  # not a third of it: the masked trial has no value
    assert (got.n_trials, got.n_rows, got.n_valid) == (2, 30, {"x": 20})
    assert got.value != pytest.approx(got.trial_mean, abs=0.01)


def test_clips_have_no_mean_over_trials() -> None:
    tally = Tally(task_of("emi"))
    for trial in ("00001", "00002", "00003"):
        row = np.full((1, 6), int(trial) / 4)
        tally.add(row, row, np.ones((1, 6), bool), trial=trial)
    assert tally.score().trial_mean is None
    assert tally.score().value == pytest.approx(1.0, abs=1e-12)


def test_one_trial_of_one_row() -> None:
    got = score(task_of("va"), [[0.5, 0.5]], [[0.5, 0.4]])
    assert (got.value, got.n_trials, got.trial_mean) == (0.0, 1, None)


def test_a_target_without_a_valid_row_is_said() -> None:
    valid = np.array([[True, False]] * 3)
    got = score(task_of("va"), [[0, 9], [1, 9], [2, 9]], [[0, 9], [1, 9], [2, 9]], valid)
    assert (got.value, got.undefined, got.n_valid) == (0.5, ("arousal",), {"valence": 3, "arousal": 0})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_valid_is_an_error(task: Task) -> None:
    tally = Tally(task)
    tally.add(np.zeros((4, task.n_labels)), np.zeros((4, task.n_labels)), np.zeros((4, task.n_labels), bool), trial="106")
    text = f"task '{task.name}': there is nothing to score: none of 4 rows of 1 trials has a valid label; choose trials"
    with pytest.raises(TrainerError, match=text):
        tally.score()
    with pytest.raises(TrainerError, match="none of 0 rows of 0 trials"):
        Tally(task).score()


@pytest.mark.parametrize(
    ("task", "true", "pred", "text"),
    [
        ("va", [[0, math.nan]], [[0, 0]], "trial 106, row 0: the label of arousal is nan, and valid: it is not finite; mask what"),
        ("va", [[0, 0]], [[math.inf, 0]], "trial 106, row 0: the prediction of valence is inf, and valid: it is not finite"),
        ("expr", [[8]], [[0]], "the label of expression is 8, and valid: expected a whole number from 0 to 7"),
        ("expr", [[0]], [[0.5]], r"the prediction of expression is 0\.5, and valid: expected a whole number from 0 to 7"),
        ("expr", [[-1]], [[0]], "the label of expression is -1, and valid: expected a whole number from 0 to 7"),
        ("expr", [[0]], [[math.nan]], "the prediction of expression is nan, and valid"),
        ("au", [[0.0] * 12], [[0.0] * 11 + [0.7]], r"the prediction of AU26 is 0\.7, and valid: expected a whole number from 0 to 1"),
    ],
)
def test_a_wrong_value_where_it_counts_is_an_error(task: str, true: Any, pred: Any, text: str) -> None:
    tally = Tally(task_of(task))
    with pytest.raises(TrainerError, match=text):
        tally.add(true, pred, np.ones(np.shape(true), bool), trial="106")


def test_other_shapes_say_both_sides() -> None:
    with pytest.raises(ValueError, match=r"predicted: expected \(3, 2\) for task 'va', got \(3, 3\)"):
        Tally(task_of("va")).add(np.zeros((3, 2)), np.zeros((3, 3)), np.ones((3, 2), bool))


def test_resampled_sums_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(5)
    for task in TASKS:
        tally, rows = Tally(task), {}
        for trial in "abcd":
            rows[trial] = random_rows(task, rng, 20)
            tally.add(*rows[trial], trial=trial)
        weights = np.array([[1, 1, 1, 1], [0, 3, 1, 0], [4, 0, 0, 0], [0, 0, 0, 0]], float)
        sums = tally.by_trial().sums.pooled(weights)
        for b, counts in enumerate(weights[:3].astype(int)):
            drawn = [rows[trial] for trial, n in zip("abcd", counts, strict=True) for _ in range(n)]
            true, pred, valid = (np.concatenate(part) for part in zip(*drawn, strict=True))
            again = Tally(task)
            again.add(true, pred, valid)
            one = again.by_trial().sums
            for name in one.__slots__:
                np.testing.assert_allclose(getattr(sums, name)[b], getattr(one, name)[0], rtol=1e-12, atol=CLOSE, err_msg=name)
        assert not sums.n[3].any()


def test_tasks_by_name() -> None:
    assert task_of("au").columns == ACTION_UNITS
    assert len(task_of("expr", EXPRESSIONS[:7]).columns) == 7
    assert task_of("fatigue", ("level",)).metric is Metric.CCC
    assert (task_of("expr").n_labels, task_of("au").n_labels) == (1, 12)
    with pytest.raises(TrainerError, match="task 'fatigue': has no columns: the tasks va, expr, au, emi have known columns"):
        task_of("fatigue")


def test_seven_classes_are_judged_by_seven() -> None:
    seven = task_of("expr", EXPRESSIONS[:7])
    assert score(seven, [[i] for i in range(7)], [[i] for i in range(7)]).value == 1.0
    by_trial = Tally(seven)
    by_trial.add([[6]], [[6]], [[True]], trial="a")
    assert score_of(by_trial.by_trial()).value == pytest.approx(1 / 7, abs=1e-15)
