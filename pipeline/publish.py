"""The one way in which a file becomes visible: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PassingError, Problem

TEMPORARY = ".tmp-"
_OURS = re.compile(re.escape(TEMPORARY) + r"\d+-\d+-.+", re.DOTALL)
STALE_S = 6 * 3600.0


@contextlib.contextmanager
def published(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside the target; on leaving without an error it is fsynced and renamed onto the target.

    A visible file is a complete file: a process that dies here leaves only a temporary one, which `sweep` removes.
    Raises PassingError when the disk is full or cannot be written.
    """
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None and "errno = " not in str(error):  # HDF5 puts the system's error into its text; without one it is a defect
            raise
        why = error.strerror or str(error)
        fix = "make room or mend the permissions there, then run again"
        raise PassingError(Problem(what="cannot be written", where=str(target), why=why, fix=fix)) from error


def publish_text(target: Path, text: str) -> None:
    with published(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(root: Path, *, older_than_s: float = STALE_S) -> int:
    """Remove temporaries too old to be in anyone's hands (another client, perhaps on another node, may be writing the newer ones)."""
    removed = 0
    for path in root.rglob(f"{TEMPORARY}*"):
        try:
            found = path.lstat()
            if _OURS.fullmatch(path.name) and stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > older_than_s:
                path.unlink()
                removed += 1
        except (FileNotFoundError, PermissionError):
            continue  # another client swept it first, or it is another user's to sweep
    return removed
