"""What a dask worker of ours is told beyond dask's own options: `--preload pipeline.dask_worker`, and on a cluster `--drain-at TIME`.

SIGTERM is how a worker is ended that did nothing wrong: its job is cancelled or preempted, its client leaves. It gives its claims back
before it goes, so that no trial is blamed. But that is also how its nanny ends it where its memory is used up, and then they stay.

After TIME it takes no new task. dask's own --lifetime abandons the task that is running, and where the worker holds a result that nobody
has fetched yet, those that wait there are counted as killed by it; a few such ends and they are given up. Measured in
docs/decisions/014-slurm.md.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import FrameType
from typing import Any

import click

from pipeline import claims

FETCH_S = 10.0  # for the client to fetch the last result
LOOK_S = 0.1
USED_UP = 0.9  # of the memory limit; the nanny acts a little above


@click.command()
@click.option("--drain-at", type=float, help="Seconds since 1970.")
def dask_setup(worker: Any, drain_at: float | None) -> None:
    """Called by dask with its Worker in the main thread, once it has started."""
    if drain_at is not None:
        worker.loop.call_later(max(drain_at - time.time(), 0.0), _drain, worker)

    def end(number: int, frame: FrameType | None) -> None:
        limit = worker.memory_manager.memory_limit
        if not limit or worker.monitor.get_process_memory() < USED_UP * limit:
            claims.HOLDER.give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def dask_teardown(worker: Any) -> None:
    """Called by dask where it closes the worker itself."""
    claims.HOLDER.give_back()


async def _drain(worker: Any) -> None:
    worker.status = type(worker.status).paused  # the scheduler gives it nothing any more; what it runs goes on
    while worker.state.executing_count:
        await asyncio.sleep(LOOK_S)
    end_s = time.monotonic() + FETCH_S
    while worker.data and time.monotonic() < end_s:
        await asyncio.sleep(LOOK_S)
    await worker.close_gracefully(reason="its job is about to end")  # what waits here goes to others, and its nanny ends too
