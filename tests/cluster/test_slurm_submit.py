"""The client as a batch job of a real SLURM, with a stand-in for the client that says what it is told."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RequestError
from pipeline.profiles import Profile
from pipeline.slurm import submit, submit_script

# Says who it is, and works until it is told to stop, which takes it a second; or, as told, ends at once.
CLIENT = """
import os, signal, sys, time

def say(text):
    print(f"{time.time():.1f} {os.environ.get('SLURM_RESTART_COUNT', '0')} {text}", flush=True)

def stop(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("stopping")
    time.sleep(1)
    say("stopped")
    sys.exit(130)

mode = sys.argv[1]
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif mode != "rude":
    signal.signal(signal.SIGTERM, stop)
say(f"started {sys.argv[2:]} {os.environ.get('OMP_NUM_THREADS')} {os.environ.get('CUDA_VISIBLE_DEVICES')!r}")
if mode.isdigit():
    sys.exit(int(mode))
if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
    say("done")
    sys.exit(0)
time.sleep(300)
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A place to submit from."""

    slurm: Any
    folder: Path

    def profile(self, **values: Any) -> Profile:
        return Profile(**({"name": "cpu", "walltime": "00:30:00", "memory": "1GB", "cores": 1, "queue": "main"} | values))

    def argv(self, mode: str, *more: str) -> list[str]:
        script = self.folder / "client of mine.py"
        script.write_text(CLIENT)
        return [sys.executable, str(script), mode, *more]

    def submit(self, mode: str, *more: str, here: bool = False, requeue: bool = True, **values: Any) -> tuple[str, Path]:
        done = submit(self.profile(**values), self.argv(mode, *more), here=here, requeue=requeue, log_folder=self.folder / "the logs")
        return done.job_id, done.log

    def await_line(self, log: Path, text: str, timeout_s: float = 30) -> None:
        end = time.monotonic() + timeout_s
        while not (log.exists() and text in log.read_text()):
            assert time.monotonic() < end, f"no {text!r} in the log: {log.read_text() if log.exists() else 'there is none'}"
            time.sleep(0.1)


@pytest.fixture
def desk(slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # which other tests set, and jobs inherit
    return Desk(slurm, tmp_path)


@pytest.fixture(scope="module", autouse=True)
def at_walltime(slurm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, Path]]]:
    """Jobs of one minute, the least that SLURM knows, all at once, and beside what else is tested."""
    desks = {mode: Desk(slurm, tmp_path_factory.mktemp(mode)) for mode in ("polite", "deaf", "once")}
    asked = {"polite": "polite", "deaf": "deaf", "once": "polite"}
    jobs = {mode: desk.submit(asked[mode], walltime="00:01:00", requeue=mode != "once") for mode, desk in desks.items()}
    plain = slurm.sbatch("#!/bin/bash\nsleep 300\n", "--time=1", "--output=/dev/null")
    yield jobs | {"plain": (plain, Path("/dev/null"))}
    for job, _ in jobs.values():
        slurm.cancel(job)


def words(log: Path) -> list[str]:
    """What the client said, each with the count of restarts, without the times."""
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return [line[1] for line in lines if line[0].replace(".", "").isdigit()]


def test_a_client_that_ends_well(desk: Desk) -> None:
    """Its arguments are what they were, also those that a shell would take for something else."""
    job, log = desk.submit("0", "a b", "$HOME", "it's", "--on", "slurm:gpu")
    assert desk.slurm.wait(job) == "COMPLETED"
    assert words(log) == ["0 started ['a b', '$HOME', \"it's\", '--on', 'slurm:gpu'] None None"]


@pytest.mark.parametrize("status", [1, 2])
def test_a_client_that_fails_keeps_its_status(desk: Desk, status: int) -> None:
    job, _ = desk.submit(str(status))
    assert desk.slurm.wait(job) == "FAILED"
    assert desk.slurm.about(job)["ExitCode"] == f"{status}:0"
    assert desk.slurm.about(job)["Restarts"] == "0"


def test_a_setup_line_is_run_before(desk: Desk) -> None:
    job, log = desk.submit("0", setup=("export OMP_NUM_THREADS=7", "echo '0 prepared'"))
    assert desk.slurm.wait(job) == "COMPLETED"
    assert words(log) == ["prepared", "0 started [] 7 None"]


def test_what_works_here_has_the_cores_and_the_gpu(desk: Desk) -> None:
    job, log = desk.submit("0", here=True, cores=3, gres="gpu:a100:1")
    assert desk.slurm.wait(job) == "COMPLETED"
    assert words(log)[0] in ("0 started [] 3 '0'", "0 started [] 3 '1'")
    about = desk.slurm.about(job)
    assert (about["NumCPUs"], about["TresPerNode"]) == ("3", "gres:gpu:a100:1")


def test_what_hands_out_work_asks_for_little(desk: Desk) -> None:
    job, _ = desk.submit("0", here=False, cores=3, gpus=1, client_walltime="2-00:00:00", client_queue="low")
    about = desk.slurm.about(job)
    assert (about["NumCPUs"], about["MinMemoryNode"], about["TimeLimit"], about["Partition"]) == ("1", "4G", "2-00:00:00", "low")
    assert "TresPerNode" not in about
    assert desk.slurm.wait(job) == "COMPLETED"


@pytest.mark.parametrize("mode", ["polite", "rude"])
def test_a_cancelled_client_is_not_started_again(desk: Desk, mode: str) -> None:
    job, log = desk.submit(mode)
    desk.await_line(log, "started")
    desk.slurm.cancel(job)
    assert desk.slurm.wait(job) == "CANCELLED"
    if mode == "polite":
        desk.await_line(log, "0 stopped")
    time.sleep(3)
    assert desk.slurm.about(job)["Restarts"] == "0"
    assert "queued again" not in log.read_text()


def test_a_client_that_is_asked_to_stop_long_before_its_walltime_is_not_started_again(desk: Desk) -> None:
    job, log = desk.submit("polite")
    desk.await_line(log, "started")
    desk.slurm.run("scancel", "--batch", f"--signal={signal.SIGTERM.name[3:]}", job)
    assert desk.slurm.wait(job) == "FAILED"
    assert desk.slurm.about(job)["ExitCode"] == "130:0"
    assert words(log)[1:] == ["0 stopping", "0 stopped"]


def test_a_client_that_is_asked_to_stop_before_it_has_begun_stops(desk: Desk) -> None:
    job, log = desk.submit("polite", setup=("echo '0 preparing'", "sleep 2"))
    desk.await_line(log, "preparing")
    desk.slurm.run("scancel", "--batch", f"--signal={signal.SIGTERM.name[3:]}", job)
    assert desk.slurm.wait(job, timeout_s=20) == "FAILED"
    assert desk.slurm.about(job)["ExitCode"] in ("143:0", "130:0")  # as quick as the client was to say what it does when told


def test_a_preempted_client_goes_on(desk: Desk) -> None:
    """SLURM takes its place away for a job of a higher partition, and gives it back."""
    job, log = desk.submit("polite", here=True, queue="low", gres="place:1")
    desk.await_line(log, "started")
    other = desk.slurm.sbatch("#!/bin/bash\nexit 0\n", "--gres=place:1", "--output=/dev/null")
    assert desk.slurm.wait(other) == "COMPLETED"
    desk.await_line(log, "1 done", timeout_s=60)
    assert desk.slurm.wait(job) == "COMPLETED"
    assert words(log)[1:3] == ["0 stopping", "0 stopped"]
    assert "queued again" not in log.read_text()  # SLURM did it by itself


@pytest.mark.slow
def test_at_its_walltime_a_client_stops_and_goes_on(slurm: Any, at_walltime: dict[str, tuple[str, Path]]) -> None:
    job, log = at_walltime["polite"]
    Desk(slurm, log.parent).await_line(log, "1 done", timeout_s=120)
    assert slurm.wait(job) == "COMPLETED"
    assert [line.partition(" [")[0] for line in words(log)] == ["0 started", "0 stopping", "0 stopped", "1 started", "1 done"]
    assert "affectpipe: the walltime is reached" in log.read_text()
    assert slurm.about(job)["Restarts"] == "1"


@pytest.mark.slow
def test_a_client_that_does_not_stop_is_killed_in_time_and_goes_on(slurm: Any, at_walltime: dict[str, tuple[str, Path]]) -> None:
    job, log = at_walltime["deaf"]
    Desk(slurm, log.parent).await_line(log, "1 done", timeout_s=120)
    assert slurm.wait(job) == "COMPLETED"
    assert [line.partition(" [")[0] for line in words(log)] == ["0 started", "1 started", "1 done"]


@pytest.mark.slow
def test_without_requeue_it_only_stops(slurm: Any, at_walltime: dict[str, tuple[str, Path]]) -> None:
    job, log = at_walltime["once"]
    assert slurm.wait(job, timeout_s=120) == "FAILED"
    assert slurm.about(job)["ExitCode"] == "130:0"
    assert words(log)[1:] == ["0 stopping", "0 stopped"]


@pytest.mark.slow
def test_a_job_that_takes_no_notice_ends_at_its_walltime(slurm: Any, at_walltime: dict[str, tuple[str, Path]]) -> None:
    """That SLURM here does end jobs, without which the tests above would show nothing."""
    job, _ = at_walltime["plain"]
    assert slurm.wait(job, timeout_s=120) == "TIMEOUT"


def test_a_refusal_is_told_in_slurms_own_words(desk: Desk) -> None:
    with pytest.raises(
        RequestError, match=r"profile cpu: sbatch refuses the job: .*[Ii]nvalid partition.*; mend the profile in clusters.yaml"
    ):
        desk.submit("0", queue="nowhere")


def test_without_sbatch_the_error_says_where_to_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(desk.folder))
    with pytest.raises(RequestError, match=r"PATH: there is no sbatch here: .*; run this on a machine of the cluster"):
        desk.submit("0")


def test_the_script_is_what_is_submitted(desk: Desk) -> None:
    job, log = desk.submit("0", here=True, account="mylab", directives=("--comment=mine",))
    desk.slurm.wait(job)
    profile = desk.profile(account="mylab", directives=("--comment=mine",))
    script = submit_script(profile, desk.argv("0"), here=True, requeue=True, log_folder=log.parent)
    assert desk.slurm.run("scontrol", "write", "batch_script", job, "-") == script.strip()
    assert desk.slurm.about(job)["Comment"] == "mine"
