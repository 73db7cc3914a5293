"""A dask worker that stops in time: `dask worker --preload pipeline.draining --drain-at TIME` takes no new task after TIME.

dask's own --lifetime abandons the task that is running, and where the worker holds a result that nobody has fetched yet, those that wait
there are counted as killed by it; a few such ends and they are given up. Measured in docs/decisions/014-slurm.md.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click

FETCH_S = 10.0  # for the client to fetch the last result
LOOK_S = 0.1


@click.command()
@click.option("--drain-at", required=True, type=float, help="Seconds since 1970.")
def dask_setup(worker: Any, drain_at: float) -> None:
    """Called by dask with its Worker, once it has started."""
    worker.loop.call_later(max(drain_at - time.time(), 0.0), _drain, worker)


async def _drain(worker: Any) -> None:
    worker.status = type(worker.status).paused  # the scheduler gives it nothing any more; what it runs goes on
    while worker.state.executing_count:
        await asyncio.sleep(LOOK_S)
    end_s = time.monotonic() + FETCH_S
    while worker.data and time.monotonic() < end_s:
        await asyncio.sleep(LOOK_S)
    await worker.close_gracefully(reason="its job is about to end")  # what waits here goes to others, and its nanny ends too
