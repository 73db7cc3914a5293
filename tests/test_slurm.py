"""What is asked of a cluster, as text; tests/cluster has the same on a real SLURM."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RequestError
from pipeline.profiles import Profile
from pipeline.slurm import cluster_options, job_script, require_packages, submit_script

LOGS = Path("/logs")


def profile(**values: Any) -> Profile:
    return Profile(**({"name": "any", "walltime": "08:00:00", "memory": "32GB", "cores": 8} | values))


def header(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def seconds_before_the_end(script: str) -> tuple[int, int, int]:
    """When a worker takes no new task, over how long that is spread, and when it leaves."""
    drain, spread = re.findall(r"--drain-at \$\(\(ends - (\d+) - RANDOM % (\d+)\)\)", script)[0]
    (last,) = re.findall(r"--lifetime \$\(\(ends - (\d+) - \$\(date \+%s\)\)\)s", script)
    return int(drain), int(spread), int(last)


def test_a_worker_has_one_thread_of_dask_and_all_cores_for_its_own() -> None:
    script = job_script(profile(gpus=1, queue="gpu", account="mylab", directives=("--constraint=a100",)), log_folder=LOGS)
    assert header(script) == [
        "-J affectpipe-any",
        "-p gpu",
        "-A mylab",
        "-n 1",
        "--cpus-per-task=8",
        "--mem=32768M",
        "-t 08:00:00",
        '--output="/logs/%x-%j.log"',
        "--no-requeue",
        "--gres=gpu:1",
        "--constraint=a100",
    ]
    assert "--nthreads 1 --memory-limit 32.00GiB --nanny" in script
    assert "--resources GPU=1" in script
    assert "export OMP_NUM_THREADS=8" in script
    assert "CUDA_VISIBLE_DEVICES" not in script
    assert f'\n"{sys.executable}" -m distributed.cli.dask_worker' in script


def test_a_job_without_a_gpu_takes_none() -> None:
    script = job_script(profile(), log_folder=LOGS)
    assert not any("gres" in option for option in header(script))
    assert "--resources CPU=1" in script
    assert "export CUDA_VISIBLE_DEVICES=\n" in script


@pytest.mark.parametrize("walltime", ["00:01:00", "00:10:00", "01:00:00", "08:00:00", "7-00:00:00"])
def test_a_worker_stops_in_time(walltime: str) -> None:
    asked = profile(walltime=walltime)
    drain_s, spread_s, last_s = seconds_before_the_end(job_script(asked, log_folder=LOGS))
    assert drain_s == min(900, asked.walltime_s // 5)
    assert 0 < last_s < drain_s  # there is time for what runs
    assert 0 < spread_s < drain_s
    assert drain_s + spread_s < asked.walltime_s / 3  # and most of the job is for work


def test_own_lines_come_last_for_they_must_hold() -> None:
    script = job_script(profile(setup=("module load cuda", "export OMP_NUM_THREADS=64"), local_directory="~/my scratch"), log_folder=LOGS)
    lines = script.splitlines()
    assert lines.index("export OMP_NUM_THREADS=64") < lines.index("export OMP_NUM_THREADS=8")
    assert 'export TMPDIR="$HOME/my scratch"' in lines
    assert '--local-directory "$HOME/my scratch"' in script


def test_a_log_folder_of_any_name() -> None:
    assert '--output="/my 100%% logs/%x-%j.log"' in header(job_script(profile(), log_folder=Path("/my 100% logs")))
    relative = submit_script(profile(), ["true"], here=False, requeue=True, log_folder=Path("logs"))
    assert f'--output="{Path.cwd()}/logs/affectpipe-%j.log"' in header(relative)


def test_cluster_options_ask_for_no_port_that_may_be_taken() -> None:
    assert cluster_options(profile(), log_folder=LOGS)["scheduler_options"] == {"dashboard_address": "127.0.0.1:0"}


def test_the_clients_job_hands_out_work() -> None:
    asked = profile(gpus=1, queue="gpu", directives=("--constraint=a100",), client_walltime="2-00:00:00")
    script = submit_script(asked, ["affectpipe", "run", "my videos"], here=False, requeue=True, log_folder=LOGS)
    assert header(script) == [
        "--job-name=affectpipe",
        "--partition=gpu",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--mem=4096M",
        "--time=2-00:00:00",
        '--output="/logs/affectpipe-%j.log"',
        "--open-mode=append",
        "--signal=B:TERM@120",
        "--requeue",
        "--constraint=a100",
    ]
    assert "\naffectpipe run 'my videos' &\n" in script
    assert "scontrol requeue" in script


def test_the_clients_own_queue_and_directives() -> None:
    asked = profile(queue="gpu", directives=("--constraint=a100",), client_queue="cpu", client_directives=("--qos=long",))
    options = header(submit_script(asked, ["true"], here=False, requeue=True, log_folder=LOGS))
    assert "--partition=cpu" in options
    assert options[-1] == "--qos=long"


def test_the_clients_job_does_the_work() -> None:
    asked = profile(gpus=1, queue="gpu", client_queue="cpu", client_walltime="2-00:00:00")
    script = submit_script(asked, ["true"], here=True, requeue=False, log_folder=LOGS)
    options = header(script)
    assert {"--partition=gpu", "--cpus-per-task=8", "--mem=32768M", "--time=08:00:00", "--gres=gpu:1", "--no-requeue"} <= set(options)
    assert "export OMP_NUM_THREADS=8" in script
    assert "scontrol requeue" not in script


@pytest.mark.parametrize(("walltime", "notice_s"), [("00:01:00", 12), ("00:05:00", 60), ("08:00:00", 120)])
def test_notice_of_the_walltime(walltime: str, notice_s: int) -> None:
    script = submit_script(profile(walltime=walltime), ["true"], here=True, requeue=True, log_folder=LOGS)
    assert f"--signal=B:TERM@{notice_s}" in header(script)
    (patience_s,) = re.findall(r"second < (\d+)", script)
    assert 0.8 * notice_s <= int(patience_s) < notice_s


@pytest.mark.parametrize("requeue", [True, False])
def test_the_scripts_are_bash(requeue: bool) -> None:
    script = submit_script(
        profile(setup=("true",)), ["printf", "%s", "$(id) `id` 'x' {near_s}"], here=True, requeue=requeue, log_folder=LOGS
    )
    assert "{near_s}" in script  # what stands in the arguments is left alone
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    subprocess.run(["bash", "-n"], input=job_script(profile(), log_folder=LOGS), text=True, check=True)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)  # as Python has it where a module cannot be imported
    with pytest.raises(RequestError, match=r"no module named dask_jobqueue; pip install 'affectpipe\[cluster\]'"):
        require_packages()
    with pytest.raises(RequestError, match=r"pip install 'affectpipe\[cluster\]'"):
        job_script(profile(), log_folder=LOGS)
