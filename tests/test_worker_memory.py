"""A worker whose memory runs out: batches of half the size, and again, without a change of a bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from desk import Desk
from jobs import Bench, bench_of
from troubles import Hungry

from pipeline.fates import Fate
from pipeline.packs import Hand
from pipeline.worker import Report, Worker

STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  crops:    {use: folder, root: ../crops}
  hungry:   {use: "troubles:Hungry", from: crops}
store: {rows: timeline, dtype: float32}
"""
N_CROPS = 40


@pytest.fixture
def bench(
    some_clips: Callable[..., Any],
    new_desk: Callable[..., Desk],
    write_crops: Callable[..., None],
    tmp_path: Path,
    trouble: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    """Where only `hungry` is to be computed, of clips of 40 and 38 frames that are shown with the same crops."""
    monkeypatch.setattr(Hungry, "asked", [])
    for name in ("106", "207"):
        write_crops(tmp_path / "crops" / name, range(N_CROPS))
    desk = new_desk(some_clips("106", "207")[0], stages=STAGES)
    desk.run("--only", "crops")
    return bench_of(desk)


def values(bench: Bench, trial: str) -> Any:
    with h5py.File(bench.job("hungry", trial).items[0].target) as file:
        return file["values"][()]


def fates(report: Report) -> list[Fate]:
    return [outcome.fate for outcome in report.outcomes]


def test_batches_are_halved_until_they_fit(bench: Bench, trouble: Callable[..., None]) -> None:
    assert fates(Worker().run(bench.job("hungry", "106"))) == [Fate.DONE]
    expected = values(bench, "106")
    assert np.isfinite(expected).sum() == N_CROPS * 3
    assert Hungry.asked == [N_CROPS]
    trouble(9)
    worker = Worker()
    Hungry.asked.clear()
    assert fates(worker.run(bench.job("hungry", "106"))) == [Fate.DONE]
    assert values(bench, "106").tobytes() == expected.tobytes()
    assert Hungry.asked == [40, 32, 16, 8, 8, 8, 8, 8]
    Hungry.asked.clear()
    assert fates(worker.run(bench.job("hungry", "207"))) == [Fate.DONE]
    assert Hungry.asked == [8, 8, 8, 8, 6], "the same worker has learned how much fits"


def test_where_not_even_one_fits_it_may_elsewhere(bench: Bench, trouble: Callable[..., None]) -> None:
    trouble(0)
    (outcome,) = Worker().run(bench.job("hungry", "106")).outcomes
    assert outcome.fate is Fate.TRANSIENT
    assert outcome.problem is not None
    assert (outcome.problem.what, outcome.problem.where) == ("memory ran out", "106.mp4")
    assert "can't allocate memory" in outcome.problem.why
    assert outcome.problem.fix == "run again with fewer workers, or smaller batches"
    assert Hungry.asked == [40, 32, 16, 8, 4, 2, 1]


def test_what_a_job_had_done_before_is_not_done_again(bench: Bench, trouble: Callable[..., None]) -> None:
    """Two items of one job: the memory goes out between them."""
    one, other = bench.job("hungry", "106"), bench.job("hungry", "207")
    both = replace(one, items=(*one.items, *other.items), identities=one.identities | other.identities)
    embed, ran = Hungry.embed, []

    def less_and_less(self: Hungry, crops: Any) -> Any:
        ran.append(len(crops))
        if len(ran) == 2:
            trouble(30)
        return embed(self, crops)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Hungry, "embed", less_and_less)
        assert fates(Worker().run(both)) == [Fate.DONE, Fate.DONE]
    assert ran == [40, 38, 32, 16, 16, 6]
    first, second = (values(bench, trial) for trial in ("106", "207"))
    assert first[: len(second)].tobytes() == second.tobytes(), "the pictures are the same"


def test_other_code_than_the_client_has_is_refused(bench: Bench) -> None:
    """A worker that was started before an update would write artifacts of the old code under the new one's name."""
    job = bench.job("hungry", "106")
    (outcome,) = Worker().run(replace(job, code="0" * 64)).outcomes
    assert outcome.fate is Fate.PASSING
    assert outcome.problem is not None
    assert outcome.problem.what == "the code of 'troubles:Hungry' is another"
    assert outcome.problem.why == f"its digest is {job.code[:12]} here and 000000000000 where the run was started"
    assert outcome.problem.fix == "install the same version there, and start the workers anew"
    assert not job.items[0].target.exists()


def test_a_model_is_built_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    start = Hungry.__init__

    def noted(self: Hungry, *args: Any) -> None:
        built.append(self)
        start(self, *args)

    monkeypatch.setattr(Hungry, "__init__", noted)
    Hand().run(bench.pack(bench.job("hungry", "106"), bench.job("hungry", "207")))
    assert len(built) == 1
