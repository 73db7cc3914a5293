"""Jobs of a SLURM cluster: what starts a dask worker, and the batch job in which the client itself runs."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Problem, RequestError
from pipeline.profiles import Profile
from pipeline.threads import THREAD_VARIABLES

PACKAGES = ("dask", "distributed", "dask_jobqueue")
DEATH_TIMEOUT_S = 60  # a worker without its scheduler, because the client was killed, ends after so long
SBATCH_S = 120.0
# What a network needs cannot be spilled to disk, and a worker that pauses for want of memory would never go on. The nanny still ends a
# worker at 95% of the job's memory, before SLURM would end the job.
MEMORY = ("TARGET", "SPILL", "PAUSE")

# The batch script of the client. SLURM sends SIGTERM to this shell alone before the walltime (--signal=B:), and to every process where the
# job is cancelled or preempted. A trap may not do more than builtins: the shell may be within anything.
CLIENT = "affectpipe"
STARTING = """
stopping=
client=
trap 'stopping=1; if [ -n "$client" ]; then kill -TERM "$client"; fi' TERM
"""
# SLURM gives notice up to a minute early, so "near" is that and a little more. A job that is cancelled or preempted is COMPLETING by
# then; one that is given notice is RUNNING, or still SIGNALING.
WAITING = """\
client=$!
if [ -n "$stopping" ]; then kill -TERM "$client"; fi  # it came before the client did
wait "$client"
status=$?
again=
if [ -n "$stopping" ]; then
  read -r state end < <(SLURM_TIME_FORMAT=standard squeue --noheader --jobs="$SLURM_JOB_ID" --format="%T %e")
  echo "affectpipe: told to stop; the job is $state, its end $end"
  case "$state" in
    RUNNING | SIGNALING) if [ $(($(date --date="$end" +%s) - $(date +%s))) -le {near_s} ]; then again=1; fi ;;
  esac
  for ((second = 0; second < {patience_s}; second++)); do
    if ! kill -0 "$client" 2>/dev/null; then break; fi
    sleep 1
  done
  if kill -0 "$client" 2>/dev/null; then kill -KILL "$client"; fi
  wait "$client"
  status=$?
fi"""
# A status of 128 and more is that of what was stopped; with less it had come to its own end just before.
REQUEUEING = """\
if [ -n "$again" ] && [ "$status" -ge 128 ]; then
  echo "affectpipe: the walltime is reached; the job is queued again and goes on from here"
  scontrol requeue "$SLURM_JOB_ID"
fi"""


def require_packages() -> None:
    """Raises RequestError where dask or dask-jobqueue is not installed. Nothing is imported: that takes a second."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        why, fix = f"no module named {', '.join(missing)}", "pip install 'affectpipe[cluster]'"
        raise RequestError(Problem(what="what runs work on a cluster is not installed", where="--on", why=why, fix=fix))


def cluster_options(profile: Profile, *, log_folder: Path) -> dict[str, Any]:
    """The keyword arguments of dask_jobqueue's SLURMCluster whose jobs are this profile's: one worker process with one thread each."""
    drain_s, stagger_s, last_s = _margins(profile.walltime_s)
    worker = ["--resources", "GPU=1" if profile.has_gpu else "CPU=1", "--no-dashboard"]
    worker += ["--lifetime", f"$((ends - {last_s} - $(date +%s)))s"]
    worker += ["--preload", "pipeline.dask_worker", "--drain-at", f"$((ends - {drain_s} - RANDOM % {stagger_s}))"]
    return {
        "job_name": f"affectpipe-{profile.name}",
        "queue": profile.queue or None,
        "account": profile.account or None,
        "walltime": profile.walltime,
        "cores": 1,
        "processes": 1,
        "memory": f"{profile.memory_bytes}B",
        "job_cpu": profile.cores,
        "job_mem": _megabytes(profile.memory_bytes),
        "interface": profile.interface or None,
        "python": _quoted(profile.python or sys.executable),
        "local_directory": _quoted(profile.local_directory) if profile.local_directory else None,
        "death_timeout": DEATH_TIMEOUT_S,
        "shebang": "#!/usr/bin/env bash",
        "job_script_prologue": [f"ends=$(($(date +%s) + {profile.walltime_s}))", *_environment(profile, profile.cores), *_no_spilling()],
        "worker_extra_args": worker,
        "job_extra_directives": [_output(log_folder, "%x-%j.log"), "--no-requeue", *_gpu(profile), *profile.directives],
        # its own two lines do without quotes, and so without spaces
        "job_directives_skip": ["#SBATCH -e ", "#SBATCH -o "],
        "log_directory": str(log_folder),  # which it makes
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }


def job_script(profile: Profile, *, log_folder: Path) -> str:
    """The script of a worker's job as it is submitted, but for the scheduler's address, the worker's name and the certificates.

    Raises RequestError where dask-jobqueue is not installed.
    """
    require_packages()
    from dask_jobqueue.slurm import SLURMJob

    options = cluster_options(profile, log_folder=log_folder)
    del options["scheduler_options"]
    options["log_directory"] = None  # so that none is made
    return str(SLURMJob("tcp://SCHEDULER:PORT", name="WORKER", **options).job_script())


