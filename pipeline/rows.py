"""The row axis of a store: per trial which rows there are, when, showing which source frame, with which labels. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extractors.contract import Bool, Float32, Float64, Int64, Rows
from pipeline.annotations import TrialLabels, compare_rows
from pipeline.errors import Problem, Severity

NO_FRAME = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """times_s (R,) float64 ascending; number (R,) int64: the source frame that each row stands for, past the end where >= n_source."""

    times_s: Float64
    number: Int64
    n_source: int

    @property
    def frame(self) -> Int64:
        """(R,) int64 source frame shown, NO_FRAME for a labelled row past the source's end."""
        return np.where(self.number < self.n_source, self.number, NO_FRAME).astype(np.int64)


def make_axis(
    rows: Rows, source_times_s: Float64, labels: Sequence[TrialLabels], *, by_labels: bool, tail: str, tolerance_rows: int
) -> tuple[Axis | None, list[Problem]]:
    """The trial's rows, and what is odd about its labels. None where they do not fit the video, so that the trial is left out.

    by_labels: the labelled frames, whatever the timeline's rate; a trial without per-frame labels has its timeline's rows.
    tail: "repeat" keeps the labelled rows past the source's end (at most tolerance_rows), "trim" drops them.
    """
    problems = [problem for record in labels if (problem := compare_rows(record, len(source_times_s), tolerance_rows))]
    if any(problem.severity is Severity.ERROR for problem in problems):
        return None, problems
    n = len(source_times_s)
    frames = [record.frame for record in labels if record.frame is not None]
    if not by_labels or not frames:
        return Axis(times_s=rows.times_s, number=rows.frame, n_source=n), problems
    wanted = np.unique(np.concatenate(frames))
    wanted = wanted[wanted < n] if tail == "trim" else wanted
    step_s = float(np.median(np.diff(source_times_s))) if n > 1 else 0.04
    past_s = source_times_s[-1] + (wanted - (n - 1)) * step_s
    return Axis(times_s=np.where(wanted < n, source_times_s[np.minimum(wanted, n - 1)], past_s), number=wanted, n_source=n), problems


def put_labels(record: TrialLabels, axis: Axis) -> tuple[Float32, Bool]:
    """values (R, C) float32 and valid (R, C) bool: each row's label is that of the frame it stands for; rows without one are invalid."""
    assert record.frame is not None
    values = np.full((len(axis.number), len(record.columns)), np.nan, np.float32)
    valid = np.zeros(values.shape, np.bool_)
    if len(record.frame):
        at = np.minimum(np.searchsorted(record.frame, axis.number), len(record.frame) - 1)
        match = record.frame[at] == axis.number
        values[match], valid[match] = record.values[at[match]], record.valid[at[match]]
    return values, valid
