"""The board: which tasks of a plan can run now, and how many of them make a good pack. It runs nothing and reads no artifact."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from extractors.contract import Kind
from pipeline.graph import Stage
from pipeline.pace import Pace
from pipeline.plan import Plan, Task

SHORTEST_S = 2.0
MOST_UNITS = 200
PATIENCE = 2.0  # how many times as long as was thought a pack may take before what is not begun goes to others

Artifact = tuple[str, str]  # stage and key


@dataclass(slots=True, eq=False)
class Unit:
    """Tasks of one stage that are one job: one of them, or all persons of one source's faces.

    missing: how many inputs it waits for. tries: how often it failed for a moment. deaths: how many packs with it killed their workers.
    alone: it may kill its worker, so it makes a pack by itself.
    """

    number: int
    stage: Stage
    tasks: list[Task]
    missing: int = 0
    tries: int = 0
    deaths: int = 0
    alone: bool = False

    @property
    def digest(self) -> str:
        return self.tasks[0].trial.source.digest

    @property
    def n_bytes(self) -> int:
        state = self.tasks[0].trial.source.state
        return state[0] if state else 0


@dataclass(slots=True)
class _Ready:
    """A stage's units that can run, the longest first."""

    heap: list[tuple[int, int, Unit]] = field(default_factory=list)
    n_rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Units that make a pack. longest_s: whoever has been at them for so long gives back those not begun, as the guess was wrong, or there
    was none: of a stage that was not seen yet nobody knows how long it takes."""

    units: list[Unit]
    longest_s: float


class Board:
    """All that is to be done. A unit is `take`n, and afterwards each of its tasks is `done`, `lost`, or put back with `later`."""

    def __init__(self, plan: Plan, pace: Pace, on_gpu: Callable[[Stage], bool]) -> None:
        self.pace = pace
        self._stages = {
            False: [s.name for s in plan.config.stages if not on_gpu(s)],
            True: [s.name for s in plan.config.stages if on_gpu(s)],
        }
        self._ready = {stage.name: _Ready() for stage in plan.config.stages}
        self._waiting: dict[Artifact, list[Unit]] = {}
        self._later: list[tuple[float, int, Unit]] = []
        self.lost: set[Artifact] = set()
        self._lately_lost: list[Artifact] = []
        self._open = dict.fromkeys(self._ready, 0)
        units = list(_units(plan))
        running = {(unit.stage.name, task.key) for unit in units for task in unit.tasks}
        for unit in units:
            self._open[unit.stage.name] += len(unit.tasks)
            needed = {needed for task in unit.tasks for needed in (*inputs_of(task), *task.found_in) if needed in running}
            unit.missing = len(needed)
            for artifact in needed:
                self._waiting.setdefault(artifact, []).append(unit)
            if not needed:
                self._put(unit)

    def take(self, *, on_gpu: bool, n_slots: int, longest_s: float) -> Share | None:
        """A share of what can run now, longest_s at most; None where nothing can.

        It is of the first stage that has any, and goes on with the next where these come to an end. Shares are large first and small in
        the end, so that all workers end together.
        """
        self._wake()
        names = [name for name in self._stages[on_gpu] if self._ready[name].heap]
        if not names:
            return None
        first = self._ready[names[0]].heap[0][2]
        most = 1 if first.alone else min(MOST_UNITS, -(-sum(len(self._ready[name].heap) for name in names) // n_slots))
        ready_s = sum(self.pace.seconds(name, self._ready[name].n_rows) or 0.0 for name in names)
        limit_s = min(longest_s, max(SHORTEST_S, ready_s / (3 * n_slots)))
        units: list[Unit] = []
        share_s = 0.0
        for name in names:
            ready = self._ready[name]
            while ready.heap and (not units or (len(units) < most and share_s < limit_s and not ready.heap[0][2].alone)):
                negative, _, unit = heapq.heappop(ready.heap)
                ready.n_rows += negative
                units.append(unit)
                share_s += self.pace.seconds(name, -negative) or 0.0
        return Share(units=units, longest_s=PATIENCE * limit_s)

    def done(self, task: Task, n_rows: int) -> None:
        """Its artifact is there."""
        if task.stage.yields is Kind.TIMELINE:
            self.pace.learn_rows(task.trial.source.digest, n_rows)
        self._settle(task)

    def lose(self, task: Task) -> None:
        """Its artifact will not be there in this run; whatever needs it will not be either."""
        self.lost.add((task.stage.name, task.key))
        self._lately_lost.append((task.stage.name, task.key))
        self._settle(task)

    def lately_lost(self) -> list[Artifact]:
        """Those that were lost since this was asked last."""
        lost, self._lately_lost = self._lately_lost, []
        return lost

    @property
    def n_open(self) -> int:
        """How many tasks are neither done nor lost."""
        return sum(self._open.values())

    def left_s(self) -> float | None:
        """How long one worker would take for the rest; None where a stage has not been seen yet."""
        each = [self.pace.mean_s(name, n_open) for name, n_open in self._open.items() if n_open]
        return None if None in each else sum(filter(None, each))

    def later(self, unit: Unit, tasks: list[Task], wait_s: float) -> None:
        """Those of the unit's tasks that are to be tried again, not before wait_s from now."""
        unit.tasks = tasks
        heapq.heappush(self._later, (time.monotonic() + wait_s, unit.number, unit))

    @property
    def next_s(self) -> float | None:
        """In how many seconds something that was put back can run; None where nothing was."""
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def _wake(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            self._put(heapq.heappop(self._later)[2])

    def _put(self, unit: Unit) -> None:
        """It can run, unless an input of it was lost."""
        tasks = []
        for task in unit.tasks:
            if any(needed in self.lost for needed in inputs_of(task)):
                self.lose(task)
            else:
                tasks.append(task)
        unit.tasks = tasks
        if tasks:
            ready, n_rows = self._ready[unit.stage.name], self.pace.n_rows(unit.digest, unit.n_bytes)
            heapq.heappush(ready.heap, (-n_rows, unit.number, unit))
            ready.n_rows += n_rows

    def _settle(self, task: Task) -> None:
        self._open[task.stage.name] -= 1
        for unit in self._waiting.pop((task.stage.name, task.key), []):
            unit.missing -= 1
            if not unit.missing:
                self._put(unit)


def inputs_of(task: Task) -> Iterable[Artifact]:
    return zip(task.stage.inputs, task.inputs, strict=True)


def _units(plan: Plan) -> Iterable[Unit]:
    """Faces of several persons of one source are one unit, so that its frames are decoded once."""
    groups: dict[tuple[str, str], list[Task]] = {}
    for task in plan.tasks:
        shared = task.stage.yields is Kind.FACES and task.stage.root is None
        groups.setdefault((task.stage.name, str(task.trial.source.path) if shared else task.key), []).append(task)
    return (Unit(number=number, stage=tasks[0].stage, tasks=tasks) for number, tasks in enumerate(groups.values()))