def _margins(walltime_s: int) -> tuple[int, int, int]:
    """Seconds before a job's end: when its worker takes no new task, over how long such moments are spread, and when it leaves for good."""
    drain_s = min(15 * 60, walltime_s // 5)
    return drain_s, drain_s // 3, min(60, drain_s // 4)


def _environment(profile: Profile, cores: int) -> list[str]:
    """The user's own lines, and after them what must hold whatever they did."""
    lines = [*profile.setup, *(f"export {name}={cores}" for name in THREAD_VARIABLES)]
    if profile.local_directory:
        lines += [f"export TMPDIR={_quoted(profile.local_directory)}", 'mkdir -p "$TMPDIR"']
    if not profile.has_gpu:
        lines.append("export CUDA_VISIBLE_DEVICES=")  # a node may show GPUs also to a job that asked for none
    return lines


def _no_spilling() -> list[str]:
    return [f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}=False" for name in MEMORY]


def _gpu(profile: Profile) -> list[str]:
    return [f"--gres={profile.generic_resources}"] if profile.generic_resources else []


def _output(log_folder: Path, name: str) -> str:
    return f'--output="{str(log_folder.absolute()).replace("%", "%%")}/{name}"'


def _megabytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // 2**20)}M"


def _quoted(path: str) -> str:
    """Between double quotes, where $HOME and $USER are still read, and ~ no more."""
    return f'"$HOME{path[1:]}"' if path == "~" or path.startswith("~/") else f'"{path}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A batch job that the cluster has taken. log: where it writes, once it runs."""

    job_id: str
    log: Path


def submit(profile: Profile, argv: Sequence[str], *, here: bool, requeue: bool, log_folder: Path) -> Submitted:
    """Hand `submit_script` to sbatch. Raises RequestError where there is none or it refuses, in its own words."""
    script = submit_script(profile, argv, here=here, requeue=requeue, log_folder=log_folder)
    log_folder.mkdir(parents=True, exist_ok=True)  # SLURM makes none, and the job would fail without a word
    job_id = _sbatch(["--parsable"], script, profile).partition(";")[0]
    return Submitted(job_id=job_id, log=log_folder.absolute() / f"{CLIENT}-{job_id}.log")


def check(profile: Profile, *, log_folder: Path) -> None:
    """Raises RequestError where sbatch would not take a worker's job. None is submitted."""
    _sbatch(["--test-only"], job_script(profile, log_folder=log_folder), profile)


def gone(jobs: Mapping[str, str]) -> list[str]:
    """Of names and job numbers, the names whose jobs the queue does not know any more; none where it does not answer."""
    try:
        argv = ["squeue", "--noheader", "--me", "--format=%A"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SBATCH_S, check=False)
    except subprocess.TimeoutExpired:
        return []  # a busy controller: it is asked again
    known = set(done.stdout.split())
    return [] if done.returncode else [name for name, job_id in jobs.items() if str(job_id) not in known]


def _sbatch(options: Sequence[str], script: str, profile: Profile) -> str:
    """What sbatch says of a script. Raises RequestError."""
    where = f"profile {profile.name}"
    try:
        done = subprocess.run(["sbatch", *options], input=script, capture_output=True, text=True, timeout=SBATCH_S, check=False)
    except FileNotFoundError as error:
        fix = "run this on a machine of the cluster from which jobs are submitted"
        raise RequestError(Problem(what="there is no sbatch here", where="PATH", why="SLURM's commands are not found", fix=fix)) from error
    except subprocess.TimeoutExpired as error:
        fix = "try again; see `squeue --me` first, since the job may be there"
        raise RequestError(Problem(what="sbatch does not answer", where=where, why=f"not within {SBATCH_S:.0f} s", fix=fix)) from error
    if done.returncode:
        said = " ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.strip().splitlines())
        fix = "mend the profile in clusters.yaml"
        raise RequestError(Problem(what="sbatch refuses the job", where=where, why=said or f"status {done.returncode}", fix=fix))
    return done.stdout.strip()


def submit_script(profile: Profile, argv: Sequence[str], *, here: bool, requeue: bool, log_folder: Path) -> str:
    """A batch script that runs a command and stops it in time; where `requeue` is set it is started again until the command has ended.

    here: the command does the work itself, on the profile's cores, memory and GPU; else it only hands it out to other jobs.
    """
    queue, directives = profile.queue, profile.directives
    cores, memory, walltime, seconds = profile.cores, profile.memory_bytes, profile.walltime, profile.walltime_s
    if not here:
        queue = profile.client_queue or queue
        directives = profile.directives if profile.client_directives is None else profile.client_directives
        cores, memory = profile.client_cores, profile.client_memory_bytes
        walltime, seconds = profile.client_walltime or walltime, profile.client_walltime_s
    notice_s = min(120, seconds // 5)
    header = [
        f"--job-name={CLIENT}",
        *([f"--partition={queue}"] if queue else []),
        *([f"--account={profile.account}"] if profile.account else []),
        "--ntasks=1",
        f"--cpus-per-task={cores}",
        f"--mem={_megabytes(memory)}",
        f"--time={walltime}",
        _output(log_folder, f"{CLIENT}-%j.log"),
        "--open-mode=append",
        f"--signal=B:TERM@{notice_s}",
        "--requeue" if requeue else "--no-requeue",
        *(_gpu(profile) if here else []),
        *directives,
    ]
    lines = ["#!/usr/bin/env bash", *(f"#SBATCH {option}" for option in header), STARTING]
    lines += _environment(profile, cores) if here else list(profile.setup)
    lines += ["", f"{shlex.join(argv)} &", WAITING.format(near_s=notice_s + 90, patience_s=notice_s - notice_s // 6)]
    return "\n".join([*lines, *([REQUEUEING] if requeue else []), 'exit "$status"', ""])
