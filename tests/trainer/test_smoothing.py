"""Smoothing against scipy.ndimage where all rows are valid, and against slow loops where they are not; averages of windows."""

from __future__ import annotations

import math
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from trainer.averaging import Average
from trainer.errors import TrainerError
from trainer.smoothing import Kernel, Smoothing, clip, smooth, widths_of
from trainer.tasks import task_of

unhurried = settings(deadline=None)  # a busy machine is no failure
# Weighted sums of up to a few hundred numbers of size 1, in another order than theirs.
CLOSE = 1e-12


def smoothing(kernel: str, *width_rows: float) -> Smoothing:
    return Smoothing(kernel=Kernel(kernel), width_rows=width_rows)


def everywhere(n: int) -> np.ndarray:
    return np.ones(n, bool)


@unhurried
@given(n=st.integers(1, 60), width=st.integers(1, 90), seed=st.integers(0, 2**31))
def test_the_kernels_are_scipys(n: int, width: int, seed: int) -> None:
    """Also windows longer than the trial, and even ones. scipy's median takes the upper of two in the middle, so odd ones there."""
    values = np.random.default_rng(seed).normal(size=(n, 2))
    mean = ndimage.uniform_filter1d(values, width, axis=0, mode="nearest")
    np.testing.assert_allclose(smooth(values, everywhere(n), smoothing("mean", width)), mean, atol=1e-11)  # theirs is a running sum
    gaussian = ndimage.gaussian_filter1d(values, width / 4, axis=0, mode="nearest")
    np.testing.assert_allclose(smooth(values, everywhere(n), smoothing("gaussian", width / 4)), gaussian, atol=CLOSE)
    odd = width | 1
    middle = ndimage.median_filter(values, size=(odd, 1), mode="nearest")
    np.testing.assert_array_equal(smooth(values, everywhere(n), smoothing("median", odd)), middle)


