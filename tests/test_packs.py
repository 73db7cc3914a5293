"""A pack in a worker's hand: what of it is computed, and what is left to others, to later, or for good."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from jobs import RUN, Bench, bench_of
from processes import no_room

from pipeline.cache import read_seal
from pipeline.claims import LEASE_S, Claim, claim_path
from pipeline.errors import Problem, RequestError
from pipeline.fates import Fate
from pipeline.packs import MAX_DEATHS, Hand, PackReport, stop_path

STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  level:    {use: "troubles:Level", from: audio}
store: {rows: timeline, dtype: float32}
"""
DEAD = Claim(run=RUN, host=socket.gethostname(), pid=2**22 + 1, started="before")  # no process has this number


@pytest.fixture
def desk(some_clips: Callable[..., Any], new_desk: Callable[..., Desk]) -> Desk:
    """Where only `level` is still to be computed, of a clip with sound and of one without."""
    made = new_desk(some_clips("106", "207")[0], stages=STAGES)
    made.run("--only", "audio")
    return made


@pytest.fixture
def bench(desk: Desk, trouble: Callable[..., None]) -> Bench:
    return bench_of(desk)


def fates(report: PackReport) -> list[list[Fate]]:
    return [[outcome.fate for outcome in one.outcomes] for one in report.reports]


def write_claim(bench: Bench, claim: Claim, trial: str = "106", *, age_s: float = 0.0) -> Path:
    path = claim_path(bench.job("level", trial).items[0].target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(claim)), encoding="utf-8")
    at_s = path.stat().st_mtime - age_s
    os.utime(path, (at_s, at_s))
    return path


def claimed(desk: Desk) -> list[str]:
    return sorted(path.stem for path in desk.cache.rglob("*.claim"))


def test_what_is_done_is_told_with_its_seal(desk: Desk, bench: Bench) -> None:
    jobs = bench.job("level", "106"), bench.job("level", "207")
    report = Hand().run(bench.pack(*jobs))
    assert fates(report) == [[Fate.DONE], [Fate.DONE]]
    assert report.where == f"{socket.gethostname()}:{os.getpid()}"
    assert len(report.began_utc) == 2
    for job, one in zip(jobs, report.reports, strict=True):
        assert one.stage == "level"
        assert one.outcomes[0].sealed == read_seal(job.items[0].target, job.items[0].key)
        assert set(one.spent) == {"load", "decode", "write", "inference"}
        assert sum(one.spent.values()) == pytest.approx(one.seconds)
    assert claimed(desk) == []


def test_what_another_made_meanwhile_is_found(desk: Desk, bench: Bench) -> None:
    job = bench.job("level", "106")
    Hand().run(bench.pack(job))
    before = job.items[0].target.stat().st_mtime_ns
    report = Hand().run(bench.pack(job))
    assert fates(report) == [[Fate.FOUND]]
    assert report.reports[0].outcomes[0].sealed == read_seal(job.items[0].target, job.items[0].key)
    assert job.items[0].target.stat().st_mtime_ns == before


@pytest.mark.usefixtures("trouble")
def test_what_is_to_be_computed_over_is(desk: Desk) -> None:
    desk.run()
    forced = bench_of(desk, force=["level"])
    job = forced.job("level", "106")
    before = job.items[0].target.stat().st_mtime_ns
    assert fates(Hand().run(forced.pack(job))) == [[Fate.DONE]]
    assert job.items[0].target.stat().st_mtime_ns > before


def test_what_is_there_but_damaged_is_computed(desk: Desk, bench: Bench) -> None:
    job = bench.job("level", "106")
    job.items[0].target.parent.mkdir(parents=True, exist_ok=True)
    job.items[0].target.write_bytes(b"half of it")
    assert fates(Hand().run(bench.pack(job))) == [[Fate.DONE]]


def test_what_another_is_at_is_left_to_it(desk: Desk, bench: Bench) -> None:
    theirs = Claim(run="their-run", host="another-host", pid=1, started="some boot 1")
    path = write_claim(bench, theirs)
    report = Hand().run(bench.pack(bench.job("level", "106"), bench.job("level", "207")))
    assert fates(report) == [[Fate.ELSEWHERE], [Fate.DONE]]
    assert json.loads(path.read_text()) == asdict(theirs)
    write_claim(bench, theirs, age_s=LEASE_S + 30)
    assert fates(Hand().run(bench.pack(bench.job("level", "106")))) == [[Fate.DONE]]
    assert claimed(desk) == []


