"""Folds: what must stay together does, whatever the order of the store; what cannot be split says so."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import Index
from trainer.errors import TrainerError
from trainer.folds_file import read_folds, write_folds
from trainer.groups import group_trials, subject_of
from trainer.labels import label_counts, labelled_trials
from trainer.splits import Fold, Folds, Scheme, check_groups, make_folds

unhurried = settings(deadline=None)  # a busy machine is no failure
MakeIndex = Callable[..., Index]


def partition(folds: Folds) -> list[set[str]]:
    return [set(fold.validation) for fold in folds.folds]


names = st.sampled_from(["7", "8", "9", "video1", "video1_1", "video1_2", "video2_left", "video2", "video2_right", "a", "b", "c", "d", "e"])


@unhurried
@given(
    trials=st.dictionaries(names, st.tuples(st.integers(0, 50), st.sampled_from("mnopqrstuvwxyz")), min_size=8),
    k=st.integers(2, 5),
    seed=st.integers(0, 3),
    shuffle=st.randoms(),
    stratify=st.booleans(),
)
def test_every_trial_is_held_out_once_and_no_group_is_parted(
    index_of: MakeIndex, trials: dict[str, tuple[int, str]], k: int, seed: int, shuffle: Any, stratify: bool
) -> None:
    def split(order: list[str]) -> Folds:
        labels = {"va": {t: np.linspace(-1, 1, 2 * trials[t][0]).reshape(-1, 2) for t in order}}
        index = index_of({t: trials[t][0] for t in order}, source={t: trials[t][1] for t in order}, labels=labels)
        return make_folds(index, Scheme(n_folds=k, seed=seed, stratify="va" if stratify else ""))

    groups = group_trials(list(trials), [source for _, source in trials.values()])
    if len(groups) < k:
        with pytest.raises(TrainerError, match=f"{len(groups)} groups of one source or subject each, and {k} folds need as many"):
            split(list(trials))
        return
    folds = split(list(trials))
    held = partition(folds)
    assert all(held)
    assert set().union(*held) == set(trials)
    assert sum(map(len, held)) == len(trials)
    for fold, part in zip(folds.folds, held, strict=True):
        assert set(fold.train) == set(trials) - part
        assert list(fold.train) == sorted(fold.train)
    by_source: dict[str, set[str]] = {}
    for trial, (_, source) in trials.items():
        by_source.setdefault(source, set()).add(trial)
        by_source.setdefault(f"subject {subject_of(trial)}", set()).add(trial)
    for together in by_source.values():
        assert sum(bool(part & together) for part in held) == 1
    order = list(trials)
    shuffle.shuffle(order)
    assert split(order) == folds


def test_a_planted_twin_stays_with_its_like(index_of: MakeIndex) -> None:
    """The same video under another name: whatever the seed, both are on one side."""
    index = index_of({str(i): 10 for i in range(20)} | {"copy": 10}, source={"copy": "13"})
    for seed in range(30):
        folds = make_folds(index, Scheme(n_folds=5, seed=seed))
        assert folds.fold_of["copy"] == folds.fold_of["13"]
    with pytest.raises(TrainerError, match="folds: fold 0 trains on copy and holds out 13: they are of one source or one subject"):
        check_groups([Fold(train=("copy", "1"), validation=("13",))], group_trials(index.trials, index.source))


def test_seeds_give_other_folds_of_the_same_sizes(index_of: MakeIndex) -> None:
    index = index_of({str(i): 100 for i in range(30)})
    made = [make_folds(index, Scheme(n_folds=5, seed=seed)) for seed in range(5)]
    for folds in made:
        assert [len(part) for part in partition(folds)] == [6] * 5
    assert all(partition(a) != partition(b) for a, b in combinations(made, 2))


def test_folds_have_about_as_many_rows(index_of: MakeIndex) -> None:
    """Dealt to the emptiest, no fold is ahead of another by more than the longest trial."""
    rng = np.random.default_rng(0)
    n_rows = {str(i): int(rng.integers(10, 4000)) for i in range(100)}
    sizes = [sum(n_rows[trial] for trial in part) for part in partition(make_folds(index_of(n_rows), Scheme(n_folds=5)))]
    assert max(sizes) - min(sizes) <= max(n_rows.values())


def test_stratified_folds_have_labels_alike(index_of: MakeIndex) -> None:
    """A rare class, in 10 of 100 trials: by chance folds have 0 to 5 of them; dealt by labels 2 each, and as many rows."""
    rng = np.random.default_rng(1)
    trials = {f"t{i:03}": 50 for i in range(100)}
    labels = {trial: np.full((50, 1), rng.integers(0, 3)) for trial in trials}
    rare = [f"t{i:03}" for i in rng.choice(100, 10, replace=False)]
    for trial in rare:
        labels[trial] = np.full((50, 1), 7)
    index = index_of(trials, labels={"expr": labels}, columns={"expr": ["expression"]})

    def of_each(scheme: Scheme) -> np.ndarray:
        return np.array([label_counts(index, "expr", sorted(part)).sum(axis=0) / 50 for part in partition(make_folds(index, scheme))])

    alike, chance = of_each(Scheme(n_folds=5, stratify="expr")), of_each(Scheme(n_folds=5))
    assert alike[:, 7].tolist() == [2] * 5
    assert np.ptp(alike, axis=0).max() <= 1
    assert np.ptp(chance, axis=0).max() > 2
    assert alike.sum(axis=0).tolist() == chance.sum(axis=0).tolist()


def test_label_counts_by_kind(index_of: MakeIndex) -> None:
    labels = {
        "expr": {"a": [[0], [0], [7]], "b": [[np.nan], [3], [3]]},
        "au": {"a": [[1, 0], [1, np.nan], [0, 0]], "b": [[0, 0], [0, 1], [0, 1]]},
        "va": {"a": [[0.0, 1], [0.1, 1], [0.2, 1]], "b": [[0.3, 1], [0.4, 1], [np.nan, 1]]},
        "emi": {"a": [[0.2]], "b": [[np.nan]]},
    }
    index = index_of({"a": 3, "b": 3}, labels=labels)
    assert label_counts(index, "expr", ["b", "a"]).tolist() == [[0, 0, 0, 2, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 1]]
    assert label_counts(index, "au", ["a", "b"]).tolist() == [[1, 2, 2, 0], [3, 0, 1, 2]]
    assert label_counts(index, "va", ["a", "b"])[:, :5].tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert label_counts(index, "emi", ["a", "b"]).sum(axis=1).tolist() == [1, 0]
    assert labelled_trials(index, "emi") == ("a",)
    assert labelled_trials(index, "va") == ("a", "b")
    with pytest.raises(TrainerError, match=r"index\.h5: no labels for task 'fatigue': it has: au, emi, expr, va; choose one of these"):
        label_counts(index, "fatigue", ["a"])


def test_the_official_split(official: MakeIndex) -> None:
    folds = make_folds(official(), Scheme())
    assert folds.folds == (Fold(train=tuple(f"t{i}" for i in range(8)), validation=("v0", "v1", "v2")),)
    assert folds.left_out == ("x0", "x1")


@pytest.mark.parametrize("k", [2, 5, 6])
def test_fold_nought_is_the_official_split(official: MakeIndex, k: int) -> None:
    folds = make_folds(official(), Scheme(n_folds=k, official_first=True))
    assert folds.folds[0] == make_folds(official(), Scheme()).folds[0]
    assert len(folds.folds) == k
    assert set().union(*partition(folds)[1:]) == {f"t{i}" for i in range(8)}
    assert all({"v0", "v1", "v2"} <= set(fold.train) for fold in folds.folds[1:])


def test_the_official_split_is_by_name_whatever_the_stores_order(index_of: MakeIndex) -> None:
    split = {"c": "train", "a": "train", "z": "validation", "y": "validation", "b": "train"}
    folds = make_folds(index_of(dict.fromkeys(split, 3), split=split), Scheme())
    assert folds.folds == (Fold(train=("a", "b", "c"), validation=("y", "z")),)


def test_chosen_trials_alone_are_split(official: MakeIndex) -> None:
    """Five folds of the official training trials, as Nguyen et al. have it."""
    index = official()
    folds = make_folds(index, Scheme(n_folds=5), trials=[f"t{i}" for i in range(8)])
    assert set(folds.fold_of) == {f"t{i}" for i in range(8)}
    assert folds.left_out == ("v0", "v1", "v2", "x0", "x1")


@pytest.mark.parametrize(
    ("scheme", "more", "text"),
    [
        (
            {"n_folds": 12},
            {},
            "folds: there are fewer groups than folds: 11 trials are 11 groups .*; ask for at most 11",
        ),
        ({"n_folds": 10, "official_first": True}, {}, "8 trials are 8 groups of one source or subject each, and 9 folds need as many"),
        ({"n_folds": 2}, {"trials": ["t0"]}, "1 trials are 1 groups .* 2 folds need as many"),
        ({}, {"trials": ["t0", "t1"]}, "there is no official split: of the trials' splits there are: 2 train; keep the label files in"),
        ({}, {"trials": ["v0"]}, "there is no official split: of the trials' splits there are: 1 validation"),
        ({"n_folds": 2}, {"trials": []}, "there is no trial to split"),
        ({"n_folds": 2}, {"trials": ["t0", "nobody", "t1"]}, "the store has no trial nobody: it has 13 others; name trials of the store"),
        ({"n_folds": 3, "official_first": True}, {"trials": ["t0", "t1", "v0", "x0"]}, "trial x0 without an official split"),
        ({"n_folds": 3}, {"subjects": {f"t{i}": "anna" for i in range(8)} | {f"v{i}": "bert" for i in range(3)}}, "11 trials are 2 groups"),
        ({}, {"subjects": {"t3": "anna", "v1": "anna"}}, "fold 0 trains on t3 and holds out v1: they are of one source or one subject"),
        ({"n_folds": 3, "official_first": True}, {"subjects": {"t3": "anna", "v1": "anna"}}, "fold 0 trains on t3 and holds out v1"),
        ({"n_folds": 2, "stratify": "au"}, {}, "no labels for task 'au': it has: none"),
    ],
)
def test_what_cannot_be_split(official: MakeIndex, scheme: dict[str, Any], more: dict[str, Any], text: str) -> None:
    with pytest.raises(TrainerError, match=text):
        make_folds(official(), Scheme(**scheme), **more)


@pytest.mark.parametrize("k", [-1, 0, 1])
def test_one_fold_is_none(k: int) -> None:
    with pytest.raises(TrainerError, match=f"folds: {k} folds cannot be made: one fold is held out and another trained on; ask for two"):
        Scheme(n_folds=k)


def test_a_store_without_splits_has_no_official_one(index_of: MakeIndex) -> None:
    index = index_of({"a": 3, "b": 3}, split={"a": "", "b": ""})
    with pytest.raises(TrainerError, match="there is no official split: of the trials' splits there are: 2 none"):
        make_folds(index, Scheme())
    assert len(make_folds(index, Scheme(n_folds=2)).folds) == 2


def test_an_official_split_that_parts_a_source(official: MakeIndex) -> None:
    with pytest.raises(TrainerError, match="fold 0 trains on t1 and holds out v2"):
        make_folds(official(source={"t1": "one", "v2": "one"}), Scheme())


def test_names_alone_do_not_refuse_an_official_split(index_of: MakeIndex, tmp_path: Path) -> None:
    """They keep trials together in folds of our making, but theirs is as it is."""
    split = {"video1_1": "train", "video1_2": "train", "video1_3": "validation", "a": "train", "b": "train", "c": "train"}
    index = index_of(dict.fromkeys(split, 10), split=split)
    for scheme in (Scheme(), Scheme(n_folds=3, official_first=True)):
        folds = make_folds(index, scheme)
        assert folds.folds[0].validation == ("video1_3",)
        write_folds(tmp_path / "folds.json", folds)
        assert read_folds(tmp_path / "folds.json", index) == folds
    assert folds.fold_of["video1_1"] == folds.fold_of["video1_2"]
    for fold in folds.folds[1:]:
        held = "video1_1" in fold.validation
        assert ("video1_3" in fold.train) != held, "who holds a subject out does not learn from a trial of it that theirs holds out"
