"""Projects of any size whose tracks are cached although nothing was computed: what planning is measured on, and running what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache import Cache, Seal
from pipeline.memo import SETTLE_NS
from pipeline.request import Prepared, Request, prepare

ROWS = 100  # that every track is said to have


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """n_tracks: of the plan; missing: the artifacts that are not there."""

    n_tracks: int
    missing: tuple[Path, ...]


def prepared_in(root: Path) -> Prepared:
    return prepare(Request(videos=root / "videos", stages=root / "stages.yaml", cache=root / "cache"))


def make_cached(
    root: Path,
    n_trials: int,
    stages: str,
    *,
    real: Mapping[str, Path] | None = None,
    is_missing: Callable[[str], bool] = lambda stage: False,
) -> Made:
    """n_trials sources of a few bytes and, for each track of the plan, an artifact file that is remembered as whole.

    real: by stage an artifact that its tracks are links to, for those that are read; the other files are empty. is_missing: of a track of
    the stage, asked once for each.
    """
    (root / "videos").mkdir(parents=True)
    (root / "stages.yaml").write_text(stages)
    for number in range(n_trials):
        (root / "videos" / f"{number:05}.mp4").write_text(f"clip {number}")
    time.sleep(SETTLE_NS / 1e9 + 0.1)  # a digest of a file written this moment would not be remembered
    prepared = prepared_in(root)
    cache, plan = prepared.cache, prepared.plan()
    missing: list[Path] = []
    for stage, keys in plan.keys.items():
        linked = (real or {}).get(stage)
        for trial, key in zip(prepared.trials, keys, strict=True):
            path = cache.path(stage, key)
            if is_missing(stage):
                missing.append(path)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(linked, path) if linked else path.touch()
            cache.seals(stage).put(key, path.stat(), _seal(trial.name, trial.source.digest), settled=True)
    Cache.save(cache)
    return Made(n_tracks=sum(map(len, plan.keys.values())), missing=tuple(missing))


def _seal(trial: str, source: str) -> Seal:
    return Seal(data="", warnings=[], source=source, person=None, trial=trial, seconds=1.0, finding="", found_in="", n_rows=ROWS)