@pytest.mark.parametrize("deaths", range(MAX_DEATHS))
def test_three_deaths_are_one_too_many(desk: Desk, bench: Bench, deaths: int) -> None:
    """deaths: that were counted before the last one."""
    write_claim(bench, replace(DEAD, deaths=deaths))
    report = Hand().run(bench.pack(bench.job("level", "106"), bench.job("level", "207")))
    last = deaths + 1 == MAX_DEATHS
    assert fates(report) == [[Fate.KILLED if last else Fate.DONE], [Fate.DONE]]
    assert report.reports[0].outcomes[0].problem == (
        Problem(
            what="kills whoever runs 'level' on it",
            where="106.mp4",
            why="the process that computed it died 3 times: it crashed, had no memory left, or its time was up",
            fix="see what the workers said; once it is mended, run with --retry-failed",
        )
        if last
        else None
    )
    assert claimed(desk) == [], "it is free for whoever tries again"


def test_deaths_in_another_run_are_forgotten(bench: Bench) -> None:
    write_claim(bench, replace(DEAD, run="an-earlier-run", deaths=7))
    assert fates(Hand().run(bench.pack(bench.job("level", "106")))) == [[Fate.DONE]]


def test_a_run_that_is_to_stop_begins_nothing_more(bench: Bench) -> None:
    jobs = [bench.job("level", trial) for trial in ("106", "207")]
    asked: list[bool] = []

    def is_stopping() -> bool:
        asked.append(True)
        return len(asked) > 1

    assert fates(Hand().run(bench.pack(*jobs), is_stopping)) == [[Fate.DONE], [Fate.LEFT]]
    stop_path(bench.record).touch()
    report = Hand().run(bench.pack(jobs[1]))
    assert fates(report) == [[Fate.LEFT]]
    assert report.reports[0].outcomes[0].problem is None
    assert not jobs[1].items[0].target.exists()


def test_who_has_been_at_a_pack_for_too_long_begins_nothing_more(bench: Bench) -> None:
    """One job is always done, however long it takes."""
    jobs = [bench.job("level", trial) for trial in ("106", "207")]
    pack = replace(bench.pack(*jobs), longest_s=0.0)
    assert fates(Hand().run(pack)) == [[Fate.DONE], [Fate.LEFT]]
    assert fates(Hand().run(replace(pack, jobs=jobs[1:]))) == [[Fate.DONE]]


def test_a_worker_that_does_not_see_the_cache_says_so(bench: Bench) -> None:
    """It would compute everything into folders of its own."""
    bench.record.unlink()
    said = f"{socket.gethostname()}: a worker does not see the cache: there is no {bench.record}; let all machines have the cache and the"
    with pytest.raises(RequestError, match=f"^{re.escape(said)} videos under the same paths$"):
        Hand().run(bench.pack(bench.job("level", "106")))


def test_where_nothing_can_be_claimed_nothing_is_computed(desk: Desk, bench: Bench) -> None:
    with no_room():
        report = Hand().run(bench.pack(bench.job("level", "106")))
    assert fates(report) == [[Fate.FULL]]
    (outcome,) = report.reports[0].outcomes
    assert outcome.problem is not None
    assert (outcome.problem.what, outcome.problem.why) == ("cannot be written", "File too large")
    assert outcome.problem.where == str(bench.job("level", "106").items[0].target)
    assert claimed(desk) == []


def test_what_was_claimed_of_a_job_is_given_back_where_the_rest_cannot_be(desk: Desk, bench: Bench) -> None:
    """Items of one job: their folder can be written to for the first, and not for the second."""
    one, other = bench.job("level", "106"), bench.job("level", "207")
    (desk.cache / "no folder").touch()
    bad = replace(other.items[0], target=desk.cache / "no folder" / "ab" / "abcd.h5")
    report = Hand().run(bench.pack(replace(one, items=(*one.items, bad))))
    assert fates(report) == [[Fate.TRANSIENT, Fate.TRANSIENT]]
    assert {outcome.problem.why for outcome in report.reports[0].outcomes if outcome.problem} == {"Not a directory"}
    assert claimed(desk) == []
