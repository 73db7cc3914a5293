"""A file of folds: read as it was written, and refused, with the trials' names, where it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.store import Index
from trainer.errors import TrainerError
from trainer.folds_file import read_folds, write_folds
from trainer.splits import Scheme, make_folds

MakeIndex = Callable[..., Index]


def test_a_file_of_folds_is_read_as_it_was_written(official: MakeIndex, tmp_path: Path) -> None:
    index = official()
    for scheme in (Scheme(), Scheme(n_folds=4, seed=3), Scheme(n_folds=3, official_first=True)):
        folds = make_folds(index, scheme)
        write_folds(tmp_path / "folds.json", folds)
        assert read_folds(tmp_path / "folds.json", index) == folds
    said = json.loads((tmp_path / "folds.json").read_text())
    assert (said["format"], said["format_version"]) == ("affectpipe/folds", 1)
    assert said["folds"][0]["validation"] == ["v0", "v1", "v2"]


def changed(said: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    said = json.loads(json.dumps(said))
    *steps, last = path.split("/")
    place: Any = said
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    if value is ...:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return dict(said)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("format", "something", r"folds\.json: is no file of folds: expected format 'affectpipe/folds', version 1; write it anew"),
        ("format_version", 2, "is no file of folds"),
        ("folds", ..., "is no whole file of folds: KeyError: 'folds'"),
        ("folds", [], "there is no fold"),
        ("folds/0/train", ..., "is no whole file of folds: KeyError: 'train'"),
        ("folds/0/train", "t0", "is no whole file of folds: TypeError: expected a list of names, got t0"),
        ("folds/0/train/0", 3, r"TypeError: expected a list of names, got \[3, "),
        ("folds/0", 5, "is no whole file of folds: TypeError"),
        ("scheme/magic", 5, "is no whole file of folds: TypeError: .*magic"),
        ("scheme/n_folds", "two", "two folds cannot be made"),
        ("folds/0/train", [], "fold 0 has nothing to train on"),
        ("folds/1/validation", [], "fold 1 has nothing to hold out"),
        ("folds/0/train/0", "v0", "fold 0 trains on trial v0 that it holds out: its score would flatter; take them out of one of the two"),
        ("folds/0/train/0", "t7", "fold 0 names trial t7 twice"),
        ("folds/1/validation/0", "v1", "trial v1 held out more than once: one fold predicts each trial"),
        ("left_out/0", "v0", "trial v0 both in a fold and left out"),
        ("left_out/0", "nobody", "does not fit the store: nobody: the store does not have 1 of its 13 trials; take them out"),
        ("left_out", ["x1"], "does not fit the store: x0: 1 of the store's 13 trials are not in it; add them to a fold or to left_out"),
    ],
)
def test_a_file_that_does_not_fit(official: MakeIndex, tmp_path: Path, path: str, value: Any, text: str) -> None:
    index, file = official(), tmp_path / "folds.json"
    write_folds(file, make_folds(index, Scheme(n_folds=2, official_first=True)))
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(TrainerError, match=text) as caught:
        read_folds(file, index)
    assert all(problem.where == str(file) for problem in caught.value.problems)


def test_a_file_that_parts_twins(official: MakeIndex, tmp_path: Path) -> None:
    """Made for a store without the twin's source, or by hand."""
    file = tmp_path / "folds.json"
    write_folds(file, make_folds(official(), Scheme(n_folds=2, official_first=True)))
    with pytest.raises(TrainerError, match=r"/folds\.json: fold 0 trains on t1 and holds out v2: they are of one"):
        read_folds(file, official(source={"t1": "one", "v2": "one"}))


@pytest.mark.parametrize("content", [b"", b"no JSON", b"\xff\xfe\x00", b"[" * 100_000, b"[1, 2]", b"null"])
def test_a_file_of_something_else(official: MakeIndex, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "folds.json").write_bytes(content)
    with pytest.raises(TrainerError, match=r"folds\.json: is (not JSON|no file of folds)"):
        read_folds(tmp_path / "folds.json", official())
    with pytest.raises(TrainerError, match=r"nothing\.json: cannot be read: No such file or directory; name a file of folds"):
        read_folds(tmp_path / "nothing.json", official())


def test_many_names_are_cut_short(index_of: MakeIndex, official: MakeIndex, tmp_path: Path) -> None:
    file = tmp_path / "folds.json"
    write_folds(file, make_folds(index_of({f"n{i}": 2 for i in range(9)}), Scheme(n_folds=2)))
    with pytest.raises(TrainerError, match="does not fit the store: n0, n1, n2, n3, n4 and 4 more: the store does not have 9 of its 9"):
        read_folds(file, official())
