"""Printing for people. With --json the same data goes out as JSON instead."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click


def as_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=1, default=str))


def as_line(error: Exception) -> str:
    """An error of a file that nobody foresaw, for a person: where, what, why and how to mend it."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        why = error.strerror or str(error)
        return f"{where}a file or folder cannot be used: {why}; see that it is there, may be used and has room, then run again"
    return f"{error}; the file is damaged: `affectpipe verify` finds all that are, then run again"


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Plain columns, numbers to the right."""
    texts = [[_cell(row.get(column)) for column in columns] for row in rows]
    heads = [column.replace("_", " ") for column in columns]
    widths = [max(len(head), *(len(row[i]) for row in texts), 0) if texts else len(head) for i, head in enumerate(heads)]
    numeric = [bool(texts) and all(_is_number(row[i]) for row in texts) for i in range(len(columns))]
    for cells in (heads, *texts):
        padded = [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, numeric, strict=True)]
        click.echo("  ".join(padded).rstrip())


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").replace("-", "").replace(":", "").isdigit() or text == "-"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {count}" for name, count in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return str(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(n_bytes: int) -> str:
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value, units = n_bytes / 1000, ["KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.1f} {units[0]}"
