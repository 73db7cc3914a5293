"""Submission files: row for row the template's, each with what is predicted for its frame, or with what is nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store import Index
from trainer.errors import TrainerError
from trainer.filling import OWN, rows_of_frames
from trainer.predictions import Predicted, Predictions, predictions_on
from trainer.submission import write_label_files, write_submission
from trainer.tasks import ACTION_UNITS, EMOTIONS, EXPRESSIONS, Task, task_of

unhurried = settings(deadline=None)  # a busy machine is no failure
MakeIndex = Callable[..., Index]
N_ROWS = {"video1_left": 4, "106": 3, "10-60-1280x720": 2}
VA_HEADER = "image_location,valence,arousal"
EXPR_HEADER = "image_location," + ",".join(EXPRESSIONS)
AU_HEADER = "image_location," + ",".join(ACTION_UNITS)


@pytest.fixture
def index(index_of: MakeIndex) -> Index:
    return index_of(N_ROWS)


def made(index: Index, task: Task, values: Mapping[str, Any], **more: Any) -> Predictions:
    parts = {}
    for trial, rows in values.items():
        array = np.array(rows, float).reshape(-1, len(task.columns))
        parts[trial] = Predicted(values=array, valid=np.isfinite(array).all(axis=1), thresholds=more.get("thresholds"))
    return predictions_on(index, task, parts, per_trial=more.get("per_trial", False))


@pytest.fixture
def va(index: Index) -> Predictions:
    """Valence is the row's number in tenths, arousal its negative."""
    return made(index, task_of("va"), {t: [[i / 10, -i / 10] for i in range(n)] for t, n in N_ROWS.items()})


@pytest.fixture
def expr(index: Index) -> Predictions:
    """Row i is of class i, of those of 106 plus four."""
    return made(index, task_of("expr"), {t: np.eye(8)[np.arange(n) + 4 * (t == "106")] for t, n in N_ROWS.items()})


@pytest.fixture
def au(index: Index) -> Predictions:
    """In row i the first i units."""
    return made(index, task_of("au"), {t: [[0.9] * i + [0.2] * (12 - i) for i in range(n)] for t, n in N_ROWS.items()})


def template(folder: Path, *lines: str) -> Path:
    path = folder / "template.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def written(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


def test_va_row_for_row(va: Predictions, tmp_path: Path) -> None:
    """Rows of trials mixed and not in order, with dummy values and trailing commas: all of theirs, in their order."""
    rows = ("106/00002.jpg,0,0", "video1_left/00004.jpg,", "106/00001.jpg", "video1_left/00001.jpg,,", "106/00002.jpg,-5,-5")
    form = template(tmp_path, VA_HEADER, *rows)
    report = write_submission(form, [va], tmp_path / "out" / "va.txt")
    assert written(tmp_path / "out" / "va.txt") == [
        VA_HEADER,
        "106/00002.jpg,0.100000,-0.100000",
        "video1_left/00004.jpg,0.300000,-0.300000",
        "106/00001.jpg,0.000000,0.000000",
        "video1_left/00001.jpg,0.000000,0.000000",
        "106/00002.jpg,0.100000,-0.100000",
    ]
    assert (report.n_rows, report.n_filled, dict(report.filled), report.farthest_s, report.n_clipped) == (5, 0, {}, 0.0, 0)
    assert report.unused == ("10-60-1280x720",)


