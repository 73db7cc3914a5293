"""Workers that are jobs of a SLURM cluster: submitted as there is work for them, and replaced where they are gone."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline import slurm
from pipeline.dask_pool import DaskPool, Side, Told, lost, workers_of
from pipeline.errors import Problem, RequestError
from pipeline.profiles import Profile
from pipeline.stopping import put_off

ASK_S = 30.0
MOST_ROUNDS = 5  # of asking, in which jobs were gone and no worker was there
PLAIN = re.compile(r"[\w./+@%=,:-]+", re.ASCII)


@contextlib.contextmanager
def submitted(profile: Profile, cpu_profile: Profile | None, device: str, told: Told, logs: Path) -> Iterator[DaskPool]:
    """Jobs of a profile, and of another for work without a network where the profile names one."""
    if device.startswith("cuda") and not profile.has_gpu:
        fix = "write gpus: 1 into it, or take another"
        raise RequestError(Problem(what="its jobs have no GPU", where=f"--device {device}", why=f"profile {profile.name!r}", fix=fix))
    with contextlib.ExitStack() as stack:
        jobs = stack.enter_context(Jobs(profile, logs))
        all_jobs = [jobs]
        gpu = Side(client=jobs.client, needs={"GPU": 1}, n_slots=profile.max_jobs) if profile.has_gpu and device != "cpu" else None
        cpu = Side(client=jobs.client, needs=None, n_slots=profile.max_jobs)
        if gpu and cpu_profile:
            others = stack.enter_context(Jobs(cpu_profile, logs))
            all_jobs.append(others)
            cpu = Side(client=others.client, needs=None, n_slots=cpu_profile.max_jobs)

        def tend() -> None:
            for one in all_jobs:
                one.tend()

        yield DaskPool(told, cpu, gpu, tend=tend)


class Jobs:
    """SLURM jobs of one profile, each with a worker: as many as there is work for, those that are gone replaced."""

    def __init__(self, profile: Profile, logs: Path) -> None:
        self._profile, self._logs, self._stack = profile, logs, contextlib.ExitStack()
        self._asked_s, self._n_rounds = time.monotonic(), 0

    def __enter__(self) -> Jobs:
        """Raises RequestError where SLURM would not take such a job, or a script could not name the run's folder."""
        from dask_jobqueue.slurm import SLURMCluster
        from distributed import Client
        from distributed.security import Security

        if not PLAIN.fullmatch(str(self._logs)):
            why, fix = "dask-jobqueue writes it into job scripts as it is", "name one of letters, digits and ._-+@%=,/ with --cache"
            raise RequestError(Problem(what="no cache for jobs", where=str(self._logs.parents[1]), why=why, fix=fix))
        slurm.check(self._profile, log_folder=self._logs)
        self._logs.mkdir(parents=True, exist_ok=True)
        options = slurm.cluster_options(self._profile, log_folder=self._logs)
        keys = {"security": Security.temporary(), "protocol": "tls://", "shared_temp_directory": str(self._logs)}
        with put_off(), contextlib.ExitStack() as stack:
            try:
                self.cluster = stack.enter_context(SLURMCluster(**options, **keys))
            except (OSError, RuntimeError, ValueError) as error:
                why, fix = str(error.__cause__ or error), "mend the profile in clusters.yaml"
                where = f"profile {self._profile.name}"
                raise RequestError(Problem(what="the workers' scheduler does not start", where=where, why=why, fix=fix)) from error
            self.client = stack.enter_context(Client(self.cluster))
            # As many jobs as packs: by itself dask waits to see how long they take, with no job to see it on.
            self.cluster.adapt(minimum=self._profile.min_jobs, maximum=self._profile.max_jobs, target_duration="100ms", wait_count=30)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with put_off():
            self._stack.close()  # the files of keys are dask-jobqueue's, and go with it; those of a killed client are swept

    def tend(self) -> None:
        """Have jobs that are gone replaced: a worker that was lost is by dask as soon as the number of jobs is set, even to what it is; a
        job that was refused, or that ended before its worker came, is known to SLURM alone. Raises PassingError where no worker comes."""
        if time.monotonic() - self._asked_s > ASK_S:
            self._asked_s = time.monotonic()
            arrived = {worker["name"] for worker in workers_of(self.client)}
            jobs = {name: job.job_id for name, job in self.cluster.sync(self._jobs).items() if name not in arrived}
            gone = [name for name, job_id in jobs.items() if not job_id]
            gone += slurm.gone({name: job_id for name, job_id in jobs.items() if job_id})
            self._n_rounds = self._n_rounds + 1 if gone and not arrived else 0
            if self._n_rounds >= MOST_ROUNDS:
                raise lost(f"jobs are refused, or end before their workers come; {self._last_words()}")
            self.cluster.sync(self._forget, gone)
        self.cluster.sync(self._nudge)

    async def _jobs(self) -> dict[str, Any]:
        return dict(self.cluster.workers)

    async def _forget(self, names: list[str]) -> None:
        for name in names:
            self.cluster.workers.pop(name, None)

    async def _nudge(self) -> None:
        self.cluster.scale(len(self.cluster.worker_spec))

    def _last_words(self) -> str:
        """Of the newest log that has any."""
        for log in sorted(self._logs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True):
            if words := log.read_text(encoding="utf-8", errors="replace").strip().splitlines():
                return f"the last of {log}: {words[-1]}"
        return f"no job has written a log; try: affectpipe run … --on slurm:{self._profile.name} --show-script | sbatch"
