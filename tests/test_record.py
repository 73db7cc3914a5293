"""A run's record: what is written as it goes, and the tally that anyone counts from it, then or later."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from jobs import Bench, bench_of
from processes import no_room

from pipeline.errors import FullError, RequestError
from pipeline.executor import execute
from pipeline.packs import Hand, stop_path
from pipeline.pools import Inline
from pipeline.record import Record, follow, newest
from pipeline.tally import Event, Tally

STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  level:    {use: "troubles:Level", from: audio}
store: {rows: timeline, dtype: float32}
"""


@pytest.fixture
def bench(some_clips: Callable[..., Any], new_desk: Callable[..., Desk], trouble: Callable[..., None]) -> Bench:
    trouble("refuse")
    return bench_of(new_desk(some_clips("106", "207")[0], stages=STAGES))


def record_of(bench: Bench, told: Callable[[Event], None] = lambda event: None) -> Record:
    return Record(bench.cache.root, bench.plan, on="inline", told=told)


def run(bench: Bench, told: Callable[[Event], None]) -> Path:
    with record_of(bench, told) as record:
        execute(bench.plan, bench.cache, Inline(), record, record=record.path, device="cpu")
    return record.path


def test_who_reads_it_back_counts_what_the_run_counted(bench: Bench) -> None:
    live, events = Tally(), list[Event]()
    path = run(bench, lambda event: (events.append(event), live.add(event)))
    assert newest(bench.cache.root) == path
    assert [json.loads(line) for line in path.read_text().splitlines()] == events
    (last,) = follow(path)
    assert last == live
    assert (last.ended, last.on, last.n_all, last.n_ended, last.n_failed) == ("done", "inline", 6, 6, 1)
    assert (last.stages["level"].n_done, last.stages["level"].n_failed) == (1, 1)
    assert not stop_path(path).exists()


def test_a_job_s_line_tells_where_it_was_and_what_it_cost(bench: Bench) -> None:
    jobs = [event for event in map(json.loads, run(bench, lambda event: None).read_text().splitlines()) if event["event"] == "job"]
    assert [(job["stage"], *job["fates"].items()) for job in jobs if job["stage"] != "timeline"] == [
        *(("audio", (name, "done")) for name in ("106", "207")),
        *(("level", (name, fate)) for name, fate in (("106", "done"), ("207", "failed"))),
    ]
    by_stage = {job["stage"]: job for job in jobs}
    assert by_stage["level"]["why"] == {"207": "207.mp4: refused: it was told to; take another"}
    assert (by_stage["level"]["rows"], by_stage["level"]["bytes"]) == (0, 0)
    for job in jobs[:-1]:
        artifact = bench.cache.path(job["stage"], bench.task(job["stage"], next(iter(job["fates"]))).key)
        assert job["bytes"] == artifact.stat().st_size
        assert job["rows"] > 0 or job["fates"].keys() == {"207"}
        shares = sum(job[f"{name}_s"] for name in ("load", "decode", "write", "inference"))
        assert shares == pytest.approx(job["seconds"], abs=1e-3)  # each is rounded
        assert re.fullmatch(r"\S+:\d+", job["where"])
        assert job["reason"] == "never computed"
        assert (job["decode_s"] > 0) == (job["stage"] != "level")


def test_what_was_not_begun_has_no_line(bench: Bench) -> None:
    run(bench, lambda event: None)
    jobs = bench.job("level", "106"), bench.job("level", "207")
    pack = replace(bench.pack(*jobs), longest_s=0.0)
    with record_of(bench) as record:
        record.finished(pack, Hand().run(pack), None)
    (line,) = (event for event in map(json.loads, record.path.read_text().splitlines()) if event["event"] == "job")
    assert line["fates"] == {"106": "found"}


