"""Comparisons against a bootstrap that puts rows together draw by draw, and against what statistics knows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from trainer.compare import compare
from trainer.errors import TrainerError
from trainer.metrics import Tally, TrialSums
from trainer.tasks import Task, task_of

Rows = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
MINE = task_of("mine", ("x", "y"))


def rows_of(n_trials: int, seed: int, *, noise: float = 1.0, columns: int = 2) -> Rows:
    """Trials of 5 to 40 rows; the labels are the same for every noise."""
    made: Rows = {}
    for i in range(n_trials):
        labels, errors = np.random.default_rng([seed, i]), np.random.default_rng([seed, i, 1])
        n = int(labels.integers(5, 40))
        true = labels.normal(labels.normal(), 1, (n, columns))
        made[f"t{i:03}"] = true, true + noise * errors.normal(size=true.shape), labels.random(true.shape) < 0.8
    return made


def sums_of(rows: Rows, task: Task = MINE) -> TrialSums:
    tally = Tally(task)
    for trial, (true, pred, valid) in rows.items():
        tally.add(true, pred, valid, trial=trial)
    return tally.by_trial()


def ccc_of(rows: Rows, drawn: list[str]) -> list[float]:
    values = []
    for i in range(2):
        true = np.concatenate([rows[t][0][rows[t][2][:, i], i] for t in drawn])
        pred = np.concatenate([rows[t][1][rows[t][2][:, i], i] for t in drawn])
        values.append(2 * np.cov(true, pred, ddof=0)[0, 1] / (true.var() + pred.var() + (true.mean() - pred.mean()) ** 2))
    return values


def test_it_is_the_bootstrap_of_rows_put_together() -> None:
    one, two = rows_of(12, 0, noise=1.0), rows_of(12, 0, noise=1.5)
    found = compare({"one": sums_of(one), "two": sums_of(two)}, n_draws=200, level=0.9, seed=7)
    picks = np.random.default_rng(7).integers(0, 12, (200, 12))
    names = sorted(one)
    values = {name: np.array([ccc_of(rows, [names[i] for i in draw]) for draw in picks]) for name, rows in (("one", one), ("two", two))}
    for run in found.runs:
        rows = one if run.name == "one" else two
        low, high = np.quantile(values[run.name].mean(axis=1), [0.05, 0.95])
        # The same sums in another order, of up to 500 rows.
        assert (run.value.low, run.value.high) == (pytest.approx(low, abs=1e-10), pytest.approx(high, abs=1e-10))
        assert run.value.value == pytest.approx(np.mean(ccc_of(rows, names)), abs=1e-10)
        for i, target in enumerate("xy"):
            low, high = np.quantile(values[run.name][:, i], [0.05, 0.95])
            assert (run.targets[target].low, run.targets[target].high) == (pytest.approx(low, abs=1e-10), pytest.approx(high, abs=1e-10))
    apart = values["two"].mean(axis=1) - values["one"].mean(axis=1)
    difference = found.runs[1].difference
    assert difference is not None
    assert difference.low == pytest.approx(np.quantile(apart, 0.05), abs=1e-10)
    assert found.runs[1].better == pytest.approx((apart > 0).mean())
    assert (found.runs[0].difference, found.runs[0].better) == (None, None)
    assert (found.trials, found.n_draws, found.level, found.seed) == (tuple(names), 200, 0.9, 7)


def test_draws_of_classes_are_those_of_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    task = task_of("expr")
    rows = {f"t{i}": (rng.integers(0, 8, (20, 1)), rng.integers(0, 8, (20, 1)), np.ones((20, 1), bool)) for i in range(6)}
    found = compare({"run": sums_of(rows, task)}, n_draws=50, seed=3).runs[0].value
    picks = np.random.default_rng(3).integers(0, 6, (50, 6))
    drawn = [[np.concatenate([rows[f"t{i}"][part][:, 0] for i in draw]) for part in (0, 1)] for draw in picks]
    values = [f1_score(true, pred, labels=range(8), average="macro", zero_division=0) for true, pred in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


def test_an_interval_is_as_wide_as_statistics_has_it() -> None:
    """Of n clips with a correlation r, the correlation's standard error is (1 - r^2) / sqrt(n)."""
    rng = np.random.default_rng(2)
    n, r = 2000, 0.6
    true = rng.normal(size=(n, 1))
    pred = r * true + math.sqrt(1 - r * r) * rng.normal(size=(n, 1))
    task = task_of("emi", ("Joy",))
    rows = {f"{i:05}": (true[i : i + 1], pred[i : i + 1], np.ones((1, 1), bool)) for i in range(n)}
    found = compare({"run": sums_of(rows, task)}, n_draws=2000).runs[0].value
    # 2,000 draws know a 2.5 % quantile to about 5 % of the half width, and the sample's own spread is off by as much.
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * (1 - r * r) / math.sqrt(n), rel=0.15)
    assert found.low < 0.6 < found.high


