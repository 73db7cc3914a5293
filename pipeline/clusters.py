"""Opening a pool of dask workers: processes of this machine, a cluster that is there already, or SLURM jobs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dask_pool import DaskPool, Side, Told, lost, workers_of
from pipeline.errors import PassingError, Problem, RequestError
from pipeline.places import Place
from pipeline.profiles import find_profiles
from pipeline.slurm_cluster import submitted
from pipeline.stopping import put_off
from pipeline.threads import THREAD_VARIABLES, usable_cores

if TYPE_CHECKING:
    from distributed import Client, SpecCluster

WORKER_BYTES = 3 << 30  # what a process with the networks of the default stages takes
FIRST_WORKER_S = 60.0
BACK_S, GONE_S = 60.0, 300.0  # for a worker that died to be back, before it is given up; for any at all. Starting one loads much
# Only workers that die are told of: their memory is mostly torch's and the decoder's, which dask would take for data to spill, and a long
# call into a library that keeps the interpreter busy is no reason to give a worker up.
CONFIG = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.scheduler.worker-ttl": "30 minutes",
    "distributed.scheduler.allowed-failures": 3,
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.timeouts.tcp": "60s",
    "distributed.admin.tick.limit": "1 hour",
    "distributed.deploy.lost-worker-timeout": "5s",
}
LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")
QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}  # what matters of what dask says is said as an error of ours
FROM_TERMINALS = {signal.SIGINT, signal.SIGHUP}


@contextlib.contextmanager
def opened(place: Place, *, device: str, told: Told, clusters: Path, logs: Path) -> Iterator[DaskPool]:
    """The workers of a place that is not this process. Raises RequestError where they cannot be had.

    told: called with the dashboard's address and the number of workers whenever that changes. clusters: a
    clusters.yaml; logs: a folder for what workers say.
    """
    try:
        import dask
        import distributed  # noqa: F401  # what dask alone lacks
    except ImportError as error:
        fix = "pip install 'affectpipe[cluster]'"
        raise RequestError(Problem(what="needs dask", where=f"--on {place}", why=str(error), fix=fix)) from error
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(CONFIG))
        if place.kind == "local":
            pool = _local(place.n_workers, device, told)
        elif place.kind == "slurm":
            pool = submitted(*find_profiles(clusters, place.profile), device, told, logs)
        else:
            pool = _reached(place.address, device, told)
        yield stack.enter_context(pool)


@contextlib.contextmanager
def _local(n_workers: int | None, device: str, told: Told) -> Iterator[DaskPool]:
    """A process per GPU, and n_workers without one. Nobody else on this machine can talk to them: they know each other by certificates
    made for this run."""
    import dask
    from distributed import Nanny, Scheduler
    from distributed.security import Security
    from distributed.system import MEMORY_LIMIT

    gpus = visible_gpus(device)
    n_cpu = n_workers or max(1, min(usable_cores(), MEMORY_LIMIT // WORKER_BYTES) - len(gpus))
    n_all = n_cpu + len(gpus)
    # Libraries read these as they are loaded, which is before a worker is told anything.
    environment = dict.fromkeys(THREAD_VARIABLES, str(max(1, usable_cores() // n_all))) | QUIET | {"PYTHONFAULTHANDLER": "1"}
    security = Security.temporary()
    network = {"host": "127.0.0.1", "protocol": "tls", "security": security}
    with (
        tempfile.TemporaryDirectory(prefix="affectpipe_workers_", ignore_cleanup_errors=True) as scratch,
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment, "distributed.deploy.lost-worker-timeout": BACK_S}),
        _own_environment(),
    ):
        shared = {
            **network,
            "nthreads": 1,
            "memory_limit": MEMORY_LIMIT // n_all,
            "local_directory": scratch,
            "dashboard": False,
            "preload": "pipeline.dask_worker",
        }
        workers = {}
        for number in range(n_all):
            gpu = gpus[number] if number < len(gpus) else ""
            options = {**shared, "resources": {"GPU" if gpu else "CPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": gpu}}
            workers[f"gpu-{gpu}" if gpu else f"cpu-{number - len(gpus)}"] = {"cls": Nanny, "options": options}
        scheduler = {"cls": Scheduler, "options": {**network, "dashboard_address": "127.0.0.1:0"}}
        with _started(workers=workers, scheduler=scheduler, security=security) as (cluster, client):
            cpu = Side(client=client, needs={"CPU": 1}, n_slots=n_cpu)
            of_gpus = Side(client=client, needs={"GPU": 1}, n_slots=len(gpus)) if gpus else None
            yield DaskPool(told, cpu, of_gpus, tend=_Tending(cluster, client, n_all))


@contextlib.contextmanager
def _started(**spec: Any) -> Iterator[tuple[SpecCluster, Client]]:
    """A cluster of this machine, until the block ends. Whoever is told to stop while it starts or ends does so when it has."""
    from distributed import Client, SpecCluster

    stack = contextlib.ExitStack()
    try:
        with put_off(), _deaf():
            try:
                cluster = stack.enter_context(SpecCluster(**spec))
            except (OSError, RuntimeError) as error:
                why = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
                fix = "see what was said above; with --on inline there are none to start"
                raise PassingError(Problem(what="the workers do not start", where="--on local", why=why, fix=fix)) from error
            client = stack.enter_context(Client(cluster))
        yield cluster, client
    finally:
        with put_off():
            stack.close()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A terminal tells all that it runs of Ctrl-C and of its end, but workers are this process's to stop: those that are started by threads
    which are started in the block do not hear it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINALS)
    try:
        resource_tracker.ensure_running()  # else it starts with the first worker, which hears again then
        signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Tending:
    """Called every now and then: workers that did not come back by themselves are started anew. Raises PassingError where none does."""

    def __init__(self, cluster: SpecCluster, client: Client, n_workers: int) -> None:
        self._cluster, self._client, self._n_workers = cluster, client, n_workers
        self._seen_s = time.monotonic()

    def __call__(self) -> None:
        self._cluster.scale(self._n_workers)  # even to what it is: dask then looks who is missing
        if workers_of(self._client):
            self._seen_s = time.monotonic()
        elif time.monotonic() - self._seen_s > GONE_S:
            raise lost(f"none has started for {GONE_S:.0f} s")


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Puts it back: starting a worker changes its parent's too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def visible_gpus(device: str) -> list[str]:
    """Of this machine, those that `--device` allows, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if device == "cpu" or not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    # In a process of its own: this one needs no torch.
    argv = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    n_gpus = int(done.stdout) if done.returncode == 0 else 0  # without torch there is nothing to do on them
    names = named.split(",")[:n_gpus] if named else [str(number) for number in range(n_gpus)]
    return [names[int(device[5:])]] if device.startswith("cuda:") else names


