"""Stores that `affectpipe run` assembled, read as training data; and made stores, which tests and measurements use, are like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.hdf5 import is_whole
from pipeline.store import Labels, open_store
from pipeline.synth.store import MadeTrial, write_feature, write_index
from trainer.data import WindowDataset
from trainer.selection import select
from trainer.standardiser import fit_standardiser


def test_windows_of_a_store_that_was_run(some_clips: Callable[..., Any], new_desk: Callable[..., Any], tmp_path: Path) -> None:
    desk = new_desk(*some_clips("106", "207"))
    desk.run()
    stored = desk.store_data()
    data = WindowDataset(select(open_store(desk.store), ["logmel", "mfcc39"], task="va"), rows=32, stride=20)
    offsets, trials = stored["index/offsets"], [name.decode() for name in stored["index/trials"].tolist()]
    assert trials == ["106", "207"]
    seen = np.zeros(int(offsets[-1]), np.int64)
    for i in range(len(data)):
        sample = data[i]
        start = int(offsets[sample["trial"]]) + sample["start"]
        rows = slice(start, start + int(sample["rows_valid"].sum()))
        seen[rows] += 1
        n = rows.stop - rows.start
        for name in ("logmel", "mfcc39"):
            valid = stored[f"{name}/valid"][rows]
            np.testing.assert_array_equal(sample["feature_valid"][name][:n], valid)
            np.testing.assert_array_equal(sample["features"][name][:n], np.where(valid[:, None], stored[f"{name}/values"][rows], 0))
        valid = stored["index/labels/va/valid"][rows]
        np.testing.assert_array_equal(sample["labels"][:n], np.where(valid, stored["index/labels/va/values"][rows], 0))
    assert seen.min() >= 1
    fitted = fit_standardiser(data.selection.of(["106"]))
    mine = stored["mfcc39/values"][: offsets[1]][stored["mfcc39/valid"][: offsets[1]]]
    np.testing.assert_allclose(fitted.mean["mfcc39"], mine.mean(axis=0, dtype=np.float64), rtol=1e-9)
    _made_like(desk.store, tmp_path / "made")


def _made_like(run: Path, made: Path) -> None:
    """A made store's files hold what those of a run do: the same datasets of the same types, and the same attributes."""
    made.mkdir()
    va = Labels(columns=("valence", "arousal"), values=np.zeros((4, 2), np.float32), valid=np.ones((4, 2), np.bool_), per_trial=False)
    digest = write_index(made, [MadeTrial(name="106", n_rows=4, split="train")], {"va": va})
    write_feature(made, "logmel", [(np.zeros((4, 3), np.float32), np.ones(4, np.bool_))], rows_digest=digest, shape=(4, 3))
    for name in ("index.h5", "logmel.h5"):
        assert is_whole(made / name)
        ours, theirs = (_form(folder / name) for folder in (made, run))
        assert ours == {key: kind for key, kind in theirs.items() if key != "columns"}, "logmel's numbers may have names"


def _form(path: Path) -> dict[str, str]:
    """What a file holds: kinds of arrays and of attributes by name."""
    found: dict[str, str] = {}
    with h5py.File(path) as file:
        found |= {f"@{name}": type(value).__name__ for name, value in file.attrs.items()}

        def note(name: str, item: Any) -> None:
            found.update({f"{name}@{key}": type(value).__name__ for key, value in item.attrs.items()})
            if isinstance(item, h5py.Dataset):
                found[name] = f"{item.dtype.kind} {item.ndim}"

        file.visititems(note)
    return found
