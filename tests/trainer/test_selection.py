"""What is read of a store: which trials, in which order, and one clear error for what is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.store import StoreError
from trainer.errors import TrainerError
from trainer.rows import ArrayRows, gather, stand_ins
from trainer.selection import select


def test_trials_come_in_the_order_of_the_store(made: Any) -> None:
    store = made.open()
    assert select(store, ["arcface"]).names == tuple(made.counts)
    chosen = select(store, ["vggish", "arcface"], task="va", trials=["9", "106", "video5"])
    assert chosen.names == ("106", "video5", "9")
    assert chosen.dims == {"vggish": 4, "arcface": 7}
    for number, name in zip(chosen.trials.tolist(), chosen.names, strict=True):
        assert chosen.rows(number) == made.rows(name) == store.index.rows(name)
    other = chosen.of(["207"])
    assert other.names == ("207",)
    assert other.features is chosen.features, "nothing is opened again"


def test_names_are_whole(made: Any) -> None:
    """`video5` is not `video5_left`, and 9 is nothing that begins with 9."""
    store = made.open()
    assert select(store, ["arcface"], trials=["video5"]).names == ("video5",)
    with pytest.raises(TrainerError, match=r"store: no trial 10, video5_right: it has 5 others; see `affectpipe inspect STORE`"):
        select(store, ["arcface"], trials=["9", "10", "video5_right"])


def test_one_error_each(made: Any) -> None:
    store = made.open()
    with pytest.raises(StoreError, match=r"store: no feature 'dan': it has: arcface, vggish; run its stage"):
        select(store, ["arcface", "dan"])
    with pytest.raises(TrainerError, match=r"store: no labels of task 'expr': it has: emi, va; name another task, or run"):
        select(store, ["arcface"], task="expr")
    with pytest.raises(TrainerError, match=r"store: no feature was asked for: it has: arcface, vggish; name some"):
        select(store, [])
    with pytest.raises(TrainerError, match=r"store: a feature twice: arcface, arcface; name each feature once"):
        select(store, ["arcface", "arcface"])
    with pytest.raises(TrainerError, match=r"store: trial 106 twice; name each trial once"):
        select(store, ["arcface"], trials=["106", "106", "9"])
    with pytest.raises(TrainerError, match=r"store: nothing to read: 0 trials were selected; select other trials"):
        select(store, ["arcface"], trials=[])
    os.truncate(made.folder / "arcface.h5", 3000)
    with pytest.raises(StoreError, match=r"arcface\.h5: feature 'arcface' is damaged"):
        select(store, ["arcface"])


def test_trials_without_rows(make_store: Callable[..., Any]) -> None:
    store = make_store({"empty": 0, "a": 3}).open()
    with pytest.raises(TrainerError, match=r"nothing to read: 1 trials were selected, without any row; select other trials"):
        select(store, ["arcface"], trials=["empty"])
    assert select(store, ["arcface"], task="va").names == ("empty", "a")


def test_labels_that_are_all_invalid(made: Any) -> None:
    store = made.open()
    with pytest.raises(
        TrainerError, match=r"no valid label of task 'emi': none of the 1 selected trials \(9\) has one; select other trials, or"
    ):
        select(store, ["arcface"], task="emi", trials=["9"])
    va = store.index.labels["va"]
    va.valid[made.rows("106")] = False
    va.valid[made.rows("207")] = False
    with pytest.raises(TrainerError, match=r"no valid label of task 'va': none of the 2 selected trials \(106, 207\) has one"):
        select(store, ["arcface"], task="va", trials=["106", "207"])
    with pytest.raises(TrainerError, match=r"no valid label of task 'va'"):
        select(store, ["arcface"], task="va").of(["106"])
    assert select(store, ["arcface"], trials=["106"]).labels is None


def test_features_in_memory(made: Any) -> None:
    store = made.open()
    scores = ArrayRows(values=np.arange(1332 * 2, dtype=np.float32).reshape(-1, 2), valid=np.ones(1332, np.bool_))
    chosen = select(store, ["arcface"], more={"scores": scores})
    assert chosen.dims == {"arcface": 7, "scores": 2}
    out = np.empty((4, 2), np.float32)
    gather(chosen.features["scores"], np.array([1331, 4, 5, 5]), out)
    np.testing.assert_array_equal(out, scores.values[[1331, 4, 5, 5]])
    with pytest.raises(TrainerError, match=r"a feature twice: arcface, arcface; name each"):
        select(store, ["arcface"], more={"arcface": scores})
    short = ArrayRows(values=scores.values[1:], valid=scores.valid[1:])
    with pytest.raises(TrainerError, match=r"rows of scores: expected 1332, got {'scores': 1331}; give the store's rows"):
        select(store, ["arcface"], more={"scores": short})
    with pytest.raises(ValueError, match=r"ArrayRows.valid: expected \(1332,\) bool, got \(1332, 1\) bool"):
        replace(scores, valid=scores.valid[:, None])
    with pytest.raises(ValueError, match=r"ArrayRows.values: expected \(N, D\) float16 or float32, got \(1332,\) float32"):
        replace(scores, values=scores.values[:, 0])


@pytest.mark.parametrize(
    ("policy", "taken", "there"),
    [
        ("zero", [10, 11, 12, 13, 14, 15, 16, 17], [0, 1, 0, 0, 0, 0, 1, 0]),
        ("previous", [10, 11, 11, 11, 11, 11, 16, 16], [0, 1, 1, 1, 1, 1, 1, 1]),
        ("nearest", [11, 11, 11, 11, 16, 16, 16, 16], [1] * 8),
    ],
)
def test_which_row_stands_in(policy: Any, taken: list[int], there: list[int]) -> None:
    """Rows 10 to 17 are the trial's; 11 and 16 are valid, and so are rows of its neighbours, which must not be taken."""
    valid = np.zeros(30, np.bool_)
    valid[[9, 11, 16, 18]] = True
    rows = np.arange(10, 18)
    found, has = stand_ins(valid, rows, slice(10, 18), policy)
    np.testing.assert_array_equal(has, np.array(there, np.bool_))
    np.testing.assert_array_equal(found[has], np.array(taken)[has])
    part, has_part = stand_ins(valid, rows[3:5], slice(10, 18), policy)
    np.testing.assert_array_equal(part, found[3:5])
    np.testing.assert_array_equal(has_part, has[3:5])


@pytest.mark.parametrize("policy", ["zero", "previous", "nearest"])
def test_nothing_stands_in_where_nothing_is_valid(policy: Any) -> None:
    valid = np.zeros(30, np.bool_)
    valid[[9, 18]] = True
    found, has = stand_ins(valid, np.arange(10, 18), slice(10, 18), policy)
    assert not has.any()
    assert found.tolist() == list(range(10, 18))
