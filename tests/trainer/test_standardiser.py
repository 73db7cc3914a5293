"""Standardising: the training trials' valid rows decide, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.errors import TrainerError
from trainer.rows import ArrayRows
from trainer.selection import select
from trainer.standardiser import fit_standardiser, load_standardiser, measure_trials

TRAIN = ["106", "video5", "9"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_mean_and_deviation_of_the_valid_rows_of_the_training_trials(make_store: Callable[..., Any], dtype: str) -> None:
    made = make_store(dtype=dtype)
    fitted = fit_standardiser(select(made.open(), ["arcface", "vggish"], trials=TRAIN))
    rows = np.concatenate([np.arange(1332)[made.rows(trial)] for trial in TRAIN])
    for name in ("arcface", "vggish"):
        mine = rows[made.valid[name][rows]]
        values = made.values[name][mine].astype(np.float64)
        # Two ways to add some thousand numbers in float64, whose unit is 2e-16.
        np.testing.assert_allclose(fitted.mean[name], values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(fitted.std[name], values.std(axis=0), rtol=1e-12)
        assert fitted.n_rows[name] == len(mine)
    assert fitted.trials == ("106", "video5", "9")


def test_other_trials_and_invalid_rows_change_nothing(make_store: Callable[..., Any]) -> None:
    """To the bit: not what is near, not what is far."""
    made = make_store()
    store = made.open()
    chosen = select(store, ["arcface"], trials=TRAIN)
    before = fit_standardiser(chosen)
    values, valid = store.read("arcface")
    theirs = np.ones(1332, np.bool_)
    for trial in TRAIN:
        theirs[made.rows(trial)] = False
    values[theirs], values[~valid] = 1e30, np.inf
    changed = select(store, ["vggish"], trials=TRAIN, more={"arcface": ArrayRows(values=values, valid=valid)})
    after = fit_standardiser(changed)
    np.testing.assert_array_equal(before.mean["arcface"], after.mean["arcface"])
    np.testing.assert_array_equal(before.std["arcface"], after.std["arcface"])


def test_measured_once_for_all_folds(made: Any) -> None:
    store = made.open()
    everything = select(store, ["arcface", "vggish"])
    measured = measure_trials(everything)
    for trials in (TRAIN, ["207"], list(made.counts)):
        again, direct = fit_standardiser(everything.of(trials), measured), fit_standardiser(everything.of(trials))
        for name in ("arcface", "vggish"):
            np.testing.assert_array_equal(again.mean[name], direct.mean[name])
            np.testing.assert_array_equal(again.std[name], direct.std[name])
        assert again.trials == direct.trials


def test_far_from_zero_and_in_many_pieces(make_store: Callable[..., Any]) -> None:
    """A sum of squares would lose all digits of a deviation of 1 at 1e6, in float32 even the values' own."""
    n = 30_000
    made = make_store({"long": n})
    values = (1e6 + np.random.default_rng(0).integers(-8, 9, (n, 3)) / 8).astype(np.float32)
    chosen = select(made.open(), ["vggish"], more={"far": ArrayRows(values=values, valid=np.ones(n, np.bool_))})
    fitted = fit_standardiser(chosen)
    np.testing.assert_allclose(fitted.std["far"], values.astype(np.float64).std(axis=0), rtol=1e-9)


def test_a_column_that_never_changes(made: Any) -> None:
    values = np.full((1332, 2), 0.1, np.float32)
    values[:, 1] = np.arange(1332)
    valid = np.ones(1332, np.bool_)
    fitted = fit_standardiser(select(made.open(), ["vggish"], more={"still": ArrayRows(values=values, valid=valid)}))
    assert fitted.std["still"][0] == 1.0
    assert fitted.mean["still"][0] == np.float64(np.float32(0.1))


def test_saved_and_loaded(made: Any, tmp_path: Path) -> None:
    fitted = fit_standardiser(select(made.open(), ["arcface", "vggish"], trials=TRAIN))
    path = tmp_path / "standardiser.npz"
    fitted.save(path)
    fitted.save(path)
    loaded = load_standardiser(path)
    assert (loaded.trials, loaded.n_rows) == (fitted.trials, fitted.n_rows)
    assert loaded.mean.keys() == loaded.std.keys() == {"arcface", "vggish"}
    for name in fitted.mean:
        np.testing.assert_array_equal(loaded.mean[name], fitted.mean[name])
        np.testing.assert_array_equal(loaded.std[name], fitted.std[name])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["standardiser.npz", "store"], "no temporary file is left"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"some text"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "standardiser.npz"
    path.write_bytes(content)
    with pytest.raises(TrainerError, match=r"standardiser\.npz: no standardisation: .*; train again, or restore the file"):
        load_standardiser(path)


def test_archives_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "standardiser.npz"
    with pytest.raises(TrainerError, match=r"standardiser\.npz: no standardisation: .*No such file"):
        load_standardiser(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(TrainerError, match=r"standardiser\.npz: no standardisation: .*trials"):
        load_standardiser(path)
    np.savez(path, trials=np.array([{"a": 1}], dtype=object))
    with pytest.raises(TrainerError, match=r"no standardisation: Object arrays cannot be loaded"):
        load_standardiser(path)


def test_nothing_to_learn_from(make_store: Callable[..., Any]) -> None:
    made = make_store()
    valid = np.ones(1332, np.bool_)
    valid[made.rows("106")] = False
    values = np.zeros((1332, 2), np.float32)
    chosen = select(made.open(), ["vggish"], more={"face": ArrayRows(values=values, valid=valid)})
    with pytest.raises(TrainerError, match="feature 'face': no valid row: none of the 1 selected trials has one; leave the feature out"):
        fit_standardiser(chosen.of(["106"]))
    for wrong in (np.nan, np.inf):
        values[made.rows("207"), 1] = wrong
        with pytest.raises(TrainerError, match="feature 'face': trial '207' is damaged: a valid row holds a value that is not finite; run"):
            fit_standardiser(chosen)
