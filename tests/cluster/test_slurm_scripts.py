"""The jobs of dask's workers, on a real SLURM: what it takes, what runs in them, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.profiles import Profile
from pipeline.slurm import DEATH_TIMEOUT_S, cluster_options, job_script, submit_script

BARE: dict[str, Any] = {"name": "cpu", "walltime": "00:30:00", "memory": "2GB", "cores": 2}
PROFILES = {
    "bare": {},
    "a GPU": {"gpus": 1},
    "a GPU in the cluster's words": {"gres": "gpu:a100:1,place:1"},
    "a queue": {"queue": "low"},
    "an account, of which this SLURM keeps none": {"account": "mylab"},
    "days": {"walltime": "3-12:00:00", "client_walltime": "7-0"},
    "directives": {"directives": ('--comment="two words"', "--nice=10", "--exclusive"), "client_directives": ("--nice=20",)},
    "all that is in the script": {"setup": ("module() { :; }", "module load cuda"), "interface": "lo", "local_directory": "/tmp/$USER x"},
}

# A client that starts workers on the cluster and asks them what they see.
CLIENT = """
import json, os, sys, time
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Client

from pipeline.profiles import Profile
from pipeline.slurm import cluster_options

def seen(names):
    import torch
    return {name: os.environ.get(name) for name in names} | {"threads": torch.get_num_threads(), "folder": os.getcwd()}

if __name__ == "__main__":
    profile, folder, names = Profile(**json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3:]
    with SLURMCluster(**cluster_options(profile, log_folder=folder / "logs")) as cluster, Client(cluster) as client:
        cluster.scale(jobs=1)
        resources = {"GPU" if profile.has_gpu else "CPU": 1}
        print(json.dumps(client.submit(seen, names, resources=resources).result(timeout=60)), flush=True)
        if names == ["SLURM_JOB_ID"]:
            time.sleep(300)
"""


@pytest.mark.parametrize("case", PROFILES)
def test_slurm_takes_the_scripts(slurm: Any, tmp_path: Path, case: str) -> None:
    profile = Profile(**(BARE | PROFILES[case]))
    scripts = [job_script(profile, log_folder=tmp_path)]
    for here in (True, False):
        scripts += [submit_script(profile, ["true"], here=here, requeue=requeue, log_folder=tmp_path) for requeue in (True, False)]
    for script in scripts:
        slurm.run("sbatch", "--test-only", given=script)
        slurm.run("bash", "-n", given=script)


def test_the_script_that_is_shown_is_the_one_that_is_submitted(tmp_path: Path) -> None:
    """Compared with that of a cluster, whose scheduler runs here."""
    from dask_jobqueue import SLURMCluster

    for values in PROFILES.values():
        profile = Profile(**(BARE | values))
        shown = job_script(profile, log_folder=tmp_path / "logs")
        assert not (tmp_path / "logs").exists()  # looking makes nothing
        with SLURMCluster(**(cluster_options(profile, log_folder=tmp_path / "logs"))) as cluster:
            submitted = cluster.job_script().replace(cluster.scheduler_address, "tcp://SCHEDULER:PORT").replace("dummy-name", "WORKER")
        assert shown == submitted
        (tmp_path / "logs").rmdir()


@pytest.fixture
def client(slurm: Any, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """client(values of the profile, *names): a process that has a worker tell it these variables."""
    script, started = tmp_path / "client.py", []
    script.write_text(CLIENT)

    def start(values: dict[str, Any], *names: str) -> subprocess.Popen[str]:
        argv = [sys.executable, str(script), json.dumps(BARE | {"interface": "lo"} | values), str(tmp_path), *names]
        started.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_worker_has_what_its_profile_asks_for(slurm: Any, client: Any, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch of mine"
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TMPDIR", "CUDA_VISIBLE_DEVICES", "PREPARED")
    common = {"setup": ("export PREPARED=yes OMP_NUM_THREADS=1",), "local_directory": str(scratch)}
    clients = {kind: client(common | more, *names) for kind, more in {"gpu": {"name": "gpu", "gpus": 1}, "cpu": {}}.items()}
    for kind, process in clients.items():
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        seen = json.loads(out)
        assert seen["threads"] == 2  # of torch; dask would have it be 1, as the client's own environment would
        assert [seen[name] for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "TMPDIR", "PREPARED")] == ["2", "2", str(scratch), "yes"]
        assert seen["CUDA_VISIBLE_DEVICES"] in (("0", "1") if kind == "gpu" else ("",))
        (log,) = tmp_path.glob(f"logs/affectpipe-{kind}-*.log")
        assert "End worker" in log.read_text()


@pytest.mark.slow
def test_a_worker_ends_when_its_client_is_killed(slurm: Any, client: Any) -> None:
    process = client({}, "SLURM_JOB_ID")
    job = json.loads(process.stdout.readline())["SLURM_JOB_ID"]
    process.send_signal(signal.SIGKILL)
    assert slurm.wait(job, timeout_s=DEATH_TIMEOUT_S + 15) in ("COMPLETED", "FAILED")
