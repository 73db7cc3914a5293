"""What `scale.py` measures in processes of their own: a run's client, the bare work, naive dask. Each prints its figures as JSON.

python benchmarks/scale_parts.py client|bare|naive ROOT [--on local:2] [--share 0/2]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from functools import cache
from pathlib import Path

from cached import prepared_in

from pipeline.code_digest import code_digest
from pipeline.executor import execute, make_job
from pipeline.places import read_place
from pipeline.pools import opened
from pipeline.progress import Watch
from pipeline.record import Record
from pipeline.worker import Job, Report, Worker

Figures = dict[str, float]


class Clock:
    """Seconds by the clock from one moment to the next, and seconds of processors."""

    def __init__(self) -> None:
        self.seconds: Figures = {}
        self._last_s, self._before_s = time.perf_counter(), _cpu_s()

    def tell(self, name: str) -> None:
        """What ended now took so long."""
        before_s, self._last_s = self._last_s, time.perf_counter()
        self.seconds[name] = self._last_s - before_s

    def all(self) -> Figures:
        """cpu_s: of this process and of its children that have ended."""
        return self.seconds | {"cpu_s": _cpu_s() - self._before_s, "peak_mb": _peak_mb()}


def _cpu_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _peak_mb() -> float:
    """Of this process. What the system tells of a process that has ended counts what its parent had, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def client(root: Path, on: str) -> Figures:
    """A run without the store: computed, recorded and remembered."""
    started_s = time.perf_counter()
    prepared = prepared_in(root)
    plan = prepared.plan()
    planned_s = time.perf_counter() - started_s
    clock = Clock()
    with Watch(quiet=True) as watch, Record(prepared.cache.root, plan, on=on, told=watch.told) as record:
        logs = record.path.with_suffix(".logs")
        with opened(read_place(on), device="cpu", told=record.workers, clusters=root / "clusters.yaml", logs=logs) as pool:
            clock.tell("start_s")
            ran = execute(plan, prepared.cache, pool, record, record=record.path, device="cpu")
            clock.tell("run_s")
        clock.tell("close_s")
    n_done = sum(ran.computed.values())
    assert n_done == len(plan.tasks), f"{n_done} of {len(plan.tasks)} tasks: {ran.failures}"
    return {"n_jobs": n_done, "plan_s": planned_s, **clock.all()}


def jobs_in(root: Path) -> list[Job]:
    """All that a run would do."""
    prepared = prepared_in(root)
    plan, codes = prepared.plan(), {}
    for use in {task.stage.use for task in plan.tasks}:
        codes[use] = code_digest(use, prepared.cache.digests)
    return [make_job(plan, prepared.cache, [task], device="cpu", code=codes[task.stage.use]) for task in plan.tasks]


def check(reports: list[Report]) -> None:
    for report in reports:
        assert [outcome.fate for outcome in report.outcomes] == ["done"], report


def bare(root: Path, share: str) -> Figures:
    """Of every so many jobs one, one after the other; begun when a line comes in."""
    number, _, n_shares = share.partition("/")
    jobs, worker = jobs_in(root)[int(number) :: int(n_shares)], Worker()
    print("ready", flush=True)
    sys.stdin.readline()
    clock = Clock()
    reports = [worker.run(job) for job in jobs]
    clock.tell("run_s")
    check(reports)
    return {"n_jobs": len(jobs), **clock.all()}


@cache
def kept_worker() -> Worker:
    return Worker()


def run_job(job: Job) -> Report:
    return kept_worker().run(job)


def naive(root: Path, n_workers: int) -> Figures:
    """A future per job, all at once."""
    from distributed import Client, LocalCluster

    jobs = jobs_in(root)
    clock = Clock()
    with LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as dask:
        clock.tell("start_s")
        reports = dask.gather([dask.submit(run_job, job, pure=False) for job in jobs])
        clock.tell("run_s")
    clock.tell("close_s")
    check(reports)
    return {"n_jobs": len(jobs), **clock.all()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("client", "bare", "naive"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", default="0/1")
    options = parser.parse_args()
    if options.part == "client":
        found = client(options.root, f"local:{options.workers}")
    elif options.part == "bare":
        found = bare(options.root, options.share)
    else:
        found = naive(options.root, options.workers)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
