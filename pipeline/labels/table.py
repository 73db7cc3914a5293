"""A user's own csv: targets per frame or per clip, of many trials in one file or of one trial in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extractors.contract import Float64, Int64
from pipeline.errors import Problem, Severity
from pipeline.labels.cells import clip_names, conflict, first_of_each, image_place, masked, parse_column
from pipeline.labels.files import LabelFile, LabelFileError, Parsed, file_error, header_cells, is_number, normal, read_cells, read_lines
from pipeline.labels.records import TrialLabels
from pipeline.labels.splits import split_of

_TRIAL_WORDS = ("trial", "video", "name", "filename")
_TIME_WORDS = ("time", "times", "timestamp")  # "times" is time_s: rows are placed by frame number, and a time is no target either
_MAX_FRAME = 1 << 31


def names_trials(header: Sequence[str]) -> bool:
    """A column tells which trial a row is of; otherwise the whole file is of one trial."""
    return not {*_TRIAL_WORDS, "image"}.isdisjoint(map(normal, header))


def is_table_header(header: Sequence[str]) -> bool:
    """Names, not numbers, and none of them twice. (An `image_location` column is a form for predictions.)"""
    words = [normal(cell) for cell in header if cell]
    return bool(words) and len(set(words)) == len(words) and "imagelocation" not in words and not any(map(is_number, words))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A csv by role. trial, split: R texts; frame: (R,) or None where rows stand for clips; values: (R, C), NaN where empty."""

    trial: list[str]
    split: list[str]
    frame: Int64 | None
    dense: bool
    columns: tuple[str, ...]
    values: Float64


def parse_table(file: LabelFile) -> Parsed:
    """Read a csv by the names of its columns. Raises LabelFileError.

    `trial`, `video` or `name`: the trial; without it the file's name is the trial and row i is frame i. `frame` (from 0) or `image`
    (`NAME/00001.jpg`, from 1): the frame; without it, a row of a named trial stands for the clip. `split`: train, val, test. Every
    other column whose first filled cell is a number is a target. An empty or NaN cell is a missing value.
    """
    table = _read_table(file)
    rows_of: dict[str, list[int]] = {}
    for i, trial in enumerate(table.trial):
        rows_of.setdefault(trial, []).append(i)
        if table.frame is None and len(rows_of[trial]) > 1:
            why = f"trial {trial} has more rows and nothing says which frames"
            fix = "add a column `frame` (from 0) or `image` (NAME/00001.jpg)"
            raise file_error(file.path, "has several rows for one clip", why, fix, i + 2)
    parsed = Parsed()
    for trial, numbers in rows_of.items():
        rows = np.array(numbers, dtype=np.int64)
        if table.frame is not None:
            kept, differing = first_of_each(table.frame[rows], table.values[rows])
            parsed.problems += conflict(file.path, trial, differing, table.frame, rows)
            rows = rows[kept]
        splits = {split_of(table.split[i]) or table.split[i] for i in numbers}
        if len(splits) == 1:
            parsed.labels.append(_labels(file, table, trial, rows, splits.pop()))
        else:
            parsed.problems.append(_two_splits(file.path, trial, splits))
    return Parsed(labels=parsed.labels, problems=parsed.problems + _unknown_splits(file.path, table.split))


def _labels(file: LabelFile, table: _Table, trial: str, rows: Int64, split: str) -> TrialLabels:
    values, valid = masked(table.values[rows], ~np.isnan(table.values[rows]))
    return TrialLabels(
        trial=trial,
        task=file.task,
        columns=table.columns,
        frame=None if table.frame is None else table.frame[rows],
        values=values,
        valid=valid,
        split=split_of(split) or file.split,
        path=file.path,
        dense=table.dense,
    )


def _read_table(file: LabelFile) -> _Table:
    lines = read_lines(file.path)
    header = header_cells(lines[0])
    if not is_table_header(header) or (len(header) == 1 and not {";", "\t"}.isdisjoint(header[0])):
        raise _unknown_header(file.path, lines[0])
    rows = read_cells(lines, file.path)
    cells = {normal(name): [row[i] for row in rows] for i, name in enumerate(header) if name}
    trial, frame = _places(file, cells)
    own_file = trial is None
    targets = _targets(header, cells)
    if not targets:
        why = "no column but the trial's and the frame's holds numbers"
        raise file_error(file.path, "has no targets", why, "add a column of numbers", 1)
    return _Table(
        trial=trial or [file.path.stem] * len(rows),
        split=cells.get("split", [""] * len(rows)),
        frame=np.arange(len(rows), dtype=np.int64) if own_file and frame is None else frame,
        dense=own_file and frame is None,
        columns=tuple(targets),
        values=np.stack([parse_column(cells[normal(name)], file.path) for name in targets], axis=1),
    )


def _unknown_header(path: Path, found: str) -> LabelFileError:
    why = f"expected different names separated by commas, found {found[:60]!r}"
    return file_error(path, "has an unknown header", why, "write one line of column names, or take the file away if it holds no labels", 1)


def _targets(header: Sequence[str], cells: dict[str, list[str]]) -> list[str]:
    """The columns without another role whose first filled cell is a number; a column without any filled cell is one too."""
    roles = {*_TRIAL_WORDS, *_TIME_WORDS, "frame", "image", "split"}
    names = [name for name in header if name and normal(name) not in roles]
    return [name for name in names if is_number(next(filter(None, cells[normal(name)]), "0"))]


def _places(file: LabelFile, cells: dict[str, list[str]]) -> tuple[list[str] | None, Int64 | None]:
    """Each row's trial (None: the file is one trial's) and frame (None: no column tells)."""
    word = next((word for word in _TRIAL_WORDS if word in cells), None)
    trial = clip_names(cells[word], file.path) if word else None
    images = [image_place(cell, file.path, i + 2) for i, cell in enumerate(cells.get("image", ()))]
    if images and trial is None:
        trial = clip_names([name for name, _ in images], file.path)
    if "frame" in cells:
        return trial, _frames(file.path, cells["frame"])
    return trial, np.array([number for _, number in images], dtype=np.int64) if images else None


def _frames(path: Path, cells: Sequence[str]) -> Int64:
    frame = parse_column(cells, path)
    wrong = ~((frame >= 0) & (frame < _MAX_FRAME) & (frame == np.floor(frame)))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise file_error(path, "has a row without a frame number", f"found {cells[i][:40]!r}", "write whole numbers from 0", i + 2)
    return frame.astype(np.int64)


def _two_splits(path: Path, trial: str, splits: set[str]) -> Problem:
    named = ", ".join(repr(split) for split in sorted(splits))
    return Problem(what=f"trial {trial} is in several splits", where=str(path), why=f"its rows say {named}", fix="give it one split")


def _unknown_splits(path: Path, splits: Sequence[str]) -> list[Problem]:
    """One warning for all words in the split column that name no split."""
    unknown = sorted({split for split in splits if split and not split_of(split)})
    if not unknown:
        return []
    why, fix = f"no known split is named {', '.join(map(repr, unknown[:5]))}", "write train, validation or test"
    return [Problem(what="trials are left without a split", where=str(path), why=why, fix=fix, severity=Severity.WARNING)]
