"""A real SLURM for the tests: started by the first test process that asks for it, shared, and ended by the last."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

MACHINE = Path(__file__).with_name("slurm_machine.py")
REPOSITORY = MACHINE.parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
START_S, STOP_S = 90.0, 60.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurm:
    """A running SLURM: partitions `main` and `low` (whose jobs are requeued for main's), 8 cores, gpu:a100:2, and one `place` to fight for.

    Its commands find it by SLURM_CONF, which is set in this process while the tests run.
    """

    config: Path

    def run(self, *argv: str | Path, given: str = "") -> str:
        """A command's output; it must succeed."""
        done = subprocess.run([str(arg) for arg in argv], input=given, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout.strip()

    def sbatch(self, script: str, *options: str | Path) -> str:
        """The id of the script's job."""
        return self.run("sbatch", "--parsable", *options, given=script)

    def about(self, job_id: str) -> dict[str, str]:
        """`scontrol show job` as fields."""
        words = self.run("scontrol", "--oneliner", "show", "job", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job_id: str) -> str:
        return self.about(job_id)["JobState"]

    def wait(self, job_id: str, *states: str, timeout_s: float = 60) -> str:
        """Its state, once it is one of these (of those in which it has ended, where none is named)."""
        wanted, end = states or ENDED, time.monotonic() + timeout_s
        while (now := self.state(job_id)) not in wanted:
            assert time.monotonic() < end, f"job {job_id} is {now} after {timeout_s} s, expected {wanted}: {self.about(job_id)}"
            assert not (now in ENDED and states), f"job {job_id} is {now}, expected {wanted}"
            time.sleep(0.1)
        return now

    def cancel(self, job_id: str) -> None:
        self.run("scancel", job_id)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    _require()
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "slurm"  # the one folder of all test processes of a run
    shared.mkdir(exist_ok=True)
    with (shared / "users").open("a+") as users:
        config = _join(shared, users)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(config))
            try:
                yield Slurm(config=config)
            finally:
                _leave(shared, users)


def _require() -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    reason = ""
    if missing:
        reason = f"a SLURM of its own needs {', '.join(missing)}: apt-get install slurm-wlm munge"
    elif os.geteuid() != 0:
        reason = "a SLURM of its own needs root"
    if reason and os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must not skip it")
    if reason:
        pytest.skip(reason)


def _join(shared: Path, users: IO[str]) -> Path:
    """Be one of its users, starting it where there is none. Its configuration file."""
    ready, failed = shared / "ready", shared / "failed"
    with (shared / "starting").open("a+") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while one is about to end
        if not ready.exists() and not failed.exists():
            argv = [sys.executable, str(MACHINE), str(shared)]
            quiet = subprocess.DEVNULL  # else it would keep open what reads the tests' output
            subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=(shared / "errors").open("w"), start_new_session=True)
        end = time.monotonic() + START_S
        while not ready.exists():
            if failed.exists() or time.monotonic() > end:
                said = failed if failed.exists() else shared / "errors"
                pytest.fail(f"SLURM did not start: {said.read_text()}")
            time.sleep(0.1)
    return Path(json.loads(ready.read_text())["config"])


def _leave(shared: Path, users: IO[str]) -> None:
    """Be a user no more; the last one ends it, and waits for that."""
    ready = shared / "ready"
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # others use it
    if not ready.exists():
        pytest.fail("SLURM ended while the tests ran")
    os.kill(json.loads(ready.read_text())["pid"], signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while ready.exists():
        assert time.monotonic() < end, "SLURM did not end"
        time.sleep(0.1)
