"""Claims: a file beside an artifact says who is computing it, so that others who want it too do something else meanwhile.

A claim is a courtesy, no lock: whoever ignores one does work twice, which is harmless. It is good for LEASE_S after its last renewal, or
for as long as its process lives where that is on the same machine. Ages are told by the clock of whoever keeps the files: a file
that is written now against the claim.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pipeline.publish import TEMPORARY

SUFFIX = ".claim"
LEASE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who computes an artifact. run: in whose run; host, pid, started: which process; deaths: processes of this run that died at it."""

    run: str
    host: str
    pid: int
    started: str
    deaths: int = 0


UNREAD = Claim(run="", host="", pid=0, started="")  # of a process that is about to write it


def claim_path(artifact: Path) -> Path:
    return artifact.with_suffix(SUFFIX)


def take(path: Path, run: str) -> Claim:
    """Claim it, unless another holds it: what stands there afterwards is returned, see `is_ours`. Raises OSError where nobody can.

    A claim whose process is dead, or whose lease is over, is taken over; if it was one of this run, with one more death.
    """
    mine = Claim(run=run, host=socket.gethostname(), pid=os.getpid(), started=_started(os.getpid()))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        held = read(path)
        if not is_over(path, held):
            return held or UNREAD
        if held is not None and held.run == run:
            mine = replace(mine, deaths=held.deaths + 1)
        _put(path, mine)
        return mine
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(mine), file)
    except OSError:
        path.unlink(missing_ok=True)  # a claim of nobody would stand until its lease is over
        raise
    return mine


def is_ours(held: Claim) -> bool:
    return (held.host, held.pid, held.started) == (socket.gethostname(), os.getpid(), _started(os.getpid()))


def release(path: Path) -> None:
    """Give it back, if it is still this process's. One that cannot be removed stands until its lease is over."""
    held = read(path)
    if held is not None and is_ours(held):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def read(path: Path) -> Claim | None:
    """None where there is none, or one that cannot be read (its owner may be about to write it)."""
    try:
        found = Claim(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    texts, numbers = (found.run, found.host, found.started), (found.pid, found.deaths)
    return found if all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers) else None


def is_over(path: Path, held: Claim | None) -> bool:
    """Whether nobody holds it any more."""
    if held is not None and held.host == socket.gethostname():
        return _started(held.pid) != held.started
    try:
        return _now(path.parent) - path.stat().st_mtime > LEASE_S
    except FileNotFoundError:
        return True


def _started(pid: int) -> str:
    """Tells a process from earlier and later ones of its number; empty where none of this number is alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() or not is_there(pid) else "there"
    return "" if fields[0] == "Z" else f"{_boot()} {fields[19]}"


def is_there(pid: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _put(path: Path, claim: Claim) -> None:
    temporary = _temporary(path)
    try:
        temporary.write_text(json.dumps(asdict(claim)), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _now(folder: Path) -> float:
    """The time by the clock of whoever keeps the files."""
    temporary = _temporary(folder / "now")
    try:
        temporary.touch()
        return temporary.stat().st_mtime
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{path.name}")


class Holder:
    """The claims of this process, renewed by a thread of its own while there are any."""

    def __init__(self) -> None:
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def holding(self, paths: list[Path]) -> Iterator[None]:
        """While the block runs the claims are renewed; then they are given back."""
        with self._lock:
            self._held.update(paths)
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="claims", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.difference_update(paths)
            for path in paths:
                release(path)

    def give_back(self) -> None:
        """All of them: the process ends before the work does, and not because of the work."""
        for path in list(self._held):
            release(path)

    def _renew(self) -> None:
        while True:
            time.sleep(LEASE_S / 4)
            with self._lock:
                paths = list(self._held)
                if not paths:
                    self._thread = None
                    return
            for path in paths:
                with contextlib.suppress(OSError):  # it was given back meanwhile, or the next renewal will do
                    os.utime(path)


HOLDER = Holder()  # of this process
