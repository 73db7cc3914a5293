"""Pools of dask workers: processes of this machine, a cluster that is there already, SLURM jobs. The one place that uses dask's client."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PassingError, Problem, RequestError
from pipeline.packs import Hand, Pack, PackReport
from pipeline.places import Place
from pipeline.threads import usable_cores

if TYPE_CHECKING:
    from distributed import Client, Future

WAITING_PER_SLOT = 2  # packs that are handed out: one that runs and one that is next
PACK_S = 30.0  # long beside the cost of handing a pack over, short beside what is lost with a worker
WORKER_BYTES = 3 << 30  # what a process with the networks of the default stages takes
FIRST_WORKER_S = 60.0
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
}
QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}  # what matters of what dask says is said as an error of ours
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_kept = threading.local()  # a Hand per thread: what it keeps is not made for several at once


def run_pack(pack: Pack) -> PackReport:
    """What dask calls on a worker."""
    from distributed import get_worker
    from distributed.core import Status

    if getattr(_kept, "run", None) != pack.run:
        _kept.run, _kept.hand = pack.run, Hand()
    worker = get_worker()
    report: PackReport = _kept.hand.run(pack, lambda: worker.status is not Status.running)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The workers for one kind of work: how to reach them, what a pack asks of them, and how many there are, asked again and again."""

    client: Client
    needs: dict[str, int] | None
    n_slots: Callable[[], int]


class DaskPool:
    """The workers of dask clusters. gpu: those for work on GPUs, where it has its own; tend: called every now and then."""

    pack_s = PACK_S

    def __init__(self, cpu: Side, gpu: Side | None = None, *, tend: Callable[[], None] = lambda: None) -> None:
        self.has_gpus, self._sides, self._tend = gpu is not None, {False: cpu, True: gpu or cpu}, tend
        self._out: dict[int, tuple[Pack, Future[PackReport]]] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    @property
    def dashboard(self) -> str:
        return " ".join(dict.fromkeys(str(side.client.dashboard_link or "") for side in self._sides.values())).strip()

    def n_slots(self, *, on_gpu: bool) -> int:
        return max(1, self._sides[on_gpu].n_slots())

    def room(self, *, on_gpu: bool) -> int:
        n_out = sum(pack.on_gpu == on_gpu for pack, _ in self._out.values())
        return WAITING_PER_SLOT * self.n_slots(on_gpu=on_gpu) - n_out

    def submit(self, pack: Pack) -> None:
        side, key = self._sides[pack.on_gpu], f"{pack.jobs[0].stage}-{pack.run}-{pack.number}"
        future = side.client.submit(run_pack, pack, key=key, pure=False, resources=side.needs, priority=-pack.number)
        self._out[pack.number] = pack, future
        future.add_done_callback(lambda _: self._ended.put(pack.number))

    def next(self, within_s: float) -> tuple[Pack, PackReport | str] | None:
        try:
            pack, future = self._out.pop(self._ended.get(timeout=within_s))
        except queue.Empty:
            if any(side.client.status in ("closing", "closed") for side in self._sides.values()):
                raise _lost("the connection to the scheduler is closed") from None
            return None
        finally:
            self._tend()
        if future.status == "finished":
            return pack, future.result()
        return pack, _death(future)


def _death(future: Future[PackReport]) -> str:
    """Of a pack's workers. Raises what else made it fail."""
    from distributed import KilledWorker

    if future.status == "cancelled":
        raise _lost("the scheduler forgot the work")
    error = future.exception()
    if isinstance(error, KilledWorker):
        return f"{error.allowed_failures + 1} workers died of it, the last at {error.last_worker.address}"
    if isinstance(error, RequestError):
        raise error
    why = f"{type(error).__name__}: {error}"
    fix = "install the same version of affectpipe on all machines, and start the workers anew"
    raise RequestError(Problem(what="a worker cannot do the work", where="--on", why=why, fix=fix)) from error


def _lost(why: str) -> PassingError:
    fix = "what was computed is kept; see why it ended, then run again"
    return PassingError(Problem(what="the workers are lost", where="--on", why=why, fix=fix))


@contextlib.contextmanager
def opened(place: Place, *, device: str) -> Iterator[DaskPool]:
    """The workers of a place that is not this process. Raises RequestError where they cannot be had."""
    try:
        import dask
        import distributed  # noqa: F401  # what dask alone lacks
    except ImportError as error:
        fix = "pip install 'affectpipe[cluster]'"
        raise RequestError(Problem(what="needs dask", where=f"--on {place}", why=str(error), fix=fix)) from error

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(CONFIG), _local(place.n_workers, device) if place.kind == "local" else _reached(place.address, device) as pool:
        yield pool


