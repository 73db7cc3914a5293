"""Which rows a clip is of, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.contract import Clips
from extractors.visual.clips import ClipWindow


def clips(valid: list[int], *, clip_frames: int = 3, dilation: int = 2, stride: int = 1, anchor: str = "end") -> Clips:
    window = ClipWindow(clip_frames=clip_frames, dilation=dilation, stride=stride, anchor=anchor)  # type: ignore[arg-type]
    return window.clips(np.array(valid, np.bool_))


def test_a_clip_ends_at_its_row_and_repeats_the_first() -> None:
    made = clips([1] * 6)
    assert made.at.tolist() == [0, 1, 2, 3, 4, 5]
    assert made.rows.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 3], [0, 2, 4], [1, 3, 5]]
    assert made.valid.all()


def test_a_clip_around_its_row_repeats_the_last_too() -> None:
    assert clips([1] * 5, anchor="centre").rows.tolist() == [[0, 0, 2], [0, 1, 3], [0, 2, 4], [1, 3, 4], [2, 4, 4]]
    # An even number: every fourth of 8 rows is 14 back to 14 ahead; with every row, one further ahead than back.
    assert (clips([1] * 60, clip_frames=8, dilation=4, anchor="centre").rows[30] - 30).tolist() == [-14, -10, -6, -2, 2, 6, 10, 14]
    assert (clips([1] * 60, clip_frames=4, dilation=1, anchor="centre").rows[30] - 30).tolist() == [-1, 0, 1, 2]


def test_the_published_clip() -> None:
    """Of the 32 frames 0..31 every fourth, counted from the last: 3, 7, ..., 31."""
    assert clips([1] * 32, clip_frames=8, dilation=4).rows[31].tolist() == [3, 7, 11, 15, 19, 23, 27, 31]


def test_rows_without_a_face_show_the_nearest_earlier_else_the_nearest_later_one() -> None:
    made = clips([0, 0, 1, 0, 0, 1, 1], dilation=1)
    assert made.valid.tolist() == [False, False, True, False, False, True, True]
    assert made.rows.tolist() == [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 5], [2, 5, 6]]


def test_a_stride_leaves_clips_out_and_moves_none() -> None:
    every, third = clips([1] * 10), clips([1] * 10, stride=3)
    assert third.at.tolist() == [0, 3, 6, 9]
    np.testing.assert_array_equal(third.rows, every.rows[::3])


def test_no_rows_and_no_faces() -> None:
    assert clips([]).rows.shape == (0, 3)
    assert not clips([0] * 4).valid.any()


@given(
    st.lists(st.booleans(), max_size=40),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(1, 5),
    st.sampled_from(["end", "centre"]),
)
def test_whatever_the_window(valid: list[bool], clip_frames: int, dilation: int, stride: int, anchor: str) -> None:
    """Against the definition, row by row."""
    made = clips(list(map(int, valid)), clip_frames=clip_frames, dilation=dilation, stride=stride, anchor=anchor)
    before = (clip_frames - 1) * dilation // (1 if anchor == "end" else 2)
    faces = [row for row, has in enumerate(valid) if has]
    for clip, at in enumerate(range(0, len(valid), stride)):
        assert made.at[clip] == at
        assert made.valid[clip] == valid[at]
        for k in range(clip_frames) if faces else ():
            row = min(max(at - before + k * dilation, 0), len(valid) - 1)
            assert made.rows[clip, k] == max((face for face in faces if face <= row), default=faces[0])


@pytest.mark.parametrize(
    ("field", "value", "most"), [("clip_frames", 65, "64"), ("dilation", 65, "64"), ("stride", 10_001, "10000"), ("stride", 0, "10000")]
)
def test_a_window_out_of_range_is_refused(field: str, value: int, most: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected a whole number from 1 to {most}, got {value}$"):
        clips([1], **{field: value})  # type: ignore[arg-type]


def test_the_record_checks_itself() -> None:
    rows, at, valid = np.zeros((2, 8), np.int64), np.arange(2), np.ones(2, np.bool_)
    with pytest.raises(ValueError, match=r"^Clips\.rows: expected \(2, clip_frames\), got \(1, 8\)"):
        Clips(rows=rows[:1], at=at, valid=valid)
    with pytest.raises(ValueError, match=r"^Clips\.valid: expected \(2,\) bool, got \(1,\)"):
        Clips(rows=rows, at=at, valid=valid[:1])
    with pytest.raises(ValueError, match=r"^Clips\.at: expected ascending rows, got a step back"):
        Clips(rows=rows, at=at[::-1], valid=valid)