def test_the_columns_are_in_the_headers_order(va: Predictions, au: Predictions, expr: Predictions, tmp_path: Path) -> None:
    turned = template(tmp_path, "image_location,arousal,valence", "106/00002.jpg")
    write_submission(turned, [va], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt")[1] == "106/00002.jpg,-0.100000,0.100000"
    some = template(tmp_path, "image_location,AU4,AU1,AU26", "106/00003.jpg")
    write_submission(some, [au], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt") == ["image_location,AU4,AU1,AU26", "106/00003.jpg,0,1,0"]
    classes = ",".join([*EXPRESSIONS[3:], *EXPRESSIONS[:3]])
    turned = template(tmp_path, f"image_location,{classes}", "106/00001.jpg", "video1_left/00001.jpg")
    write_submission(turned, [expr], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt")[1:] == ["106/00001.jpg,1", "video1_left/00001.jpg,5"]  # Happiness and Neutral


def test_expressions_are_one_number(expr: Predictions, tmp_path: Path) -> None:
    form = template(tmp_path, EXPR_HEADER, "106/00001.jpg,0", "106/00003.jpg,0", "video1_left/00004.jpg,0")
    write_submission(form, [expr], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt") == [EXPR_HEADER, "106/00001.jpg,4", "106/00003.jpg,6", "video1_left/00004.jpg,3"]


def test_action_units_are_twelve_decisions(index: Index, au: Predictions, tmp_path: Path) -> None:
    form = template(tmp_path, AU_HEADER, "106/00003.jpg", "106/00001.jpg")
    write_submission(form, [au], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt")[1:] == ["106/00003.jpg,1,1,0,0,0,0,0,0,0,0,0,0", "106/00001.jpg" + ",0" * 12]
    low = np.full(12, 0.5)
    low[11] = 0.1
    tuned = made(index, task_of("au"), {"106": np.tile([0.9] + [0.2] * 11, (3, 1))}, thresholds=low)
    write_submission(form, [tuned], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt")[1] == "106/00003.jpg,1" + ",0" * 10 + ",1"


@pytest.mark.parametrize("header", ["image,valence,arousal,expression,aus", "image,valence,arousal,expression," + ",".join(ACTION_UNITS)])
def test_mtl_has_all_three(va: Predictions, expr: Predictions, au: Predictions, header: str, tmp_path: Path) -> None:
    form = template(tmp_path, header, "video1_left/00003.jpg,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0")
    write_submission(form, [au, va, expr], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt") == [header, "video1_left/00003.jpg,0.200000,-0.200000,2,1,1,0,0,0,0,0,0,0,0,0,0"]
    with pytest.raises(TrainerError, match=r"template\.txt: wants predictions of 'expr': predicted are: au, va; give them, or another"):
        write_submission(form, [au, va], tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()


@pytest.mark.parametrize("header", ["image_location", "Image_Location,", "image"])
def test_a_header_without_columns_gets_the_tasks(va: Predictions, au: Predictions, header: str, tmp_path: Path) -> None:
    form = template(tmp_path, header, "106/00001.jpg")
    write_submission(form, [va], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt") == [f"{header.rstrip(',')},valence,arousal", "106/00001.jpg,0.000000,0.000000"]
    with pytest.raises(TrainerError, match="does not tell the task: its header names no columns, and 2 tasks are predicted"):
        write_submission(form, [va, au], tmp_path / "none.txt")


def test_clips_by_their_ids(index_of: MakeIndex, tmp_path: Path) -> None:
    index = index_of(dict.fromkeys(["00123", "12660", "interview"], 5))
    values = {"00123": np.arange(6) / 10, "12660": np.arange(6) / 20, "interview": np.full(6, 1.5)}
    emi = made(index, task_of("emi"), values, per_trial=True)
    header = "Filename," + ",".join(reversed(EMOTIONS))
    form = template(tmp_path, header, "12660,,,", "123", "00123.mp4", "123.0", "interview.MP4")
    report = write_submission(form, [emi], tmp_path / "emi.csv")
    first = "0.500000,0.400000,0.300000,0.200000,0.100000,0.000000"
    assert written(tmp_path / "emi.csv") == [
        header,
        "12660,0.250000,0.200000,0.150000,0.100000,0.050000,0.000000",
        f"123,{first}",
        f"00123.mp4,{first}",
        f"123.0,{first}",
        "interview.MP4" + ",1.000000" * 6,
    ]
    assert (report.n_rows, report.n_filled, report.n_clipped) == (5, 0, 1)
    alone = template(tmp_path, "Filename", "123")
    write_submission(alone, [emi], tmp_path / "emi.csv")
    assert written(tmp_path / "emi.csv")[0] == "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"


def test_what_is_out_of_range_is_clipped_and_counted(index: Index, tmp_path: Path) -> None:
    va = made(index, task_of("va"), {"106": [[1.5, -1.0], [1.0, -2.5], [0.3, 0.3]]})
    report = write_submission(template(tmp_path, VA_HEADER, *(f"106/{i:05}.jpg" for i in (1, 2, 3))), [va], tmp_path / "out.txt")
    assert [line.partition(",")[2] for line in written(tmp_path / "out.txt")[1:]] == [
        "1.000000,-1.000000",
        "1.000000,-1.000000",
        "0.300000,0.300000",
    ]
    assert report.n_clipped == 2


def test_fills_are_counted_and_their_distance_is_told(index: Index, tmp_path: Path) -> None:
    """video1_left has four rows at 25 Hz; two are masked, and the template goes on for two more frames: the end is held."""
    nothing = [np.nan, np.nan]
    va = made(index, task_of("va"), {"video1_left": [[0.0, 0], nothing, nothing, [0.3, 0]], "106": [[0.5, 0]] * 3})
    form = template(tmp_path, VA_HEADER, *(f"video1_left/{i:05}.jpg" for i in range(1, 7)), "106/00001.jpg")
    report = write_submission(form, [va], tmp_path / "out.txt")
    assert [float(line.split(",")[1]) for line in written(tmp_path / "out.txt")[1:]] == [0, 0, 0.3, 0.3, 0.3, 0.3, 0.5]
    assert dict(report.filled) == {"video1_left": 4}
    assert report.n_filled == 4
    assert report.farthest_s == pytest.approx(2 / 25)  # the second frame past the end


def slow_rows(wanted: list[int], frame: list[int], times_s: list[float], valid: list[bool]) -> list[int]:
    """Frame by frame: its own first valid row, else the valid row that is nearest to its time."""
    known: dict[int, float] = {}
    for number, time_s in zip(frame, times_s, strict=True):
        known.setdefault(number, time_s)
    numbers = sorted(known)
    step_s = (known[numbers[-1]] - known[numbers[0]]) / max(numbers[-1] - numbers[0], 1)
    rows = []
    for number in wanted:
        own = [i for i, found in enumerate(frame) if found == number and valid[i]]
        if own:
            rows.append(own[0])
            continue
        if number <= numbers[0]:
            at_s = known[numbers[0]] - step_s * (numbers[0] - number)
        elif number >= numbers[-1]:
            at_s = known[numbers[-1]] + step_s * (number - numbers[-1])
        else:
            before, after = max(n for n in numbers if n <= number), min(n for n in numbers if n >= number)
            share = (number - before) / (after - before) if after > before else 0.0
            at_s = known[before] + share * (known[after] - known[before])
        rows.append(min((i for i, ok in enumerate(valid) if ok), key=lambda i, at_s=at_s: (abs(times_s[i] - at_s), i)))
    return rows


@unhurried
@given(data=st.data())
def test_rows_of_frames_are_what_the_definition_says(data: st.DataObject) -> None:
    """Frames that are skipped (a rate below the video's), shown twice (above it), masked, and past both ends."""
    frame = sorted(data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=15)))
    ticks = sorted(data.draw(st.lists(st.integers(0, 200), min_size=len(frame), max_size=len(frame), unique=True)))
    valid = data.draw(st.lists(st.booleans(), min_size=len(frame), max_size=len(frame)).filter(any))
    wanted = data.draw(st.lists(st.integers(0, 25), min_size=1, max_size=20))
    times_s = [tick / 64 for tick in ticks]
    rows, away_s = rows_of_frames(np.array(wanted), np.array(frame), np.array(times_s), np.array(valid))
    expected = slow_rows(wanted, frame, times_s, valid)
    for i, number in enumerate(wanted):
        assert (away_s[i] == OWN) == any(found == number and ok for found, ok in zip(frame, valid, strict=True))
        if rows[i] != expected[i]:  # a tie, which interpolation rounds either way
            middle = (times_s[rows[i]] + times_s[expected[i]]) / 2
            assert abs(abs(times_s[rows[i]] - middle) - away_s[i]) < 1e-9


def test_labelled_rows_past_the_end_have_their_own_numbers(index: Index, tmp_path: Path) -> None:
    """A label file with one row more than the video has frames: the store has it as frame -1, the template as the next picture."""
    past = replace(index, frame=np.where(np.arange(9) == 3, -1, index.frame))
    va = made(past, task_of("va"), {"video1_left": [[0.1, 0], [0.2, 0], [0.3, 0], [0.4, 0]]})
    report = write_submission(template(tmp_path, VA_HEADER, "video1_left/00004.jpg"), [va], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt")[1] == "video1_left/00004.jpg,0.400000,0.000000"
    assert report.n_filled == 0


def test_trials_that_are_missing_are_all_named(index: Index, tmp_path: Path) -> None:
    va = made(index, task_of("va"), {"106": [[0, 0]] * 3, "10-60-1280x720": [[np.nan, 0]] * 2})
    form = template(tmp_path, VA_HEADER, "106/00001.jpg", "10-60-1280x720/00001.jpg", "video1/00001.jpg", "video1_left/00001.jpg")
    with pytest.raises(TrainerError, match="has trials without predictions") as caught:
        write_submission(form, [va], tmp_path / "out.txt")
    missing, empty = map(str, caught.value.problems)
    assert "template.txt: has trials without predictions of 'va': video1, video1_left: 2 of 4 trials; predict them too" in missing
    assert "has trials of which no row has a valid prediction of 'va': 10-60-1280x720: there is nothing that" in empty
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], r"template\.txt: the template is empty: there is no line in it; name the organisers' template"),
        (["", " "], "the template is empty"),
        (["valence,arousal", "0,0"], r"template\.txt:1: has an unknown header: found 'valence,arousal', expected image_location, image or"),
        (["image_location,valence", "106/00001.jpg"], "has an unknown header: found 'image_location,valence'"),
        (["image_location,AU1,AU1", "106/00001.jpg"], "has an unknown header"),
        (["Filename,Joy", "106"], "has an unknown header"),
        ([VA_HEADER], r"template\.txt:1: has no rows"),
        ([VA_HEADER, "106/00001.jpg", "106"], r"template\.txt:3: has a row without a picture's name: found '106'; write NAME/00001\.jpg"),
        ([VA_HEADER, "106/00000.jpg"], "a row without a picture's name: found '106/00000.jpg'; .* pictures count from 1"),
        ([VA_HEADER, "", "106/00001.jpg"], r"template\.txt:2: has a row without a picture's name: found ''"),
        ([VA_HEADER, "106/00001.txt"], "a row without a picture's name"),
        (["Filename", ".mp4"], r"template\.txt:2: has a row without a file name"),
        (["Filename", "00106"], "is of another kind than the predictions: its rows are clips, predictions of 'va' are of frames; use"),
        ([AU_HEADER, "106/00001.jpg"], "wants predictions of 'au': predicted are: va"),
    ],
)
def test_a_bad_template(va: Predictions, tmp_path: Path, lines: list[str], text: str) -> None:
    with pytest.raises(TrainerError, match=text):
        write_submission(template(tmp_path, *lines), [va], tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_a_template_that_cannot_be_read(va: Predictions, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"nothing\.txt: the template cannot be read: No such file or directory"):
        write_submission(tmp_path / "nothing.txt", [va], tmp_path / "out.txt")
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainerError, match=r"t\.txt: the template is no text: 'utf-8' codec"):
        write_submission(tmp_path / "t.txt", [va], tmp_path / "out.txt")


def test_a_wrong_number_of_classes(index: Index, tmp_path: Path) -> None:
    seven = made(index, task_of("expr", EXPRESSIONS[:7]), {"106": np.eye(7)[:3]})
    form = template(tmp_path, EXPR_HEADER, "106/00001.jpg")
    text = r"template\.txt: wants other columns of 'expr': it wants 8 \(Neutral,.*,Other\), predicted are 7 \(Neutral,.*,Surprise\)"
    with pytest.raises(TrainerError, match=text):
        write_submission(form, [seven], tmp_path / "out.txt")
    older = template(tmp_path, "image_location," + ",".join(EXPRESSIONS[:7]), "106/00003.jpg")
    write_submission(older, [seven], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt")[1] == "106/00003.jpg,2"
    eight = made(index, task_of("au", ACTION_UNITS[:8]), {"106": np.zeros((3, 8))})
    with pytest.raises(TrainerError, match=r"wants other columns of 'au': it wants 12 \(AU1,.*\), predicted are 8 \(AU1,.*\)"):
        write_submission(template(tmp_path, AU_HEADER, "106/00001.jpg"), [eight], tmp_path / "out.txt")


def test_two_predictions_of_one_task(va: Predictions, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="predictions: are of the same task: given are va, va; join or average them first"):
        write_submission(template(tmp_path, VA_HEADER, "106/00001.jpg"), [va, va], tmp_path / "out.txt")


def test_a_windows_file_with_a_byte_order_mark(va: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    path.write_bytes(f"\ufeff{VA_HEADER}\r\n106/00001.jpg,0,0\r\n\r\n".encode())
    write_submission(path, [va], tmp_path / "out.txt")
    assert written(tmp_path / "out.txt") == [VA_HEADER, "106/00001.jpg,0.000000,0.000000"]


def test_a_file_for_each_trial(index: Index, expr: Predictions, tmp_path: Path) -> None:
    """ABAW 1 and 2: in the form of label files, without names of pictures."""
    va = made(index, task_of("va"), {"106": [[0.1, -0.1], [np.nan, 0], [0.3, -0.3]], "10-60-1280x720": [[0, 0]] * 2})
    report = write_label_files(va, ["106"], tmp_path / "va")
    assert written(tmp_path / "va" / "106.txt") == ["valence,arousal", "0.100000,-0.100000", "0.100000,-0.100000", "0.300000,-0.300000"]
    assert (report.n_rows, dict(report.filled), report.unused) == (3, {"106": 1}, ("10-60-1280x720",))
    write_label_files(expr, ["106", "video1_left"], tmp_path / "expr")
    assert written(tmp_path / "expr" / "video1_left.txt") == [",".join(EXPRESSIONS), "0", "1", "2", "3"]
    with pytest.raises(TrainerError, match="the list of trials: has trials without predictions of 'va': video1: 1 of 2 trials"):
        write_label_files(va, ["106", "video1"], tmp_path / "none")
    with pytest.raises(TrainerError, match=r"the list of trials: has names of no files: \.\./x, \.hidden"):
        write_label_files(va, ["106", "../x", ".hidden"], tmp_path / "none")
    assert not (tmp_path / "none").exists()
