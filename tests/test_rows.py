"""The row axis: which rows a store has, when they are, and which labels stand beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.contract import Rows, Runtime
from extractors.timeline import Timeline, TimelineParams
from pipeline.annotations import TrialLabels
from pipeline.errors import Severity
from pipeline.rows import NO_FRAME, Axis, make_axis, put_labels

unhurried = settings(deadline=None)  # a busy machine is no failure
Floats = npt.NDArray[np.float64]


def labels(frames: list[int] | None, *, dense: bool = False, task: str = "va", split: str = "") -> TrialLabels:
    """Labels whose first column is the frame number itself, the second its negative, invalid at every fifth frame."""
    numbers = np.array(frames if frames is not None else [0], np.float32)
    values = np.stack([numbers, -numbers], axis=1)
    values[numbers % 5 == 4, 1] = np.nan
    frame = None if frames is None else np.array(frames, np.int64)
    return TrialLabels(
        trial="106",
        task=task,
        columns=("valence", "arousal"),
        frame=frame,
        values=values,
        valid=np.isfinite(values),
        split=split,
        path=Path("106.txt"),
        dense=dense,
    )


def axis_of(source_times_s: Floats, *records: TrialLabels, **options: Any) -> Axis:
    n = len(source_times_s)
    rows = options.pop("rows", None) or Rows(times_s=source_times_s, frame=np.arange(n))
    axis, _ = make_axis(rows, source_times_s, records, **{"by_labels": True, "tail": "repeat", "tolerance_rows": 2, **options})
    assert axis is not None
    return axis


SOURCE_S = np.array([0.0, 0.04, 0.08, 0.2, 0.24, 0.28])  # a variable rate: median step 0.04 s


def test_labelled_rows_are_at_their_frames_own_times() -> None:
    axis = axis_of(SOURCE_S, labels([0, 3, 5]))
    assert axis.times_s.tolist() == [0.0, 0.2, 0.28]
    assert axis.frame.tolist() == axis.number.tolist() == [0, 3, 5]


def test_two_tasks_share_the_frames_that_either_labels() -> None:
    axis = axis_of(SOURCE_S, labels([0, 3]), labels([1, 3], task="expr"))
    assert axis.frame.tolist() == [0, 1, 3]


def test_labelled_rows_do_not_depend_on_the_timelines_rate() -> None:
    grid = Timeline(TimelineParams(rate_hz=10.0), Runtime()).rows(SOURCE_S)
    axis = axis_of(SOURCE_S, labels([0, 1, 2, 3, 4, 5], dense=True), rows=grid)
    np.testing.assert_array_equal(axis.times_s, SOURCE_S)


@pytest.mark.parametrize("records", [(), (labels(None),)])
def test_without_labels_per_frame_the_rows_are_the_timelines(records: tuple[TrialLabels, ...]) -> None:
    axis = axis_of(SOURCE_S, *records)
    np.testing.assert_array_equal(axis.times_s, SOURCE_S)
    np.testing.assert_array_equal(axis.frame, np.arange(6))


@unhurried
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.sampled_from([5.0, 10.0, 30.0, 60.0]))
def test_on_a_constant_rate_each_row_has_the_label_of_the_frame_it_shows(steps: list[int], rate_hz: float) -> None:
    source_s = np.concatenate([[0.0], np.cumsum(steps)]) / 120
    record = labels(list(range(len(source_s))), dense=True)
    grid = Timeline(TimelineParams(rate_hz=rate_hz), Runtime()).rows(source_s)
    axis = axis_of(source_s, record, rows=grid, by_labels=False)
    values, valid = put_labels(record, axis)
    assert len(axis.times_s) == len(grid.times_s)
    for row, time_s in enumerate(axis.times_s):
        shown = max(i for i, t in enumerate(source_s) if t <= time_s + 1e-6)
        assert axis.frame[row] == shown
        assert values[row, 0] == shown
        assert valid[row].tolist() == [True, shown % 5 != 4]
        assert valid[row, 1] == (not np.isnan(values[row, 1]))


def test_labels_past_the_end_repeat_or_are_trimmed() -> None:
    record = labels(list(range(8)), dense=True)
    repeated = axis_of(SOURCE_S, record)
    assert repeated.number.tolist() == list(range(8))
    assert repeated.frame.tolist() == [0, 1, 2, 3, 4, 5, NO_FRAME, NO_FRAME]
    np.testing.assert_allclose(repeated.times_s[6:], [0.32, 0.36], atol=1e-9)  # one median step each
    assert (np.diff(repeated.times_s) > 0).all()
    values, valid = put_labels(record, repeated)
    assert values[6:, 0].tolist() == [6.0, 7.0]  # what was labelled there is kept
    assert valid[6:].all()
    trimmed = axis_of(SOURCE_S, record, tail="trim")
    np.testing.assert_array_equal(trimmed.times_s, SOURCE_S)
    assert trimmed.frame.tolist() == list(range(6))


def test_one_frame_has_a_tail_too() -> None:
    axis = axis_of(np.array([0.0]), labels([0, 1]))
    assert axis.frame.tolist() == [0, NO_FRAME]
    assert axis.times_s[1] > 0


@pytest.mark.parametrize(
    ("n", "dense", "severity", "text"),
    [
        (6, True, None, ""),
        (5, True, Severity.WARNING, "5 rows of va labels for 6 frames: 1 too few; nothing need be done"),
        (8, True, Severity.WARNING, "8 rows of va labels for 6 frames: 2 too many; nothing need be done"),
        (
            9,
            True,
            Severity.ERROR,
            "9 rows of va labels for 6 frames: 3 too many, more than the 2 accepted; check that it is the right video",
        ),
        (3, True, Severity.ERROR, "3 too few, more than the 2 accepted"),
        (3, False, None, ""),
        (9, False, Severity.ERROR, "va labels up to frame 8 for 6 frames: 3 too many"),
    ],
)
def test_what_is_said_of_labels_that_do_not_fit(n: int, dense: bool, severity: Severity | None, text: str) -> None:
    rows = Rows(times_s=SOURCE_S, frame=np.arange(6))
    axis, problems = make_axis(rows, SOURCE_S, [labels(list(range(n)), dense=dense)], by_labels=True, tail="repeat", tolerance_rows=2)
    assert [problem.severity for problem in problems] == ([severity] if severity else [])
    assert all(text in str(problem) for problem in problems)
    assert (axis is None) == (severity is Severity.ERROR)


@unhurried
@given(st.sets(st.integers(0, 30)), st.lists(st.integers(0, 33), max_size=40))
def test_labels_are_put_by_frame_number(frames: set[int], shown: list[int]) -> None:
    record = labels(sorted(frames))
    number = np.array(sorted(shown), np.int64)
    values, valid = put_labels(record, Axis(times_s=number / 30, number=number, n_source=31))
    assert values.shape == valid.shape == (len(shown), 2)
    assert values.dtype == np.float32
    assert valid.dtype == np.bool_
    for row, frame in enumerate(number):
        there = int(frame) in frames
        assert valid[row].tolist() == [there, there and frame % 5 != 4]
        np.testing.assert_array_equal(values[row], [frame if there else np.nan, -frame if valid[row, 1] else np.nan])