def test_a_run_beside_itself_is_as_good() -> None:
    sums = sums_of(rows_of(10, 4))
    twin = compare({"a": sums, "b": sums}, n_draws=100).runs[1]
    assert twin.difference is not None
    assert (twin.difference.value, twin.difference.low, twin.difference.high, twin.better) == (0, 0, 0, 0.5)


def test_pairing_tells_what_intervals_alone_do_not() -> None:
    """A little better on every trial: the two intervals overlap, the difference's lies above 0."""
    worse, better = rows_of(30, 5, noise=1.0), rows_of(30, 5, noise=0.9)
    first, second = compare({"worse": sums_of(worse), "better": sums_of(better)}).runs
    assert first.value.high > second.value.low
    assert second.difference is not None
    assert second.difference.low > 0
    assert second.better == 1.0


def test_a_constant_run_is_nought_in_every_draw() -> None:
    for value in (0.0, 0.1, -1 / 3):
        rows = {trial: (true, np.full_like(true, value), valid) for trial, (true, _, valid) in rows_of(9, 6).items()}
        for task in (MINE, task_of("emi", ("Joy", "Amusement"))):
            found = compare({"mean": sums_of(rows, task)}, n_draws=100).runs[0].value
            assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_one_trial_has_no_interval() -> None:
    found = compare({"a": sums_of(rows_of(1, 7)), "b": sums_of(rows_of(1, 7, noise=2))}).runs
    assert found[0].value.value == pytest.approx(np.mean(ccc_of(rows_of(1, 7), ["t000"])), abs=1e-10)
    difference = found[1].difference
    assert difference is not None
    assert all(map(math.isnan, (found[0].value.low, found[0].value.high, difference.low, difference.high)))


def test_the_seed_decides_and_nothing_else() -> None:
    rows = rows_of(15, 8)
    turned = dict(reversed(rows.items()))
    assert compare({"a": sums_of(rows)}, seed=1) == compare({"a": sums_of(turned)}, seed=1)
    assert compare({"a": sums_of(rows)}, seed=1).runs[0].value != compare({"a": sums_of(rows)}, seed=2).runs[0].value


def test_many_draws_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = sums_of(rows_of(15, 9))
    whole = compare({"a": sums}, n_draws=100)
    monkeypatch.setattr("trainer.compare._BLOCK_CELLS", 15 * 7)
    assert compare({"a": sums}, n_draws=100) == whole


def test_runs_of_different_trials_are_compared_on_those_they_share() -> None:
    rows = rows_of(12, 10)
    some = {trial: part for trial, part in rows.items() if trial >= "t004"}
    masked = {trial: (true, pred, valid & (trial != "t011")) for trial, (true, pred, valid) in rows.items()}
    found = compare({"all": sums_of(rows), "some": sums_of(some), "masked": sums_of(masked)}, n_draws=50)
    assert found.trials == tuple(f"t{i:03}" for i in range(4, 11))
    assert found.runs[0].left_out == ("t000", "t001", "t002", "t003", "t011")
    assert found.runs[1].left_out == ("t011",)
    assert found.runs[0].value == found.runs[1].value


def test_what_cannot_be_compared() -> None:
    rows = rows_of(6, 11)
    other = {f"other {trial}": part for trial, part in rows.items()}
    fewer = {trial: (true, pred, valid & (np.arange(len(true)) > 2)[:, None]) for trial, (true, pred, valid) in rows.items()}
    with pytest.raises(TrainerError, match=r"runs: are of different tasks: a is of mine \(x, y\); b is of emi \(Joy, Admiration\)"):
        compare({"a": sums_of(rows), "b": sums_of(rows, task_of("emi", ("Joy", "Admiration")))})
    with pytest.raises(TrainerError, match=r"runs: have no labelled trial in common: a has t000, .* and 1 more; b has other t000, "):
        compare({"a": sums_of(rows), "b": sums_of(other)})
    with pytest.raises(TrainerError, match=r"runs: were scored on different labels: t000, .*: b and a have different numbers of"):
        compare({"a": sums_of(rows), "b": sums_of(fewer)})
    with pytest.raises(ValueError, match=r"expected runs, draws and a level in \(0, 1\), got 0, 1000 and 0\.95"):
        compare({})
