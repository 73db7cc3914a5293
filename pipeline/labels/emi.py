"""The label files of the emotional mimicry challenge (ABAW-EMI, Hume-Vidmimic2): one row of six intensities in [0, 1] per clip."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pipeline.errors import Problem, Severity
from pipeline.labels.cells import clip_names, illegal_cells, masked, parse_column
from pipeline.labels.files import LabelFile, Parsed, file_error, header_cells, normal, read_cells, read_lines
from pipeline.labels.records import TrialLabels

EMOTIONS = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")
_WORDS = tuple(map(normal, EMOTIONS))
_ID = re.compile(r"(\d+)(\.0*)?", re.ASCII)


def is_emi_header(header: Sequence[str], split: str) -> bool:
    """The file name first, then the emotions in any order; the test list has the file names alone."""
    words = tuple(map(normal, header))
    labelled = len(words) == 7 and set(words[1:]) == set(_WORDS)
    return words[:1] == ("filename",) and (labelled or (len(words) == 1 and split == "test"))


def parse_emi(file: LabelFile) -> Parsed:
    """One row per clip. Ids that a spreadsheet made numbers (`123`, `123.0`) become `00123` again. Raises LabelFileError."""
    lines = read_lines(file.path)
    header = header_cells(lines[0])
    if not is_emi_header(header, file.split):
        expected = ",".join(("Filename", *EMOTIONS))
        raise file_error(file.path, "has an unknown header", f"expected {expected!r}, found {lines[0][:60]!r}", "restore the header", 1)
    words = list(map(normal, header))
    rows = read_cells(lines, file.path)
    read = np.full((len(rows), len(EMOTIONS)), np.nan)
    for column, word in enumerate(_WORDS):
        if word in words:
            read[:, column] = parse_column([row[words.index(word)] for row in rows], file.path)
    legal = (read >= 0) & (read <= 1)
    values, valid = masked(read, legal)
    parsed = Parsed(problems=illegal_cells(file.path, ~legal & ~np.isnan(read), "in [0, 1]"))
    first_row: dict[str, int] = {}
    for i, name in enumerate(clip_names([row[0] for row in rows], file.path)):
        trial = _restored_id(name)
        first = first_row.setdefault(trial, i)
        if first != i and not np.array_equal(read[first], read[i], equal_nan=True):
            parsed.problems.append(_differs(file, trial, first + 2, i + 2))
    for trial, i in first_row.items():
        made = TrialLabels(
            trial=trial,
            task="emi",
            columns=EMOTIONS,
            frame=None,
            values=values[i : i + 1],
            valid=valid[i : i + 1],
            split=file.split,
            path=file.path,
        )
        parsed.labels.append(made)
    return parsed


def _restored_id(name: str) -> str:
    match = _ID.fullmatch(name)
    return match[1].zfill(5) if match else name


def _differs(file: LabelFile, trial: str, first: int, again: int) -> Problem:
    why = f"this row differs from line {first}, which was kept"
    return Problem(
        what=f"trial {trial} is labelled twice",
        where=f"{file.path}:{again}",
        why=why,
        fix="take the wrong row away",
        severity=Severity.WARNING,
    )
