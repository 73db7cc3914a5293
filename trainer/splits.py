"""Cross-validation: which trials are trained on and which are held out. Trials of one source or one subject are never parted.

A fold's validation trials are held out; its training trials are those of all other folds (of the official split, the official ones).
The same trials, labels and seed give the same folds, in whatever order the store has them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.store import Index
from trainer.arrays import Float64
from trainer.errors import Problem, TrainerError, named
from trainer.groups import group_trials
from trainer.labels import label_counts

WHERE = "folds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How to split. n_folds: None for the official split alone. official_first: fold 0 holds the official validation trials out, the
    others parts of the official training trials. stratify: the task whose labels are to be distributed alike over folds, or empty.
    Raises TrainerError for fewer than two folds."""

    n_folds: int | None = None
    official_first: bool = False
    stratify: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_folds is not None and (not isinstance(self.n_folds, int) or self.n_folds < 2):
            why = "one fold is held out and another trained on"
            raise TrainerError(_problem(f"{self.n_folds} folds cannot be made", why, "ask for two or more, or for the official split"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """left_out: trials that are in no fold (tests, say). Raises TrainerError where a trial is held out twice, trained on and held out in
    one fold, or both in a fold and left out, and where a fold has nothing on one side."""

    scheme: Scheme
    folds: tuple[Fold, ...]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [problem for i, fold in enumerate(self.folds) for problem in _fold_problems(i, fold)]
        held = Counter(trial for fold in self.folds for trial in fold.validation)
        if twice := [trial for trial, n in held.items() if n > 1]:
            problems.append(_problem(f"{_trials(twice)} held out more than once", "one fold predicts each trial", "keep one of them"))
        if both := {trial for fold in self.folds for trial in (*fold.train, *fold.validation)} & set(self.left_out):
            problems.append(_problem(f"{_trials(both)} both in a fold and left out", "", "take the name out of one of them"))
        if not self.folds:
            problems.append(_problem("there is no fold", "", "give one fold or more"))
        if problems:
            raise TrainerError(problems)

    @property
    def fold_of(self) -> dict[str, int]:
        """Of each trial that is held out, the fold that does."""
        return {trial: i for i, fold in enumerate(self.folds) for trial in fold.validation}


def make_folds(index: Index, scheme: Scheme, *, trials: Sequence[str] | None = None, subjects: Mapping[str, str] | None = None) -> Folds:
    """trials: which to split; those whose split is not `test` where left out. subjects: see `group_trials`.

    Raises TrainerError for a split that cannot be made: no official one where it is asked for, fewer groups than folds, an official
    split that parts a source or a named subject. (What names alone tell is a guess on the safe side, and no reason to refuse that.)
    """
    source, split = dict(zip(index.trials, index.source, strict=True)), dict(zip(index.trials, index.split, strict=True))
    chosen = sorted(trials if trials is not None else (trial for trial in index.trials if split[trial] != "test"))
    if unknown := set(chosen) - set(index.trials):
        why, fix = f"it has {len(index.trials)} others", "name trials of the store"
        raise TrainerError(_problem(f"the store has no {_trials(unknown)}", why, fix))
    if not chosen:
        raise TrainerError(_problem("there is no trial to split", "all are of the test split, or none was given", "give labelled trials"))
    groups = group_trials(chosen, [source[trial] for trial in chosen], subjects)
    facts = group_trials(chosen, [source[trial] for trial in chosen], subjects, by_name=False)
    left_out = tuple(sorted(set(index.trials) - set(chosen)))
    folds: Sequence[Fold]
    if scheme.n_folds is None:
        folds = [_official(chosen, split, facts)]
        left_out = tuple(sorted(set(index.trials) - {*folds[0].train, *folds[0].validation}))
    elif scheme.official_first:
        official = _official(chosen, split, facts, every=True)
        inside = [part for group in groups if (part := tuple(trial for trial in group if split[trial] == "train"))]
        held = [official.validation, *_parts(index, scheme, inside, scheme.n_folds - 1)]
        folds = [official, *_as_folds(held, groups)[1:]]
    else:
        folds = _as_folds(_parts(index, scheme, groups, scheme.n_folds), groups)
    return Folds(scheme=scheme, folds=tuple(folds), left_out=left_out)


def check_groups(folds: Sequence[Fold], groups: Iterable[Sequence[str]]) -> None:
    """Raises TrainerError where a fold trains on one trial of a group and holds another one out: its scores would flatter."""
    problems = []
    for i, fold in enumerate(folds):
        train, validation = set(fold.train), set(fold.validation)
        for group in groups:
            inside, outside = train.intersection(group), validation.intersection(group)
            if inside and outside:
                what = f"fold {i} trains on {named(inside)} and holds out {named(outside)}"
                fix = "put them on one side, or say in a file of subjects that they are different people"
                problems.append(_problem(what, "they are of one source or one subject", fix))
    if problems:
        raise TrainerError(problems)


def _official(chosen: Sequence[str], split: Mapping[str, str], groups: Iterable[Sequence[str]], *, every: bool = False) -> Fold:
    """every: each trial must be of the one or the other. Raises TrainerError."""
    train = tuple(trial for trial in chosen if split[trial] == "train")
    validation = tuple(trial for trial in chosen if split[trial] == "validation")
    found = Counter(split[trial] or "none" for trial in chosen)
    why = "of the trials' splits there are: " + ", ".join(f"{n} {name}" for name, n in sorted(found.items()))
    fix = "keep the label files in Train_Set and Validation_Set and run again, or ask for a number of folds"
    if not train or not validation:
        raise TrainerError(_problem("there is no official split", why, fix))
    if every and len(train) + len(validation) < len(chosen):
        others = set(chosen) - {*train, *validation}
        raise TrainerError(_problem(f"{_trials(others)} without an official split", why, "leave them out, or give them a split"))
    fold = Fold(train=train, validation=validation)
    check_groups([fold], groups)
    return fold


def _parts(index: Index, scheme: Scheme, groups: Sequence[Sequence[str]], n_folds: int) -> list[tuple[str, ...]]:
    """Groups dealt to folds one by one, each to the fold that has least of what the group has most of (rows, and labels if asked).

    The largest first where labels are to be alike (after scikit-learn's StratifiedGroupKFold), else in an order drawn by the seed.
    """
    if len(groups) < n_folds:
        why = f"{sum(map(len, groups))} trials are {len(groups)} groups of one source or subject each, and {n_folds} folds need as many"
        raise TrainerError(_problem("there are fewer groups than folds", why, f"ask for at most {len(groups)} folds here, or add trials"))
    shares = _shares(index, scheme, groups)
    drawn = sorted(range(len(groups)), key=lambda g: hashlib.sha256(f"{scheme.seed}|{'|'.join(groups[g])}".encode()).digest())
    if scheme.stratify:
        drawn.sort(key=lambda g: -float(np.round((shares[g] ** 2).sum(), 12)))  # stable: equal ones stay as drawn
    held: list[list[str]] = [[] for _ in range(n_folds)]
    have, n_groups = np.zeros((n_folds, shares.shape[1])), [0] * n_folds
    for g in drawn:
        overlap = have @ shares[g]
        fold = min(range(n_folds), key=lambda f: (round(float(overlap[f]), 12), have[f, 0], n_groups[f], f))
        held[fold] += groups[g]
        have[fold] += shares[g]
        n_groups[fold] += 1
    return [tuple(sorted(trials)) for trials in held]


def _shares(index: Index, scheme: Scheme, groups: Sequence[Sequence[str]]) -> Float64:
    """(G, 1 + B): of each group its share of all rows, and of the labels in each bin."""
    trials = [trial for group in groups for trial in group]
    n_rows = dict(zip(index.trials, np.diff(index.offsets).tolist(), strict=True))
    rows = np.array([[n_rows[trial]] for trial in trials], np.float64)
    counts = np.concatenate([rows, label_counts(index, scheme.stratify, trials)], axis=1) if scheme.stratify else rows
    starts = np.cumsum([0, *map(len, groups)])[:-1]
    per_group = np.add.reduceat(counts, starts, axis=0)
    return np.asarray(per_group / np.maximum(per_group.sum(axis=0), 1))


def _as_folds(held: Sequence[tuple[str, ...]], groups: Iterable[Sequence[str]]) -> tuple[Fold, ...]:
    """What one fold holds out the others train on, but for trials of the same group, which an official split may have parted."""
    every = {trial for part in held for trial in part}
    group_of = {trial: frozenset(group) for group in groups for trial in group}
    folds = []
    for part in held:
        mates = frozenset().union(*(group_of[trial] for trial in part))
        folds.append(Fold(train=tuple(sorted(every - mates)), validation=tuple(sorted(part))))
    return tuple(folds)


def _fold_problems(i: int, fold: Fold) -> Iterable[Problem]:
    if both := set(fold.train) & set(fold.validation):
        what = f"fold {i} trains on {_trials(both)} that it holds out"
        yield _problem(what, "its score would flatter", "take them out of one of the two")
    for side, trials in (("train on", fold.train), ("hold out", fold.validation)):
        if not trials:
            yield _problem(f"fold {i} has nothing to {side}", "", "give it trials, or ask for fewer folds")
        if repeated := [trial for trial, n in Counter(trials).items() if n > 1]:
            yield _problem(f"fold {i} names {_trials(repeated)} twice", "", "keep one of them")


def _trials(names: Iterable[str]) -> str:
    names = list(names)
    return f"trial{'s' if len(names) != 1 else ''} {named(names)}"


def _problem(what: str, why: str, fix: str) -> Problem:
    return Problem(what=what, where=WHERE, why=why, fix=fix)
