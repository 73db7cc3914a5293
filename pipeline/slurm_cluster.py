"""Workers that are jobs of a SLURM cluster: submitted as there is work for them, and replaced where they are gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pipeline import slurm
from pipeline.dask_pool import DaskPool, Side, Told, workers_of
from pipeline.errors import Problem, RequestError
from pipeline.profiles import Profile

ASK_S = 30.0


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
        self._profile, self._logs = profile, logs
        self._asked_s = time.monotonic()

    def __enter__(self) -> Jobs:
        """Raises RequestError where SLURM would not take such a job."""
        from dask_jobqueue.slurm import SLURMCluster
        from distributed import Client
        from distributed.security import Security

        slurm.check(self._profile, log_folder=self._logs)
        self._logs.mkdir(parents=True, exist_ok=True)
        options = slurm.cluster_options(self._profile, log_folder=self._logs)
        self.cluster = SLURMCluster(**options, security=Security.temporary(), protocol="tls://", shared_temp_directory=str(self._logs))
        self.client = Client(self.cluster)
        # As many jobs as packs: by itself dask waits to see how long they take, with no job to see it on.
        self.cluster.adapt(minimum=self._profile.min_jobs, maximum=self._profile.max_jobs, target_duration="100ms", wait_count=30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(TimeoutError):  # workers that do not answer are cancelled with their jobs
            self.client.close()
        self.cluster.close()
        for key in self._logs.glob("*.pem"):
            key.unlink(missing_ok=True)

    def tend(self) -> None:
        """Have jobs that are gone replaced: a worker that was lost is by dask as soon as the number of jobs is set, even to what it is; a
        job that ended before its worker came is known to SLURM alone."""
        if time.monotonic() - self._asked_s > ASK_S:
            self._asked_s = time.monotonic()
            arrived = {worker["name"] for worker in workers_of(self.client)}
            waiting = {name: job.job_id for name, job in self.cluster.workers.items() if name not in arrived and job.job_id}
            for name in slurm.gone(waiting):
                self.cluster.workers.pop(name, None)
        self.cluster.scale(len(self.cluster.worker_spec))
