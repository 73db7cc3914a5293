"""Running a plan in this process: what is tried again, what is a failure, what ends the run, and what is kept of it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from desk import Desk
from jobs import Bench, bench_of

from pipeline import board, executor
from pipeline.cache import Cache, State
from pipeline.claims import Claim, claim_path
from pipeline.errors import FullError
from pipeline.executor import Ran, execute
from pipeline.fates import Fate
from pipeline.packs import MAX_DEATHS, Hand, Pack, PackReport
from pipeline.pools import Inline

STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  level:    {use: "troubles:Level", from: audio}
store: {rows: timeline, dtype: float32}
"""
ALL = {"timeline": 2, "audio": 2, "level": 2}


@dataclass(slots=True)
class Told:
    """A listener that keeps what it is told."""

    packs: list[tuple[Pack, PackReport]] = field(default_factory=list)
    left_s: list[float | None] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    n_lost: Counter[str] = field(default_factory=Counter)

    def finished(self, pack: Pack, report: PackReport, left_s: float | None) -> None:
        self.packs.append((pack, report))
        self.left_s.append(left_s)

    def died(self, pack: Pack, why: str) -> None:
        self.deaths += [f"{job.stage} {job.items[0].trial}: {why}" for job in pack.jobs]

    def lost(self, n_tracks: Mapping[str, int]) -> None:
        self.n_lost.update(n_tracks)

    def fates(self, stage: str, trial: str) -> list[Fate]:
        reports = [one for pack, report in self.packs for one in report.reports if one.stage == stage]
        return [outcome.fate for one in reports for outcome in one.outcomes if outcome.trial == trial]


