"""Runs beside each other, with confidence intervals by bootstrap over trials.

Rows of one trial are alike, so that trials are drawn, not rows: Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13.
All runs are scored on the same draws, so that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from trainer.arrays import Bool, Float64, Int64
from trainer.errors import Problem, TrainerError, named
from trainer.metrics import TrialSums, target_values
from trainer.sums import Sums
from trainer.tasks import Metric

_BLOCK_CELLS = 1 << 22  # draws times trials, at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value on the trials as they are, and the interval in which the middle share of all draws lies; NaN with fewer than two trials."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One run. difference: its value less the first run's; better: the share of draws in which it is the better one, equal ones half.
    Both are None for the first run itself. left_out: trials that it has and another run lacks."""

    name: str
    value: Interval
    targets: Mapping[str, Interval]
    difference: Interval | None
    better: float | None
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """trials: those with a valid label that all runs have, on which each was scored."""

    runs: tuple[Compared, ...]
    trials: tuple[str, ...]
    level: float
    n_draws: int
    seed: int


def compare(runs: Mapping[str, TrialSums], *, n_draws: int = 1000, level: float = 0.95, seed: int = 0) -> Comparison:
    """Each run's value with its percentile interval, and its difference from the first one's.

    The same trials and seed give the same intervals. Raises TrainerError where runs are of different tasks, have no labelled trial in
    common, or were scored on different labels of it.
    """
    if not runs or n_draws < 1 or not 0 < level < 1:
        raise ValueError(f"compare: expected runs, draws and a level in (0, 1), got {len(runs)}, {n_draws} and {level}")
    trials = _common(runs)
    sums = {name: _chosen(run, trials) for name, run in runs.items()}
    _check_labels(sums, trials)
    metric = next(iter(runs.values())).task.metric
    drawn = _draw(sums, metric, len(trials), n_draws, seed)
    whole = {name: target_values(metric, part.pooled(np.ones((1, len(trials)))))[0] for name, part in sums.items()}
    base = next(iter(runs))
    tail = (1 - level) / 2 if len(trials) > 1 else None
    compared = []
    for name, run in runs.items():
        draws, base_draws = drawn[name].mean(axis=1), drawn[base].mean(axis=1)
        targets = zip(run.task.columns, whole[name], drawn[name].T, strict=True)
        one = Compared(
            name=name,
            value=_interval(whole[name].mean(), draws, tail),
            targets={column: _interval(value, of_target, tail) for column, value, of_target in targets},
            difference=None if name == base else _interval(whole[name].mean() - whole[base].mean(), draws - base_draws, tail),
            better=None if name == base else float(np.mean((draws > base_draws) + 0.5 * (draws == base_draws))),
            left_out=tuple(sorted(set(run.trials) - set(trials))),
        )
        compared.append(one)
    return Comparison(runs=tuple(compared), trials=trials, level=level, n_draws=n_draws, seed=seed)


def _draw(sums: Mapping[str, Sums], metric: Metric, n_trials: int, n_draws: int, seed: int) -> dict[str, Float64]:
    """(B, C) of each run: its targets' values in every draw of as many trials as there are, with replacement."""
    random = np.random.default_rng(seed)
    step = max(_BLOCK_CELLS // n_trials, 1)
    drawn: dict[str, list[Float64]] = {name: [] for name in sums}
    for start in range(0, n_draws, step):
        n = min(step, n_draws - start)
        picks = random.integers(0, n_trials, (n, n_trials)) + n_trials * np.arange(n)[:, None]
        weights = np.bincount(picks.ravel(), minlength=n * n_trials).reshape(n, n_trials).astype(np.float64)
        for name, part in sums.items():
            drawn[name].append(target_values(metric, part.pooled(weights)))
    return {name: np.concatenate(blocks) for name, blocks in drawn.items()}


def _interval(value: float, draws: Float64, tail: float | None) -> Interval:
    if tail is None:
        return Interval(value=float(value), low=float("nan"), high=float("nan"))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value=float(value), low=float(low), high=float(high))


def _common(runs: Mapping[str, TrialSums]) -> tuple[str, ...]:
    kinds = {(run.task.name, run.task.columns) for run in runs.values()}
    if len(kinds) > 1:
        why = "; ".join(f"{name} is of {run.task.name} ({', '.join(run.task.columns)})" for name, run in runs.items())
        raise TrainerError(_problem("are of different tasks", why, "compare runs of one task"))
    labelled = [{trial for trial, has in zip(run.trials, _has_rows(run), strict=True) if has} for run in runs.values()]
    common = set.intersection(*labelled)
    if not common:
        why = "; ".join(f"{name} has {named(trials)}" for name, trials in zip(runs, labelled, strict=True))
        raise TrainerError(_problem("have no labelled trial in common", why, "score them on the same trials"))
    return tuple(sorted(common))


def _has_rows(run: TrialSums) -> Bool:
    return np.asarray(run.sums.n.any(axis=1))


def _chosen(run: TrialSums, trials: tuple[str, ...]) -> Sums:
    number = {trial: i for i, trial in enumerate(run.trials)}
    rows: Int64 = np.array([number[trial] for trial in trials], np.int64)
    return type(run.sums)(**{field.name: getattr(run.sums, field.name)[rows] for field in fields(run.sums)})


def _check_labels(sums: Mapping[str, Sums], trials: tuple[str, ...]) -> None:
    base, first = next(iter(sums.items()))
    for name, part in sums.items():
        differing = [trial for trial, same in zip(trials, (part.n == first.n).all(axis=1), strict=True) if not same]
        if differing:
            why = f"{name} and {base} have different numbers of labelled rows in {len(differing)} of {len(trials)} trials"
            raise TrainerError(_problem(f"were scored on different labels: {named(differing)}", why, "score both on one store"))


def _problem(what: str, why: str, fix: str) -> Problem:
    return Problem(what=what, where="runs", why=why, fix=fix)
