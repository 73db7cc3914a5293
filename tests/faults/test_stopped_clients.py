"""The client told to stop, by a signal to it alone or to all its processes, as a terminal's Ctrl-C is: a clean end, soon, and the next run
goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from desk import Desk
from processes import artifacts, left_of, started, workers_of

SOON_S = 15.0
WAIT_S = 120.0  # for something to happen, on a machine that is busy with other things


def wait_for(happened: Callable[[], object], run: subprocess.Popen[bytes], said: Path) -> None:
    until_s = time.monotonic() + WAIT_S
    while not happened():
        assert run.poll() is None, f"it ended before it was told to: {said.read_text()}"
        assert time.monotonic() < until_s, "nothing happens"
        time.sleep(0.05)


def stop(run: subprocess.Popen[bytes], number: int, *, group: bool) -> int:
    """Its exit status."""
    (os.killpg if group else os.kill)(run.pid, number)
    return run.wait(SOON_S)


@pytest.mark.parametrize("on", ["inline", "local:2"])
def test_stopped_clients(
    on: str,
    busy_desk: Callable[..., Desk],
    assert_as_undisturbed: Callable[[Desk], None],
    assert_all_whole: Callable[[Desk], int],
) -> None:
    """In the middle of the work, and, where there are workers, while they start."""
    desk, n_stopped = busy_desk(), 0
    for number, group in product((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), (False, True)):
        for early in (False, True) if on == "local:2" and number != signal.SIGHUP else (False,):
            n_stopped += 1
            said, before = desk.stages.with_name(f"{n_stopped}.said"), artifacts(desk)
            run = started(desk, "--on", on, said=said)
            wait_for(lambda: workers_of(desk) if early else artifacts(desk) > before, run, said)  # noqa: B023  # called at once
            assert stop(run, number, group=group) == (130 if number == signal.SIGINT else 143), said.read_text()
            assert left_of(desk, 5.0) == {}
            assert assert_all_whole(desk) >= before
            *others, last = said.read_text().splitlines()
            assert last == "stopped; what was computed is kept, and `affectpipe run` continues from there"
            assert [line for line in others if "dashboard: " not in line and " tracks, " not in line] == []
    assert started(desk, "--on", on).wait() == 0
    assert_as_undisturbed(desk)
