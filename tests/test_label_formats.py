"""Each label format, with its quirks and its bad inputs. The truth is written out by hand from the challenges' descriptions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.annotations import LabelSet, TrialLabels, read_labels
from pipeline.errors import Severity
from pipeline.labels.affwild2 import parse_dense
from pipeline.labels.files import LabelFile, LabelFileError

AU12 = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
EXPR8 = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
MTL = f"image,valence,arousal,expression,{AU12}"
EMI = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
NAN = np.nan


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def only(found: LabelSet) -> TrialLabels:
    assert found.problems == ()
    assert len(found.labels) == 1
    return found.labels[0]


def by_trial(found: LabelSet) -> dict[tuple[str, str], TrialLabels]:
    return {(labels.trial, labels.task): labels for labels in found.labels}


def assert_cells(labels: TrialLabels, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(labels.values, np.array(expected, dtype=np.float32))
    np.testing.assert_array_equal(labels.valid, ~np.isnan(np.array(expected)))


def test_va_masks_cells_by_number_and_keeps_every_row(tmp_path: Path) -> None:
    write(tmp_path / "VA_Set/Train_Set/10-60-1280x720.txt", "valence,arousal\n0.5,-0.25\n-5,-5\n-5.0,0.1\n0.2,-5.000\n-1.0,-1\n1,0\n")
    labels = only(read_labels(tmp_path))
    assert (labels.trial, labels.task, labels.columns, labels.split) == ("10-60-1280x720", "va", ("valence", "arousal"), "train")
    assert labels.dense
    assert labels.frame is not None
    np.testing.assert_array_equal(labels.frame, [0, 1, 2, 3, 4, 5])
    assert_cells(labels, [[0.5, -0.25], [NAN, NAN], [NAN, 0.1], [0.2, NAN], [-1, -1], [1, 0]])


def test_va_columns_follow_their_names(tmp_path: Path) -> None:
    write(tmp_path / "106.txt", "Arousal, Valence\n0.1,0.9\n")
    labels = only(read_labels(tmp_path))
    assert labels.columns == ("valence", "arousal")
    assert_cells(labels, [[0.9, 0.1]])


def test_va_out_of_range_is_masked_with_one_warning(tmp_path: Path) -> None:
    write(tmp_path / "106.txt", "valence,arousal\n0,0\n1.5,-5\n0.5,nan\n")
    found = read_labels(tmp_path)
    (problem,) = found.problems
    assert problem.severity is Severity.WARNING
    assert str(problem) == (
        f"{tmp_path}/106.txt:3: has 2 cells masked: a value is not in [-1, 1] or -5, first on this line; "
        "check the file against the original"
    )
    assert_cells(found.labels[0], [[0, 0], [NAN, NAN], [0.5, NAN]])


def test_expr_has_one_number_under_eight_names(tmp_path: Path) -> None:
    write(tmp_path / "EXPR_Recognition_Challenge/Validation_Set/7_left.txt", f"{EXPR8}\n0\n7\n-1\n4\n")
    labels = only(read_labels(tmp_path))
    assert (labels.trial, labels.task, labels.columns, labels.split) == ("7_left", "expr", ("expression",), "validation")
    assert labels.classes == tuple(EXPR8.split(","))
    assert_cells(labels, [[0], [7], [NAN], [4]])


def test_expr_of_the_first_editions_has_seven_classes(tmp_path: Path) -> None:
    write(tmp_path / "EXPR_Set/Train_Set/1.txt", "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise\n6\n7\n0.5\n")
    found = read_labels(tmp_path)
    assert len(found.labels[0].classes) == 7
    assert_cells(found.labels[0], [[6], [NAN], [NAN]])
    assert [problem.what for problem in found.problems] == ["has 2 cells masked"]
    assert found.problems[0].why.startswith("a value is not a class 0..6 or -1")


def test_au_masks_single_cells(tmp_path: Path) -> None:
    write(tmp_path / "AU_Detection_Challenge/Train_Set/1.txt", f"{AU12}\n{','.join('01' * 6)}\n{','.join(['-1', '1'] * 6)}\n")
    labels = only(read_labels(tmp_path))
    assert (labels.task, labels.columns) == ("au", tuple(AU12.split(",")))
    assert_cells(labels, [[0, 1] * 6, [NAN, 1] * 6])


def test_au_of_the_first_editions_takes_its_names_from_the_header(tmp_path: Path) -> None:
    write(tmp_path / "AU_Set/Train_Set/1.txt", "au1, AU02,AU 4,AU6,AU12,AU15,AU20,AU25\n0,0,0,0,0,0,1,2\n")
    found = read_labels(tmp_path)
    assert found.labels[0].columns == ("AU1", "AU2", "AU4", "AU6", "AU12", "AU15", "AU20", "AU25")
    assert_cells(found.labels[0], [[0, 0, 0, 0, 0, 0, 1, NAN]])
    assert [problem.what for problem in found.problems] == ["has 1 cell masked"]


@pytest.mark.parametrize("header", [MTL, "image,valence,arousal,expression,aus"])
def test_mtl_gives_three_tasks_for_the_frames_it_names(tmp_path: Path, header: str) -> None:
    zeros = ",".join("0" * 12)
    rows = [f"b/00004.jpg,0.5,-0.5,2,{zeros}", f"a/00012.jpg,-5,-5,-1,{zeros}", f"b/00002.jpg,-1.0,0,-1,{','.join(['-1'] * 12)}"]
    write(tmp_path / "MTL_Challenge/validation_set.txt", "\n".join([header, *rows]) + "\n")
    found = read_labels(tmp_path)
    assert found.problems == ()
    labels = by_trial(found)
    assert set(labels) == {(trial, task) for trial in "ab" for task in ("va", "expr", "au")}
    b = labels["b", "va"]
    assert (b.split, b.dense) == ("validation", False)
    assert b.frame is not None
    np.testing.assert_array_equal(b.frame, [1, 3])
    assert_cells(b, [[-1, 0], [0.5, -0.5]])
    assert_cells(labels["b", "expr"], [[NAN], [2]])
    assert_cells(labels["b", "au"], [[NAN] * 12, [0] * 12])
    assert_cells(labels["a", "va"], [[NAN, NAN]])


def test_mtl_merges_equal_rows_and_keeps_the_first_of_contradicting_ones(tmp_path: Path) -> None:
    zeros = ",".join("0" * 12)
    rows = [f"a/00001.jpg,{va},1,{zeros}" for va in ("0.1,0.1", "0.10,0.1", "0.3,0.1")]
    write(tmp_path / "train_set.txt", "\n".join([MTL, *rows, f"a/00002.jpg,0,0,0,{zeros}", f"a/00002.jpg,0,0,0,{zeros}"]))
    found = read_labels(tmp_path)
    assert_cells(by_trial(found)["a", "va"], [[0.1, 0.1], [0, 0]])
    (problem,) = found.problems
    assert problem.severity is Severity.WARNING
    assert problem.what == "trial a is labelled twice"
    assert problem.why == "rows differ for 1 frame, first for frame 0 (from 0); the first row was kept"


def test_emi_restores_ids_and_is_per_clip(tmp_path: Path) -> None:
    write(
        tmp_path / "train_split.csv", f"{EMI}\n123,0,0.1,0.2,0.3,0.4,1\n00007.0,1,1,1,,1,1\n12660,0,0,0,0,0,1.5\nclip_a.mp4,0,0,0,0,0,0\n"
    )
    write(tmp_path / "valid_split.csv", f"{EMI}\n8073,0,0,0,0,0,0\n8073,0,0,0,0,0,0\n")
    write(tmp_path / "test_split.csv", "Filename\n12661\n")
    found = read_labels(tmp_path)
    labels = by_trial(found)
    assert {trial: one.split for (trial, _), one in labels.items()} == {
        "00123": "train",
        "00007": "train",
        "12660": "train",
        "clip_a": "train",
        "08073": "validation",
        "12661": "test",
    }
    assert labels["00123", "emi"].frame is None
    assert labels["00123", "emi"].columns == tuple(EMI.split(",")[1:])
    assert_cells(labels["00123", "emi"], [[0, 0.1, 0.2, 0.3, 0.4, 1]])
    assert_cells(labels["00007", "emi"], [[1, 1, 1, NAN, 1, 1]])
    assert_cells(labels["12661", "emi"], [[NAN] * 6])
    assert [problem.why for problem in found.problems] == ["a value is not in [0, 1], first on this line"]
    assert found.problems[0].where.endswith("train_split.csv:4")


def test_emi_keeps_the_first_of_contradicting_rows(tmp_path: Path) -> None:
    write(tmp_path / "train_split.csv", f"{EMI}\n1,0,0,0,0,0,0\n00001,1,0,0,0,0,0\n")
    found = read_labels(tmp_path)
    assert_cells(found.labels[0], [[0] * 6])
    assert [(p.what, p.where[-2:]) for p in found.problems] == [("trial 00001 is labelled twice", ":3")]


def test_table_per_frame(tmp_path: Path) -> None:
    text = ",video,frame,time_s,subject,split,Fatigue,pain\n0,a.mp4,2,0.2,x,train,0.5,\n1,a.mp4,0,0.0,x,train,nan,1\n2,b,7,.7,y,val,1,2\n"
    write(tmp_path / "fatigue_v2.csv", text)
    found = read_labels(tmp_path)
    assert found.problems == ()
    labels = by_trial(found)
    a, b = labels["a", "fatigue_v2"], labels["b", "fatigue_v2"]
    assert (a.columns, a.split, a.dense, b.split) == (("Fatigue", "pain"), "train", False, "validation")
    assert a.frame is not None
    np.testing.assert_array_equal(a.frame, [0, 2])
    assert_cells(a, [[NAN, 1], [0.5, NAN]])


def test_table_by_picture_counts_from_one(tmp_path: Path) -> None:
    write(tmp_path / "pain_train.csv", "image,pain\ncropped/a/00001.jpg,1\na/00003.jpg,2\na/00003.jpg,3\n")
    found = read_labels(tmp_path)
    (labels,) = found.labels
    assert (labels.trial, labels.task, labels.split) == ("a", "pain", "train")
    assert labels.frame is not None
    np.testing.assert_array_equal(labels.frame, [0, 2])
    assert_cells(labels, [[1], [2]])
    assert [(p.what, p.where[-2:]) for p in found.problems] == [("trial a is labelled twice", ":4")]


def test_table_per_clip(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 'name,note,score\n"a, b",x,0.5\nc,,\n')
    found = read_labels(tmp_path)
    labels = by_trial(found)
    assert labels["a, b", "csv"].frame is None
    assert labels["a, b", "csv"].columns == ("score",)
    assert {one.split for one in found.labels} == {"train"}
    assert_cells(labels["c", "csv"], [[NAN]])


def test_tables_of_one_trial_each(tmp_path: Path) -> None:
    write(tmp_path / "pain/train/video1.csv", "time,pain\n0.00,1\n0.04,\n0.08,3\n")
    write(tmp_path / "pain/val/video2.csv", "frame,pain\n3,1\n5,2\n")
    labels = by_trial(read_labels(tmp_path))
    one, two = labels["video1", "pain"], labels["video2", "pain"]
    assert (one.split, one.dense, two.split, two.dense) == ("train", True, "validation", False)
    assert one.frame is not None
    assert two.frame is not None
    np.testing.assert_array_equal(one.frame, [0, 1, 2])
    np.testing.assert_array_equal(two.frame, [3, 5])
    assert_cells(one, [[1], [NAN], [3]])


def test_table_says_which_words_name_no_split_and_refuses_two(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "trial,frame,split,y\na,0,fold1,1\nb,0,train,1\nb,1,test,1\nc,0,dev,1\n")
    found = read_labels(tmp_path)
    assert {one.trial: one.split for one in found.labels} == {"a": "", "c": "validation"}
    assert [problem.what for problem in found.problems] == ["trial b is in several splits", "trials are left without a split"]
    assert "'fold1'" in found.problems[1].why


@pytest.mark.parametrize(
    ("header", "newline"),
    [("valence,arousal", "\r\n"), ("\ufeffvalence,arousal", "\n"), (" Valence , AROUSAL,", "\r"), ("valence,arousal", "\n")],
)
def test_line_ends_byte_order_mark_and_blank_end(tmp_path: Path, header: str, newline: str) -> None:
    write(tmp_path / "a.txt", newline.join([header, "0.5, 0.25", "-5,-5", "", "  ", ""]))
    assert_cells(only(read_labels(tmp_path)), [[0.5, 0.25], [NAN, NAN]])


VA = "valence,arousal\n0,0\n"
BAD: dict[str, tuple[str, str | bytes, str]] = {
    "no number": ("a.txt", VA + "0.1,x1\n", "a.txt:3: has a cell that is not a number: found 'x1'; mend the cell"),
    "a number too few": ("a.txt", VA + "0.1\n", "a.txt:3: has a row of the wrong length: expected 2 cells, got 1; restore the line"),
    "a number too many": ("a.txt", "valence,arousal\n0,0,0\n", "a.txt:2: has a row of the wrong length: expected 2 cells, got 3"),
    "blank in the middle": ("a.txt", VA + "\n0,0\n", "a.txt:3: has a row of the wrong length: the line is blank, and rows are counted"),
    "underscore": ("a.txt", VA + "0.1,1_0\n", "a.txt:3: has a cell that is not a number: found '1_0'"),
    "comment": ("a.txt", VA + "#0,0\n", "a.txt:3: has a cell that is not a number: found '#0'"),
    "header only": ("a.txt", "valence,arousal\n", "a.txt: has no labels: no row follows the header; restore it, or take it away"),
    "empty": ("a.txt", "", "a.txt: has no labels: it is empty"),
    "binary": ("a.txt", b"valence,arousal\n0,\x00\x01\n", "a.txt:2: is not text: it has zero bytes; save it as UTF-8 text"),
    "latin-1": ("a.txt", b"valence,arousal\n0,0\n0,\xe9\n", "a.txt:3: is not UTF-8 text: byte 0xe9; save it as UTF-8 text"),
    "latin-1 after a mark": ("a.txt", b"\xef\xbb\xbfvalence,arousal\n0,\xe9\n", "a.txt:2: is not UTF-8 text: byte 0xe9"),
    "no header": (
        "a.txt",
        "0,0\n0,0\n",
        "a.txt:1: has an unknown header: expected 'valence,arousal' for VA, found '0,0'; restore the header",
    ),
    "mtl picture": ("mtl.txt", f"{MTL}\na/1.5.jpg,0,0,0,{AU12}\n", "mtl.txt:2: has a row without a picture's name: found 'a/1.5.jpg'"),
    "mtl picture 0": (
        "mtl.txt",
        f"{MTL}\na/00000.jpg,0\n",
        "mtl.txt:2: has a row without a picture's name: found 'a/00000.jpg'; write NAME",
    ),
    "mtl no trial": (
        "mtl.txt",
        f"{MTL}\n00001.jpg,0\n",
        "mtl.txt:2: has a picture without a trial: found '00001.jpg'; write NAME/00001.jpg",
    ),
    "mtl short": ("mtl.txt", f"{MTL}\na/00001.jpg,0,0\n", "mtl.txt:2: has a row of the wrong length: expected 15 cells, got 2"),
    "emi short": ("train_split.csv", f"{EMI}\n1,0\n", "train_split.csv:2: has a row of the wrong length: expected 7 cells, got 2"),
    "emi no id": (
        "train_split.csv",
        f"{EMI}\n,0,0,0,0,0,0\n",
        "train_split.csv:2: has a row without a trial: its name is empty",
    ),
    "emi text": ("train_split.csv", f"{EMI}\n1,0,0,0,?,0,0\n", "train_split.csv:2: has a cell that is not a number: found '?'"),
    "table header": ("t.csv", "1,2\n3,4\n", "t.csv:1: has an unknown header: expected different names separated by commas, found '1,2'"),
    "table twice": ("t.csv", "x,X\n3,4\n", "t.csv:1: has an unknown header: expected different names separated by commas, found 'x,X'"),
    "semicolons": (
        "t.csv",
        "trial;x\na;4\n",
        "t.csv:1: has an unknown header: expected different names separated by commas, found 'trial;x'",
    ),
    "no targets": ("t.csv", "trial,note\na,b\n", "t.csv:1: has no targets: no column but the trial's and the frame's holds numbers"),
    "frame -1": ("t.csv", "trial,frame,x\na,-1,4\n", "t.csv:2: has a row without a frame number: found '-1'; write whole numbers from 0"),
    "frame 0.5": ("t.csv", "trial,frame,x\na,0,1\na,0.5,4\n", "t.csv:3: has a row without a frame number: found '0.5'"),
    "no frame": ("t.csv", "trial,frame,x\na,,4\n", "t.csv:2: has a row without a frame number: found ''"),
    "clip twice": (
        "t.csv",
        "trial,x\na,1\na,2\n",
        "t.csv:3: has several rows for one clip: trial a has more rows and nothing says which",
    ),
    "table text": ("t.csv", "trial,x\na,1\nb,one\n", "t.csv:3: has a cell that is not a number: found 'one'"),
    "infinite": ("t.csv", "trial,x\na,1\nb,inf\n", "t.csv:3: has a cell that is not a number: found 'inf'"),
    "beyond float32": ("t.csv", "trial,x\na,1e39\n", "t.csv:2: has a cell that is not a number: found '1e39'"),
    "no folder": (
        "t.csv",
        "image,x\na/1.jpg,1\n2.jpg,1\n",
        "t.csv:3: has a row without a trial: its name is empty; write the video's name, ",
    ),
    "digits": ("a.txt", VA + "9" * 100_000 + "x,0\n", "a.txt:3: has a cell that is not a number: found '999"),
    "open quote": ("t.csv", 'trial,x\na,"1\nb,2\n', "t.csv:3: is not a csv: unexpected end of data; mend the line"),
    "long cell": ("t.csv", 'trial,x\n"a\nb",1\nc,2\n', "t.csv:2: has a cell over several lines: a quote is not closed; close the quote"),
    "blank row": ("t.csv", "trial,x\na,1\n\nb,2\n", "t.csv:3: has a row of the wrong length: the line is blank"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_problem_and_the_others_are_read(tmp_path: Path, case: str) -> None:
    name, content, expected = BAD[case]
    write(tmp_path / name, content)
    write(tmp_path / "good.txt", VA)
    found = read_labels(tmp_path)
    assert [labels.trial for labels in found.labels] == ["good"]
    (problem,) = found.problems
    assert problem.severity is Severity.ERROR
    assert str(problem).startswith(f"{tmp_path}/{expected}")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read everything")
def test_an_unreadable_file_is_one_problem(tmp_path: Path) -> None:
    write(tmp_path / "good.txt", VA)
    write(tmp_path / "a.txt", VA).chmod(0)
    found = read_labels(tmp_path)
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path}/a.txt: cannot be read: Permission denied; make it readable, or take it away"
    ]


def test_a_file_that_vanished_is_one_problem(tmp_path: Path) -> None:
    gone = LabelFile(path=tmp_path / "1.txt", format="va", task="va", split="")
    with pytest.raises(LabelFileError, match=r"1\.txt: cannot be read: No such file or directory; make it readable, or take it away"):
        parse_dense(gone)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "good.txt", VA)
    with write(tmp_path / "a.txt", VA).open("ab") as stream:
        stream.truncate(1 << 40)  # sparse: takes no room on the disk
    (problem,) = read_labels(tmp_path).problems
    assert problem.what == "is too large for labels"
