"""What a piece of work takes, by the clock and of processors, and what else the machine was busy with meanwhile."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds per frame: by the clock, and of processors (ours and the decoding process's), None where the system does not tell."""

    wall_s: float
    cpu_s: float | None


def timed(work: Callable[[], None], n_frames: int) -> Cost:
    started, before = time.perf_counter(), cpu_s()
    work()
    after, wall_s = cpu_s(), time.perf_counter() - started
    return Cost(wall_s=wall_s / n_frames, cpu_s=None if before is None or after is None else (after - before) / n_frames)


def cpu_s() -> float | None:
    """Of this process and its children so far, those that have ended too. In steps of 10 ms for children that live."""
    if not Path("/proc/self/task").exists():
        return None
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total_s = time.process_time() + ended.ru_utime + ended.ru_stime
    for task in Path("/proc/self/task").glob("*/children"):
        for child in task.read_text().split():
            ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
            total_s += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total_s


class Others:
    """How many cores everybody else keeps busy, from when it was made. On a virtual machine that is other machines' work too."""

    def __init__(self) -> None:
        self._started, self._before = time.perf_counter(), _others_s()

    def cores(self) -> float | None:
        after = _others_s()
        if self._before is None or after is None:
            return None
        return max(after - self._before, 0.0) / (time.perf_counter() - self._started)


def _others_s() -> float | None:
    own_s, stat = cpu_s(), Path("/proc/stat")
    if own_s is None or not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().split(maxsplit=11)[1:11])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - own_s
