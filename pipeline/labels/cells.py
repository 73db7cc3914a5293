"""The cells of label files: numbers, picture and clip names, masks of missing values, rows that come twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from extractors.contract import Bool, Float32, Float64, Int64
from pipeline.errors import Problem, Severity
from pipeline.labels.files import file_error, number_error, parse_numbers

_IMAGE = re.compile(r"(?:(?:.*/)?([^/]+)/)?0*([1-9]\d*)\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)
_MEDIA_SUFFIX = re.compile(r"\.(mp4|avi|mkv|mov|webm|mp3|wav)$", re.IGNORECASE)


def counted(n: int, noun: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def parse_column(cells: Sequence[str], path: Path) -> Float64:
    """(R,) float64 from the stripped cells of one column, NaN for an empty one. Cell 0 is on line 2 of the file."""
    values = parse_numbers([cell or "nan" for cell in cells], 1, path)[:, 0]
    infinite = np.abs(values) > np.finfo(np.float32).max  # labels are kept as float32
    if infinite.any():
        i = int(np.argmax(infinite))
        raise number_error(path, cells[i], i + 2)
    return values


def image_place(cell: str, path: Path, line: int) -> tuple[str, int]:
    """`NAME/00001.jpg` -> ("NAME", 0): the trial ("" without a folder) and the frame from 0. Raises LabelFileError otherwise."""
    match = _IMAGE.fullmatch(cell.strip())
    if match is None or len(match[2]) > 9:
        fix = "write NAME/00001.jpg; pictures count from 1"
        raise file_error(path, "has a row without a picture's name", f"found {cell.strip()[:40]!r}", fix, line)
    return match[1] or "", int(match[2]) - 1


def clip_names(cells: Sequence[str], path: Path) -> list[str]:
    """The trials that the cells of a column name, without the suffix of a media file. Cell 0 is on line 2 of the file."""
    known = {cell: _MEDIA_SUFFIX.sub("", cell) for cell in dict.fromkeys(cells)}
    names = [known[cell] for cell in cells]
    if "" in names:
        fix = "write the video's name, with pictures as NAME/00001.jpg"
        raise file_error(path, "has a row without a trial", "its name is empty", fix, names.index("") + 2)
    return names


def masked(values: Float64, allowed: Bool) -> tuple[Float32, Bool]:
    """Values as float32 with NaN where not allowed, and the mask."""
    return np.where(allowed, values, np.nan).astype(np.float32), np.asarray(allowed, dtype=np.bool_)


def illegal_cells(path: Path, illegal: Bool, legal: str) -> list[Problem]:
    """One warning for all of a file's cells that are neither a legal value nor the mark of a missing one."""
    if not illegal.any():
        return []
    line = int(np.argmax(illegal.any(axis=1))) + 2
    what, why = f"has {counted(int(illegal.sum()), 'cell')} masked", f"a value is not {legal}, first on this line"
    return [Problem(what=what, where=f"{path}:{line}", why=why, fix="check the file against the original", severity=Severity.WARNING)]


def first_of_each(frame: Int64, values: Float64) -> tuple[Int64, Int64]:
    """Rows in the order of their frames, the first of each; and the frames of which a later row says something else.

    frame: (R,) int64 in any order, values: (R, C) with NaN equal to NaN -> row numbers (K,) int64, frames (M,) int64.
    """
    order = np.argsort(frame, kind="stable")
    starts = np.concatenate([[True], np.diff(frame[order]) != 0])
    kept = order[starts]
    first = values[kept][np.cumsum(starts) - 1]
    same = (values[order] == first) | (np.isnan(values[order]) & np.isnan(first))
    return kept, np.unique(frame[order][~same.all(axis=1)])


def conflict(path: Path, trial: str, differing: Int64, frame: Int64, rows: Int64) -> list[Problem]:
    """A warning when rows of one trial contradict each other. frame: of all rows of the file; rows: the trial's row numbers."""
    if not len(differing):
        return []
    line = int(rows[frame[rows] == differing[0]][1]) + 2
    why = f"rows differ for {counted(len(differing), 'frame')}, first for frame {int(differing[0])} (from 0); the first row was kept"
    fix = "take the wrong rows away"
    return [Problem(what=f"trial {trial} is labelled twice", where=f"{path}:{line}", why=why, fix=fix, severity=Severity.WARNING)]
