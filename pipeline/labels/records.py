"""What label files say, trial by trial: the one record that every label format is turned into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from extractors.contract import Bool, Float32, Int64
from pipeline.errors import Problem

Format = Literal["va", "expr", "au", "mtl", "emi", "csv"]
TASKS: tuple[Format, ...] = get_args(Format)
SPLITS = ("train", "validation", "test", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLabels:
    """One trial's labels for one task: R rows of C columns.

    trial: the labelled subject's name, `106` or `video5_left`. task: "va", "expr", "au", "emi", or the user's name of a csv.
    frame: (R,) int64 source frame numbers from 0, strictly ascending; None where the one row stands for the whole clip.
    values: (R, C) float32, NaN where not valid. valid: (R, C) bool, per cell. split: one of SPLITS, "" where nothing tells.
    dense: the file has one row for each frame from the first on; otherwise it names the frames it labels.
    classes: the names of the classes 0, 1, ... of "expr", as the file's header has them; otherwise empty.
    """

    trial: str
    task: str
    columns: tuple[str, ...]
    frame: Int64 | None
    values: Float32
    valid: Bool
    split: str
    path: Path
    dense: bool = False
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = 1 if self.frame is None else len(self.frame)
        self._require(self.values.shape == (n, len(self.columns)), f"({n}, {len(self.columns)}) values", self.values.shape)
        self._require(self.valid.shape == self.values.shape, f"valid of shape {self.values.shape}", self.valid.shape)
        self._require(self.values.dtype == np.float32 and self.valid.dtype == np.bool_, "float32 and bool", self.values.dtype)
        self._require(bool(np.array_equal(np.isfinite(self.values), self.valid)), "a finite value where valid, NaN elsewhere", "a mismatch")
        self._require(self.split in SPLITS, f"a split of {SPLITS}", self.split)
        if self.frame is not None:
            ascending = n == 0 or (self.frame[0] >= 0 and bool(np.all(np.diff(self.frame) > 0)))
            self._require(bool(ascending), "frames from 0, strictly ascending", self.frame)
        self._require(not self.dense or (self.frame is not None and np.array_equal(self.frame, np.arange(n))), "every frame", self.frame)

    def _require(self, holds: bool, expected: str, got: object) -> None:
        if not holds:
            raise ValueError(f"TrialLabels of {self.trial!r}, {self.task}: expected {expected}, got {got}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """Everything read from a folder of labels, by task and trial, and every problem met on the way."""

    labels: tuple[TrialLabels, ...]
    problems: tuple[Problem, ...]