@pytest.fixture
def desk(some_clips: Callable[..., Any], new_desk: Callable[..., Desk], trouble: Callable[..., None]) -> Desk:
    """With a clip that has sound, and one without, which `level` may meet trouble with."""
    return new_desk(some_clips("106", "207")[0], stages=STAGES)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses."""
    monkeypatch.setattr(executor, "WAITS_S", (0.01, 0.02))
    monkeypatch.setattr(executor, "ELSEWHERE_S", 0.1)


def run(bench: Bench, told: Told | None = None, pool: Any = None) -> Ran:
    return execute(bench.plan, bench.cache, pool or Inline(), told or Told(), record=bench.record, device="cpu")


def test_all_is_computed_and_told(desk: Desk) -> None:
    bench, told = bench_of(desk), Told()
    ran = run(bench, told)
    assert (ran.computed, ran.failures) == (ALL, {})
    assert [len(pack.jobs) for pack, _ in told.packs] == [1] * 6
    assert [pack.number for pack, _ in told.packs] == [1, 2, 3, 4, 5, 6]
    assert [pack.jobs[0].stage for pack, _ in told.packs] == ["timeline"] * 2 + ["audio"] * 2 + ["level"] * 2
    assert told.left_s[0] is None, "of two stages nothing is known yet"
    assert told.left_s[-1] == 0.0
    assert told.left_s[-2] is not None
    assert told.left_s[-2] > 0.0
    assert told.n_lost == {}


def test_no_gpu_is_looked_for_where_none_is_needed(desk: Desk) -> None:
    """That alone would load torch, into every worker."""
    bench, told = bench_of(desk), Told()
    execute(bench.plan, bench.cache, Inline(), told, record=bench.record, device="auto")
    assert {job.device for pack, _ in told.packs for job in pack.jobs} == {"cpu"}


def test_what_was_computed_is_remembered(desk: Desk) -> None:
    """The next plan reads no artifact."""
    run(bench_of(desk))
    later = Cache(desk.cache)
    assert {stage: len(list(later.seals(stage).values())) for stage in ALL} == ALL
    assert bench_of(desk).plan.tasks == ()


@pytest.mark.parametrize("times", [1, 2])
def test_what_fails_for_a_moment_is_tried_again(desk: Desk, trouble: Callable[..., None], times: int) -> None:
    trouble("lose_a_disk", times)
    told = Told()
    ran = run(bench_of(desk), told)
    assert (ran.computed, ran.failures) == (ALL, {})
    assert told.fates("level", "207") == [Fate.TRANSIENT] * times + [Fate.DONE]
    assert told.fates("level", "106") == [Fate.DONE]


def test_what_fails_three_times_is_a_failure_of_this_run(desk: Desk, trouble: Callable[..., None]) -> None:
    trouble("lose_a_disk", 3)
    bench, told = bench_of(desk), Told()
    ran = run(bench, told)
    assert told.fates("level", "207") == [Fate.TRANSIENT] * 3
    assert ran.computed == ALL | {"level": 1}
    assert told.n_lost == {"level": 1}
    (failure,) = ran.failures.values()
    assert (failure.trial, failure.stage, failure.problem.why) == ("207", "level", "[Errno 5] Input/output error")
    assert list(bench.cache.failures()) == []
    assert run(bench_of(desk)).computed == {"level": 1}


def test_the_pause_before_the_next_try_is_for_others(desk: Desk, trouble: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "WAITS_S", (0.3, 10.0))
    trouble("lose_a_disk")
    told = Told()
    started_s = time.monotonic()
    run(bench_of(desk), told)
    order = [pack.jobs[0].items[0].trial for pack, _ in told.packs if pack.jobs[0].stage == "level"]
    assert sorted(order) == ["106", "207", "207"]
    assert order[-1] == "207"
    assert time.monotonic() - started_s > 0.3


@pytest.mark.parametrize(("kind", "recorded"), [("refuse", True), ("break_down", False)])
def test_what_would_fail_again_is_recorded(desk: Desk, trouble: Callable[..., None], kind: str, recorded: bool) -> None:
    trouble(kind)
    bench, told = bench_of(desk), Told()
    ran = run(bench, told)
    assert len(told.fates("level", "207")) == 1
    assert told.n_lost == {"level": 1}
    assert ran.computed == ALL | {"level": 1}
    (key,) = (key for _, key in ran.failures)
    assert bench.cache.state("level", key) is (State.FAILED if recorded else State.MISSING)
    trouble(kind, 0)
    assert len(bench_of(desk).plan.tasks) == (0 if recorded else 1)


def test_a_full_disk_ends_the_run_and_keeps_what_there_is(desk: Desk, trouble: Callable[..., None]) -> None:
    trouble("fill_a_disk")
    with pytest.raises(FullError, match=r"207\.mp4: could not be computed: \[Errno 28\] No space left on device; make room, in "):
        run(bench_of(desk))
    left = bench_of(desk).plan.tasks
    assert {task.stage.name for task in left} == {"level"}
    assert {stage: len(list(Cache(desk.cache).seals(stage).values())) for stage in ("timeline", "audio")} == {"timeline": 2, "audio": 2}
    assert run(bench_of(desk)).computed == {"level": len(left)}


def test_a_failure_that_was_recorded_is_forgotten_when_it_works(desk: Desk, trouble: Callable[..., None]) -> None:
    trouble("refuse")
    run(bench_of(desk))
    assert run(bench_of(desk, force=["level"])).computed == {"level": 2}
    assert list(Cache(desk.cache).failures()) == []
    assert bench_of(desk).plan.tasks == ()


def test_what_another_client_is_at_is_waited_for(desk: Desk) -> None:
    bench, told = bench_of(desk), Told()
    path = claim_path(bench.job("level", "106").items[0].target)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(Claim(run="theirs", host="another-host", pid=1, started="some boot 1"))))
    timer = threading.Timer(1.0, path.unlink)
    timer.start()
    ran = run(bench, told)
    timer.join()
    assert ran.computed == ALL
    waited, (last,) = told.fates("level", "106")[:-1], told.fates("level", "106")[-1:]
    assert set(waited) == {Fate.ELSEWHERE}
    assert last is Fate.DONE
    assert told.fates("level", "207") == [Fate.DONE], "meanwhile something else is done"


def test_what_another_client_has_done_is_taken(desk: Desk) -> None:
    ours, theirs = bench_of(desk), bench_of(desk)
    run(theirs)
    told = Told()
    ran = run(ours, told)
    assert (ran.computed, ran.failures) == (dict.fromkeys(ALL, 0), {})
    assert {outcome.fate for _, report in told.packs for one in report.reports for outcome in one.outcomes} == {Fate.FOUND}
    assert ours.cache.state("level", ours.task("level", "207").key) is State.DONE


class Dying:
    """A pool of one worker, which dies of certain packs before it says that it began. It stands for what no test can time: see
    tests/faults for workers that die of their work."""

    has_gpus, pack_s = False, 30.0

    def __init__(self, dies_of: Callable[[Pack], bool]) -> None:
        self.dies_of, self.hand, self.out = dies_of, Hand(), list[Pack]()
        self.sizes: list[int] = []

    def room(self, *, on_gpu: bool) -> int:
        return 1 - len(self.out)

    def n_slots(self, *, on_gpu: bool) -> int:
        return 1

    def submit(self, pack: Pack) -> None:
        self.sizes.append(len(pack.jobs))
        self.out.append(pack)

    def next(self, within_s: float) -> tuple[Pack, PackReport | str] | None:
        pack = self.out.pop()
        return pack, "4 workers died of it" if self.dies_of(pack) else self.hand.run(pack)


def test_whoever_dies_before_it_begins_does_not_go_on_for_ever(desk: Desk) -> None:
    """The trial that does it is told from those that were in its pack."""
    desk.run("--only", "audio")
    bench, told = bench_of(desk), Told()
    pool = Dying(lambda pack: any(item.trial == "207" for job in pack.jobs for item in job.items))
    ran = run(bench, told, pool)
    assert ran.computed == {"level": 1}
    assert Counter(told.deaths) == {"level 207: 4 workers died of it": MAX_DEATHS, "level 106: 4 workers died of it": 1}
    assert pool.sizes == [2, 1, 1, 1]
    assert told.n_lost == {"level": 1}
    (failure,) = ran.failures.values()
    assert str(failure.problem) == (
        "207.mp4: its worker died before it began with 'level': 4 workers died of it; see what the workers said, then run again"
    )
    assert list(bench.cache.failures()) == [], "it may have been the worker's own fault"


def test_those_that_waited_beside_one_that_died_are_done_alone(desk: Desk) -> None:
    desk.run()
    bench, told = bench_of(desk, force=["level"]), Told()
    deaths = iter([True])
    pool = Dying(lambda pack: next(deaths, False))
    assert run(bench, told, pool).computed == {"level": 2}
    assert pool.sizes == [2, 1, 1]
    assert len(told.deaths) == 2


def test_what_was_not_begun_comes_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "PATIENCE", 0.0)  # nobody begins a pack's second job
    pool, told = Dying(lambda pack: False), Told()
    ran = run(bench_of(desk), told, pool)
    assert (ran.computed, ran.failures) == (ALL, {})
    assert pool.sizes[0] == 4, "the timelines and the sound of both"
    assert told.fates("timeline", "106") + told.fates("audio", "106") != [Fate.DONE] * 2
    assert {told.fates(stage, trial)[-1] for stage in ALL for trial in ("106", "207")} == {Fate.DONE}


def test_what_needs_a_lost_track_is_lost_with_it(desk: Desk) -> None:
    """It has no failure of its own, and is counted."""
    (desk.videos / "broken.mp4").write_bytes(b"not a video")
    told = Told()
    ran = run(bench_of(desk), told)
    assert ran.computed == ALL
    assert {(failure.stage, failure.trial) for failure in ran.failures.values()} == {("timeline", "broken"), ("audio", "broken")}
    assert told.n_lost == {"timeline": 1, "audio": 1, "level": 1}
