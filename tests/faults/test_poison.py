"""Work that kills whoever does it, on `local:2`: a crash or all of the memory, once or every time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from desk import Desk, Sample
from processes import end, left_of, started

from pipeline.packs import MAX_DEATHS

# The trial without sound, 207, is the one that `level` may meet trouble with.
STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  level:    {use: "troubles:Level", from: audio}
store: {rows: timeline, dtype: float32}
"""
N_CLIPS = 8
# dask's workers may take half of it each: more than they need, less than a machine has.
SMALL = f"ulimit -m {800 << 10}"


@pytest.fixture
def desk(sample: Sample, new_desk: Callable[..., Desk], trouble: Callable[..., None]) -> Iterator[Desk]:
    made = new_desk(sample.videos, stages=STAGES)
    yield made
    end(made)


@pytest.fixture
def expected(sample: Sample, new_desk: Callable[..., Desk], trouble: Callable[..., None]) -> Any:
    """Nobody was in trouble."""
    undisturbed = new_desk(sample.videos, stages=STAGES, name="undisturbed")
    undisturbed.run()
    return undisturbed.store_data()


def fates_of_207(desk: Desk) -> list[str]:
    """What became of it in the newest run, report after report."""
    newest = max((desk.cache / "runs").glob("*.jsonl"))
    events = [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()]
    return [event["fates"]["207"] for event in events if event["event"] == "job" and event["stage"] == "level" and "207" in event["fates"]]


@pytest.mark.parametrize(("kind", "within"), [("segfault", ""), ("fill_memory", SMALL)])
def test_a_trial_that_kills_one_worker_is_done_by_another(
    kind: str, within: str, desk: Desk, expected: Any, trouble: Callable[..., None], assert_same_data: Callable[..., None]
) -> None:
    trouble(kind, MAX_DEATHS - 1)
    said = desk.stages.with_suffix(".said")
    run = started(desk, "--on", "local:2", said=said, within=within)
    assert run.wait() == 0, said.read_text()
    assert_same_data(desk.store_data(), expected)
    assert fates_of_207(desk) == ["done"]
    assert trouble_left(desk) == []
    assert left_of(desk) == {}


@pytest.mark.parametrize(("kind", "within"), [("segfault", ""), ("fill_memory", SMALL)])
def test_a_trial_that_kills_three_workers_is_left_out_by_name(
    kind: str, within: str, desk: Desk, expected: Any, trouble: Callable[..., None], assert_same_data: Callable[..., None]
) -> None:
    trouble(kind, 100)
    said = desk.stages.with_suffix(".said")
    run = started(desk, "--on", "local:2", said=said, within=within)
    assert run.wait() == 1, said.read_text()
    assert len(trouble_left(desk)) == 100 - MAX_DEATHS
    assert "error: 207: level: kills whoever runs 'level' on it: " in said.read_text()
    assert ("Segmentation fault" in said.read_text()) == (kind == "segfault"), "what the worker said is there to be seen"
    assert fates_of_207(desk) == ["killed"]
    row = desk.failures()["207"]
    assert (row["stage"], row["severity"], row["what"]) == ("level", "error", "kills whoever runs 'level' on it")
    assert row["why"].startswith("the process that computed it died 3 times: ")
    assert [name for name, one in desk.failures().items() if one["severity"] == "error"] == ["207"], "all others are done"
    assert len(desk.tracks("level")) == N_CLIPS - 1
    # It is not tried again unless that is asked for.
    again = desk.run(status=1)
    assert again["computed"] == {}
    assert [row["trial"] for row in again["failures"]] == ["207"]
    assert len(trouble_left(desk)) == 100 - MAX_DEATHS
    trouble(kind, 0)
    assert desk.run("--retry-failed")["computed"] == {"level": 1}
    assert_same_data(desk.store_data(), expected)
    assert left_of(desk) == {}


def trouble_left(desk: Desk) -> list[str]:
    return (desk.stages.parent.parent / "trouble").read_text().split()
