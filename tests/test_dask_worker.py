"""Workers that stop in time: dask's real scheduler and workers, each worker a process as in a job of a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

N_TASKS, TASK_S = 6, 1.5


@pytest.fixture
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    options = {"dashboard": False, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=0, host="127.0.0.1", scheduler_kwargs=options, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def worker(client: Any, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """worker(*options): a worker's process."""
    started = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address, "--nthreads=1", "--no-dashboard"]
        with (tmp_path / f"worker{len(started)}.log").open("wb") as log:
            argv += ["--local-directory", str(tmp_path), "--resources", "GPU=1", *options]
            started.append(subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(30)


def noted(number: int, path: str, seconds: float) -> int:
    """A task that tells when it starts and ends."""
    import time
    from pathlib import Path

    with Path(path).open("a") as file:
        file.write(f"start {number}\n")
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write(f"end {number}\n")
    return number


@pytest.mark.slow
@pytest.mark.parametrize("held", [False, True])
def test_a_worker_ends_its_task_and_takes_no_more(client: Any, worker: Any, tmp_path: Path, held: bool) -> None:
    """Its time comes while a task runs. What it ran counts, and what waited there is done by the next worker.

    held: the client does not let go of what it has fetched. Then, since there is no other worker, that may be done again.
    """
    from distributed import as_completed

    client.cluster.scheduler.allowed_failures = 0  # a task that is blamed for the worker's end fails at once
    keys = [f"noted-{number}" for number in range(N_TASKS)]
    futures = [
        client.submit(noted, number, str(tmp_path / "notes"), TASK_S, resources={"GPU": 1}, key=key) for number, key in enumerate(keys)
    ]
    completed = as_completed(futures, with_results=True)
    if not held:
        futures.clear()
    first, ended, results = worker("--preload", "pipeline.dask_worker", "--drain-at", str(time.time() + 6)), [], []

    def follow() -> None:
        ended.append((first.wait(60), (tmp_path / "notes").read_text().splitlines()))
        worker()

    following = threading.Thread(target=follow)
    following.start()
    for future, result in completed:
        results.append(result)
        del future
    following.join()
    assert sorted(results) == list(range(N_TASKS))
    ((status, notes),) = ended
    assert status == 0  # of its own accord, and its nanny starts it no more
    assert 0 < len(notes) < 2 * N_TASKS  # it ended between
    assert len(notes) % 2 == 0  # and cut nothing off
    lines = (tmp_path / "notes").read_text().splitlines()
    both = [f"{word} {number}" for word in ("start", "end") for number in range(N_TASKS)]
    assert sorted(set(lines) if held else lines) == sorted(both)


@pytest.mark.slow
def test_a_worker_without_work_ends_at_its_time(client: Any, worker: Any) -> None:
    process, start = worker("--preload", "pipeline.dask_worker", "--drain-at", str(time.time() + 3)), time.monotonic()
    client.wait_for_workers(1, timeout=30)
    assert process.wait(30) == 0
    assert 2 < time.monotonic() - start < 15


@pytest.mark.slow
def test_a_time_that_has_passed_ends_it_at_once(client: Any, worker: Any) -> None:
    assert worker("--preload", "pipeline.dask_worker", "--drain-at", "1").wait(30) == 0


@pytest.mark.parametrize(("drain_in_s", "stays"), [(60, False), (0, True)], ids=["before its time", "when its time is up"])
def test_a_worker_that_is_ended_in_order_gives_its_claims_back(drain_in_s: float, stays: bool, tmp_path: Path) -> None:
    """So that what it was at is not blamed for its end, unless it was too long for the job."""
    claim = tmp_path / "artifact.claim"
    code = f"""
import os, signal, time
from pathlib import Path
from types import SimpleNamespace
from pipeline import claims
from pipeline.dask_worker import dask_setup

claim = Path({str(claim)!r})
claims.take(claim, "run")
memory = SimpleNamespace(memory_limit=1 << 40)
monitor = SimpleNamespace(get_process_memory=lambda: 1 << 20)
loop = SimpleNamespace(call_later=lambda *_: None)
worker = SimpleNamespace(memory_manager=memory, monitor=monitor, loop=loop)
dask_setup.callback(worker, {time.time() + drain_in_s})
with claims.HOLDER.holding([claim]):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert claim.exists() is stays
