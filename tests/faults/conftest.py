"""Runs to be disturbed: of many small jobs, each of which takes a moment, and what they give where nobody disturbs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, Sample
from processes import end, left_of, needs_proc

# Every kind of artifact that needs no network; `level` waits as it computes, so that there is time to disturb it.
STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  crops:    {use: folder, root: CROPS}
  audio:    {use: waveform}
  mfcc39:   {use: mfcc39, from: audio}
  level:    {use: "troubles:Level", from: audio, seconds: 0.2}
  again:    {use: "troubles:Level", from: audio, seconds: 0.25}
store: {rows: labels, dtype: float32, align: {default: mean}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """What a run gives that nobody disturbs. n_tracks: how many it computes."""

    data: dict[str, Any]
    failures: dict[str, dict[str, str]]
    n_tracks: int


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is disturbed are processes, which are looked up in /proc."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(needs_proc)


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory, write_crops: Callable[..., None]) -> str:
    """The text of the stages file. Of one trial there are organisers' crops."""
    folder = tmp_path_factory.mktemp("organisers") / "crops"
    write_crops(folder / "207", range(38))
    return STAGES.replace("CROPS", str(folder))


@pytest.fixture
def busy_desk(
    sample: Sample,
    stages: str,
    new_desk: Callable[..., Desk],
    trouble: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Desk]]:
    """busy_desk(name): a desk with all sample clips, at which nothing is computed yet."""
    made: list[Desk] = []
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))  # for what a client that is killed leaves there

    def new(name: str = "disturbed") -> Desk:
        made.append(new_desk(sample.videos, sample.labels, stages=stages, name=name))
        return made[-1]

    yield new
    for desk in made:
        end(desk)


@pytest.fixture(scope="module")
def undisturbed(sample: Sample, stages: str, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    desk = Desk(videos=sample.videos, labels=sample.labels, stages=root / "stages.yaml", cache=root / "cache", store=root / "store")
    desk.write_stages(stages)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TROUBLE", str(root / "none"))
        result = desk.run()
    return Undisturbed(data=desk.store_data(), failures=desk.failures(), n_tracks=sum(result["computed"].values()))


@pytest.fixture
def assert_as_undisturbed(
    undisturbed: Undisturbed, assert_same_data: Callable[..., None], assert_all_whole: Callable[[Desk], int]
) -> Callable[[Desk], None]:
    """Nothing was lost, nothing is left behind, and every bit is as if nothing had happened."""

    def check(desk: Desk) -> None:
        assert_same_data(desk.store_data(), undisturbed.data)
        assert desk.failures() == undisturbed.failures
        assert_all_whole(desk)
        left = {path.name for path in desk.cache.rglob("*") if path.is_file()} - _kept(desk)
        assert left == set()
        assert left_of(desk) == {}

    return check


def _kept(desk: Desk) -> set[str]:
    """The names of files that a cache keeps. Temporaries and claims of processes that were killed are swept in time."""
    kept = [path for pattern in ("*.h5", "*.json", "*.jsonl", "*.stop", ".tmp-*", "*.claim") for path in desk.cache.rglob(pattern)]
    return {path.name for path in kept}
