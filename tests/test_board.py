"""The board by itself: what can run when, and how many tasks make a pack. No video is read, no stage is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.board import MOST_UNITS, PATIENCE, SHORTEST_S, Board, Unit
from pipeline.cache import Cache
from pipeline.config import load
from pipeline.pace import BYTES_PER_ROW, Pace
from pipeline.plan import Plan, Task, make_plan
from pipeline.sources import Source
from pipeline.trials import Trial

STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  logmel:   {use: logmel, from: audio}
  centred:  {use: egemaps_functionals, from: [audio, timeline]}
"""
FACES = """\
version: 1
stages:
  timeline: {use: timeline}
  faces:    {use: mtcnn, from: timeline}
  small:    {use: mtcnn, from: timeline, size_px: 96}
"""
HOUR_S = 3600.0
Boards = Callable[..., tuple[Board, Plan]]


def trials(*sizes: int) -> list[Trial]:
    """One per source, of so many bytes; the sources need not be there."""
    return [_trial(f"{number:03}", n_bytes) for number, n_bytes in enumerate(sizes)]


def _trial(name: str, n_bytes: int) -> Trial:
    return Trial(name=name, source=Source(name=name, path=Path(f"{name}.mp4"), digest=name * 20, state=(n_bytes, 1, 1)))


@pytest.fixture
def board(tmp_path: Path) -> Boards:
    """board(trials, stages=...): a board of all that is to be done on an empty cache, and the plan."""

    def make(of: Sequence[Trial], *, stages: str = STAGES, only: Sequence[str] = (), on_gpu: str = "") -> tuple[Board, Plan]:
        (tmp_path / "stages.yaml").write_text(stages, encoding="utf-8")
        cache = Cache(tmp_path / "cache")
        plan = make_plan(load(tmp_path / "stages.yaml"), of, cache, only=only)
        return Board(plan, Pace(cache, "timeline"), lambda stage: stage.name == on_gpu), plan

    return make


def take(board: Board, *, on_gpu: bool = False, n_slots: int = 1, longest_s: float = HOUR_S) -> list[Unit]:
    share = board.take(on_gpu=on_gpu, n_slots=n_slots, longest_s=longest_s)
    return share.units if share else []


def told(units: Sequence[Unit]) -> list[str]:
    return [f"{unit.stage.name} {','.join(task.trial.name for task in unit.tasks)}" for unit in units]


def the(plan: Plan, stage: str, trial: str = "000") -> Task:
    return next(task for task in plan.tasks_of(stage) if task.trial.name == trial)


def test_a_stage_waits_for_all_that_it_reads(board: Boards) -> None:
    some, plan = board(trials(1))
    assert [told(take(some)) for _ in range(2)] == [["timeline 000", "audio 000"], []]
    some.done(the(plan, "audio"), 0)
    assert [told(take(some)) for _ in range(2)] == [["logmel 000"], []]
    assert some.n_open == 3
    some.done(the(plan, "timeline"), 100)
    assert told(take(some)) == ["centred 000"]
    for stage in ("centred", "logmel"):
        some.done(the(plan, stage), 0)
    assert some.n_open == 0
    assert take(some) == []


def test_the_longest_first(board: Boards) -> None:
    """By their bytes, until their rows are known."""
    some, plan = board(trials(3 * BYTES_PER_ROW, 0, 9 * BYTES_PER_ROW, 6 * BYTES_PER_ROW))
    assert told(take(some)) == [f"{stage} {trial}" for stage in ("timeline", "audio") for trial in ("002", "003", "000", "001")]
    for trial, n_rows in (("000", 5), ("001", 7), ("002", 6), ("003", 8)):
        some.done(the(plan, "timeline", trial), n_rows)
        some.done(the(plan, "audio", trial), 0)
    assert told(take(some))[:4] == ["logmel 003", "logmel 001", "logmel 002", "logmel 000"]


