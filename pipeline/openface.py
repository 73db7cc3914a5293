"""Running the user's OpenFace on a video. It is not ours to install: its licence is academic, and it is built from source."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import PassingError, Problem, RequestError, TransientError, TrialError
from pipeline.memo import StatMemo
from pipeline.process import KILLED, Process, StalledError
from pipeline.sources import digest_of

PROGRAM, VARIABLE = "FeatureExtraction", "OPENFACE"
START_S, FRAME_S = 300.0, 1.0  # after so long in all it is taken for hung; a slow core needs a fifth of a second for a frame
READ_BYTES = 1 << 16
SAID_BYTES = 4000


def binary() -> Path:
    """$OPENFACE, else FeatureExtraction on the PATH. Links are kept, since it finds its models beside the path it was started by.

    Raises RequestError where neither is a program.
    """
    named = os.environ.get(VARIABLE)
    found = shutil.which(named or PROGRAM)
    if found is None:
        why = f"${VARIABLE} is {named!r}, which is no program" if named else f"${VARIABLE} is not set, and the PATH has none"
        fix = f"set {VARIABLE}=/path/to/{PROGRAM}, or give the stage `root: DIR` with the tables NAME.csv that it wrote elsewhere"
        raise RequestError(Problem(what=f"there is no {PROGRAM} of OpenFace", where=VARIABLE if named else "PATH", why=why, fix=fix))
    return Path(os.path.abspath(found))


def version(memo: StatMemo) -> str:
    """The decoder's part of a key: the program does not tell its version, so the sha256 of its file. Raises RequestError."""
    path = binary()
    try:
        return f"openface {digest_of(path, memo)}"
    except OSError as error:
        fix = "mend its permissions: a key holds its digest"
        raise RequestError(Problem(what=f"{PROGRAM} cannot be read", where=str(path), why=str(error), fix=fix)) from error


@contextmanager
def computed_table(source: Path, n_frames: int) -> Iterator[Path]:
    """The table that it writes for a video of so many frames, for as long as it is looked at.

    Raises TrialError where it refuses the video, PassingError where it hangs or is ended from outside.
    """
    with tempfile.TemporaryDirectory(prefix="affectpipe_openface_") as folder:
        _run(source, [str(binary()), "-f", str(source.absolute()), "-out_dir", folder, "-aus"], START_S + FRAME_S * n_frames)
        found = sorted(Path(folder).glob("*.csv"))
        if len(found) != 1:
            raise _trial_error(source, f"it wrote {len(found)} tables, expected one")
        yield found[0]


def _run(source: Path, argv: list[str], limit_s: float) -> None:
    said, end_s = b"", time.monotonic() + limit_s
    try:
        with Process(argv, stall_s=limit_s) as process:
            while chunk := process.read_some(READ_BYTES):
                said = (said + chunk)[-SAID_BYTES:]
                process.stall_s = max(end_s - time.monotonic(), 0.0)
            process.stall_s = max(end_s - time.monotonic(), 1.0)
            status, complaint = process.finish()
    except StalledError as error:
        fix = "run again; if it stays so, leave the file out"
        why = f"it did not end within {limit_s:.0f} s"
        raise PassingError(Problem(what=f"{PROGRAM} hangs", where=source.name, why=why, fix=fix)) from error
    if status < 0:
        problem = Problem(what=f"{PROGRAM} was ended", where=source.name, why=f"by signal {-status}", fix="run again, with more memory")
        raise (TransientError if status in KILLED else PassingError)(problem)
    if status:
        last = (complaint or said.decode("utf-8", "replace").strip()).splitlines()
        raise _trial_error(source, f"exit status {status}" + (f": {last[-1]}" if last else ""))


def _trial_error(source: Path, why: str) -> TrialError:
    fix = f"run {PROGRAM} on it yourself to see what it says, or leave the file out"
    return TrialError(Problem(what=f"{PROGRAM} gave no table", where=source.name, why=why, fix=fix))
