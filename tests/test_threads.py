"""How many threads a process may use: cores, quotas of control groups, what it was told; and that its libraries heed it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.threads import THREAD_VARIABLES, allowed_threads, limit_threads, usable_cores

ROOT = Path(__file__).resolve().parents[1]
MANY = 64


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 64 cores, and where its control groups are to be written."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(MANY)), raising=False)
    (tmp_path / "groups").mkdir()
    return tmp_path


def write(machine: Path, own: str, files: dict[str, str]) -> None:
    (machine / "own").write_text(own)
    for name, text in files.items():
        path = machine / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


V1 = "7:blkio:/\n4:cpu,cpuacct:/slurm/job_7/step_0\n3:cpuset:/slurm/job_7\n1:name=systemd:/\n"
V2 = "0::/system.slice/slurmstepd.scope/job_7/step_0\n"
STEP = V2.strip().partition("::/")[2]
JOB = STEP.rpartition("/")[0]


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        pytest.param("", {}, MANY, id="no groups"),
        pytest.param(V2, {}, MANY, id="version 2, no quota"),
        pytest.param(V2, {f"{STEP}/cpu.max": "max 100000"}, MANY, id="version 2, without end"),
        pytest.param(V2, {f"{STEP}/cpu.max": "400000 100000"}, 4, id="version 2"),
        pytest.param(V2, {f"{STEP}/cpu.max": "max 100000", f"{JOB}/cpu.max": "300000 100000"}, 3, id="version 2, the job's"),
        pytest.param(V2, {f"{STEP}/cpu.max": "300000 100000", f"{JOB}/cpu.max": "800000 100000"}, 3, id="version 2, the smaller one"),
        pytest.param(V2, {f"{STEP}/cpu.max": "390000 100000"}, 3, id="a part of a core is none"),
        pytest.param(V2, {f"{STEP}/cpu.max": "50000 100000"}, 1, id="half a core is one"),
        pytest.param(V2, {f"{STEP}/cpu.max": "12800000 100000"}, MANY, id="a quota beyond the cores"),
        pytest.param("0::/\n", {"cpu.max": "250000 50000"}, 5, id="version 2, in a container"),
        pytest.param("0::/docker/abc\n", {"cpu.max": "200000 100000"}, 2, id="version 2, under the path outside"),
        pytest.param(
            V1, {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, MANY, id="version 1, without end"
        ),
        pytest.param(
            V1,
            {"cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "600000", "cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000"},
            6,
            id="version 1, the job's",
        ),
        pytest.param(V1, {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2, id="version 1, in a container"),
        pytest.param("1:name=systemd:/\n0::/job\n", {"unified/job/cpu.max": "700000 100000"}, 7, id="both versions"),
        pytest.param("5:cpuset:/a\n", {"cpuset/a/cpu.max": "100000 100000"}, MANY, id="not of the processor's time"),
    ],
)
def test_cores_are_those_of_the_groups(machine: Path, own: str, files: dict[str, str], cores: int) -> None:
    write(machine, own, files)
    assert usable_cores(machine / "own", machine / "groups") == cores


def test_cores_are_those_that_it_may_run_on(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(machine, V2, {f"{STEP}/cpu.max": "400000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 9, 11}, raising=False)
    assert usable_cores(machine / "own", machine / "groups") == 3
    assert usable_cores(machine / "not there", machine / "groups") == 3


def test_where_there_is_no_linux(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert usable_cores(machine / "not there", machine / "groups") == 10


def test_this_machine_has_some() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("told", "threads"),
    [("3", 3), (" 3 ", 3), ("200", 200), ("4,2", 4), ("", MANY), ("0", MANY), ("-1", MANY), ("all", MANY), (None, MANY)],
)
def test_what_the_user_says_counts(machine: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, threads: int) -> None:
    monkeypatch.setattr("pipeline.threads.usable_cores", lambda: MANY)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert allowed_threads() == threads


@pytest.mark.parametrize("n", [0, -2])
def test_no_threads_at_all_are_refused(n: int) -> None:
    before = dict(os.environ)
    with pytest.raises(ValueError, match=f"^limit_threads: expected 1 or more, got {n}$"):
        limit_threads(n)
    assert dict(os.environ) == before


def told(code: str, **environment: str) -> Any:
    """What a fresh interpreter prints, from JSON."""
    clean = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES} | environment
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


IN_LIBRARIES = "[torch.get_num_threads(), cv2.getNumThreads(), numba.get_num_threads(), allowed_threads()]"


def test_libraries_that_come_later_heed_it() -> None:
    code = f"""
import json, sys
from pipeline.threads import allowed_threads, limit_threads
limit_threads(1)
loaded = [name for name in ("torch", "cv2", "numba", "numpy") if name in sys.modules]
import torch, cv2, numba
print(json.dumps([loaded, {IN_LIBRARIES}]))
"""
    assert told(code) == [[], [1, 1, 1, 1]]


@pytest.mark.parametrize("n", [1, 2])
def test_libraries_that_are_there_heed_it(n: int) -> None:
    """Numba has no more threads than it was loaded with: three here, of whatever the machine has."""
    code = f"""
import json, subprocess, sys
import torch, cv2, numba
from pipeline.threads import allowed_threads, limit_threads
limit_threads({n})
child = "from pipeline.threads import allowed_threads; print(allowed_threads())"
print(json.dumps([*{IN_LIBRARIES}, int(subprocess.run([sys.executable, "-c", child], capture_output=True, check=True).stdout)]))
"""
    assert told(code, NUMBA_NUM_THREADS="3") == [n] * 5


def test_numba_compiles_still_after_a_limit() -> None:
    """It refuses to, where NUMBA_NUM_THREADS changes once its threads have begun."""
    code = """
import json
import numba
from pipeline.threads import limit_threads
limit_threads(2)
limit_threads(1)
print(json.dumps([numba.njit(lambda x: x + 1)(1), numba.get_num_threads()]))
"""
    assert told(code, NUMBA_NUM_THREADS="3") == [2, 1]


def test_torch_heeds_it_in_every_thread() -> None:
    """Threads of a pool, where a worker process may run its jobs, are not the one in which it was told."""
    code = """
import json
from concurrent.futures import ThreadPoolExecutor
import torch
from pipeline.threads import limit_threads
limit_threads(2)
with ThreadPoolExecutor(1) as pool:
    print(json.dumps(pool.submit(torch.get_num_threads).result()))
"""
    assert told(code) == 2
