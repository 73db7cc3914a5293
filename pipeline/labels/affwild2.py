"""Aff-Wild2's label files of every edition: VA, EXPR and AU with a row per frame, MTL with rows for some frames.

Layouts: Kollias et al., the ABAW challenges 1 to 10. Row i after the header (from 1) belongs to picture `%05d.jpg` i, frame i - 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from extractors.contract import Bool, Float32, Float64, Int64
from pipeline.labels.cells import conflict, first_of_each, illegal_cells, image_place, masked
from pipeline.labels.files import LabelFile, LabelFileError, Parsed, file_error, header_cells, normal, parse_numbers, read_lines
from pipeline.labels.records import Format, TrialLabels

VA_COLUMNS = ("valence", "arousal")
EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")  # ABAW1/2: without Other
ACTION_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
HEADERS: dict[str, str] = {
    "va": "valence,arousal",
    "expr": ",".join(EXPRESSIONS),
    "au": ",".join(ACTION_UNITS),
    "mtl": "image,valence,arousal,expression," + ",".join(ACTION_UNITS),
}
_AU_CELL = re.compile(r"au0*([1-9]\d?)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """How one task writes a row: its columns, the mark of a missing cell (compared as a number) and the legal values."""

    name: Literal["va", "expr", "au"]
    columns: tuple[str, ...]
    missing: float
    is_legal: Callable[[Float64], Bool]
    legal: str
    classes: tuple[str, ...] = ()

    def mask(self, values: Float64) -> tuple[Float32, Bool, Bool]:
        """(R, C) as read -> float32 with NaN where missing or illegal, the mask, and which cells were illegal."""
        legal = self.is_legal(values)
        return *masked(values, legal), ~legal & (values != self.missing)


def _va(columns: tuple[str, ...]) -> _Task:
    return _Task(name="va", columns=columns, missing=-5.0, is_legal=lambda x: (x >= -1) & (x <= 1), legal="in [-1, 1] or -5")


def _expr(classes: tuple[str, ...]) -> _Task:
    n = len(classes)
    legal = f"a class 0..{n - 1} or -1"
    columns = ("expression",)
    return _Task(name="expr", columns=columns, missing=-1.0, is_legal=lambda x: np.isin(x, np.arange(n)), legal=legal, classes=classes)


def _au(columns: tuple[str, ...]) -> _Task:
    return _Task(name="au", columns=columns, missing=-1.0, is_legal=lambda x: (x == 0) | (x == 1), legal="0, 1 or -1")


def _action_units(cells: Sequence[str]) -> tuple[str, ...] | None:
    """`au01`, `AU 2` -> ("AU1", "AU2"); None unless every cell is a different action unit."""
    found = [_AU_CELL.fullmatch(normal(cell)) for cell in cells]
    names = tuple(f"AU{match[1]}" for match in found if match)
    return names if cells and len(set(names)) == len(cells) else None


def tasks_of(header: Sequence[str]) -> tuple[Format, tuple[_Task, ...]] | None:
    """The format that a header has and its tasks in the order of their columns; None for any other header."""
    words = tuple(map(normal, header))
    if len(words) == 2 and set(words) == set(VA_COLUMNS):
        return "va", (_va(words),)
    if words in (tuple(map(normal, EXPRESSIONS)), tuple(map(normal, EXPRESSIONS[:7]))):
        return "expr", (_expr(EXPRESSIONS[: len(words)]),)
    if units := _action_units(words):
        return "au", (_au(units),)
    if words[:4] == ("image", "valence", "arousal", "expression"):
        units = ACTION_UNITS if words[4:] == ("aus",) else _action_units(words[4:])
        return ("mtl", (_va(VA_COLUMNS), _expr(EXPRESSIONS), _au(units))) if units else None
    return None


def _read(file: LabelFile) -> tuple[list[str], tuple[_Task, ...]]:
    lines = read_lines(file.path)
    recognised = tasks_of(header_cells(lines[0]))
    if recognised is None or recognised[0] != file.format:
        raise header_error(file, lines[0])
    return lines[1:], recognised[1]


def header_error(file: LabelFile, found: str) -> LabelFileError:
    expected = HEADERS.get(file.format, "one line of column names")
    why = f"expected {expected!r} for {file.format.upper()}, found {found[:60]!r}"
    return file_error(file.path, "has an unknown header", why, "restore the header, or take the file away if it holds no labels", 1)


def parse_dense(file: LabelFile) -> Parsed:
    """A VA, EXPR or AU file, named after its trial. Raises LabelFileError."""
    lines, (task,) = _read(file)
    values, valid, illegal = task.mask(parse_numbers(lines, len(task.columns), file.path))
    frame = np.arange(len(lines), dtype=np.int64)
    made = _labels(file, task, file.path.stem, frame, values, valid, dense=True)
    return Parsed(labels=[made], problems=illegal_cells(file.path, illegal, task.legal))


def parse_mtl(file: LabelFile) -> Parsed:
    """A multi-task file of many trials: VA, EXPR and AU labels for each of them. Raises LabelFileError."""
    lines, tasks = _read(file)
    rows_of: dict[str, list[int]] = {}
    frame = np.empty(len(lines), dtype=np.int64)
    rest: list[str] = []
    for i, line in enumerate(lines):
        image, _, numbers = line.partition(",")
        trial, frame[i] = image_place(image, file.path, i + 2)
        if not trial:
            raise file_error(file.path, "has a picture without a trial", f"found {image[:40]!r}", "write NAME/00001.jpg", i + 2)
        rows_of.setdefault(trial, []).append(i)
        rest.append(numbers)
    values = parse_numbers(rest, sum(len(task.columns) for task in tasks), file.path)
    return _split_tasks(file, tasks, rows_of, frame, values)


def _split_tasks(file: LabelFile, tasks: Sequence[_Task], rows_of: dict[str, list[int]], frame: Int64, values: Float64) -> Parsed:
    starts = np.cumsum([0, *(len(task.columns) for task in tasks)])
    pieces = [task.mask(values[:, starts[i] : starts[i + 1]]) for i, task in enumerate(tasks)]
    parsed = Parsed()
    for task, (_, _, illegal) in zip(tasks, pieces, strict=True):
        parsed.problems += illegal_cells(file.path, illegal, f"{task.name.upper()}: {task.legal}")
    for trial, numbers in rows_of.items():
        rows = np.array(numbers, dtype=np.int64)
        kept, differing = first_of_each(frame[rows], values[rows])
        parsed.problems += conflict(file.path, trial, differing, frame, rows)
        rows = rows[kept]
        for task, (cells, valid, _) in zip(tasks, pieces, strict=True):
            parsed.labels.append(_labels(file, task, trial, frame[rows], cells[rows], valid[rows], dense=False))
    return parsed


def _labels(file: LabelFile, task: _Task, trial: str, frame: Int64, values: Float32, valid: Bool, *, dense: bool) -> TrialLabels:
    order = [task.columns.index(column) for column in VA_COLUMNS] if task.name == "va" else list(range(len(task.columns)))
    return TrialLabels(
        trial=trial,
        task=task.name,
        columns=tuple(task.columns[i] for i in order),
        frame=frame,
        values=values[:, order],
        valid=valid[:, order],
        split=file.split,
        path=file.path,
        dense=dense,
        classes=task.classes,
    )
