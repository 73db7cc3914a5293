"""Claims: who may compute what, by processes that really live and die, and leases by the clock of the files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from processes import no_room

from pipeline import claims
from pipeline.claims import LEASE_S, UNREAD, Claim, Holder, claim_path, is_ours, read, release, take

HOLDS = """
import sys
from pathlib import Path
from pipeline.claims import take
take(Path(sys.argv[1]), sys.argv[2])
print("taken", flush=True)
sys.stdin.read()
"""
ELSEWHERE = Claim(run="theirs", host="another-host", pid=1, started="some boot 17")


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    return claim_path(tmp_path / "stage" / "ab" / "abcd.h5")


@contextmanager
def holder_of(path: Path, run: str) -> Iterator[subprocess.Popen[str]]:
    """Another process of this machine that has claimed it; it lives as long as the block."""
    argv = [sys.executable, "-c", HOLDS, str(path), run]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        try:
            yield process
        finally:
            process.kill()


def left_by_a_dead(path: Path, run: str) -> Claim:
    with holder_of(path, run):
        pass
    left = read(path)
    assert left is not None
    return left


def write(path: Path, text: str, *, age_s: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    at_s = path.stat().st_mtime - age_s
    os.utime(path, (at_s, at_s))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_nobody_claims_is_ours_until_it_is_released(claim: Path) -> None:
    assert claim.name == "abcd.claim"
    taken = take(claim, "mine")
    assert (taken.run, taken.host, taken.pid, taken.deaths) == ("mine", socket.gethostname(), os.getpid(), 0)
    assert is_ours(taken)
    assert read(claim) == taken
    release(claim)
    assert names(claim.parent) == []
    assert read(claim) is None


def test_what_is_ours_stays_ours(claim: Path) -> None:
    """As it does where a pack comes twice to the same process."""
    first = take(claim, "mine")
    assert take(claim, "mine") == first
    assert names(claim.parent) == ["abcd.claim"]


@pytest.mark.parametrize("run", ["theirs", "mine"])
def test_a_process_that_lives_is_left_to_it_however_old_its_claim(claim: Path, run: str) -> None:
    with holder_of(claim, run) as process:
        write(claim, claim.read_text(), age_s=10 * LEASE_S)
        taken = take(claim, "mine")
        assert (taken.pid, taken.run) == (process.pid, run)
        assert not is_ours(taken)
        release(claim)
        assert read(claim) == taken, "only its own claim is anyone's to release"


def test_a_dead_process_of_another_run_leaves_nothing_behind(claim: Path) -> None:
    left_by_a_dead(claim, "theirs")
    taken = take(claim, "mine")
    assert is_ours(taken)
    assert (taken.run, taken.deaths) == ("mine", 0)
    assert names(claim.parent) == ["abcd.claim"]


def test_a_dead_process_of_this_run_is_counted(claim: Path) -> None:
    for deaths in (1, 2, 3):
        left = left_by_a_dead(claim, "mine")
        assert left.deaths == deaths - 1
    taken = take(claim, "mine")
    assert is_ours(taken)
    assert taken.deaths == 3


def test_a_later_process_of_the_same_number_is_another(claim: Path) -> None:
    """Its number was this process's once."""
    mine = take(claim, "theirs")
    write(claim, json.dumps(asdict(replace(mine, started="another boot 17"))))
    assert read(claim) != mine
    assert take(claim, "mine") == replace(mine, run="mine")


def test_a_zombie_is_dead(claim: Path) -> None:
    with holder_of(claim, "mine") as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it ended, and nobody has asked for it yet
        assert Path(f"/proc/{process.pid}").exists()
        assert take(claim, "mine").deaths == 1


@pytest.mark.parametrize(("age_s", "ours"), [(0.0, False), (LEASE_S - 30, False), (LEASE_S + 30, True)])
def test_another_host_has_it_for_as_long_as_its_lease(claim: Path, age_s: float, ours: bool) -> None:
    write(claim, json.dumps(asdict(ELSEWHERE)), age_s=age_s)
    taken = take(claim, "mine")
    assert is_ours(taken) == ours
    assert (taken == ELSEWHERE) == (not ours)
    assert taken.deaths == 0