@contextlib.contextmanager
def _local(n_workers: int | None, device: str) -> Iterator[DaskPool]:
    """A process per GPU, and n_workers without one. Nobody else on this machine can talk to them: they know each other by certificates
    made for this run."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster
    from distributed.security import Security
    from distributed.system import MEMORY_LIMIT

    gpus = visible_gpus(device)
    n_cpu = n_workers or max(1, min(usable_cores(), MEMORY_LIMIT // WORKER_BYTES) - len(gpus))
    n_all = n_cpu + len(gpus)
    # Libraries read these as they are loaded, which is before a worker is told anything.
    environment = dict.fromkeys(THREADS, str(max(1, usable_cores() // n_all))) | QUIET | {"PYTHONFAULTHANDLER": "1"}
    security = Security.temporary()
    network = {"host": "127.0.0.1", "protocol": "tls", "security": security}
    with (
        tempfile.TemporaryDirectory(prefix="affectpipe_workers_", ignore_cleanup_errors=True) as scratch,
        dask.config.set({"distributed.nanny.pre-spawn-environ": environment}),
        _own_environment(),
    ):
        shared = {**network, "nthreads": 1, "memory_limit": MEMORY_LIMIT // n_all, "local_directory": scratch, "dashboard": False}
        workers = {}
        for number in range(n_all):
            gpu = gpus[number] if number < len(gpus) else ""
            options = {**shared, "resources": {"GPU" if gpu else "CPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": gpu}}
            workers[f"gpu-{gpu}" if gpu else f"cpu-{number - len(gpus)}"] = {"cls": Nanny, "options": options}
        scheduler = {"cls": Scheduler, "options": {**network, "dashboard_address": "127.0.0.1:0"}}
        try:
            cluster = SpecCluster(workers=workers, scheduler=scheduler, security=security)
        except (OSError, RuntimeError) as error:
            why = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
            fix = "see what was said above; with --on inline there are none to start"
            raise PassingError(Problem(what="the workers do not start", where="--on local", why=why, fix=fix)) from error
        with cluster, Client(cluster) as client:
            cpu = Side(client=client, needs={"CPU": 1}, n_slots=lambda: n_cpu)
            yield DaskPool(cpu, Side(client=client, needs={"GPU": 1}, n_slots=lambda: len(gpus)) if gpus else None)


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
    n_gpus = int(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout)
    names = named.split(",")[:n_gpus] if named else [str(number) for number in range(n_gpus)]
    return [names[int(device[5:])]] if device.startswith("cuda:") else names


@contextlib.contextmanager
def _reached(address: str, device: str) -> Iterator[DaskPool]:
    """A cluster that is there already. Workers that declare a GPU get the work for GPUs; where none does, any worker gets any work."""
    from distributed import Client

    try:
        client = Client(address, timeout=10, name="affectpipe")
    except (OSError, ValueError, TimeoutError) as error:
        fix = "start it (dask scheduler, dask worker --nthreads 1), or mend the address"
        raise RequestError(Problem(what="no scheduler answers", where=f"--on {address}", why=str(error), fix=fix)) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_S)
        except TimeoutError as error:
            why, fix = f"it had none for {FIRST_WORKER_S:.0f} s", f"dask worker {address} --nthreads 1"
            raise RequestError(Problem(what="the scheduler has no workers", where=f"--on {address}", why=why, fix=fix)) from error

        def n_slots(*, on_gpu: bool) -> int:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            return sum(worker["nthreads"] for worker in workers if bool(worker["resources"].get("GPU")) or not on_gpu)

        has_gpus = device != "cpu" and n_slots(on_gpu=True) > 0
        if device.startswith("cuda") and not has_gpus:
            fix = "start those that have one with: dask worker --resources GPU=1"
            raise RequestError(Problem(what="no worker declares a GPU", where=f"--device {device}", why="", fix=fix))
        cpu = Side(client=client, needs=None, n_slots=lambda: n_slots(on_gpu=False))
        yield DaskPool(cpu, Side(client=client, needs={"GPU": 1}, n_slots=lambda: n_slots(on_gpu=True)) if has_gpus else None)
