"""`run --on slurm` on a real SLURM: the store is that of an inline run, whatever becomes of the jobs and of the client."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import left_of, started, workers_of

from pipeline.cache import Cache
from pipeline.sound import ffmpeg_binary

PROFILES = """version: 1
slurm:
  main: {queue: main, cores: 1, memory: 3GB, walltime: "00:10:00", max_jobs: 2, interface: lo}
  low: {queue: low, cores: 1, memory: 3GB, walltime: "00:10:00", max_jobs: 2, interface: lo, gres: "place:1"}
  short: {queue: main, cores: 1, memory: 3GB, walltime: "00:01:00", max_jobs: 1, interface: lo}
  gpu: {queue: main, cores: 1, memory: 3GB, walltime: "00:10:00", max_jobs: 1, interface: lo, gpus: 1, cpu_profile: main}
"""
# As many small jobs as make a run that can be disturbed in its midst.
MANY = (
    "version: 1\nstages:\n  timeline: {use: timeline}\n  audio: {use: waveform}\n"
    + "".join(f"  slow{n}: {{use: 'slow:Slow', from: audio, n: {n}}}\n" for n in range(12))
    + "store: {rows: timeline, dtype: float32}\n"
)
CLIPS = ("single_face.mp4", "crying_640.mp4", "speech_512.mp4")


def cut(source: Path, target: Path) -> None:
    """Its first second, as it is."""
    subprocess.run([ffmpeg_binary(), "-v", "error", "-i", source, "-t", "1", "-c", "copy", target], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def two(some_clips: Callable[..., Any], new_desk: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """An inline desk that has run, and one on the same clips for jobs."""

    def made(*, stages: str) -> tuple[Any, Any]:
        videos, labels = some_clips("106-30-416x304", "207")
        inline, jobs = (new_desk(videos, labels, stages=stages, name=name) for name in ("inline", "jobs"))
        assert inline.apart("run").status == 0
        (jobs.stages.parent / "clusters.yaml").write_text(PROFILES)
        return inline, jobs

    return made


@pytest.fixture(autouse=True)
def plugin_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs have the environment of whoever submits them."""
    monkeypatch.setenv("SLOW_S", "0.5")
    folders = (os.fspath(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))


def finished(desk: Any, run: subprocess.Popen[bytes], meanwhile: Callable[[], None], *, every: int = 4, within_s: float = 240) -> int:
    """The run's exit status. meanwhile: done each time that so many more artifacts are there."""
    seen, end_s = n_artifacts(desk), time.monotonic() + within_s
    while run.poll() is None:
        assert time.monotonic() < end_s, "the run does not end"
        if n_artifacts(desk) >= seen + every:
            meanwhile()
            seen = n_artifacts(desk)
        time.sleep(0.2)
    return run.returncode


def n_artifacts(desk: Any) -> int:
    return len(list(Cache(desk.cache).artifacts()))


def test_the_same_store_as_inline(
    slurm: Any,
    sample: Any,
    media: Path,
    new_desk: Callable[..., Any],
    tmp_path: Path,
    default_stages: str,
    assert_same_data: Callable[..., None],
) -> None:
    """The sample and three real clips, through the default stages."""
    videos = tmp_path / "videos"
    shutil.copytree(sample.videos, videos)
    for name in CLIPS:
        cut(media / name, videos / name)
    inline, jobs = (new_desk(videos, sample.labels, stages=default_stages, name=name) for name in ("inline", "jobs"))
    (jobs.stages.parent / "clusters.yaml").write_text(PROFILES)
    first, second = inline.apart("run", "--json"), jobs.apart("run", "--json", "--on", "slurm")
    assert (second.status, second.json["computed"]) == (first.status, first.json["computed"])
    assert_same_data(jobs.store_data(), inline.store_data())
    assert jobs.failures().keys() == inline.failures().keys()


