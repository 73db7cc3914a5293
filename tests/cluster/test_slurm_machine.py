"""The SLURM of the tests is a real one: it schedules, counts GPUs, cancels, requeues and preempts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SLEEP = "#!/bin/bash\nsleep 100\n"


def test_its_node_is_there_with_two_gpus(slurm: Any) -> None:
    assert slurm.run("sinfo", "--noheader", "--partition=main", "--format=%c %G") == "8 gpu:a100:2,place:1"


def test_a_job_runs_our_python_and_its_status_is_told(slurm: Any, tmp_path: Path) -> None:
    script = f"#!/bin/bash\n{sys.executable} -c 'import numpy; print(numpy.arange(3).sum())'\n"
    job = slurm.sbatch(script, "--output", tmp_path / "out")
    assert slurm.wait(job) == "COMPLETED"
    assert (tmp_path / "out").read_text() == "3\n"
    failing = slurm.sbatch("#!/bin/bash\nexit 3\n", "--output", tmp_path / "out")
    assert slurm.wait(failing) == "FAILED"
    assert slurm.about(failing)["ExitCode"] == "3:0"


def test_gpus_are_counted(slurm: Any, tmp_path: Path) -> None:
    """Two jobs at once have one each; a job that asks for more than there are is refused."""
    files = [tmp_path / "0", tmp_path / "1"]
    jobs = []
    for file in files:
        both = f"until [ -e {files[0]} -a -e {files[1]} ]; do sleep 0.1; done"
        script = f"#!/bin/bash\necho $CUDA_VISIBLE_DEVICES > {file}\n{both}\n"
        jobs.append(slurm.sbatch(script, "--gres=gpu:1", "--output=/dev/null"))
    assert [slurm.wait(job) for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert sorted(file.read_text() for file in files) == ["0\n", "1\n"]
    refused = subprocess.run(["sbatch", "--gres=gpu:3"], input=SLEEP, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode != 0
    assert "Requested node configuration is not available" in refused.stderr


def test_a_cancelled_job_ends(slurm: Any) -> None:
    job = slurm.sbatch(SLEEP, "--output=/dev/null")
    slurm.wait(job, "RUNNING")
    slurm.cancel(job)
    assert slurm.wait(job) == "CANCELLED"


def test_a_requeued_job_runs_again(slurm: Any, tmp_path: Path) -> None:
    script = '#!/bin/bash\necho "run ${SLURM_RESTART_COUNT:-0}"\n[ "${SLURM_RESTART_COUNT:-0}" = 1 ] || sleep 100\n'
    job = slurm.sbatch(script, "--requeue", "--open-mode=append", "--output", tmp_path / "out")
    slurm.wait(job, "RUNNING")
    _until(lambda: "run 0" in _text(tmp_path / "out"))
    slurm.run("scontrol", "requeue", job)
    _until(lambda: "run 1" in _text(tmp_path / "out"))
    assert slurm.wait(job) == "COMPLETED"


def test_a_job_of_the_low_partition_makes_room(slurm: Any, tmp_path: Path) -> None:
    low = slurm.sbatch(SLEEP, "--partition=low", "--gres=place:1", "--requeue", "--output=/dev/null")
    slurm.wait(low, "RUNNING")
    high = slurm.sbatch("#!/bin/bash\nexit 0\n", "--gres=place:1", "--output=/dev/null")
    assert slurm.wait(high) == "COMPLETED"
    assert slurm.about(low)["Restarts"] == "1"
    slurm.cancel(low)


def test_it_ends_when_whoever_uses_it_is_killed(slurm: Any, tmp_path: Path) -> None:
    """A run of tests of its own, killed while a job runs: neither daemons nor the job stay."""
    support = Path(__file__).with_name("conftest.py").read_text().replace("Path(__file__)", f"Path({__file__!r})")
    (tmp_path / "conftest.py").write_text(support)
    (tmp_path / "test_it.py").write_text(
        "import time\n\ndef test_it(slurm):\n"
        "    slurm.wait(slurm.sbatch('#!/bin/bash\\nsleep 1000\\n', '--output=/dev/null'), 'RUNNING')\n"
        f"    open({str(tmp_path / 'config')!r}, 'w').write(str(slurm.config))\n    time.sleep(100)\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}", str(tmp_path)]
    run = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: _text(tmp_path / "config") != "", 60)
    finally:
        run.kill()
        run.wait()
    folder = Path(_text(tmp_path / "config")).parent
    assert folder != slurm.config.parent
    _until(lambda: not folder.exists() and _processes_of(folder) == [], 30)
    assert slurm.run("sinfo", "--noheader", "--partition=main", "--format=%T") != ""  # the one beside it goes on


def _processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                known = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if str(folder).encode() in known:
                found.append(entry.name)
    return found


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _until(true: Any, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