def test_a_pack_goes_on_with_the_next_stage(board: Boards) -> None:
    """Where it is short otherwise: handing over takes its time too, and many stages may have little to do each."""
    some, _ = board(trials(*[BYTES_PER_ROW - 1] * 6), only=["audio"])
    for stage in ("timeline", "audio"):
        some.pace.learn(stage, 1.0, 1)
    packs = []
    while pack := take(some):
        packs.append([sum(unit.stage.name == stage for unit in pack) for stage in ("timeline", "audio")])
    assert packs == [[4, 0], [2, 1], [0, 2], [0, 2], [0, 1]]


def test_of_a_stage_of_unknown_pace_as_much_is_done_as_fits(board: Boards) -> None:
    """Nobody knows how much that is, so there is a limit."""
    some, _ = board(trials(*[BYTES_PER_ROW - 1] * 50), only=["timeline"])
    first = some.take(on_gpu=False, n_slots=2, longest_s=30.0)
    assert first is not None
    assert (len(first.units), first.longest_s) == (25, PATIENCE * SHORTEST_S)
    some.pace.learn("timeline", 10.0, 1)
    second = some.take(on_gpu=False, n_slots=2, longest_s=30.0)
    assert second is not None
    assert (len(second.units), second.longest_s) == (3, PATIENCE * 30.0)


@pytest.mark.parametrize(
    ("each_s", "n_slots", "longest_s", "expected"),
    [
        (1.0, 1, 30.0, 30),  # as long as it may be
        (1.0, 2, 30.0, 16),  # a third of each worker's share: 100 s / 6 s
        (1.0, 100, 30.0, 1),  # a worker for each
        (0.01, 1, 30.0, 100),  # seconds at least: all
        (0.01, 2, 30.0, 50),  # but every worker has its share
        (0.01, 8, 30.0, 13),
        (100.0, 1, 30.0, 1),  # one at least
        (1.0, 1, 0.0, 1),  # inline
    ],
)
def test_how_many_make_a_pack(board: Boards, each_s: float, n_slots: int, longest_s: float, expected: int) -> None:
    some, _ = board(trials(*[BYTES_PER_ROW - 1] * 100), only=["timeline"])
    some.pace.learn("timeline", each_s, 1)
    pack = take(some, n_slots=n_slots, longest_s=longest_s)
    # A pack ends with the unit that makes it long enough, so a bound that is met is passed by less than one.
    assert len(pack) == pytest.approx(expected, abs=1)
    assert (len(pack) - 1) * each_s < max(longest_s, SHORTEST_S)


def test_packs_are_bounded_whatever_the_pace(board: Boards) -> None:
    some, plan = board(trials(*[1] * (2 * MOST_UNITS + 50)), only=["timeline"])
    some.pace.learn("timeline", 1e-9, 1)
    sizes = []
    while pack := take(some):
        sizes.append(len(pack))
    assert sizes == [MOST_UNITS, MOST_UNITS, 50]
    assert sum(sizes) == len(plan.tasks)


def test_packs_get_smaller_in_the_end(board: Boards) -> None:
    """So that all workers end together."""
    some, _ = board(trials(*[BYTES_PER_ROW - 1] * 200), only=["timeline"])
    some.pace.learn("timeline", 1.0, 1)
    sizes = []
    while pack := take(some, n_slots=4, longest_s=30.0):
        sizes.append(len(pack))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 10
    assert sizes[-1] <= SHORTEST_S
    assert sum(sizes) == 200


def test_what_may_kill_its_worker_goes_alone(board: Boards) -> None:
    some, plan = board(trials(9, 8, 7, 6, 5), only=["timeline"])
    some.pace.learn("timeline", 1e-9, 1)
    (first, *others) = take(some)
    first.alone = True
    some.later(first, first.tasks, 0.0)
    for unit in others:
        some.later(unit, unit.tasks, 0.0)
    assert [told(take(some)) for _ in range(3)] == [["timeline 000"], [f"timeline {name:03}" for name in (1, 2, 3, 4)], []]
    (second, *rest) = others
    second.alone = True
    for unit in (*rest, second):
        some.later(unit, unit.tasks, 0.0)
    assert [told(take(some)) for _ in range(3)] == [["timeline 001"], [f"timeline {name:03}" for name in (2, 3, 4)], []]
    assert some.n_open == len(plan.tasks), "what is taken or put back is still to be done"


