"""A real SLURM on this machine, in a folder of its own: `python slurm_machine.py FOLDER`, as root.

It starts munged, slurmctld and slurmd with files of its own, writes FOLDER/ready once the node is idle (or FOLDER/failed with the
reason), and ends all of it, jobs included, on SIGTERM or once no process holds a lock on FOLDER/users: also where the tests are killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

PROGRAMS = ("munged", "slurmctld", "slurmd")
START_S, STOP_S = 60.0, 10.0
# Eight cores are told of, whatever the machine has, so that jobs of two test files run side by side. The two GPUs are any device files.
CONFIG = """\
ClusterName=affectpipe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
KillWait=5
OverTimeLimit=0
MinJobAge=600
ReturnToService=2
GresTypes=gpu,place
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:a100:2,place:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1
"""
GENERIC_RESOURCES = """\
AutoDetect=off
Name=gpu Type=a100 File=/dev/null
Name=gpu Type=a100 File=/dev/zero
Name=place Count=1
"""


def main(shared: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a way out through the finally clauses
    own = Path(tempfile.mkdtemp(prefix="affectpipe_slurm_", dir="/tmp"))  # a socket's path has at most 107 characters
    children: list[subprocess.Popen[bytes]] = []
    try:
        with (shared / "users").open() as users:
            try:
                start(own, children)
            except Exception as error:
                (shared / "failed").write_text(f"{error}\n{logs(own)}")
                return
            publish(shared / "ready", json.dumps({"pid": os.getpid(), "config": str(own / "slurm.conf")}))
            while in_use(users) and all(child.poll() is None for child in children):
                time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop(own, children)
        shutil.rmtree(own, ignore_errors=True)
        (shared / "ready").unlink(missing_ok=True)


def in_use(users: IO[str]) -> bool:
    """Whether any process holds its lock. If none does, this one has it, and so whoever comes now waits until all has ended."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def start(own: Path, children: list[subprocess.Popen[bytes]]) -> None:
    """Raises OSError, RuntimeError or subprocess.SubprocessError."""
    names = {"host": socket.gethostname().partition(".")[0], "controller_port": free_port(), "node_port": free_port(), "folder": own}
    (own / "slurm.conf").write_text(CONFIG.format(**names))
    (own / "gres.conf").write_text(GENERIC_RESOURCES)
    (own / "munge.key").write_bytes(os.urandom(1024))
    (own / "munge.key").chmod(0o400)
    os.environ["SLURM_CONF"] = str(own / "slurm.conf")
    for name in ("state", "spool"):
        (own / name).mkdir()
    munge = {option: own / f"munge.{option}" for option in ("socket", "key", "pid", "seed", "log")}
    files = ("--socket", munge["socket"], "--key-file", munge["key"], "--pid-file", munge["pid"], "--seed-file", munge["seed"])
    launch(own, children, "munged", "--foreground", "--force", *files, "--log-file", munge["log"])
    await_true(children, munge["socket"].exists, "munged has no socket")
    launch(own, children, "slurmctld", "-D")
    await_true(children, lambda: asked("sinfo", "--noheader") != "", "slurmctld does not answer")
    launch(own, children, "slurmd", "-D", "-N", str(names["host"]))
    await_true(children, lambda: asked("sinfo", "--noheader", "--partition=main", "--format=%t") == "idle", "the node is not idle")


def launch(own: Path, children: list[subprocess.Popen[bytes]], program: str, *options: object) -> None:
    """Start a daemon in the foreground, which ends with this process, however that ends."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    with (own / f"{program}.out").open("wb") as out:
        argv = [str(path), *map(str, options)]
        # PR_SET_PDEATHSIG is 1. The daemons leave this process's group, so that a Ctrl-C at the tests' terminal is not theirs.
        children.append(
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL),
            )
        )


def await_true(children: list[subprocess.Popen[bytes]], true: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + START_S
    while not true():
        if time.monotonic() > end or any(child.poll() is not None for child in children):
            raise RuntimeError(otherwise)
        time.sleep(0.1)


def asked(*argv: str) -> str:
    """What it prints; nothing where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=START_S, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def stop(own: Path, children: list[subprocess.Popen[bytes]]) -> None:
    if len(children) == len(PROGRAMS) and all(child.poll() is None for child in children):
        asked("scancel", "--user=root")
        end = time.monotonic() + STOP_S
        while asked("squeue", "--noheader") and time.monotonic() < end:
            time.sleep(0.1)
    for child in reversed(children):
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for pid in left_over(own):
        os.kill(pid, signal.SIGKILL)


def left_over(own: Path) -> list[int]:
    """Processes of jobs that have outlived even slurmd: our file's name is in their environment."""
    mark, found = f"SLURM_CONF={own}/slurm.conf".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                of_ours = mark in (entry / "environ").read_bytes().split(b"\0") and b"SLURM_JOB_ID=" in (entry / "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is not ours to see
            if of_ours:
                found.append(int(entry.name))
    return found


def logs(own: Path) -> str:
    return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in (*own.glob("*.out"), *own.glob("*.log")))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def publish(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
