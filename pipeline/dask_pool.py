"""A pool whose workers are dask's, wherever they run."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import PassingError, Problem, RequestError
from pipeline.packs import Hand, Pack, PackReport
from pipeline.worker import Worker

if TYPE_CHECKING:
    from distributed import Client, Future

WAITING_PER_SLOT = 2  # packs that are handed out: one that runs and one that is next
PACK_S = 30.0  # long beside the cost of handing a pack over, short beside what is lost with a worker
TEND_S = 2.0
RESULT_S = 2.0  # for a report to be fetched

Told = Callable[[str, int], None]  # of the dashboard's address and the number of workers

_kept = threading.local()  # a Hand per thread: what it keeps is not made for several at once


def run_pack(pack: Pack) -> PackReport:
    """What dask calls on a worker."""
    from distributed import get_worker
    from distributed.core import Status

    if getattr(_kept, "run", None) != pack.run:
        models = _kept.hand.worker.models if hasattr(_kept, "hand") else OrderedDict()
        _kept.run, _kept.hand = pack.run, Hand(worker=Worker(models=models))
    worker = get_worker()
    report: PackReport = _kept.hand.run(pack, lambda: worker.status is not Status.running)
    return report


@dataclass(slots=True, kw_only=True)
class Side:
    """The workers for one kind of work: how to reach them, what a pack asks of them, how many packs they can run at once."""

    client: Client
    needs: dict[str, int] | None
    n_slots: int


class DaskPool:
    """The workers of dask clusters. gpu: those for work on GPUs, where it has its own; tend: called every now and then."""

    pack_s = PACK_S

    def __init__(self, told: Told, cpu: Side, gpu: Side | None = None, *, tend: Callable[[], None] = lambda: None) -> None:
        self.has_gpus, self._sides, self._tend, self._told = gpu is not None, {False: cpu, True: gpu or cpu}, tend, told
        self._out: dict[int, tuple[Pack, Future[PackReport]]] = {}
        self._ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._clients = list({id(side.client): side.client for side in self._sides.values()}.values())
        self._n_workers, self._tended_s = -1, 0.0
        self._look()

    def _look(self) -> None:
        """How many workers there are, and whatever else is to be done now and then."""
        self._tended_s = time.monotonic()
        self._tend()
        n_workers = sum(len(workers_of(client)) for client in self._clients)
        if n_workers != self._n_workers:
            self._n_workers = n_workers
            self._told(" ".join(str(client.dashboard_link) for client in self._clients), n_workers)

    def n_slots(self, *, on_gpu: bool) -> int:
        return max(1, self._sides[on_gpu].n_slots)

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
                raise lost("the connection to the scheduler is closed") from None
            return None
        finally:
            if time.monotonic() - self._tended_s > TEND_S:
                self._look()
        if (report := _report(future)) is None:
            self._out[pack.number] = pack, future
            self._ended.put(pack.number)
            return None
        return pack, report


def workers_of(client: Client) -> list[dict[str, Any]]:
    """What the scheduler knows of each worker."""
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _report(future: Future[PackReport]) -> PackReport | str | None:
    """A pack's report, or what is known of its workers' deaths; None where one died with the report, so that the pack is done again.

    Raises what else made it fail.
    """
    from distributed import CancelledError, KilledWorker

    try:
        report: PackReport = future.result(timeout=RESULT_S)
    except TimeoutError as error:
        if future.status == "error":  # the worker's own
            return f"its worker could not begin: {error}"
        return None
    except KilledWorker as error:
        return f"{error.allowed_failures + 1} workers died of it, the last at {error.last_worker.address}"
    except CancelledError as error:
        raise lost("the scheduler forgot the work") from error
    except RequestError:
        raise
    except OSError as error:
        return f"its worker could not begin: {error}"
    except Exception as error:  # whatever kept a worker from calling a pack's function
        why = f"{type(error).__name__}: {error}"
        fix = "install the same version of affectpipe on all machines, and start the workers anew"
        raise RequestError(Problem(what="a worker cannot do the work", where="--on", why=why, fix=fix)) from error
    return report


def lost(why: str) -> PassingError:
    fix = "what was computed is kept; see why it ended, then run again"
    return PassingError(Problem(what="the workers are lost", where="--on", why=why, fix=fix))
