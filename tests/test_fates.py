"""What every kind of error means for its job, and what is said of it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
import troubles

from extractors.contract import ExtractorError
from pipeline.errors import FullError, PassingError, Problem, RequestError, TransientError, TrialError
from pipeline.fates import Fate, diagnosed, is_out_of_memory
from pipeline.hdf5 import CorruptFileError

PROBLEM = Problem(what="what", where="where", why="why", fix="fix")


def raised(error: Exception) -> Exception:
    """The error with a traceback, as it reaches a worker."""
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        (TrialError, Fate.FAILED),
        (PassingError, Fate.PASSING),
        (TransientError, Fate.TRANSIENT),
        (FullError, Fate.FULL),
        (RequestError, Fate.PASSING),
    ],
)
def test_expected_errors_say_what_is_said(kind: type[TrialError], fate: Fate) -> None:
    others = Problem(what="another", where="", why="", fix="")
    assert diagnosed(raised(kind([PROBLEM, others])), use="logmel", where="106.mp4") == (fate, PROBLEM)


def test_what_an_extractor_refuses_would_be_refused_again() -> None:
    error = raised(ExtractorError("refused", why="too short", fix="take another"))
    expected = Problem(what="refused", where="106.mp4", why="too short", fix="take another")
    assert diagnosed(error, use="logmel", where="106.mp4") == (Fate.FAILED, expected)


def test_a_damaged_input_is_made_again_by_the_next_run() -> None:
    fate, problem = diagnosed(raised(CorruptFileError("a.h5: truncated")), use="logmel", where="106.mp4")
    assert (fate, str(problem)) == (
        Fate.PASSING,
        "106.mp4: an input artifact is damaged: a.h5: truncated; run `affectpipe verify`, then run again",
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_run(number: int) -> None:
    fate, problem = diagnosed(raised(OSError(number, os.strerror(number), "/tmp/x")), use="mtcnn", where="106.mp4")
    assert (fate, problem.what) == (Fate.FULL, "could not be computed")
    assert problem.fix == f"make room, in {tempfile.gettempdir()} perhaps, where temporary files are, then run again"
    assert problem.why == f"[Errno {number}] {os.strerror(number)}: '/tmp/x'"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.EIO, "Input/output error"), "[Errno 5] Input/output error"),
        (MemoryError(), "MemoryError"),
        (MemoryError("no room for (9, 9)"), "no room for (9, 9)"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_the_system_may_do_better_at_once(error: Exception, why: str) -> None:
    expected = Problem(what="could not be computed", where="106.mp4", why=why, fix="run again")
    assert diagnosed(raised(error), use="mtcnn", where="106.mp4") == (Fate.TRANSIENT, expected)


def test_a_defect_is_told_with_its_place() -> None:
    lines = Path(troubles.__file__).read_text(encoding="utf-8").splitlines()
    line = 1 + next(number for number, text in enumerate(lines) if "raise ZeroDivisionError" in text)
    try:
        troubles.break_down()
    except ZeroDivisionError as error:
        fate, problem = diagnosed(error, use="troubles:Level", where="106.mp4")
    assert fate is Fate.PASSING
    assert str(problem) == (
        f"106.mp4: extractor 'troubles:Level' broke: ZeroDivisionError: a defect (at troubles.py:{line});"
        " this is a defect: report it with this line"
    )


def test_a_defect_without_a_place() -> None:
    _, problem = diagnosed(KeyError("k"), use="troubles:Level", where="106.mp4")
    assert problem.why == "KeyError: 'k' (at troubles:Level)"


def test_torch_without_memory_is_told_from_all_else() -> None:
    """Each as torch raises it; on a processor really."""
    import torch

    with pytest.raises(RuntimeError, match="can't allocate memory") as asked:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(asked.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
