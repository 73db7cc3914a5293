"""Tables beside the videos: `ROOT/NAME.csv` of trial NAME, or of the video NAME, in which the trial is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import Problem

SUFFIX = ".csv"
LONGEST_LINE = 1 << 20  # bytes; a longer line comes in pieces, none of which is one of the table's


def check_root(root: Path) -> Problem | None:
    """What is wrong with a folder of tables, or None. `where` is the folder: the caller knows who names it."""
    fix = "mend `root`, which is relative to the stages file"
    try:
        with os.scandir(root) as entries:
            if any(entry.name.endswith(SUFFIX) for entry in entries):
                return None
    except OSError as error:
        return Problem(what="no folder of tables", where=str(root), why=error.strerror or str(error), fix=fix)
    return Problem(what="no folder of tables", where=str(root), why="it holds no NAME.csv", fix=fix)


def find_table(root: Path, trial: str, source: str) -> Path | None:
    """The trial's table, else the source's; a regular file that does not lead out of the root."""
    top = Path(os.path.realpath(root))
    for name in (trial, source):
        path = root / f"{name}{SUFFIX}"
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except OSError:
            continue
        if regular and Path(os.path.realpath(path)).is_relative_to(top):
            return path
    return None


def lines(file: BinaryIO) -> Iterator[bytes]:
    """One at a time, so that memory does not grow with the table."""
    return iter(lambda: file.readline(LONGEST_LINE), b"")
