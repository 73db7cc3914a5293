"""Windows: every row is in one, the last is anchored to the end, and short trials are padded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.windows import cut_windows, starts

unhurried = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(700, [0, 200, 400]), (701, [0, 200, 400, 401]), (500, [0, 200]), (300, [0]), (301, [0, 1]), (299, [0]), (1, [0]), (0, [])],
)
def test_windows_of_300_at_200(n: int, expected: list[int]) -> None:
    assert starts(n, 300, 200).tolist() == expected


def test_windows_of_trials_know_whose_they_are() -> None:
    windows = cut_windows(np.array([0, 700, 731, 731, 1031]), [0, 1, 2, 3], rows=300, stride=200)
    assert windows.trial.tolist() == [0, 0, 0, 1, 3], "a trial without rows has no window"
    assert windows.start.tolist() == [0, 200, 400, 0, 0]
    assert windows.real.tolist() == [300, 300, 300, 31, 300]
    assert windows.of(2).tolist() == list(range(400, 700))
    assert windows.of(3).tolist() == list(range(31))


def test_clips_of_32_frames_in_sub_sequences_of_16() -> None:
    """Of 1100 frames: each is the end of exactly one clip of a window, but for those of the anchored windows at the end."""
    windows = cut_windows(np.array([0, 1100]), [0], rows=16, stride=16, step=32)
    assert [windows.of(i).tolist() for i in range(2)] == [[32 * k for k in range(16)], [32 * k for k in range(16, 32)]]
    assert windows.of(2).tolist() == [32 * k for k in range(19, 35)], "rows 0, 32, … 1088 are 35, of which the last 16"
    counts = np.bincount(np.concatenate([windows.of(i) for i in range(len(windows))]), minlength=1100)
    assert counts.min() == 1
    assert set(counts[: 18 * 32]) == {1}


@unhurried
@given(
    counts=st.lists(st.integers(0, 90), min_size=1, max_size=4),
    rows=st.integers(1, 20),
    stride_share=st.floats(0, 1),
    step=st.integers(1, 7),
)
def test_every_row_is_in_a_window_and_none_beyond(counts: list[int], rows: int, stride_share: float, step: int) -> None:
    offsets = np.cumsum([0, *counts])
    stride = max(1, round(rows * stride_share))
    windows = cut_windows(offsets, range(len(counts)), rows=rows, stride=stride, step=step)
    seen = [np.zeros(n, np.int64) for n in counts]
    for i in range(len(windows)):
        taken = windows.of(i)
        assert len(taken) == windows.real[i] <= rows
        assert set(np.diff(taken)) <= {step}
        seen[windows.trial[i]][taken] += 1
        is_padded = windows.real[i] < rows
        assert not is_padded or (taken[0] < step and taken[-1] + step >= counts[windows.trial[i]]), "padded only where there is no more"
    for n, count in zip(counts, seen, strict=True):
        assert n == 0 or count.min() >= 1
    assert windows.trial.tolist() == sorted(windows.trial.tolist())


@pytest.mark.parametrize(("rows", "stride", "step"), [(0, 1, 1), (300, 301, 1), (300, 0, 1), (300, 200, 0)])
def test_windows_that_make_no_sense(rows: int, stride: int, step: int) -> None:
    with pytest.raises(
        TrainerError, match=f"windows: rows {rows}, stride {stride}, step {step}: there would be rows that no window has; give"
    ):
        cut_windows(np.array([0, 9]), [0], rows=rows, stride=stride, step=step)
