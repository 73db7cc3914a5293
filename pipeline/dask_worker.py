"""What a dask worker of ours is told beyond dask's own options: `--preload pipeline.dask_worker`, and on a cluster `--drain-at TIME`.

SIGTERM is how a worker is ended that did nothing wrong: its job is cancelled or preempted, its client leaves. It gives its claims back
before it goes, so that no trial is blamed. But that is also how its nanny ends it where its memory is used up, and SLURM where its time is:
then they stay.

After TIME it takes no new task. dask's own --lifetime abandons the task that is running, and where the worker holds a result that nobody
has fetched yet, those that wait there are counted as killed by it; a few such ends and they are given up. Measured in
docs/decisions/014-slurm.md.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from types import FrameType
from typing import Any

import click

from pipeline import claims

FETCH_S = 10.0  # for the client to fetch the last result and let go of it
LOOK_S = 0.1
USED_UP = 0.9  # of the memory limit; the nanny acts a little above


@click.command()
@click.option("--drain-at", type=float, default=math.inf, help="Seconds since 1970.")
def dask_setup(worker: Any, drain_at: float) -> None:
    """Called by dask with its Worker in the main thread, once it has started."""
    worker.drain_at = drain_at
    if drain_at < math.inf:
        worker.loop.call_later(max(drain_at - time.time(), 0.0), _drain, worker)

    def end(number: int, frame: FrameType | None) -> None:
        limit = worker.memory_manager.memory_limit
        if not limit or worker.monitor.get_process_memory() < USED_UP * limit:
            dask_teardown(worker)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def dask_teardown(worker: Any) -> None:
    """Called by dask where it closes the worker itself. What still runs after its time was too long for the job, so its claim stays."""
    if time.time() < worker.drain_at:
        claims.HOLDER.give_back()


async def _drain(worker: Any) -> None:
    # The scheduler gives it nothing any more, and what it runs goes on. So does a paused worker, but dask's memory monitor would wake it.
    worker.status = type(worker.status).closing_gracefully
    while worker.state.executing_count:
        await asyncio.sleep(LOOK_S)
    end_s = time.monotonic() + FETCH_S
    while worker.data and time.monotonic() < end_s:
        await asyncio.sleep(LOOK_S)
    # What waits here goes to others, and counts against nobody. A result that is still wanted goes to another worker; where there is none
    # the scheduler refuses, and it is computed again.
    address, why = worker.address, f"drain-{time.time()}"
    if address not in await worker.scheduler.retire_workers(workers=[address], close_workers=False, remove=True, stimulus_id=why):
        await worker.scheduler.unregister(address=address, expected=True, close=False, stimulus_id=why)
    await worker.close(reason="its job is about to end")  # and so its nanny