@pytest.mark.parametrize("fast_s", [-1e6, 1e6])
def test_a_lease_is_told_by_the_clock_of_the_files(claim: Path, fast_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of machines that share a file system, some clocks are wrong."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + fast_s)
    write(claim, json.dumps(asdict(ELSEWHERE)), age_s=LEASE_S - 30)
    assert take(claim, "mine") == ELSEWHERE
    write(claim, json.dumps(asdict(ELSEWHERE)), age_s=LEASE_S + 30)
    assert is_ours(take(claim, "mine"))


def test_another_host_of_this_run_has_died_when_its_lease_is_over(claim: Path) -> None:
    """Until then it may only have lost its connection, and be at work."""
    held = replace(ELSEWHERE, run="mine", deaths=1)
    write(claim, json.dumps(asdict(held)), age_s=LEASE_S - 30)
    assert take(claim, "mine") == held
    write(claim, json.dumps(asdict(held)), age_s=LEASE_S + 30)
    taken = take(claim, "mine")
    assert is_ours(taken)
    assert taken.deaths == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"run": "theirs"}', '{"run": "mine", "host": "h", "pid": 1, "started": "s", "deaths": "x"}', '"text"', "\0"]
)
def test_a_claim_that_cannot_be_read_is_somebodys_for_a_while(claim: Path, text: str) -> None:
    write(claim, text, age_s=LEASE_S - 30)
    assert take(claim, "mine") == UNREAD
    assert not is_ours(UNREAD)
    release(claim)
    assert claim.read_text() == text
    write(claim, text, age_s=LEASE_S + 30)
    assert is_ours(take(claim, "mine"))


def test_on_a_full_disk_no_claim_is_left_that_says_nothing(claim: Path) -> None:
    """Everybody would have to wait until its lease is over, although there is room again."""
    claim.parent.mkdir(parents=True)
    with no_room(), pytest.raises(OSError, match="File too large"):
        take(claim, "mine")
    assert names(claim.parent) == []
    assert is_ours(take(claim, "mine"))


def test_on_a_full_disk_what_the_dead_left_stays(claim: Path) -> None:
    left = left_by_a_dead(claim, "mine")
    with no_room(), pytest.raises(OSError, match="File too large"):
        take(claim, "mine")
    assert read(claim) == left
    assert names(claim.parent) == ["abcd.claim"]


def test_only_one_of_many_takes_it(claim: Path) -> None:
    """Fresh claims: exactly one process gets each."""
    code = """
import sys
from pathlib import Path
from pipeline.claims import is_ours, take
sys.stdin.readline()
print(sum(is_ours(take(Path(sys.argv[1], f"{number}.claim"), sys.argv[2])) for number in range(200)), flush=True)
sys.stdin.readline()
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(claim.parent), run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for run in ("one", "other", "third")
    ]
    try:
        for process in processes:
            _pipe(process.stdin).write("go\n")
            _pipe(process.stdin).flush()
        taken = [int(_pipe(process.stdout).readline()) for process in processes]
    finally:
        for process in processes:
            process.communicate("\n")
    assert sum(taken) == 200


def _pipe(end: Any) -> Any:
    assert end is not None
    return end


def until(held: Callable[[], bool], within_s: float = 10.0) -> bool:
    until_s = time.monotonic() + within_s
    while not held():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.02)
    return True


def test_what_is_held_is_renewed_and_then_given_back(claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", 0.4)
    other = claim.with_name("other.claim")
    take(claim, "mine")
    take(other, "mine")
    holder, before = Holder(), threading.active_count()
    for _ in range(2):
        with holder.holding([claim]):
            for path in (claim, other):
                os.utime(path, (1.0, 1.0))
            assert until(lambda: claim.stat().st_mtime > 1.0)
            assert other.stat().st_mtime == 1.0
        assert names(claim.parent) == ["other.claim"]
        take(claim, "mine")
    assert until(lambda: threading.active_count() == before), "its thread outlived what it was for"


def test_what_was_taken_from_a_holder_is_not_given_back(claim: Path) -> None:
    """Its lease was over: the machine slept, say."""
    take(claim, "mine")
    with Holder().holding([claim]):
        write(claim, json.dumps(asdict(ELSEWHERE)))
    assert read(claim) == ELSEWHERE


def test_a_claim_that_is_gone_does_not_disturb_its_holder(claim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", 0.2)
    take(claim, "mine")
    with Holder().holding([claim]):
        claim.unlink()
        time.sleep(0.3)
        take(claim, "mine")
        os.utime(claim, (1.0, 1.0))
        assert until(lambda: claim.stat().st_mtime > 1.0)
    assert names(claim.parent) == []
