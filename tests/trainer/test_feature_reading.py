"""Reading rows of a feature where they lie in its file: the same numbers as HDF5 gives, and clear errors where they are not there."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.store import Feature, StoreError, open_store


def rows_of(feature: Feature, start: int, n: int) -> np.ndarray:
    out = np.full((n, feature.dim), -1, feature.dtype)
    feature.read(start, out)
    return out


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_are_those_that_hdf5_reads(make_store: Callable[..., Any], dtype: str) -> None:
    made = make_store(dtype=dtype)
    feature = made.open().open_feature("arcface")
    assert (feature.dim, feature.dtype, feature.columns) == (7, np.dtype(dtype), ())
    with h5py.File(made.folder / "arcface.h5") as file:
        values = file["values"][:]
        np.testing.assert_array_equal(feature.valid, file["valid"][:])
    n = len(values)
    for start, count in ((0, n), (0, 1), (n - 1, 1), (17, 300), (5, 0), (n, 0)):
        np.testing.assert_array_equal(rows_of(feature, start, count), values[start : start + count])


def test_a_whole_feature_and_its_rows_are_the_same(made: Any) -> None:
    store = made.open()
    values, valid = store.read("vggish")
    feature = store.open_feature("vggish")
    np.testing.assert_array_equal(rows_of(feature, 0, len(values)), values)
    np.testing.assert_array_equal(feature.valid, valid)


@pytest.mark.parametrize(("start", "n"), [(-1, 2), (1331, 2), (1332, 1), (5000, 1)])
def test_rows_that_are_not_there_are_refused(made: Any, start: int, n: int) -> None:
    feature = made.open().open_feature("vggish")
    with pytest.raises(ValueError, match=f"rows: expected some of 0 : 1332, got {start} : {start + n}"):
        rows_of(feature, start, n)


def test_arrays_that_do_not_fit_are_refused(made: Any) -> None:
    feature = made.open().open_feature("vggish")
    for out in (np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float64), np.zeros((4, 2), np.float32).T):
        with pytest.raises(ValueError, match=r"out: expected contiguous \(R, 4\) float32, got"):
            feature.read(0, out)


def test_threads_and_copies_read_the_same(made: Any) -> None:
    feature = made.open().open_feature("arcface")
    expected = rows_of(feature, 0, 1332)
    copy = pickle.loads(pickle.dumps(feature))
    feature.close()
    found: list[bool] = []
    together = threading.Barrier(8)  # so that all find it closed, and open it

    def read(of: Feature, start: int) -> None:
        together.wait()
        found.append(all(np.array_equal(rows_of(of, i, 40), expected[i : i + 40], equal_nan=True) for i in range(start, 1280, 7)))

    threads = [threading.Thread(target=read, args=(of, start)) for of in (feature, copy) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


def test_no_file_stays_open(made: Any) -> None:
    def is_open() -> bool:
        return any(os.path.exists(link) and os.path.samefile(link, made.folder / "arcface.h5") for link in Path("/proc/self/fd").iterdir())

    feature = made.open().open_feature("arcface")
    assert not is_open(), "opening reads what it needs"
    rows_of(feature, 0, 1)
    assert is_open()
    feature.close()
    assert not is_open()
    rows_of(feature, 0, 1)
    del feature
    assert not is_open()


def test_a_feature_that_was_replaced_is_not_read(made: Any) -> None:
    feature = made.open().open_feature("arcface")
    reading = made.open().open_feature("arcface")
    expected = rows_of(reading, 0, 9)
    shutil.copyfile(made.folder / "vggish.h5", made.folder / "other")
    os.replace(made.folder / "other", made.folder / "arcface.h5")
    with pytest.raises(StoreError, match=r"arcface\.h5: was replaced: another file has taken its place since it was opened; start again"):
        rows_of(feature, 0, 1)
    np.testing.assert_array_equal(rows_of(reading, 0, 9), expected, "who reads already goes on with the file that was there")
    reading.close()
    with pytest.raises(StoreError, match=r"arcface\.h5: was replaced"):
        rows_of(reading, 0, 1)
    (made.folder / "arcface.h5").unlink()
    with pytest.raises(StoreError, match=r"feature 'arcface' is damaged: .*No such file"):
        rows_of(feature, 0, 1)


def test_a_file_that_is_cut_while_it_is_read(made: Any) -> None:
    feature = made.open().open_feature("arcface")
    rows_of(feature, 0, 1)
    os.truncate(made.folder / "arcface.h5", 2000)
    with pytest.raises(
        StoreError, match=r"arcface\.h5: feature 'arcface' is damaged: it ends before its last row; run `affectpipe verify`"
    ):
        rows_of(feature, 0, 700)


def test_features_that_cannot_be_opened(made: Any) -> None:
    with pytest.raises(StoreError, match="no feature 'acrface': it has: arcface, vggish; run its stage"):
        made.open().open_feature("acrface")
    store = made.open()
    os.truncate(made.folder / "vggish.h5", 9000)
    with pytest.raises(StoreError, match=r"vggish\.h5: feature 'vggish' is damaged: .*; run `affectpipe verify`, then run again"):
        store.open_feature("vggish")
    assert made.open().damaged == ("vggish",)
    with pytest.raises(StoreError, match=r"feature 'vggish' is damaged: its file cannot be read"):
        made.open().open_feature("vggish")


def test_a_feature_of_another_index(made: Any, make_store: Callable[..., Any]) -> None:
    other = make_store({"106": 1332}, name="other")
    shutil.copyfile(other.folder / "vggish.h5", made.folder / "vggish.h5")
    with pytest.raises(StoreError, match=r"vggish\.h5: does not belong to this index: its rows are not those of index\.h5"):
        made.open().open_feature("vggish")


def test_what_does_not_have_the_form_of_a_feature(made: Any, tmp_path: Path) -> None:
    """Files with the right attributes and wrong arrays, as nobody but an attacker would make them."""
    with h5py.File(made.folder / "vggish.h5") as file:
        attributes = dict(file.attrs)
    good = {"values": np.zeros((1332, 2), np.float32), "valid": np.ones(1332, np.bool_)}
    bad: dict[str, tuple[Any, str]] = {
        "short": (good | {"values": good["values"][:9]}, "expected 1332 rows of values and valid"),
        "flat": (good | {"values": good["values"][:, 0]}, "expected 1332 rows of values and valid"),
        "wide": (good | {"values": good["values"].astype(np.float64)}, "expected values of float16 or float32, got float64"),
        "swapped": (good | {"values": good["values"].astype(">f4")}, "expected values of float16 or float32, got >f4"),
        "mask": (good | {"valid": np.ones(1332, np.int8)}, "expected 1332 rows of values and valid"),
        "no_mask": ({"values": good["values"]}, "valid"),
    }
    for name, (arrays, why) in bad.items():
        with h5py.File(made.folder / f"{name}.h5", "w") as file:
            file.attrs.update(attributes)
            for key, array in arrays.items():
                file[key] = array
        with pytest.raises(StoreError, match=f"feature '{name}' is damaged: .*{why}"):
            made.open().open_feature(name)
    with h5py.File(made.folder / "hollow.h5", "w") as file:  # declared, never written: there is nothing at any place of the file
        file.attrs.update(attributes)
        file.create_dataset("values", (1332, 2), "f4")
        file["valid"], file["other"] = good["valid"], np.zeros(4000, np.float32)
    with pytest.raises(StoreError, match=r"feature 'hollow' is damaged: .*its values are not all in the file"):
        made.open().open_feature("hollow")


def test_a_store_without_rows(tmp_path: Path, make_store: Callable[..., Any]) -> None:
    made = make_store({})
    feature = open_store(made.folder).open_feature("arcface")
    assert rows_of(feature, 0, 0).shape == (0, 7)