@contextlib.contextmanager
def _reached(address: str, device: str, told: Told) -> Iterator[DaskPool]:
    """A cluster that is there already. Workers that declare a GPU get the work for GPUs; where none does, any worker gets any work."""
    from distributed import Client

    try:
        client = Client(address, timeout=10, name="affectpipe")
    except (OSError, ValueError, TypeError) as error:  # TypeError: tls:// without dask's settings of certificates
        fix = "start it (dask scheduler, dask worker --nthreads 1), mend the address, or for tls:// set distributed.comm.tls"
        raise RequestError(Problem(what="no scheduler answers", where=f"--on {address}", why=str(error), fix=fix)) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_S)
        except TimeoutError as error:
            why, fix = f"it had none for {FIRST_WORKER_S:.0f} s", f"dask worker {address} --nthreads 1"
            raise RequestError(Problem(what="the scheduler has no workers", where=f"--on {address}", why=why, fix=fix)) from error
        cpu, gpu = Side(client=client, needs=None, n_slots=0), Side(client=client, needs={"GPU": 1}, n_slots=0)

        seen_s = time.monotonic()

        def count() -> None:
            nonlocal seen_s
            workers = workers_of(client)
            cpu.n_slots = sum(worker["nthreads"] for worker in workers)
            gpu.n_slots = sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
            if cpu.n_slots and (gpu.n_slots or not has_gpus):
                seen_s = time.monotonic()
            elif time.monotonic() - seen_s > GONE_S:
                raise lost(f"there was none{' with a GPU' if cpu.n_slots else ''} for {GONE_S:.0f} s")

        has_gpus = False
        count()
        has_gpus = gpu.n_slots > 0 and device != "cpu"
        if device.startswith("cuda") and not gpu.n_slots:
            fix = "start those that have one with: dask worker --resources GPU=1"
            raise RequestError(Problem(what="no worker declares a GPU", where=f"--device {device}", why="", fix=fix))
        yield DaskPool(told, cpu, gpu if has_gpus else None, tend=count)
