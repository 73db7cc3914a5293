"""Stores of known numbers, and indices alone, made up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.store import Index, Labels, Store, open_store
from pipeline.synth.store import MadeTrial, write_feature, write_index

COUNTS = {"106": 700, "207": 31, "video5": 300, "video5_left": 300, "9": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A store on disk and what is in it: per feature values (N, D) and valid (N,), and the labels."""

    folder: Path
    counts: Mapping[str, int]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    valid: dict[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)

    def open(self) -> Store:
        return open_store(self.folder)

    def rows(self, trial: str) -> slice:
        names = list(self.counts)
        start = sum(self.counts[name] for name in names[: names.index(trial)])
        return slice(start, start + self.counts[trial])


def known_labels(counts: Mapping[str, int], rng: np.random.Generator) -> dict[str, Labels]:
    n, v = sum(counts.values()), len(counts)
    valid = rng.random((n, 2)) < 0.8
    va = np.where(valid, rng.uniform(-1, 1, (n, 2)), np.nan).astype(np.float32)
    clip = np.ones((v, 3), np.bool_)
    clip[-1:] = False
    emi = np.where(clip, rng.random((v, 3)), np.nan).astype(np.float32)
    return {
        "va": Labels(columns=("valence", "arousal"), values=va, valid=valid, per_trial=False),
        "emi": Labels(columns=("Joy", "Fear", "Awe"), values=emi, valid=clip, per_trial=True),
    }


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Made]:
    """make_store(counts, dims, dtype, valid_share, name): a store of random numbers, of which the invalid ones are NaN or huge."""

    def build(
        counts: Mapping[str, int] = COUNTS,
        dims: Mapping[str, int] | None = None,
        dtype: str = "float32",
        valid_share: float = 0.9,
        name: str = "store",
    ) -> Made:
        rng, n = np.random.default_rng(3), sum(counts.values())
        made = Made(folder=tmp_path / name, counts=counts, labels=known_labels(counts, rng))
        made.folder.mkdir()
        splits = ["train", "validation"]
        trials = [MadeTrial(name=trial, n_rows=count, split=splits[i % 2]) for i, (trial, count) in enumerate(counts.items())]
        rows_digest = write_index(made.folder, trials, made.labels)
        for feature, dim in (dims or {"arcface": 7, "vggish": 4}).items():
            valid = rng.random(n) < valid_share
            values = rng.normal(3, 2, (n, dim)).astype(dtype)
            values[~valid] = np.where(rng.random((int((~valid).sum()), dim)) < 0.5, np.nan, 6e4).astype(dtype)
            made.values[feature], made.valid[feature] = values, valid
            write_feature(made.folder, feature, [(values, valid)], rows_digest=rows_digest, shape=(n, dim), dtype=dtype)
        return made

    return build


@pytest.fixture
def made(make_store: Callable[..., Made]) -> Made:
    return make_store()


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
