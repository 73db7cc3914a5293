"""Workers and decoders killed -9 at random moments, on `local:2`: others take over, and nobody sees it in the store."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from desk import Desk
from processes import artifacts, decoders_of, kill, left_of, started, workers_of

from pipeline.claims import read

KILLS = 12
STALL_S = 7.0  # more than a decoder at work is ever silent for
WAIT_S = 60.0  # for the next artifact, on a machine that is busy with other things


def deaths_of(desk: Desk, pids: list[int]) -> int:
    """How often one of the jobs that these are at has killed its worker already."""
    held = [claim for path in desk.cache.rglob("*.claim") if (claim := read(path)) and claim.pid in pids]
    return max((claim.deaths for claim in held), default=0)


def victims(desk: Desk, moments: random.Random) -> list[int]:
    """One worker as a rule, now and then both, or a decoder. No job loses a third worker, for then it is the one to blame."""
    workers, decoders = workers_of(desk), decoders_of(desk)
    how = moments.random()
    if how < 0.2 and decoders:
        return [moments.choice(decoders)]
    chosen = workers if how < 0.4 else moments.sample(workers, min(len(workers), 1))
    return chosen if deaths_of(desk, chosen) < 2 else []


def killed(desk: Desk, run: subprocess.Popen[bytes], moments: random.Random) -> Iterator[int]:
    """How many are killed, again and again, each time after something new was done; until the run ends."""
    before = artifacts(desk)
    until_s = time.monotonic() + WAIT_S
    while run.poll() is None:
        assert time.monotonic() < until_s, "nothing more is done"
        if (now := artifacts(desk)) > before:
            time.sleep(moments.uniform(0.0, 0.3))
            chosen = victims(desk, moments)
            kill(*chosen)
            if chosen:
                before, until_s = now, time.monotonic() + WAIT_S
                yield len(chosen)
        time.sleep(0.15)


def test_killed_workers(busy_desk: Callable[..., Desk], assert_as_undisturbed: Callable[[Desk], None]) -> None:
    """A run whose workers are killed, and again, until enough were."""
    desk, moments = busy_desk(), random.Random(1)
    n_killed = 0
    while n_killed < KILLS:
        run = started(desk, "--on", "local:2", said=desk.stages.with_suffix(".said"))
        for number in killed(desk, run, moments):
            n_killed += number
        said = desk.stages.with_suffix(".said").read_text()
        assert run.wait() == 0, said
        assert "Traceback" not in said
        assert_as_undisturbed(desk)
        if n_killed < KILLS:
            shutil.rmtree(desk.cache)
            shutil.rmtree(desk.store)


def test_a_decoder_that_hangs(
    busy_desk: Callable[..., Desk], assert_as_undisturbed: Callable[[Desk], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was to decode is tried again, by another."""
    (tmp_path / "impatient").mkdir()
    (tmp_path / "impatient" / "sitecustomize.py").write_text(f"import pipeline.video\npipeline.video.STALL_S = {STALL_S}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "impatient"), prepend=os.pathsep)
    desk = busy_desk()
    run = started(desk, "--on", "local:2", said=desk.stages.with_suffix(".said"))
    until_s = time.monotonic() + WAIT_S
    while not (decoders := decoders_of(desk)):
        assert run.poll() is None
        assert time.monotonic() < until_s
        time.sleep(0.05)
    for pid in decoders:
        os.kill(pid, signal.SIGSTOP)
    assert run.wait() == 0, desk.stages.with_suffix(".said").read_text()
    assert_as_undisturbed(desk)
    (record,) = (desk.cache / "runs").glob("*.jsonl")
    events = [event for event in map(json.loads, record.read_text().splitlines()) if event["event"] == "job"]
    why = [why for event in events if "transient" in event["fates"].values() for why in event["why"].values()]
    assert why != []
    assert {one.partition(": ")[2] for one in why} == {
        f"the decoder hangs: no output for {STALL_S:g} s; run again; if it stays so, leave the file out"
    }


def test_workers_that_are_killed_as_they_start(busy_desk: Callable[..., Desk], assert_as_undisturbed: Callable[[Desk], None]) -> None:
    """Whatever kills them then would do so again: that is said, and nothing is tried for ever."""
    desk = busy_desk()
    said = desk.stages.with_suffix(".said")
    run = started(desk, "--on", "local:2", said=said)
    while run.poll() is None:
        kill(*workers_of(desk))
    assert run.returncode == 1
    (error,) = said.read_text().splitlines()
    assert error.startswith("error: --on local: the workers do not start: ")
    assert left_of(desk) == {}
    assert started(desk, "--on", "local:2").wait() == 0
    assert_as_undisturbed(desk)
