"""Running a plan: packs of its tasks go to a pool of workers, and what they report is recorded in the cache. See docs/clusters.md."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline import stopping
from pipeline.board import Artifact, Board, Share, Unit, inputs_of
from pipeline.cache import Cache, State
from pipeline.code_digest import code_digest
from pipeline.errors import FullError, Problem
from pipeline.fates import Fate
from pipeline.graph import Stage
from pipeline.pace import Pace
from pipeline.packs import MAX_DEATHS, Pack, PackReport
from pipeline.plan import Plan, Task
from pipeline.pools import Pool
from pipeline.stages import Item
from pipeline.trials import Failure
from pipeline.worker import Job, Outcome, Report

SAVE_EVERY_S = 60.0
LOOK_EVERY_S = 1.0
WAITS_S = (1.0, 10.0)  # before a second and a third try of what failed for a moment
ELSEWHERE_S = 3.0  # until one looks again whether another client is done


class Listener(Protocol):
    """Who wants to know how it goes: the run's record."""

    def finished(self, pack: Pack, report: PackReport, left_s: float | None) -> None:
        """left_s: an estimate of how long the rest takes; None where a stage has not been seen yet."""
        ...

    def died(self, pack: Pack, why: str) -> None: ...

    def lost(self, n_tracks: Mapping[str, int]) -> None:
        """Per stage how many tracks there will not be: they failed, or what they need did."""
        ...


@dataclass(slots=True)
class Ran:
    """What a run did: artifacts computed per stage, and a failure per artifact that was not."""

    computed: dict[str, int] = field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)  # by stage and key


def uses_gpu(stage: Stage) -> bool:
    """Whether the stage has a network, which is what a GPU is for. An extractor may say so itself, see `Extractor`."""
    extractor = stage.extractor
    return bool(getattr(extractor, "on_gpu", extractor.needs_weights or len(extractor.precisions) > 1)) and stage.root is None


def execute(plan: Plan, cache: Cache, pool: Pool, listener: Listener, *, record: Path, device: str) -> Ran:
    """All tasks of the plan. Whatever ends it, what was computed stays: the next plan does not ask for it again.

    record: the run's, see `Pack`. Raises FullError where nothing can be written any more, and what the pool raises.
    """
    return _Execution(plan, cache, pool, listener, record, device).to_the_end()


