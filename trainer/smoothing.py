"""Smoothing predictions over the rows of one trial. Never call it on several trials end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from trainer.arrays import Bool, Float64, Floats
from trainer.errors import Problem, TrainerError
from trainer.tasks import Task

_BLOCK_CELLS = 1 << 22  # 32 MB of sorted windows at once
_GAUSSIAN_REACH = 4.0  # in standard deviations, as in scipy.ndimage
_MAX_ROWS = 100_000


class Kernel(StrEnum):
    MEAN = "mean"
    MEDIAN = "median"
    GAUSSIAN = "gaussian"


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """How predictions are smoothed.

    width_rows: per target, or one for all. Of MEAN and MEDIAN the number of rows of the window: row i takes the rows from
    i - width // 2 on, so an odd width is centred. Of GAUSSIAN the standard deviation in rows. 0 leaves a target as it is (and so does 1
    of MEAN and MEDIAN). Raises TrainerError for a width that is no such number.
    """

    kernel: Kernel
    width_rows: tuple[float, ...]

    def __post_init__(self) -> None:
        whole = self.kernel is not Kernel.GAUSSIAN
        wrong = [width for width in self.width_rows if not (0 <= width <= _MAX_ROWS) or (whole and width != int(width))]
        if wrong or not self.width_rows:
            why = f"expected {'whole numbers' if whole else 'numbers'} from 0 to {_MAX_ROWS}, got {wrong or 'none'}"
            where = f"smoothing {self.kernel.value!r}"
            raise TrainerError(Problem(what="has a width that is none", where=where, why=why, fix="give rows, one width for each target"))

    def widths(self, n_targets: int) -> tuple[float, ...]:
        """One per target. Raises TrainerError where there are neither one nor as many as targets."""
        if len(self.width_rows) not in (1, n_targets):
            why = f"there are {n_targets} targets, and {len(self.width_rows)} widths"
            fix = "give one width, or one for each target"
            raise TrainerError(Problem(what="does not fit", where=f"smoothing {self.kernel.value!r}", why=why, fix=fix))
        return self.width_rows if len(self.width_rows) == n_targets else self.width_rows * n_targets


def smooth(values: Floats, valid: Bool, smoothing: Smoothing) -> Float64:
    """(R, D) float64 of one trial, NaN where not valid. values: (R, D); valid: (R,).

    Each valid row becomes the kernel's mean, or the median, of the valid rows in its window. The ends are held: before the first row
    stand copies of it, valid or not as it is itself, and after the last one likewise (scipy.ndimage's `nearest`). An invalid row gives
    nothing and stays invalid, and what it holds is not looked at.
    """
    smoothed = np.where(valid[:, None], values, np.nan).astype(np.float64)
    for column, width in enumerate(smoothing.widths(values.shape[1])):
        if len(values) and not _is_idle(smoothing.kernel, width):
            smoothed[:, column] = _smooth_column(smoothed[:, column], valid, smoothing.kernel, width)
    smoothed[~valid] = np.nan
    return smoothed


def clip(task: Task, values: Floats) -> Floats:
    """Into the task's legal range; NaN stays."""
    return np.clip(values, task.low, task.high)


def widths_of(width_rows: float | Sequence[float]) -> tuple[float, ...]:
    """As a recipe has it: one number, or one per target."""
    return (float(width_rows),) if isinstance(width_rows, int | float) else tuple(map(float, width_rows))


def _is_idle(kernel: Kernel, width: float) -> bool:
    return width == 0 or (width == 1 and kernel is not Kernel.GAUSSIAN)


def _smooth_column(column: Float64, valid: Bool, kernel: Kernel, width: float) -> Float64:
    if kernel is Kernel.GAUSSIAN:
        reach = int(_GAUSSIAN_REACH * width + 0.5)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        before, after = reach, reach
    else:
        before = int(width) // 2
        after = int(width) - 1 - before
        weights = np.ones(int(width))
    held = np.pad(column, (before, after), mode="edge")
    is_held = np.pad(valid, (before, after), mode="edge")
    if kernel is Kernel.MEDIAN:
        return _medians(held, is_held, int(width))
    above = np.convolve(np.where(is_held, held, 0.0), weights, mode="valid")
    below = np.convolve(is_held.astype(np.float64), weights, mode="valid")
    return above / np.where(below > 0, below, 1.0)


def _medians(held: Float64, is_held: Bool, width: int) -> Float64:
    """(R + width - 1,) with NaN where not held -> (R,), NaN for a window of which nothing is."""
    windows, counts = sliding_window_view(held, width), sliding_window_view(is_held, width).sum(axis=1)
    medians = np.empty(len(windows))
    step = max(_BLOCK_CELLS // width, 1)
    for start in range(0, len(windows), step):
        ordered = np.sort(windows[start : start + step], axis=1)  # NaN last
        n = np.maximum(counts[start : start + step], 1)
        rows = np.arange(len(ordered))
        medians[start : start + step] = (ordered[rows, (n - 1) // 2] + ordered[rows, n // 2]) / 2
    return medians
