"""The one way in which a file becomes visible: whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import FullError, Problem, TransientError

TEMPORARY = ".tmp-"
_OURS = re.compile(
    rf"{re.escape(TEMPORARY)}\d+-\d+-.+|[0-9a-f]{{64}}\.claim|\d{{4}}-\d\d-\d\dT[-\d.]+Z-.+\.stop|\.dask-jobqueue\..+", re.DOTALL
)
STALE_S = 6 * 3600.0
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})


@contextlib.contextmanager
def published(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside the target; on leaving without an error it is fsynced and renamed onto the target.

    A visible file is a complete file: a process that dies here leaves only a temporary one, which `sweep` removes.
    Raises what `writing_to` does.
    """
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{target.name}")
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_to(target: Path) -> Iterator[None]:
    """The system's errors in the block become ours: FullError where there is no room or no right to write, else TransientError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # no error of the system's
            raise
        fix = "make room or mend the permissions there, then run again"
        kind = FullError if error.errno in NO_ROOM else TransientError
        raise kind(Problem(what="cannot be written", where=str(target), why=os.strerror(error.errno), fix=fix)) from error


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
    """Remove temporaries, claims, orders to stop and workers' keys too old to be in anyone's hands; newer ones may be another client's."""
    removed = 0
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names if _OURS.fullmatch(name)):
            try:
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > older_than_s:
                    path.unlink()
                    removed += 1
            except (FileNotFoundError, PermissionError):
                continue  # another client swept it first, or it is another user's to sweep
    return removed