class _Execution:
    def __init__(self, plan: Plan, cache: Cache, pool: Pool, listener: Listener, record: Path, device: str) -> None:
        self.plan, self.cache, self.pool, self.listener, self.record, self.device = plan, cache, pool, listener, record, device
        self.board = Board(plan, Pace(cache, plan.config.timeline.name), uses_gpu if pool.has_gpus else lambda stage: False)
        self.ran = Ran()
        self.codes: dict[str, str] = {}  # by what stages use
        self.out: dict[int, list[Unit]] = {}  # by pack's number
        self.n_packs = 0

    def to_the_end(self) -> Ran:
        saved_s = time.monotonic()
        try:
            while self.board.n_open:
                stopping.check()
                self._submit()
                if not self.out:
                    assert self.board.next_s is not None, "tasks are open, and nothing can run"
                    time.sleep(min(self.board.next_s, LOOK_EVERY_S))
                elif ended := self.pool.next(min(self.board.next_s or LOOK_EVERY_S, LOOK_EVERY_S)):
                    self._ended(*ended)
                    if lost := self.board.lately_lost():
                        self.listener.lost(Counter(stage for stage, _ in lost))
                if time.monotonic() - saved_s > SAVE_EVERY_S:
                    self.cache.save()
                    saved_s = time.monotonic()
        finally:
            self.cache.save()
        return self.ran

    def _submit(self) -> None:
        for on_gpu in (True, False) if self.pool.has_gpus else (False,):
            while self.pool.room(on_gpu=on_gpu) > 0:
                share = self.board.take(on_gpu=on_gpu, n_slots=self.pool.n_slots(on_gpu=on_gpu), longest_s=self.pool.pack_s)
                if share is None:
                    break
                self._send(share, on_gpu)

    def _send(self, share: Share, on_gpu: bool) -> None:
        self.n_packs += 1
        pack = Pack(
            number=self.n_packs,
            record=self.record,
            on_gpu=on_gpu,
            longest_s=share.longest_s,
            jobs=tuple(self._job(unit) for unit in share.units),
        )
        self.out[pack.number] = share.units
        self.pool.submit(pack)

    def _job(self, unit: Unit) -> Job:
        if unit.stage.use not in self.codes:
            self.codes[unit.stage.use] = code_digest(unit.stage.use, self.cache.digests)
        code = self.codes[unit.stage.use]
        # Without a network nobody needs to look for a GPU, for which torch would be loaded.
        device = "cpu" if not uses_gpu(unit.stage) else "cuda" if self.pool.has_gpus else self.device
        return make_job(self.plan, self.cache, unit.tasks, device=device, code=code, lost=self.board.lost)

    def _ended(self, pack: Pack, report: PackReport | str) -> None:
        units = self.out.pop(pack.number)
        if isinstance(report, str):
            self.listener.died(pack, report)
            for unit in units:
                self._died(unit, report)
            return
        for unit, one in zip(units, report.reports, strict=True):
            self._reported(unit, one)
        left_s = self.board.left_s()
        n_slots = self.pool.n_slots(on_gpu=pack.on_gpu)
        self.listener.finished(pack, report, None if left_s is None else left_s / n_slots)

    def _died(self, unit: Unit, why: str) -> None:
        """A worker says in its claim which job it died of. One that died again and again before it claimed any must not go on for ever."""
        unit.alone = True
        unit.deaths += 1
        if unit.deaths < MAX_DEATHS:
            self.board.later(unit, unit.tasks, WAITS_S[0])
            return
        for task in unit.tasks:
            fix = "see what the workers said, then run again"
            where = task.trial.source.path.name
            self._fail(task, Problem(what=f"its worker died before it began with {unit.stage.name!r}", where=where, why=why, fix=fix))

    def _reported(self, unit: Unit, report: Report) -> None:
        tasks = {task.key: task for task in unit.tasks}
        if any(outcome.fate is Fate.DONE for outcome in report.outcomes):
            n_rows = self.board.pace.n_rows(unit.digest, unit.n_bytes)
            self.board.pace.learn(unit.stage.name, report.seconds - report.spent["load"], n_rows)
        unit.tries += any(outcome.fate is Fate.TRANSIENT for outcome in report.outcomes)
        again: list[Task] = []
        wait_s = 0.0
        for outcome in report.outcomes:
            if outcome.fate is Fate.TRANSIENT and unit.tries <= len(WAITS_S):
                wait_s = WAITS_S[unit.tries - 1]
            elif outcome.fate is Fate.ELSEWHERE:
                wait_s = max(wait_s, ELSEWHERE_S)
            elif outcome.fate is not Fate.LEFT:
                self._settled(tasks[outcome.key], outcome)
                continue
            again.append(tasks[outcome.key])
        if again:
            self.board.later(unit, again, wait_s)

    def _settled(self, task: Task, outcome: Outcome) -> None:
        """Raises FullError."""
        stage = task.stage.name
        if outcome.sealed is not None:
            self.cache.forget_failure(stage, task.key)
            self.cache.remember(stage, task.key, *outcome.sealed)
            self.ran.computed[stage] = self.ran.computed.get(stage, 0) + (outcome.fate is Fate.DONE)
            self.board.done(task, outcome.sealed[1]["n_rows"])
            return
        assert outcome.problem is not None
        if outcome.fate is Fate.FULL:
            raise FullError(outcome.problem)
        if outcome.fate in (Fate.FAILED, Fate.KILLED):
            self.cache.record_failure(stage, task.key, outcome.problem, outcome.trial)
        self._fail(task, outcome.problem)

    def _fail(self, task: Task, problem: Problem) -> None:
        self.ran.failures[task.stage.name, task.key] = Failure(trial=task.trial.name, stage=task.stage.name, problem=problem)
        self.board.lose(task)


def make_job(plan: Plan, cache: Cache, tasks: Sequence[Task], *, device: str, code: str, lost: Container[Artifact] = ()) -> Job:
    """The job of a stage's tasks of one source. Its paths are absolute: a worker may have another working folder.

    code: see `Job`; lost: artifacts that will not be there.
    """
    stage = tasks[0].stage
    return Job(
        stage=stage.name,
        use=stage.use,
        params=stage.params,
        kind=stage.yields,
        precision=stage.precision,
        weights=weights.absolute() if (weights := plan.weights.get(stage.name)) else None,
        remote=stage.remote,
        root=stage.root,
        source=tasks[0].trial.source.path.absolute(),
        source_state=tasks[0].trial.source.state,
        items=tuple(_item(plan, cache, task, lost) for task in tasks),
        identities={task.key: plan.identity(stage, task.index) for task in tasks},
        device=device,
        reason=tasks[0].reason.value,
        code=code,
    )


def _item(plan: Plan, cache: Cache, task: Task, lost: Container[Artifact]) -> Item:
    return Item(
        key=task.key,
        trial=task.trial.name,
        person=task.person,
        inputs=tuple(cache.path(*artifact).absolute() for artifact in inputs_of(task)),
        target=cache.path(task.stage.name, task.key).absolute(),
        found_in=tuple(cache.path(*artifact).absolute() for artifact in task.found_in if artifact not in lost),
        over=plan.states[task.stage.name][task.key] is State.DONE,
    )
