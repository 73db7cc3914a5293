"""A desk's jobs, made as a run makes them, for tests of whoever does them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from desk import Desk

from pipeline.cache import Cache
from pipeline.code_digest import code_digest
from pipeline.executor import make_job
from pipeline.packs import Pack
from pipeline.plan import Plan, Task
from pipeline.request import Request, prepare
from pipeline.worker import Job

RUN = "2026-01-31T12-00-00.000000Z-host-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is still to be done at a desk. record: of a run that is going on."""

    plan: Plan
    cache: Cache
    record: Path

    def task(self, stage: str, trial: str) -> Task:
        (task,) = (task for task in self.plan.tasks_of(stage) if task.trial.name == trial)
        return task

    def job(self, stage: str, *trials: str) -> Job:
        tasks = [self.task(stage, trial) for trial in trials]
        return make_job(self.plan, self.cache, tasks, device="cpu", code=code_digest(tasks[0].stage.use))

    def pack(self, *jobs: Job) -> Pack:
        return Pack(number=1, record=self.record, on_gpu=False, jobs=jobs)


def bench_of(desk: Desk, *, force: Sequence[str] = ()) -> Bench:
    prepared = prepare(Request(videos=desk.videos, stages=desk.stages, cache=desk.cache, store=desk.store, labels=desk.labels))
    record = desk.cache / "runs" / f"{RUN}.jsonl"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.touch()
    return Bench(plan=prepared.plan(force=force), cache=prepared.cache, record=record)