def test_what_reads_a_lost_artifact_is_lost_too(board: Boards) -> None:
    """And what reads that; all else goes on."""
    some, plan = board(trials(2, 1))
    while take(some):
        pass
    some.lose(the(plan, "audio", "000"))
    assert some.n_open == 6, "the sound of one, and what was made of it alone"
    some.done(the(plan, "audio", "001"), 0)
    some.done(the(plan, "timeline", "001"), 10)
    some.done(the(plan, "timeline", "000"), 10)
    assert sorted(told([*take(some), *take(some), *take(some)])) == ["centred 001", "logmel 001"]
    assert some.n_open == 2
    assert some.lately_lost() == [(stage, the(plan, stage, "000").key) for stage in ("audio", "logmel", "centred")]
    assert some.lately_lost() == []
    assert some.lost == {(stage, the(plan, stage, "000").key) for stage in ("audio", "logmel", "centred")}


def persons() -> list[Trial]:
    (one,) = trials(9)
    return [
        Trial(name="000_left", source=one.source, person="left"),
        Trial(name="000_right", source=one.source, person="right"),
    ]


def test_all_persons_of_a_source_are_one_unit(board: Boards) -> None:
    some, plan = board(persons(), stages=FACES, only=["faces"])
    assert told(take(some)) == ["timeline 000_left"]
    some.done(the(plan, "timeline", "000_left"), 10)
    (unit,) = take(some)
    assert told([unit]) == ["faces 000_left,000_right"]
    some.later(unit, unit.tasks[1:], 0.0)  # one of them is to be tried again
    some.done(the(plan, "faces", "000_left"), 10)
    assert told(take(some)) == ["faces 000_right"]
    assert some.n_open == 1


def test_faces_that_were_to_be_chosen_from_may_be_lost(board: Boards) -> None:
    """It waits for them, and is computed the long way where they do not come."""
    some, plan = board(trials(9), stages=FACES)
    assert the(plan, "small").found_in == (("faces", the(plan, "faces").key),)
    assert told(take(some)) == ["timeline 000"]
    some.done(the(plan, "timeline"), 10)
    assert [told(take(some)) for _ in range(2)] == [["faces 000"], []]
    some.lose(the(plan, "faces"))
    assert told(take(some)) == ["small 000"]
    assert ("small", the(plan, "small").key) not in some.lost


def test_work_for_gpus_is_apart(board: Boards) -> None:
    some, plan = board(trials(9), stages=FACES, on_gpu="faces")
    assert take(some, on_gpu=True) == []
    assert told(take(some)) == ["timeline 000"]
    some.done(the(plan, "timeline"), 10)
    assert take(some) == []
    assert told(take(some, on_gpu=True)) == ["faces 000"]


def test_what_is_put_back_comes_when_its_time_has_come(board: Boards) -> None:
    some, _ = board(trials(9), only=["timeline"])
    assert some.next_s is None
    (unit,) = take(some)
    some.later(unit, unit.tasks, 0.2)
    assert some.next_s == pytest.approx(0.2, abs=0.1)
    assert take(some) == []
    time.sleep(0.25)
    assert some.next_s == 0.0
    assert take(some) == [unit]
    assert some.next_s is None
    assert some.n_open == 1


def test_how_long_the_rest_takes(board: Boards) -> None:
    some, plan = board(trials(*[BYTES_PER_ROW] * 4), only=["audio"])
    assert some.left_s() is None
    some.pace.learn("timeline", 1.0, 2)
    assert some.left_s() is None, "nobody has seen the other stage yet"
    some.pace.learn("audio", 3.0, 2)
    some.pace.learn("audio", 5.0, 2)
    assert some.left_s() == 4 * 1.0 + 4 * 4.0
    some.done(the(plan, "timeline", "000"), 10)
    some.lose(the(plan, "audio", "001"))
    assert some.left_s() == 3 * 1.0 + 3 * 4.0
    for task in plan.tasks:
        if task not in (the(plan, "timeline", "000"), the(plan, "audio", "001")):
            some.done(task, 10)
    assert (some.left_s(), some.n_open) == (0.0, 0)
