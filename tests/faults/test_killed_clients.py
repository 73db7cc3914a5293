"""The client killed -9 and started again: its workers end by themselves, and the next run goes on where it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable

from desk import Desk
from processes import artifacts, left_of, started, workers_of

KILLS = 10
WAIT_S = 120.0


def test_killed_clients(
    busy_desk: Callable[..., Desk], assert_as_undisturbed: Callable[[Desk], None], assert_all_whole: Callable[[Desk], int]
) -> None:
    """At any moment from the start of its workers on. Every other time the next one does not wait for what is left of the last one."""
    desk, moments, n_killed = busy_desk(), random.Random(1), 0
    while n_killed < KILLS:
        run = started(desk, "--on", "local:2", said=desk.stages.with_suffix(".said"))
        wanted = artifacts(desk) + moments.randrange(0, 8)
        until_s = time.monotonic() + WAIT_S
        while run.poll() is None and (artifacts(desk) < wanted or not workers_of(desk)):
            assert time.monotonic() < until_s, desk.stages.with_suffix(".said").read_text()
            time.sleep(0.1)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            n_killed += 1
            assert n_killed % 2 or left_of(desk) == {}, "workers that have lost their client"
            assert_all_whole(desk)
            continue
        assert run.returncode == 0, desk.stages.with_suffix(".said").read_text()
        assert_as_undisturbed(desk)
        shutil.rmtree(desk.cache)
        shutil.rmtree(desk.store)
    assert started(desk, "--on", "local:2").wait() == 0
    assert_as_undisturbed(desk)
