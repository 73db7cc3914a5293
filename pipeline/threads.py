"""How many threads this process may use, and telling that to all who would otherwise take every core of the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What torch, MKL, NumPy's OpenBLAS, Numba and OpenCV read once, when they are loaded. The first is also where this process and its
# children keep what they were told.
TOLD = "OMP_NUM_THREADS"
THREAD_VARIABLES = (TOLD, "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def limit_threads(n: int) -> None:
    """From now on this process and its children use n threads at most for computing, in libraries that are loaded or will be.

    To be called before work begins: what runs goes on as it is. Loads nothing. Raises ValueError where n is less than 1.
    """
    if n < 1:
        raise ValueError(f"limit_threads: expected 1 or more, got {n}")
    loaded: dict[str, Any] = sys.modules
    numba, torch, cv2 = loaded.get("numba"), loaded.get("torch"), loaded.get("cv2")
    kept = {"NUMBA_NUM_THREADS"} if numba is not None else set()  # of which it refuses a change once its threads have begun
    os.environ.update({name: str(n) for name in THREAD_VARIABLES if name not in kept})
    if torch is not None:
        torch.set_num_threads(n)
    if cv2 is not None:
        cv2.setNumThreads(n)
    if numba is not None:
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


def allowed_threads() -> int:
    """As many as `limit_threads`, or the user by OMP_NUM_THREADS, said; all cores that may be used where nobody did."""
    told = os.environ.get(TOLD, "").partition(",")[0].strip()  # a list is one number for each level of nesting
    return int(told) if told.isdecimal() and int(told) > 0 else usable_cores()


def usable_cores(own_groups: Path = OWN_GROUPS, groups: Path = GROUPS) -> int:
    """Cores that this process may run on, of which the quotas of its control groups may allow only some; a part of a core is none.

    Containers and SLURM set both. own_groups, groups: where Linux tells of the process's groups, and where their files are.
    """
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([n_cores, *(int(quota) for quota in _quotas(own_groups, groups))]))


def _quotas(own_groups: Path, groups: Path) -> Iterator[float]:
    """The quotas, in cores, of the process's groups and of those that these are in."""
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # no Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree, version 1 one for each set of controllers, also under each one's name alone.
        for root in (groups, groups / "unified") if not controllers else (groups / controllers, groups / "cpu"):
            inside = root / path.lstrip("/")
            # In a container the path may be the one outside: then only the tree's root, which is the container's group, is there.
            for folder in (inside, *(parent for parent in inside.parents if parent.is_relative_to(root))):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """That of one group, in version 2 of control groups ("max 100000") or version 1 (-1); none where it has none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
    except OSError:
        return
    if quota.strip() != "max" and float(quota) > 0:
        yield float(quota) / float(period)
