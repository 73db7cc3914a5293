"""Two clients at once on one cache: each does what the other is not doing, and both have it all in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from processes import started

TWICE = 1.3  # times the work; by chance two may begin one job in the same moment


@pytest.mark.parametrize("places", [("local:1", "local:1"), ("inline", "local:1")], ids=" ".join)
def test_two_clients(
    places: tuple[str, str], busy_desk: Callable[..., Desk], assert_as_undisturbed: Callable[[Desk], None], undisturbed: Any
) -> None:
    one = busy_desk()
    other = replace(one, store=one.store.with_name("other_store"))
    desks = list(zip((one, other), places, strict=True))
    runs = [started(desk, "--on", place, said=desk.store.with_suffix(".said")) for desk, place in desks]
    assert [run.wait() for run in runs] == [0, 0], [desk.store.with_suffix(".said").read_text() for desk, _ in desks]
    for desk, _ in desks:
        assert_as_undisturbed(desk)
    fates = [Counter(fates_of(path)) for path in (one.cache / "runs").glob("*.jsonl")]
    assert len(fates) == 2
    n_done = [fate["done"] for fate in fates]
    assert min(n_done) > 0 or len(set(places)) == 2, f"one of them did it all: {fates}"  # workers take longer to start than none
    assert undisturbed.n_tracks <= sum(n_done) < TWICE * undisturbed.n_tracks, f"{undisturbed.n_tracks} tracks: {fates}"


def fates_of(record: Path) -> list[str]:
    """Of all that its workers reported."""
    events = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    return [fate for event in events if event["event"] == "job" for fate in event["fates"].values()]