def test_a_death_is_counted(bench: Bench) -> None:
    live = Tally()
    with record_of(bench, live.add) as record:
        record.died(bench.pack(bench.job("audio", "106"), bench.job("audio", "207")), "4 workers died of it")
    (last,) = follow(record.path)
    assert last == live
    assert last.n_deaths == 1
    assert "1 died" in last.in_words()
    (line,) = (event for event in map(json.loads, record.path.read_text().splitlines()) if event["event"] == "death")
    assert (line["stage"], line["trials"], line["why"]) == ("audio", ["106", "207"], "4 workers died of it")


def test_a_line_that_is_half_there_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    path, copy = run(bench, lambda event: None), tmp_path / "copy.jsonl"
    text = path.read_text()
    end = text.index("\n", len(text) // 2) + 1
    copy.write_text(text[: end - 7])
    tallies = follow(copy, every_s=0.0)
    counted = replace(next(tallies))
    assert counted.ended == ""
    assert next(tallies) == counted
    with copy.open("a") as file:
        file.write(text[end - 7 : end])
    assert next(tallies).now_s == json.loads(text[:end].splitlines()[-1])["at_s"]
    with copy.open("a") as file:
        file.write(text[end:])
    *_, last = tallies
    assert last == list(follow(path))[-1]


def test_a_run_that_is_stopped_tells_its_workers(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), record_of(bench) as record:
        raise KeyboardInterrupt("SIGTERM")
    assert stop_path(record.path).exists()
    (last,) = follow(record.path)
    assert last.ended == "stopped"
    assert json.loads(record.path.read_text().splitlines()[-1])["why"] == "SIGTERM"


def test_a_run_whose_process_is_gone_was_killed(bench: Bench, tmp_path: Path) -> None:
    text = run(bench, lambda event: None).read_text()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    first, *others = map(json.loads, text.splitlines())
    lines = [{**first, "pid": ended.pid}, *others[:-1]]
    (tmp_path / "killed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    *_, last = follow(tmp_path / "killed.jsonl", every_s=0.0)
    assert (last.ended, last.n_ended) == ("killed", 6)


def test_of_two_runs_the_one_that_was_begun_last_is_the_newest(bench: Bench) -> None:
    first, second = record_of(bench), record_of(bench)
    with first, second:
        assert newest(bench.cache.root) == second.path


def test_where_nothing_ever_ran_there_is_nothing_to_watch(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"^{re.escape(str(tmp_path))}: there is no run to watch: none was ever begun; start one: .*$"):
        newest(tmp_path)


def test_a_full_disk_is_one_error_from_the_first_line_to_the_last(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    full = r"^\S+\.jsonl: cannot be written: File too large; make room or mend the permissions there, then run again$"
    with no_room(), pytest.raises(FullError, match=full), record_of(bench):
        pytest.fail("it began")
    with pytest.raises(FullError, match=full), record_of(bench) as record, no_room():
        record.died(bench.pack(bench.job("audio", "106")), "x" * 100_000)
    record = record_of(bench).__enter__()
    with no_room(), pytest.raises(FullError, match=full):
        record.__exit__(None, None, None)
    del record
    gc.collect()
    assert capfd.readouterr() == ("", ""), "nothing was left to be written when nobody was looking"
    empty = [path for path in bench.record.parent.glob("*.jsonl") if not path.stat().st_size]
    assert empty == [bench.record], "a record of a run that never began"


def test_after_a_full_disk_the_record_can_still_be_read(bench: Bench) -> None:
    """Half of the line was on the disk when it was full."""
    with pytest.raises(FullError, match="File too large"), record_of(bench) as record, no_room(record.path.stat().st_size + 100):
        record.died(bench.pack(bench.job("audio", "106")), "x" * 100_000)
    (last,) = follow(record.path)
    assert (last.ended, last.n_deaths) == ("stopped", 0)
    assert "File too large" in json.loads(record.path.read_text().splitlines()[-1])["why"]


def test_an_error_on_its_way_is_not_hidden_by_a_full_disk(bench: Bench) -> None:
    record = record_of(bench).__enter__()
    with no_room():
        assert record.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is None
