"""Predictions: checked when they are made, the same when they are read, refused when they are not as they were written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.store import Index, StoreError, sealed_file
from trainer.errors import TrainerError
from trainer.pooling import averaged, joined
from trainer.predictions import NO_FOLD, Predicted, Predictions, predictions_on
from trainer.predictions_file import read_predictions, write_predictions
from trainer.tasks import task_of

MakeIndex = Callable[..., Index]
VA = task_of("va")


def predicted(n: int, d: int = 2, seed: int = 0, **more: Any) -> Predicted:
    rng = np.random.default_rng(seed)
    values, valid = rng.random((n, d)), rng.random(n) < 0.7
    values[~valid] = np.nan
    return Predicted(values=values, valid=valid, **more)


@pytest.fixture
def index(index_of: MakeIndex) -> Index:
    return index_of({"b": 5, "a": 3, "c": 4})


@pytest.fixture
def two(index: Index) -> Predictions:
    parts = {"c": predicted(4, fold=1), "b": predicted(5, seed=1, fold=0)}
    return predictions_on(index, VA, parts, made_by={"recipe": "yu_va", "seed": 3})


def equal(one: Predictions, other: Predictions) -> None:
    for field in fields(Predictions):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
            assert mine.dtype == theirs.dtype, field.name
        else:
            assert mine == theirs, field.name


def test_they_are_on_the_stores_rows(index: Index, two: Predictions) -> None:
    assert two.trials == ("b", "c")  # by name, whatever the store's order
    assert two.offsets.tolist() == [0, 5, 9]
    assert two.frame.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    np.testing.assert_array_equal(two.times_s[two.slice_of("c")], index.times_s[index.rows("c")])
    np.testing.assert_array_equal(two.values[two.slice_of("b")], predicted(5, seed=1).values.astype(np.float32))
    assert (two.values.dtype, two.fold.tolist(), two.rows) == (np.float32, [0, 1], index.rows_digest)
    assert (two.thresholds, two.thresholds_of("b")) == (None, None)


def test_what_is_not_valid_is_kept_as_nan(index: Index) -> None:
    part = Predicted(values=np.full((3, 2), 7.0), valid=np.array([True, False, True]))
    made = predictions_on(index, VA, {"a": part})
    assert np.isnan(made.values[1]).all()
    assert (made.values[[0, 2]] == 7).all()


def test_thresholds_are_by_trial(index: Index) -> None:
    units = task_of("au", ("AU1", "AU2"))
    made = predictions_on(index, units, {"a": predicted(3, thresholds=np.array([0.2, 0.3])), "c": predicted(4)})
    assert made.thresholds is not None
    assert made.thresholds.tolist() == [[0.2, 0.3], [0.5, 0.5]]


def test_clips_have_one_row_each(index: Index) -> None:
    part = Predicted(values=np.full((1, 6), 0.5), valid=np.ones(1, bool))
    made = predictions_on(index, task_of("emi"), dict.fromkeys("abc", part), per_trial=True)
    assert (made.frame.tolist(), made.times_s.tolist(), made.offsets.tolist()) == ([-1] * 3, [0] * 3, [0, 1, 2, 3])


def test_what_cannot_be_made(index: Index) -> None:
    with pytest.raises(StoreError, match="no trial 'nobody'"):
        predictions_on(index, VA, {"nobody": predicted(3)})
    with pytest.raises(ValueError, match=r"trial a: expected values \(3, 2\) and valid \(3,\), got \(4, 2\)"):
        predictions_on(index, VA, {"a": predicted(4)})
    with pytest.raises(TrainerError, match="task 'va': there is nothing to predict: no trial was given"):
        predictions_on(index, VA, {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_refused(index: Index, bad: float) -> None:
    part = Predicted(values=np.array([[0, 0], [0, bad], [0, 0]]), valid=np.ones(3, bool))
    text = "predictions of 'va', trial a, row 1: predicts no number: 1 of 7 rows have a value that is not finite; lower the learning rate"
    with pytest.raises(TrainerError, match=text):
        predictions_on(index, VA, {"a": part, "c": predicted(4)})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("trials", ("b", "b"), "expected each trial once"),
        ("columns", ("x", "x"), "expected different columns"),
        ("columns", ("x",), r"expected values \(9, 1\), got \(9, 2\)"),
        ("offsets", np.array([0, 5]), r"expected offsets \(3,\), got \(2,\)"),
        ("offsets", np.array([0, 5, 8]), "expected offsets from 0 to 9, ascending"),
        ("offsets", np.array([0, 11, 9]), "expected offsets from 0 to 9, ascending"),
        ("frame", np.arange(8), r"expected frame \(9,\), got \(8,\)"),
        ("frame", np.array([0, 1, 3, 2, 4, 0, 1, 2, 3]), "frames that never step back within a trial"),
        ("frame", np.array([0, 1, -1, 2, 4, 0, 1, 2, 3]), "frames that never step back within a trial"),
        ("times_s", np.array([0, 1, 3, 2, 4, 0, 1, 2, 3.0]), "times and frames that never step back"),
        ("times_s", np.full(9, np.nan), "finite times"),
        ("thresholds", np.zeros((1, 2)), r"expected thresholds \(2, 2\), got \(1, 2\)"),
        ("thresholds", np.full((2, 2), np.nan), "expected finite thresholds"),
        ("per_trial", True, "expected one row per trial"),
    ],
)
def test_what_does_not_fit_together(two: Predictions, name: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(two, **{name: value})


def test_rows_past_the_end_may_follow(two: Predictions) -> None:
    replace(two, frame=np.array([0, 1, 2, -1, -1, 0, 0, 1, -1]))
    replace(two, frame=np.array([-1, -1, -1, -1, -1, 5, 5, 7, 7]))


def test_the_file_gives_back_what_was_written(index: Index, two: Predictions, tmp_path: Path) -> None:
    units = task_of("au", ("AU1", "AU2"))
    tuned = predictions_on(index, units, {"a": predicted(3, thresholds=np.array([0.2, 0.3])), "c": predicted(4)})
    for made in (two, tuned):
        write_predictions(tmp_path / "run" / "predictions.h5", made)
        equal(read_predictions(tmp_path / "run" / "predictions.h5"), made)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["predictions.h5"]


def test_plain_h5py_reads_it(two: Predictions, tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.h5", two)
    with h5py.File(tmp_path / "p.h5") as file:
        assert file.attrs["format"] == "affectpipe/predictions"
        assert json.loads(file.attrs["made_by"]) == {"recipe": "yu_va", "seed": 3}
        i = file["trials"].asstr()[:].tolist().index("c")
        start, stop = file["offsets"][i : i + 2]
        np.testing.assert_array_equal(file["values"][start:stop], two.values[two.slice_of("c")])


def test_an_interrupted_write_leaves_the_old_file(two: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.h5"
    write_predictions(path, two)
    before = path.read_bytes()
    bad = replace(two, made_by={"what": {1, 2}})  # no JSON: fails when most is written
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        write_predictions(path, bad)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["p.h5"]


def resealed(path: Path, change: Callable[[h5py.File], None]) -> None:
    """The file with a change, sealed again as its writer would have done."""
    old = path.with_name("old.h5")
    shutil.move(path, old)
    with h5py.File(old) as source, sealed_file(path) as file:
        for name in source:
            source.copy(name, file)
        for name, value in source.attrs.items():
            if name != "checksum":
                file.attrs[name] = value
        change(file)


def remake(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def huge(file: h5py.File) -> None:
    del file["values"]
    file.create_dataset("values", (1 << 40, 2), np.float32)


def group(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (attribute("format", "affectpipe/index"), "it is not an affectpipe/predictions file of version 1"),
        (attribute("format_version", 2), "it is not an affectpipe/predictions file of version 1"),
        (attribute("format_version", "new"), "invalid literal for int"),
        (attribute("made_by", "[1]"), r"made_by: expected a JSON object, got '\[1\]'"),
        (attribute("made_by", "{"), "Expecting property name"),
        (attribute("task", 5), "the attribute 'task' is missing or not text"),
        (remake("values", None), "object 'values' doesn't exist"),
        (remake("values", np.zeros((9, 2))), "values: expected a dataset of float32, got float64"),
        (remake("values", np.zeros((8, 2), np.float32)), r"expected frame \(8,\), got \(9,\)"),
        (remake("values", np.zeros(9, np.float32)), r"expected values \(9, 2\), got \(9,\)"),
        (remake("values", np.full((9, 2), np.nan, np.float32)), "trial b, row 1: predicts no number: 5 of 9 rows have a value that is not"),
        (remake("trials", np.arange(2)), "can only be used on datasets with an HDF5 string"),
        (remake("offsets", np.array([0, 99, 9])), "expected offsets from 0 to 9, ascending"),
        (remake("offsets", np.int64(3)), r"expected offsets \(3,\), got \(\)"),
        (remake("offsets", np.zeros(0, np.int64)), r"expected offsets \(3,\), got \(0,\)"),
        (huge, "values claims .* bytes, the file has"),
        (group("values"), "values: expected a dataset of float32, got a group"),
        (group("trials"), "trials: expected a list of texts"),
        (remake("columns", np.bytes_(b"va")), "columns: expected a list of texts"),
        (remake("values", np.float32(3)), "no usable predictions"),
        (remake("trials", h5py.ExternalLink("/etc/passwd", "x")), "trials is a ExternalLink, which may lead outside the file"),
        (remake("frame", h5py.SoftLink("/values")), "frame is a SoftLink"),
    ],
)
def test_a_file_that_is_no_such_file(two: Predictions, tmp_path: Path, change: Callable[[h5py.File], None], text: str) -> None:
    path = tmp_path / "p.h5"
    write_predictions(path, two)
    resealed(path, change)
    with pytest.raises(TrainerError, match=text) as caught:
        read_predictions(path)
    assert all(problem.where.startswith(str(path)) for problem in caught.value.problems)


def test_a_changed_byte_and_a_cut_file(two: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    write_predictions(path, two)
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"\0", whole[: len(whole) // 2], b"", b"text", bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(content)
        text = r"p\.h5: no usable predictions: it is not as it was written, or was not written by affectpipe; name a file that `affectpipe"
        with pytest.raises(TrainerError, match=text):
            read_predictions(path)
    with pytest.raises(TrainerError, match=r"nothing\.h5: no usable predictions: No such file or directory"):
        read_predictions(tmp_path / "nothing.h5")
    with pytest.raises(TrainerError, match="no usable predictions: Is a directory"):
        read_predictions(tmp_path)


def test_folds_are_joined(index: Index) -> None:
    units = task_of("au", ("AU1", "AU2"))
    first = predictions_on(index, units, {"b": predicted(5, fold=0, thresholds=np.array([0.1, 0.2]))})
    second = predictions_on(index, units, {"c": predicted(4, fold=1), "a": predicted(3, fold=1)}, made_by={"fold": 1})
    both = joined([second, first])
    assert (both.trials, both.fold.tolist()) == (("a", "b", "c"), [1, 0, 1])
    assert both.thresholds is not None
    assert both.thresholds.tolist() == [[0.5, 0.5], [0.1, 0.2], [0.5, 0.5]]
    for part in (first, second):
        for trial in part.trials:
            np.testing.assert_array_equal(both.values[both.slice_of(trial)], part.values[part.slice_of(trial)])
            np.testing.assert_array_equal(both.valid[both.slice_of(trial)], part.valid[part.slice_of(trial)])
    assert both.made_by == {"joined": [{"fold": 1}, {}]}
    with pytest.raises(TrainerError, match="predictions: two have trial b: each trial is held out by one fold; average them instead"):
        joined([both, first])


def test_models_are_averaged(index: Index) -> None:
    one = Predicted(values=np.array([[0.0, 1], [2, 2], [3, 3]]), valid=np.array([True, True, False]), fold=0)
    two = Predicted(values=np.array([[1.0, 0], [9, 9], [5, 5]]), valid=np.array([True, False, False]), fold=1)
    mean = averaged([predictions_on(index, VA, {"a": one}), predictions_on(index, VA, {"a": two})])
    np.testing.assert_array_equal(mean.values, np.array([[0.5, 0.5], [2, 2], [np.nan, np.nan]], np.float32))
    assert (mean.valid.tolist(), mean.fold.tolist()) == ([True, True, False], [NO_FOLD])
    with pytest.raises(TrainerError, match="predictions: cannot be averaged: only some have b; predict the same trials with each"):
        averaged([mean, predictions_on(index, VA, {"a": one, "b": predicted(5)})])


def test_what_does_not_go_together(index: Index, index_of: MakeIndex, two: Predictions) -> None:
    other = predictions_on(index_of({"b": 5, "x": 9}), VA, {"x": predicted(9)})
    regression = predictions_on(index, task_of("mine", ("p", "q")), {"a": predicted(3)})
    for pool in (joined, averaged):
        with pytest.raises(TrainerError, match=r"predictions: do not go together: mine: p,q on rows .*; va: valence,arousal on rows"):
            pool([two, regression])
        with pytest.raises(TrainerError, match=r"do not go together: va: .*; va: .*; give those of one task and one store"):
            pool([two, other])
        with pytest.raises(ValueError, match="expected one or more, got none"):
            pool([])
