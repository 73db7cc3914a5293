"""A store's index, made up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.store import Index, Labels

MakeIndex = Callable[..., Index]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_index(
    n_rows: Mapping[str, int],
    *,
    split: Mapping[str, str] | None = None,
    source: Mapping[str, str] | None = None,
    labels: Mapping[str, Mapping[str, Any]] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    rate_hz: float = 25.0,
) -> Index:
    """n_rows: of each trial, in the store's order. source: of a trial the name of its video, where that is not its own. labels: of a
    task, of each trial (R, C) values, NaN where not valid; one row of them makes labels per trial."""
    trials = tuple(n_rows)
    offsets = np.cumsum([0, *n_rows.values()]).astype(np.int64)
    made = {}
    for task, per_trial in (labels or {}).items():
        values = [np.array(per_trial[trial], np.float32) for trial in trials]
        is_clip = all(len(part) == 1 for part in values) and max(n_rows.values()) > 1
        together = np.concatenate(values)
        names = (columns or {}).get(task) or [f"column{i}" for i in range(together.shape[1])]
        made[task] = Labels(columns=tuple(names), values=together, valid=np.isfinite(together), per_trial=is_clip)
    return Index(
        trials=trials,
        split=tuple((split or {}).get(trial, "train") for trial in trials),
        source=tuple(digest((source or {}).get(trial, trial)) for trial in trials),
        offsets=offsets,
        times_s=np.concatenate([np.arange(n) / rate_hz for n in n_rows.values()]),
        frame=np.concatenate([np.arange(n) for n in n_rows.values()]).astype(np.int64),
        labels=made,
        rows_digest=digest(str(n_rows)),
    )


@pytest.fixture(scope="session")
def index_of() -> MakeIndex:
    return make_index


@pytest.fixture(scope="session")
def official() -> MakeIndex:
    """t0 to t7 are for training, v0 to v2 for validation, x0 and x1 for the test."""
    split = {f"t{i}": "train" for i in range(8)} | {f"v{i}": "validation" for i in range(3)} | {f"x{i}": "test" for i in range(2)}
    return lambda **more: make_index(dict.fromkeys(split, 10), split=split, **more)
