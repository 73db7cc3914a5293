"""Finding label files in every edition's folders, one label set per trial and task, and trials against their videos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.annotations import TASKS, TrialLabels, compare_rows, match_source, read_labels
from pipeline.errors import RequestError, Severity

VA = "valence,arousal\n0,0\n0.5,-5\n"
AU12 = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
AU = f"{AU12}\n{','.join('0' * 12)}\n"
EXPR7 = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"
EXPR = f"{EXPR7},Other\n0\n"
MTL = f"image,valence,arousal,expression,{AU12}\na/00003.jpg,0.5,0.5,1,{','.join('0' * 12)}\n"


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def names(root: Path, tasks: tuple[str, ...] = ()) -> set[tuple[str, str, str]]:
    found = read_labels(root, tasks)
    assert found.problems == ()
    return {(labels.task, labels.trial, labels.split) for labels in found.labels}


EDITIONS = [
    ("VA_Set", "AU_Set", "EXPR_Set", "Train_Set", "Validation_Set"),
    (
        "Third ABAW Annotations/VA_Estimation_Challenge",
        "AU_Detection_Challenge",
        "EXPR_Classification_Challenge",
        "Train_Set",
        "Validation_Set",
    ),
    ("6th_ABAW_Annotations/VA_Estimation_Challenge", "AU Detection Challenge", "EXPR_Recognition_Challenge", "Train_Set", "Validation_Set"),
    ("VA", "au", "expr", "train", "validate"),
    ("my labels", "b", "c", "training", "val"),
]


@pytest.mark.parametrize(("va", "au", "expr", "train", "validation"), EDITIONS)
def test_every_edition_from_every_root(tmp_path: Path, va: str, au: str, expr: str, train: str, validation: str) -> None:
    root = tmp_path / "Annotations 2024"
    write(root / va / train / "106.txt", VA)
    write(root / va / validation / "106-30-720x1280.TXT", VA)
    write(root / au / train / "video5_left.txt", AU)
    write(root / expr / validation / "video5.txt", EXPR)
    train_rows, validation_rows = {("va", "106", "train")}, {("va", "106-30-720x1280", "validation")}
    others = {("au", "video5_left", "train"), ("expr", "video5", "validation")}
    assert names(root) == train_rows | validation_rows | others
    assert names(root / va) == train_rows | validation_rows
    assert names(root / va / train) == train_rows
    assert names(root, ("va",)) == train_rows | validation_rows
    assert names(root, ("au", "expr")) == others


def test_a_bare_folder_is_known_by_its_headers(tmp_path: Path) -> None:
    for name, text in [("1.txt", VA), ("2.txt", AU), ("3.txt", EXPR), ("train_set.txt", MTL.replace("a/", "4/"))]:
        write(tmp_path / name, text)
    mtl = {(task, "4", "train") for task in ("va", "expr", "au")}
    assert names(tmp_path) == {("va", "1", ""), ("au", "2", ""), ("expr", "3", "")} | mtl
    assert names(tmp_path, ("mtl",)) == mtl
    assert TASKS == ("va", "expr", "au", "mtl", "emi", "csv")


def test_what_is_no_label_file_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "VA_Set/Train_Set/1.txt", VA)
    write(tmp_path / "VA_Set/Train_Set/Thumbs.db", b"\xd0\xcf\x11")
    write(tmp_path / "VA_Set/Train_Set/README.txt", "How these were made")
    write(tmp_path / "VA_Set/Train_Set/._1.txt", b"\x00\x05\x16\x07")
    write(tmp_path / "VA_Set/CVPR_6th_ABAW_VA_test_set_sample.txt", "image_location,valence,arousal\n1/00001.jpg,,\n")
    write(tmp_path / "names/Valence_Arousal_Estimation_Challenge_test_set_release.txt", "7\n8\n")
    write(tmp_path / "MTL_Challenge/names of videos.txt", "7\n8\n")
    write(tmp_path / "1.mp4", b"\x00")
    assert names(tmp_path) == {("va", "1", "train")}


def test_a_broken_file_in_a_challenge_folder_is_not_ignored(tmp_path: Path) -> None:
    write(tmp_path / "EXPR_Set/Train_Set/1.txt", b"\xff\xfeN\x00e\x00")
    write(tmp_path / "MTL_Challenge/train_set.txt", "picture,valence\n")
    write(tmp_path / "sub/2.txt", VA)
    found = read_labels(tmp_path)
    assert [problem.what for problem in found.problems] == ["is not text", "has no labels"]
    assert read_labels(tmp_path, ("va",)).problems == ()


def test_two_files_for_one_trial_and_task(tmp_path: Path) -> None:
    write(tmp_path / "VA_Set/Train_Set/1.txt", VA)
    write(tmp_path / "VA_Set/Validation_Set/1.txt", VA)
    write(tmp_path / "VA_Set/Train_Set/2.txt", VA)
    found = read_labels(tmp_path)
    assert [labels.trial for labels in found.labels] == ["2"]
    (problem,) = found.problems
    assert problem.severity is Severity.ERROR
    assert str(problem) == (
        f"{tmp_path}/VA_Set/Train_Set/1.txt: trial 1 has two sets of va labels: also in {tmp_path}/VA_Set/Validation_Set/1.txt; "
        "neither was taken; keep one of them, or name the folder of one edition"
    )


def test_a_trials_own_file_is_preferred_to_mtl(tmp_path: Path) -> None:
    write(tmp_path / "VA_Estimation_Challenge/Train_Set/a.txt", VA)
    write(tmp_path / "MTL_Challenge/train_set.txt", MTL)
    found = read_labels(tmp_path)
    assert {(labels.task, labels.dense) for labels in found.labels} == {("va", True), ("au", False), ("expr", False)}
    assert [(problem.what, problem.severity) for problem in found.problems] == [("va labels of 1 trial left out", Severity.WARNING)]
    assert {labels.task for labels in read_labels(tmp_path, ("mtl",)).labels} == {"va", "au", "expr"}


def test_trials_of_another_edition_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", f"{EXPR7}\n0\n")
    write(tmp_path / "2.txt", EXPR)
    write(tmp_path / "3.txt", EXPR)
    write(tmp_path / "x_train.csv", "trial,frame,y\na,0,1\nc,0,1\n")
    write(tmp_path / "x_val.csv", "trial,y\nb,1\n")
    found = read_labels(tmp_path)
    assert [labels.trial for labels in found.labels] == ["2", "3", "a", "c"]
    assert [problem.what for problem in found.problems] == [
        "trial 1 has other expr labels than most",
        "trial b has other x labels than most",
    ]
    assert [problem.why for problem in found.problems] == [f"{EXPR7} instead of {EXPR7},Other", "a row per clip instead of rows per frame"]


def test_a_trial_in_different_splits_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "VA_Set/Train_Set/1.txt", VA)
    write(tmp_path / "AU_Set/Validation_Set/1.txt", AU)
    (problem,) = read_labels(tmp_path).problems
    assert (problem.what, problem.why, problem.severity) == ("1 trial in different splits for different tasks", "1", Severity.WARNING)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "labels"
    write(outside / "2.txt", VA)
    write(root / "1.txt", VA)
    (root / "2.txt").symlink_to(outside / "2.txt")
    (root / "more").symlink_to(outside)
    (root / "3.txt").symlink_to(root / "gone.txt")
    (root / "clip.mp4").symlink_to(outside / "clip.mp4")
    (root / "4.txt").symlink_to(root / "4.txt")
    found = read_labels(root)
    assert [labels.trial for labels in found.labels] == ["1"]
    assert [(Path(problem.where).name, problem.what) for problem in found.problems] == [
        ("2.txt", "is a link that leads out of the folder of labels"),
        ("3.txt", "is a link that leads nowhere"),
        ("4.txt", "is a link that leads nowhere"),
        ("more", "is a link that leads out of the folder of labels"),
    ]


def test_links_inside_the_folder_are_read_once(tmp_path: Path) -> None:
    write(tmp_path / "all/1.txt", VA)
    write(tmp_path / "all/2.txt", VA)
    (tmp_path / "train").mkdir()
    (tmp_path / "train/1.txt").symlink_to("../all/1.txt")
    (tmp_path / "all/loop").symlink_to(tmp_path)
    assert names(tmp_path) == {("va", "1", "train"), ("va", "2", "")}


def test_names_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ["- a 'b' \"c\"", "video.1", "ünï"]:
        write(tmp_path / f"{name}.txt", VA)
    write(tmp_path / "good/1.txt", VA)
    bad = os.fsencode(tmp_path) + b"/\xff.txt"
    with open(bad, "wb") as stream:
        stream.write(VA.encode())
    found = read_labels(tmp_path)
    assert {labels.trial for labels in found.labels} == {"- a 'b' \"c\"", "video.1", "ünï", "1"}
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path}/\\xff.txt: has a name that is not UTF-8: a trial's name is text; rename it"
    ]


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"gone: the labels cannot be read: there is no such folder; name a folder of label files"):
        read_labels(tmp_path / "gone")
    file = write(tmp_path / "notes.txt", "nothing")
    with pytest.raises(RequestError, match=r"notes\.txt: the labels cannot be read: it is a file"):
        read_labels(file)
    with pytest.raises(RequestError, match=r"no labels are recognised: looked for .* VA, EXPR, AU or MTL, an EMI csv, or any csv"):
        read_labels(tmp_path)
    write(tmp_path / "1.txt", VA)
    write(tmp_path / "fatigue.csv", "trial,y\na,1\n")
    with pytest.raises(RequestError, match=r"no labels for task 'fatige': found csv, fatigue, va; did you mean 'fatigue'\?"):
        read_labels(tmp_path, ("va", "fatige"))
    assert names(tmp_path, ("fatigue",)) == names(tmp_path, ("csv",)) == {("fatigue", "a", "")}


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        ("106", ("106", "main")),
        ("106-30-720x1280", ("106-30-720x1280", "main")),
        ("10", None),
        ("video5_left", ("video5", "left")),
        ("video5_right", ("video5", "right")),
        ("video5", ("video5", "main")),
        ("video5_LEFT", None),
        ("video5_left_1", None),
        ("a_left_b_right", ("a_left_b", "right")),
        ("solo_left", ("solo_left", "main")),
        ("_left", None),
        ("video5_left_right", None),
    ],
)
def test_match_source(trial: str, expected: tuple[str, str] | None) -> None:
    assert match_source(trial, {"106", "106-30-720x1280", "video5", "a_left_b", "a_b", "solo_left", "solo"}) == expected


def labels_of(frames: list[int] | None, *, dense: bool) -> TrialLabels:
    values = np.zeros((1 if frames is None else len(frames), 2), dtype=np.float32)
    return TrialLabels(
        trial="t1",
        task="va",
        columns=("valence", "arousal"),
        frame=None if frames is None else np.array(frames, dtype=np.int64),
        values=values,
        valid=np.ones(values.shape, dtype=np.bool_),
        split="",
        path=Path("labels/t1.txt"),
        dense=dense,
    )


@pytest.mark.parametrize(
    ("frames", "dense", "n_frames", "severity"),
    [
        (list(range(100)), True, 100, None),
        (list(range(100)), True, 99, Severity.WARNING),
        (list(range(100)), True, 102, Severity.WARNING),
        (list(range(100)), True, 103, Severity.ERROR),
        (list(range(100)), True, 60, Severity.ERROR),
        ([5, 9], False, 1000, None),
        ([5, 9], False, 10, None),
        ([5, 9], False, 8, Severity.WARNING),
        ([5, 9], False, 7, Severity.ERROR),
        (None, False, 7, None),
    ],
)
def test_compare_rows(frames: list[int] | None, dense: bool, n_frames: int, severity: Severity | None) -> None:
    problem = compare_rows(labels_of(frames, dense=dense), n_frames)
    assert (problem.severity if problem else None) == severity


def test_compare_rows_says_what_to_do() -> None:
    labels = labels_of(list(range(140)), dense=True)
    assert str(compare_rows(labels, 100)) == (
        "labels/t1.txt: trial t1 has 140 rows of va labels for 100 frames: 40 too many, more than the 2 accepted; "
        "check that it is the right video, or raise store.tolerance_rows in the stages file"
    )
    assert "1 too few; nothing need be done" in str(compare_rows(labels, 141))
    accepted = compare_rows(labels, 100, tolerance_rows=40)
    assert accepted is not None
    assert accepted.severity is Severity.WARNING


def test_a_record_checks_itself() -> None:
    with pytest.raises(ValueError, match=r"TrialLabels of 't1', va: expected frames from 0, strictly ascending, got \[3 3\]"):
        labels_of([3, 3], dense=False)
    with pytest.raises(ValueError, match=r"expected every frame, got \[1 2\]"):
        labels_of([1, 2], dense=True)
