"""One label file as text and numbers: reading it whole, its header, and an error that names the line."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from extractors.contract import Float64
from pipeline.errors import AffectpipeError, Problem
from pipeline.labels.records import Format, TrialLabels

MAX_BYTES = 1 << 27  # 128 MiB: some ten times the largest label file known; keeps a wrong file from filling the memory
_NUMBER = re.compile(r"\s*[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|nan|inf)\s*", re.IGNORECASE | re.ASCII)


class LabelFileError(AffectpipeError):
    """This file cannot be read as labels; the others can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """A file that was found: its format, the split that its folder or name tells, and the task's name."""

    path: Path
    format: Format
    task: str
    split: str


@dataclass(slots=True)
class Parsed:
    """What the parser of one file gives."""

    labels: list[TrialLabels] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def file_error(path: Path, what: str, why: str, fix: str, line: int | None = None) -> LabelFileError:
    where = str(path) if line is None else f"{path}:{line}"
    return LabelFileError(Problem(what=what, where=where, why=why, fix=fix))


def normal(word: str) -> str:
    """A header cell or a folder name without its case, spaces and underscores: `Empathic_Pain ` -> `empathicpain`."""
    return re.sub(r"[\s_]+", "", word).casefold()


def header_cells(line: str) -> tuple[str, ...]:
    """The names in a header line, stripped, without empty ones at its end; none where the line is no csv."""
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], strict=True), [])]
    except csv.Error:
        return ()
    while cells and not cells[-1]:
        cells.pop()
    return tuple(cells)


def read_lines(path: Path) -> list[str]:
    """The header line and the rows after it, without blank lines at the end.

    Raises LabelFileError when the file cannot be read, is too large, is not UTF-8 text, or has no rows.
    """
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise file_error(path, "cannot be read", error.strerror or str(error), "make it readable, or take it away") from error
    if size > MAX_BYTES:
        raise file_error(path, "is too large for labels", f"{size} bytes, more than {MAX_BYTES}", "take it out of the labels folder")
    if b"\0" in data:
        raise file_error(path, "is not text", "it has zero bytes", "save it as UTF-8 text", data[: data.index(b"\0")].count(b"\n") + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise file_error(path, "is not UTF-8 text", f"byte 0x{error.object[error.start]:02x}", "save it as UTF-8 text", line) from error
    lines = text.rstrip().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(lines) < 2:
        why = "no row follows the header" if text.strip() else "it is empty"
        raise file_error(path, "has no labels", why, "restore it, or take it away")
    return lines


def read_cells(lines: Sequence[str], path: Path) -> list[list[str]]:
    """The stripped cells of the rows after the header, as many in each as the header has. `lines` start with the header.

    Raises LabelFileError with the line where the csv is broken or the number of cells differs.
    """
    reader = csv.reader(lines, strict=True)
    rows: list[list[str]] = []
    try:
        header = next(reader)
        for row in reader:
            if reader.line_num != len(rows) + 2:
                raise file_error(path, "has a cell over several lines", "a quote is not closed", "close the quote", len(rows) + 2)
            _check_width(row, len(header), path, reader.line_num)
            rows.append([cell.strip() for cell in row])
    except csv.Error as error:
        raise file_error(path, "is not a csv", str(error), "mend the line", reader.line_num) from error
    return rows


def _check_width(cells: Sequence[str], expected: int, path: Path, line: int) -> None:
    if len(cells) != expected:
        blank = not "".join(cells).strip()
        why = "the line is blank, and rows are counted" if blank else f"expected {expected} cells, got {len(cells)}"
        raise file_error(path, "has a row of the wrong length", why, "restore the line", line)


def parse_numbers(lines: Sequence[str], n_columns: int, path: Path) -> Float64:
    """(R, n_columns) float64 from R comma-separated lines, the first of which is line 2 of the file.

    Raises LabelFileError with the first line that is blank, too short, too long or not numeric.
    """
    try:
        values = np.loadtxt(lines, dtype=np.float64, delimiter=",", comments=None, ndmin=2)
    except ValueError as error:
        raise _first_bad_line(lines, n_columns, path, str(error)) from error
    if values.shape != (len(lines), n_columns):
        raise _first_bad_line(lines, n_columns, path, f"{values.shape[0]} rows of {values.shape[1]} cells in {len(lines)} lines")
    return values


def _first_bad_line(lines: Sequence[str], n_columns: int, path: Path, why: str) -> LabelFileError:
    """numpy counts rows in its own ways and skips blank lines, so the line is looked for once more."""
    for number, line in enumerate(lines, start=2):
        cells = line.split(",")
        try:
            _check_width(cells if line.strip() else (), n_columns, path, number)
        except LabelFileError as error:
            return error
        for cell in cells:
            if not _NUMBER.fullmatch(cell):
                return number_error(path, cell, number)
    return file_error(path, "cannot be read as numbers", why, "mend the file")


def number_error(path: Path, cell: str, line: int) -> LabelFileError:
    return file_error(path, "has a cell that is not a number", f"found {cell.strip()[:40]!r}", "mend the cell", line)


def is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None
