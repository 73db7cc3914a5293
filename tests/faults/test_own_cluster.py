"""A dask cluster that someone started by hand: the same bits as anywhere else, and one clear error for whatever is wrong with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from processes import artifacts, started

WAIT_S = 60.0
# Short ones, all that a trial can have: faces of a video and of a part of one, a variable rate, sound that ends early, none at all.
CLIPS = ("single_face.mp4", "noface_then_face_vfr.mov", "no_face.mp4")
STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  faces:    {use: mtcnn, from: timeline, mode: MODE, min_face_px: 100}
  audio:    {use: waveform}
  onet:     {use: onet, from: faces}
  logmel:   {use: logmel, from: audio}
store: {rows: timeline, dtype: float32}
"""


@dataclass(slots=True)
class Cluster:
    """A scheduler and its workers, each as one starts them in a terminal."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, program: str, *words: str, within: str = ":") -> subprocess.Popen[bytes]:
        """within: a shell's commands before it."""
        module = [sys.executable, "-m", f"distributed.cli.{program}", *words]
        with (self.folder / "said").open("ab") as said:
            argv = ["unshare", "--mount", "sh", "-c", f'{within}; exec "$@"', "sh", *module]
            argv = argv if within != ":" else module
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self.folder, start_new_session=True)
        self.processes.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        process = self.start("dask_scheduler", "--host", self.address, "--no-dashboard")
        return process

    def worker(self, *, within: str = ":") -> None:
        words = ("--nthreads", "1", "--no-dashboard", "--local-directory", str(self.folder))
        self.start("dask_worker", self.address, *words, within=within)

    def end(self) -> None:
        while self.processes:
            process = self.processes.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a nanny's worker too
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path, trouble: Callable[..., None]) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    made = Cluster(folder=tmp_path / "cluster")
    yield made
    made.end()


def ran(desk: Desk, on: str, status: int = 0) -> str:
    """What a run that ends so has said."""
    said = desk.stages.with_suffix(".said")
    said.unlink(missing_ok=True)
    run = started(desk, "--on", on, said=said)
    assert run.wait() == status, said.read_text()
    assert "Traceback" not in said.read_text()
    return said.read_text()


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def test_the_same_bits_on_the_sample(
    busy_desk: Callable[..., Desk], cluster: Cluster, assert_as_undisturbed: Callable[[Desk], None]
) -> None:
    cluster.scheduler()
    cluster.worker()
    cluster.worker()
    desk = busy_desk()
    assert errors(ran(desk, cluster.address)) == []
    assert_as_undisturbed(desk)


def test_the_same_bits_on_real_clips_everywhere(
    media: Path, new_desk: Callable[..., Desk], cluster: Cluster, tmp_path: Path, assert_same_data: Callable[..., None]
) -> None:
    (tmp_path / "videos").mkdir()
    for name in CLIPS:
        shutil.copy2(media / name, tmp_path / "videos")
    cluster.scheduler()
    cluster.worker()
    cluster.worker()
    stores: list[dict[str, Any]] = []
    for number, on in enumerate(("inline", "local:2", cluster.address)):
        desk = new_desk(tmp_path / "videos", stages=STAGES.replace("MODE", "tracked"), name=f"desk{number}")
        assert errors(ran(desk, on)) == []
        stores.append(desk.store_data())
    assert stores[0]["onet/valid"].sum() > 50, "there is something to compare"
    for other in stores[1:]:
        assert_same_data(other, stores[0])


def test_a_client_that_stops_leaves_the_workers_to_others(
    busy_desk: Callable[..., Desk], cluster: Cluster, assert_as_undisturbed: Callable[[Desk], None]
) -> None:
    """They end the job that they are at, and begin no other."""
    cluster.scheduler()
    cluster.worker()
    cluster.worker()
    desk = busy_desk()
    run = started(desk, "--on", cluster.address, said=desk.stages.with_suffix(".said"))
    wait_for_artifacts(desk, run)
    run.send_signal(signal.SIGTERM)
    assert run.wait(15.0) == 143, desk.stages.with_suffix(".said").read_text()
    until_s = time.monotonic() + WAIT_S
    while list(desk.cache.rglob("*.claim")):
        assert time.monotonic() < until_s, "they go on"
        time.sleep(0.1)
    n_done = artifacts(desk)
    time.sleep(1.0)
    assert artifacts(desk) == n_done
    ran(desk, cluster.address)
    assert_as_undisturbed(desk)


def wait_for_artifacts(desk: Desk, run: subprocess.Popen[bytes]) -> None:
    """A few."""
    until_s = time.monotonic() + WAIT_S
    while artifacts(desk) < 3:
        assert run.poll() is None, desk.stages.with_suffix(".said").read_text()
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_the_scheduler_dies(
    busy_desk: Callable[..., Desk],
    cluster: Cluster,
    assert_as_undisturbed: Callable[[Desk], None],
    assert_all_whole: Callable[[Desk], int],
) -> None:
    """In the middle of the work."""
    scheduler = cluster.scheduler()
    cluster.worker()
    desk = busy_desk()
    run = started(desk, "--on", cluster.address, said=desk.stages.with_suffix(".said"))
    wait_for_artifacts(desk, run)
    scheduler.kill()
    assert run.wait(WAIT_S) == 1
    said = desk.stages.with_suffix(".said").read_text()
    assert "Traceback" not in said
    (error,) = errors(said)
    assert error.startswith("error: --on: the workers are lost: ")
    assert error.endswith("; what was computed is kept; see why it ended, then run again")
    assert assert_all_whole(desk) >= 3
    cluster.end()
    ran(desk, "inline")
    assert_as_undisturbed(desk)


def test_no_scheduler_is_there(busy_desk: Callable[..., Desk]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    desk = busy_desk()
    (error,) = errors(ran(desk, address, 2))
    assert error.startswith(f"error: --on {address}: no scheduler answers: ")
    assert error.endswith("; start it (dask scheduler, dask worker --nthreads 1), mend the address, or for tls:// set distributed.comm.tls")
    assert artifacts(desk) == 0


def test_workers_that_do_not_see_the_cache(busy_desk: Callable[..., Desk], cluster: Cluster) -> None:
    """On their machine there is something else under that path."""
    desk = busy_desk()
    desk.cache.mkdir()
    hidden = f"mount -t tmpfs none '{desk.cache}'"
    if subprocess.run(["unshare", "--mount", "sh", "-c", hidden], check=False).returncode:
        reason = "cannot mount a file system that others do not see"
        pytest.fail(f"{reason}, and CI must not skip it") if os.environ.get("CI") else pytest.skip(reason)
    cluster.scheduler()
    cluster.worker(within=hidden)
    said = ran(desk, cluster.address, 2)
    (record,) = (desk.cache / "runs").glob("*.jsonl")
    assert errors(said) == [
        f"error: {socket.gethostname()}: a worker does not see the cache: there is no {record};"
        " let all machines have the cache and the videos under the same paths"
    ]
    assert f"a worker does not see the cache: there is no {record}" in record.read_text().splitlines()[-1]
    assert artifacts(desk) == 0
