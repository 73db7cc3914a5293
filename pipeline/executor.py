"""Running a plan. Jobs are made of its tasks, run one after the other in this process, and what they did is recorded in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from extractors.contract import Kind
from pipeline.cache import Cache
from pipeline.plan import Plan, Task
from pipeline.stages import Item
from pipeline.trials import Failure
from pipeline.worker import Job, Report, Worker


class Listener(Protocol):
    """Who wants to know how it goes: the progress view."""

    def started(self, job: Job) -> None: ...
    def finished(self, job: Job, report: Report) -> None: ...


@dataclass(slots=True)
class Ran:
    """What a run did: artifacts computed per stage, and a failure per artifact that was not."""

    computed: dict[str, int] = field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)  # by stage and key
    lost: set[str] = field(default_factory=set)  # keys that failed, or were not tried because an input had failed


def make_jobs(plan: Plan, cache: Cache, *, device: str) -> Iterator[Job]:
    """The plan's tasks in order. Faces of several persons of one source are one job, so that its frames are decoded once."""
    groups: dict[tuple[str, ...], list[Task]] = {}
    for task in plan.tasks:
        shared = task.stage.yields is Kind.FACES and task.stage.root is None
        groups.setdefault((task.stage.name, str(task.trial.source.path) if shared else task.key), []).append(task)
    for tasks in groups.values():
        yield _job(plan, cache, tasks, device)


def _job(plan: Plan, cache: Cache, tasks: Sequence[Task], device: str) -> Job:
    stage = tasks[0].stage
    return Job(
        stage=stage.name,
        use=stage.use,
        params=stage.params,
        kind=stage.yields,
        precision=stage.precision,
        weights=plan.weights.get(stage.name),
        remote=stage.remote,
        root=stage.root,
        source=tasks[0].trial.source.path,
        source_state=tasks[0].trial.source.state,
        items=tuple(_item(cache, task) for task in tasks),
        identities={task.key: plan.identity(stage, task.index) for task in tasks},
        device=device,
        reason=tasks[0].reason.value,
    )


def _item(cache: Cache, task: Task) -> Item:
    inputs = tuple(cache.path(name, key) for name, key in zip(task.stage.inputs, task.inputs, strict=True))
    target = cache.path(task.stage.name, task.key)
    found_in = tuple(cache.path(*one) for one in task.found_in)
    return Item(key=task.key, trial=task.trial.name, person=task.person, inputs=inputs, target=target, found_in=found_in)


def run_inline(plan: Plan, cache: Cache, listener: Listener, *, device: str = "cpu") -> Ran:
    """One job after the other. Whatever ends it, what was computed stays: the next plan does not ask for it again."""
    ran, worker, stage = Ran(), Worker(), ""
    try:
        for job in make_jobs(plan, cache, device=device):
            if job.stage != stage:
                stage = job.stage
                cache.save()
            job = _without_lost(job, ran)
            if job.items:
                listener.started(job)
                report = worker.run(job)
                _record(job, report, cache, ran)
                listener.finished(job, report)
    finally:
        cache.save()
    return ran


def _without_lost(job: Job, ran: Ran) -> Job:
    """The job without the items whose inputs failed in this run."""
    kept = []
    for item in job.items:
        if any(path.stem in ran.lost for path in item.inputs):
            ran.lost.add(item.key)
        else:
            kept.append(replace(item, found_in=tuple(path for path in item.found_in if path.stem not in ran.lost)))
    return replace(job, items=tuple(kept))


def _record(job: Job, report: Report, cache: Cache, ran: Ran) -> None:
    for outcome in report.outcomes:
        if outcome.problem is None:
            cache.forget_failure(job.stage, outcome.key)
            cache.seal(job.stage, outcome.key)
            ran.computed[job.stage] = ran.computed.get(job.stage, 0) + 1
            continue
        if not outcome.passing:
            cache.record_failure(job.stage, outcome.key, outcome.problem, outcome.trial)
        ran.lost.add(outcome.key)
        ran.failures[job.stage, outcome.key] = Failure(trial=outcome.trial, stage=job.stage, problem=outcome.problem)
