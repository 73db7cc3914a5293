"""Stores of known numbers: every value says which feature, row and column it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipeline.store import Labels, Store, open_store
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