def slow(values: list[float], valid: list[bool], row: int, width: int, kernel: str) -> float:
    last = len(values) - 1
    rows = [min(max(i, 0), last) for i in range(row - width // 2, row - width // 2 + width)]
    inside = [values[i] for i in rows if valid[i]]
    return fmean(inside) if kernel == "mean" else median(inside)


@pytest.mark.parametrize("kernel", ["mean", "median"])
@unhurried
@given(data=st.data(), n=st.integers(1, 25), width=st.integers(1, 30))
def test_masked_rows_give_nothing(kernel: str, data: st.DataObject, n: int, width: int) -> None:
    values = data.draw(st.lists(st.floats(-1, 1, width=32), min_size=n, max_size=n))
    valid = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    got = smooth(np.array(values)[:, None], np.array(valid), smoothing(kernel, width))[:, 0]
    for row in range(n):
        if valid[row]:
            assert got[row] == pytest.approx(slow(values, valid, row, width, kernel), abs=CLOSE)
        else:
            assert math.isnan(got[row])


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("kernel", list(Kernel))
def test_what_is_masked_changes_nothing_at_all(kernel: str, junk: float) -> None:
    rng = np.random.default_rng(0)
    values, valid = rng.normal(size=(200, 3)), rng.random(200) < 0.7
    before = smooth(values, valid, smoothing(kernel, 9, 4, 0))
    values[~valid] = junk
    np.testing.assert_array_equal(smooth(values, valid, smoothing(kernel, 9, 4, 0)), before)


@pytest.mark.parametrize("kernel", list(Kernel))
def test_a_constant_stays_and_its_ends_are_not_pulled_down(kernel: str) -> None:
    got = smooth(np.full((40, 1), 0.7), everywhere(40), smoothing(kernel, 20))
    np.testing.assert_allclose(got, 0.7, atol=CLOSE)


@pytest.mark.parametrize("kernel", list(Kernel))
def test_each_target_has_its_width(kernel: str) -> None:
    values = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    got = smooth(values, everywhere(50), smoothing(kernel, 7, 0, 15))
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got[:, 1], values[:, 1])
    for column, width in ((0, 7), (2, 15)):
        np.testing.assert_array_equal(got[:, column], smooth(values, everywhere(50), smoothing(kernel, width))[:, column])


def test_a_window_of_one_row_is_the_row() -> None:
    values = np.random.default_rng(2).normal(size=(9, 1))
    for kernel in ("mean", "median"):
        np.testing.assert_array_equal(smooth(values, everywhere(9), smoothing(kernel, 1)), values)


def test_a_median_ignores_one_odd_row() -> None:
    values = np.zeros((11, 1))
    values[5] = 100
    assert not smooth(values, everywhere(11), smoothing("median", 3)).any()


def test_long_trials_are_sorted_in_blocks() -> None:
    values = np.random.default_rng(3).normal(size=(60_000, 1))
    got = smooth(values, everywhere(60_000), smoothing("median", 101))
    np.testing.assert_array_equal(got, ndimage.median_filter(values, size=(101, 1), mode="nearest"))


@pytest.mark.parametrize("kernel", list(Kernel))
def test_nothing_valid_and_no_rows(kernel: str) -> None:
    assert np.isnan(smooth(np.ones((5, 2)), np.zeros(5, bool), smoothing(kernel, 3))).all()
    assert smooth(np.ones((0, 2)), np.zeros(0, bool), smoothing(kernel, 3)).shape == (0, 2)


@pytest.mark.parametrize(
    ("kernel", "widths", "text"),
    [
        ("mean", (2.5,), r"smoothing 'mean': has a width that is none: expected whole numbers from 0 to 100000, got \[2\.5\]; give rows"),
        ("median", (-3,), r"smoothing 'median': .* got \[-3\]"),
        ("gaussian", (math.nan, 1.5), r"smoothing 'gaussian': .* expected numbers from 0 to 100000, got \[nan\]"),
        ("gaussian", (math.inf,), r"got \[inf\]"),
        ("mean", (), r"expected whole numbers from 0 to 100000, got none"),
    ],
)
def test_a_width_that_is_none(kernel: str, widths: tuple[float, ...], text: str) -> None:
    with pytest.raises(TrainerError, match=text):
        smoothing(kernel, *widths)


def test_widths_that_do_not_fit_the_targets() -> None:
    with pytest.raises(TrainerError, match="smoothing 'mean': does not fit: there are 2 targets, and 3 widths; give one width, or one for"):
        smooth(np.zeros((4, 2)), everywhere(4), smoothing("mean", 3, 3, 3))
    assert widths_of(20) == (20.0,)
    assert widths_of([20, 50]) == (20.0, 50.0)


def test_clipping_is_by_the_task() -> None:
    values = np.array([[-1.5, 0.2], [1.5, np.nan]])
    np.testing.assert_array_equal(clip(task_of("va"), values), [[-1, 0.2], [1, np.nan]])
    np.testing.assert_array_equal(clip(task_of("emi"), values), [[0, 0.2], [1, np.nan]])
    np.testing.assert_array_equal(clip(task_of("expr"), values), values)
    np.testing.assert_array_equal(clip(task_of("fatigue", ["level"]), values), values)


@unhurried
@given(data=st.data(), n=st.integers(1, 30))
def test_overlapping_windows_are_averaged(data: st.DataObject, n: int) -> None:
    seed = data.draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    average = Average(n, 2)
    rows: list[list[tuple[float, np.ndarray]]] = [[] for _ in range(n)]
    for _ in range(data.draw(st.integers(0, 6))):
        w = int(rng.integers(1, n + 1))
        start = int(rng.integers(0, n - w + 1))
        values, weights = rng.normal(size=(w, 2)), rng.integers(0, 3, w) / 2
        values[weights == 0] = np.nan
        average.add(start, values, weights)
        for i in range(w):
            if weights[i]:
                rows[start + i].append((weights[i], values[i]))
    got, valid = average.result()
    assert average.counts.tolist() == [len(row) for row in rows]
    for i, row in enumerate(rows):
        assert valid[i] == bool(row)
        if row:
            expected = sum(weight * value for weight, value in row) / sum(weight for weight, _ in row)
            np.testing.assert_allclose(got[i], expected, atol=CLOSE)
        else:
            assert np.isnan(got[i]).all()


def test_padding_may_lie_past_the_end() -> None:
    average = Average(3, 1)
    average.add(1, np.array([[1.0], [2.0], [np.nan], [np.nan]], np.float32), np.array([True, True, False, False]))
    average.add(0, np.array([[4.0], [3.0]], np.float32))
    values, valid = average.result()
    assert values[:, 0].tolist() == [4.0, 2.0, 2.0]
    assert valid.all()
    assert average.counts.tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("start", "values", "weights", "text"),
    [
        (2, [[1.0], [2.0]], None, "expected rows 0 to 2, got 2 to 3"),
        (-1, [[1.0], [2.0]], None, "expected rows 0 to 2, got -1 to 0"),
        (0, [[1.0], [np.nan]], None, "a window from row 0: expected finite values where the weight is not 0"),
        (0, [[1.0], [2.0]], [1.0, -1.0], "expected finite weights from 0"),
        (0, [[1.0], [2.0]], [1.0, np.nan], "expected finite weights from 0"),
        (0, [[1.0, 2.0]], None, r"expected values \(1, 1\), got \(1, 2\)"),
        (0, [[1.0]], [1.0, 1.0], r"expected values \(2, 1\), got \(1, 1\)"),
    ],
)
def test_windows_that_do_not_fit(start: int, values: list[list[float]], weights: list[float] | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Average(3, 1).add(start, np.array(values), None if weights is None else np.array(weights))
