"""What becomes of an artifact that a job was to make, and which errors lead where."""

from __future__ import annotations

import errno
import inspect
import tempfile
from enum import StrEnum
from pathlib import Path

from extractors.contract import ExtractorError
from pipeline.errors import AffectpipeError, FullError, PassingError, Problem, RequestError, TransientError
from pipeline.hdf5 import CorruptFileError


class Fate(StrEnum):
    DONE = "done"
    FOUND = "found"  # it was there: another client had made it meanwhile
    FAILED = "failed"  # it would fail again, so it is recorded
    KILLED = "killed"  # whoever computed it died, time after time; recorded
    PASSING = "passing"  # it may work in another run
    TRANSIENT = "transient"  # it may work at once
    ELSEWHERE = "elsewhere"  # another client is at it
    LEFT = "left"  # not begun: the worker was told to stop, or what it had begun took long
    FULL = "full"  # nothing can be written any more


OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")

# The narrower kinds of errors first.
OF_EXPECTED = {
    FullError: Fate.FULL,
    TransientError: Fate.TRANSIENT,
    PassingError: Fate.PASSING,
    RequestError: Fate.PASSING,  # this machine lacks something; another has it, or will
    AffectpipeError: Fate.FAILED,
}


def diagnosed(error: Exception, *, use: str, where: str) -> tuple[Fate, Problem]:
    """What an error of the extractor `use` means for its job, and what is said of it."""
    if isinstance(error, AffectpipeError):
        return next(fate for kind, fate in OF_EXPECTED.items() if isinstance(error, kind)), error.problems[0]
    if isinstance(error, ExtractorError):
        return Fate.FAILED, Problem(what=error.what, where=where, why=error.why, fix=error.fix)
    if isinstance(error, CorruptFileError):
        fix = "run `affectpipe verify`, then run again"
        return Fate.PASSING, Problem(what="an input artifact is damaged", where=where, why=str(error), fix=fix)
    if isinstance(error, OSError | MemoryError):
        why = str(error) or type(error).__name__
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # What is written of results says where there is no room; this is something else.
        room = f"make room, in {tempfile.gettempdir()} perhaps, where temporary files are, then run again"
        problem = Problem(what="could not be computed", where=where, why=why, fix=room if full else "run again")
        return Fate.FULL if full else Fate.TRANSIENT, problem
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else use
    why = f"{type(error).__name__}: {error} (at {at})"
    return Fate.PASSING, Problem(what=f"extractor {use!r} broke", where=where, why=why, fix="this is a defect: report it with this line")


def is_out_of_memory(error: Exception) -> bool:
    """torch has an error of its own on a GPU; of a processor, and of CUDA's libraries, it is a RuntimeError of such a text."""
    said = str(error)
    return type(error).__name__ == "OutOfMemoryError" or (isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY))
