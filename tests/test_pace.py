"""Pace: what a stage costs per row, from what the cache remembers and from what a run sees."""

from __future__ import annotations

from pathlib import Path

from pipeline.cache import Cache, Seal
from pipeline.pace import BYTES_PER_ROW, Pace


def remember(cache: Cache, stage: str, source: str, *, seconds: float, n_rows: int | None) -> None:
    seal = Seal(data="", warnings=[], source=source, person=None, trial="t", seconds=seconds, finding="", found_in="", n_rows=n_rows or 0)
    if n_rows is None:
        del seal["n_rows"]  # type: ignore[misc]  # as older versions remembered it
    cache.remember(stage, f"{stage}-{source}", (1, 1, 1), seal)


def test_nothing_is_known_of_an_empty_cache(tmp_path: Path) -> None:
    pace = Pace(Cache(tmp_path), "timeline")
    assert pace.seconds("timeline", 100) is None
    assert pace.mean_s("timeline", 100) is None


def test_rows_are_guessed_from_bytes_until_they_are_known(tmp_path: Path) -> None:
    pace = Pace(Cache(tmp_path), "timeline")
    assert pace.n_rows("one", 0) == 1, "nothing takes no time"
    assert pace.n_rows("one", 10 * BYTES_PER_ROW) == 11
    pace.learn_rows("one", 250)
    assert pace.n_rows("one", 10 * BYTES_PER_ROW) == 250
    pace.learn_rows("one", 0)
    assert pace.n_rows("one", 10 * BYTES_PER_ROW) == 250, "no rows: it is not known, rather"


def test_it_learns_from_every_job(tmp_path: Path) -> None:
    pace = Pace(Cache(tmp_path), "timeline")
    pace.learn("faces", 10.0, 100)
    assert pace.seconds("faces", 50) == 5.0
    pace.learn("faces", 20.0, 50)
    assert pace.seconds("faces", 50) == 10.0, "30 s for 150 rows"
    assert pace.mean_s("faces", 3) == 45.0, "15 s each"
    assert pace.seconds("audio", 50) is None


def test_it_learns_from_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    remember(cache, "timeline", "one", seconds=1.0, n_rows=100)
    remember(cache, "timeline", "old", seconds=1.0, n_rows=None)
    remember(cache, "faces", "one", seconds=8.0, n_rows=100)
    remember(cache, "faces", "old", seconds=99.0, n_rows=100)  # of a source of unknown length
    remember(cache, "logmel", "one", seconds=2.0, n_rows=400)  # rows of its own: what counts is the timeline's
    cache.save()
    pace = Pace(Cache(tmp_path), "timeline")
    assert pace.n_rows("one", 0) == 100
    assert pace.n_rows("old", 0) == 1
    assert pace.seconds("faces", 50) == 4.0
    assert pace.seconds("logmel", 50) == 1.0
    assert pace.mean_s("timeline", 2) == 2.0


def test_with_another_timeline_the_rows_are_another_timelines(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    remember(cache, "timeline", "one", seconds=1.0, n_rows=100)
    remember(cache, "grid", "one", seconds=1.0, n_rows=30)
    cache.save()
    assert Pace(Cache(tmp_path), "grid").n_rows("one", 0) == 30