def test_cancelled_jobs_are_replaced(slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    inline, jobs = two(stages=MANY)
    cancelled: list[str] = []

    def cancel() -> None:
        running = slurm.run("squeue", "-h", "-t", "R", "-n", "affectpipe-main", "-o", "%A").split()  # others are other tests'
        if running and len(cancelled) < 4:
            cancelled.append(running[len(cancelled) % len(running)])
            slurm.cancel(cancelled[-1])

    run = started(jobs, "--on", "slurm:main")
    assert finished(jobs, run, cancel) == 0
    assert len(cancelled) >= 3
    assert_same_data(jobs.store_data(), inline.store_data())


def test_killed_workers_are_started_again_in_their_jobs(slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    inline, jobs = two(stages=MANY)
    killed: list[int] = []

    def kill() -> None:
        if (found := workers_of(jobs)) and len(killed) < 6:
            killed.append(random.Random(len(killed)).choice(found))
            os.kill(killed[-1], signal.SIGKILL)

    run = started(jobs, "--on", "slurm:main")
    assert finished(jobs, run, kill) == 0
    assert len(killed) >= 4
    assert_same_data(jobs.store_data(), inline.store_data())


def test_a_killed_client_is_started_again(slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    """Jobs of the killed one are still there when the next begins, and end by themselves."""
    inline, jobs = two(stages=MANY)
    for _ in range(3):
        run = started(jobs, "--on", "slurm:main")
        finished(jobs, run, run.kill, every=5)
        assert run.wait() == -signal.SIGKILL
    run = started(jobs, "--on", "slurm:main")
    assert finished(jobs, run, lambda: None) == 0
    assert_same_data(jobs.store_data(), inline.store_data())
    assert left_of(jobs, within_s=90) == {}


def test_two_clients_at_once_on_one_cache(slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    inline, jobs = two(stages=MANY)
    other = replace(jobs, store=jobs.store.with_name("other_store"))
    runs = [started(desk, "--on", "slurm:main") for desk in (jobs, other)]
    assert [run.wait(200) for run in runs] == [0, 0]
    for desk in (jobs, other):
        assert_same_data(desk.store_data(), inline.store_data())


def test_jobs_that_give_way_to_others_are_replaced(slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    inline, jobs = two(stages=MANY)
    others: list[str] = []

    def take_the_place() -> None:
        if len(others) < 2:
            others.append(slurm.sbatch("#!/bin/sh\nsleep 2\n", "--partition=main", "--gres=place:1", "--output=/dev/null"))

    run = started(jobs, "--on", "slurm:low")
    assert finished(jobs, run, take_the_place) == 0
    assert [slurm.wait(job) for job in others] == ["COMPLETED"] * len(others) != []
    assert_same_data(jobs.store_data(), inline.store_data())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_walltime_shorter_than_the_work(
    slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 s of work for one worker at a time, in jobs of a minute, which drain after 48 s. None is cut short."""
    inline, jobs = two(stages=MANY)
    monkeypatch.setenv("SLOW_S", "2.5")
    run = started(jobs, "--on", "slurm:short")
    assert finished(jobs, run, lambda: None, within_s=360) == 0
    assert_same_data(jobs.store_data(), inline.store_data())
    ended = [slurm.state(job) for job in slurm.run("squeue", "-h", "-t", "all", "-n", "affectpipe-short", "-o", "%A").split()]
    assert len(ended) > 1
    assert "TIMEOUT" not in ended


def test_networks_go_to_jobs_with_a_gpu(slurm: Any, two: Callable[..., Any]) -> None:
    stages = (
        "version: 1\nstages:\n  timeline: {use: timeline}\n  audio: {use: waveform}\n"
        "  here: {use: 'slow:OnCpu', from: audio}\n  there: {use: 'slow:OnGpu', from: audio}\nstore: {rows: timeline, dtype: float32}\n"
    )
    _, jobs = two(stages=stages)
    shutil.rmtree(jobs.cache, ignore_errors=True)
    assert jobs.apart("run", "--on", "slurm:gpu").status == 0
    data = jobs.store_data()
    assert (np.unique(data["here/values"][:4, 0]).tolist(), np.unique(data["there/values"][:4, 0]).tolist()) == ([0.0], [1.0])


def test_the_client_as_a_batch_job(slurm: Any, two: Callable[..., Any], assert_same_data: Callable[..., None]) -> None:
    inline, jobs = two(stages=MANY)
    done = jobs.apart("submit", "--json", "--on", "slurm:main")
    assert done.status == 0, done.err
    assert slurm.wait(done.json["job"], timeout_s=200) == "COMPLETED", Path(done.json["log"]).read_text()
    assert_same_data(jobs.store_data(), inline.store_data())


@pytest.mark.parametrize(
    ("profiles", "place", "said"),
    [
        (PROFILES.replace("queue: main", "queue: moon"), "slurm:main", "profile main: sbatch refuses the job: .*invalid partition"),
        (PROFILES, "slurm:mian", r"no profile 'mian'; did you mean 'main'\?"),
        (None, "slurm", "clusters.yaml: no cluster is described"),
        (
            PROFILES.replace("interface: lo", "interface: nope"),
            "slurm:main",
            "profile main: the workers' scheduler does not start: .*'nope'",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(
    slurm: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any], profiles: str | None, place: str, said: str
) -> None:
    desk = new_desk(*some_clips("207"))
    if profiles is not None:
        (desk.stages.parent / "clusters.yaml").write_text(profiles)
    done = desk.apart("run", "--on", place)
    assert done.status == 2
    assert re.search(said, done.err), done.err
    assert n_artifacts(desk) == 0


def test_jobs_that_end_before_their_workers_come_end_the_run(
    slurm: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any]
) -> None:
    """With what they said last; they would be submitted again and again for ever."""
    desk = new_desk(*some_clips("207"))
    setup = """max_jobs: 1, setup: ["echo no such module", "exit 3"]"""
    (desk.stages.parent / "clusters.yaml").write_text(PROFILES.replace("max_jobs: 2", setup, 1))
    sooner = "from pipeline import slurm_cluster; slurm_cluster.ASK_S = 2.0; from pipeline.cli import main; main()"
    argv = [sys.executable, "-c", sooner, *desk.argv("run", "--on", "slurm:main")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    said = r"--on: the workers are lost: jobs are refused, or end before their workers come; the last of .*\.log: no such module"
    assert re.search(said, done.stderr), done.stderr


def test_a_cache_that_no_script_can_name(slurm: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any]) -> None:
    desk = new_desk(*some_clips("207"), name="my desk")
    (desk.stages.parent / "clusters.yaml").write_text(PROFILES)
    done = desk.apart("run", "--on", "slurm:main")
    assert done.status == 2
    assert "my desk/cache: no cache for jobs: dask-jobqueue writes it into job scripts as it is" in done.err


def test_a_run_leaves_no_keys(slurm: Any, two: Callable[..., Any]) -> None:
    _, jobs = two(stages=MANY)
    assert jobs.apart("run", "--on", "slurm:main", "--only", "audio").status == 0
    (logs,) = (jobs.cache / "runs").glob("*.logs")
    assert [path.suffix for path in logs.iterdir()] == [".log"] * len(list(logs.iterdir())) != []
