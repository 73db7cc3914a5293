"""The processes of a desk's runs, told from all others by a mark in their environment: started, found, waited for. And limits of one."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from desk import COMMAND, Desk

MARK = "AFFECTPIPE_TEST_RUN"  # handed on to all that a run starts
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="what a run's processes are is looked up in /proc")


def started(desk: Desk, *options: str, said: Path | None = None, within: str = "") -> subprocess.Popen[bytes]:
    """`run` in a process group of its own. said: where its output goes, errors too; within: a shell's commands before it."""
    argv = ["sh", "-c", f'{within or ":"}; exec "$@"', "sh", os.fspath(COMMAND), *desk.argv("run", *options)]
    given = {**os.environ, MARK: os.fspath(desk.cache)}
    with open(said or os.devnull, "ab") as out:
        return subprocess.Popen(argv, start_new_session=True, env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def processes_of(desk: Desk) -> dict[int, str]:
    """What a desk's runs started and what that started in turn, by pid, with their command lines: also those that outlived their run."""
    mark = os.fsencode(f"{MARK}={desk.cache}")
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or is another user's
    return found


def workers_of(desk: Desk) -> list[int]:
    """The processes that dask runs its workers in."""
    return [pid for pid, words in processes_of(desk).items() if "spawn_main" in words]


def decoders_of(desk: Desk) -> list[int]:
    return [pid for pid, words in processes_of(desk).items() if "pipeline.decoder" in words]


def artifacts(desk: Desk) -> int:
    """How many there are."""
    return sum(not path.name.startswith(".") for path in desk.cache.rglob("*.h5"))


def left_of(desk: Desk, within_s: float = 10.0) -> dict[int, str]:
    """The processes that are still there after that time."""
    until_s = time.monotonic() + within_s
    while (left := processes_of(desk)) and time.monotonic() < until_s:
        time.sleep(0.05)
    return left


def kill(*pids: int) -> None:
    """-9, unless they ended meanwhile."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(desk: Desk) -> None:
    """Whatever a failed test left running."""
    kill(*processes_of(desk))


@contextmanager
def no_room(n_bytes: int = 0) -> Iterator[None]:
    """No file of this process may grow beyond that, which fails as a full disk does; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
