"""A store of given arrays, with no video behind it: what readers of stores are tested and measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from extractors.contract import Bool, FloatArray
from pipeline.hdf5 import sealed_file, write_texts
from pipeline.index import write_failures
from pipeline.publish import published
from pipeline.store import FEATURE_FORMAT, FORMAT_VERSION, INDEX, INDEX_FORMAT, Labels

ROWS_PER_S = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeTrial:
    """A trial of n_rows rows. source: the name of its source where it shares it with others."""

    name: str
    n_rows: int
    split: str = ""
    source: str = ""
    person: str = "main"


def write_index(folder: Path, trials: Sequence[MadeTrial], labels: Mapping[str, Labels]) -> str:
    """`index.h5`, with the trials in the given order. Returns the digest of its rows, which the features need."""
    counts = [trial.n_rows for trial in trials]
    frame = np.concatenate([np.arange(n, dtype=np.int64) for n in [0, *counts]])
    rows_digest = hashlib.sha256(repr([(trial.name, trial.n_rows) for trial in trials]).encode()).hexdigest()
    with published(folder / INDEX) as temporary, sealed_file(temporary) as file:
        write_texts(file, "trials", [trial.name for trial in trials])
        write_texts(file, "split", [trial.split for trial in trials])
        write_texts(file, "source", [hashlib.sha256((trial.source or trial.name).encode()).hexdigest() for trial in trials])
        write_texts(file, "person", [trial.person for trial in trials])
        file["offsets"], file["times_s"], file["frame"] = np.cumsum([0, *counts]).astype(np.int64), frame / ROWS_PER_S, frame
        groups = file.create_group("labels")
        for task, record in labels.items():
            group = groups.create_group(task)
            group["values"], group["valid"] = record.values.astype(np.float32), record.valid
            write_texts(group, "columns", record.columns)
            group.attrs["per_trial"] = record.per_trial
        write_failures(file, ())
        _describe(file, {"format": INDEX_FORMAT, "rows": rows_digest})
    return rows_digest


def write_feature(
    folder: Path,
    name: str,
    blocks: Iterable[tuple[FloatArray, Bool]],
    *,
    rows_digest: str,
    shape: tuple[int, int],
    dtype: str = "float32",
    modality: str = "visual",
) -> None:
    """`<name>.h5`. blocks: values (n, D) and valid (n,) of one stretch of rows after the other, together of the shape (N, D)."""
    with published(folder / f"{name}.h5") as temporary, sealed_file(temporary) as file:
        values, valid = file.create_dataset("values", shape, dtype), file.create_dataset("valid", shape[:1], np.bool_)
        start = 0
        for block, good in blocks:
            rows = slice(start, start + len(block))
            values[rows], valid[rows] = block, good
            start = rows.stop
        if start != shape[0]:
            raise ValueError(f"{name}: expected {shape[0]} rows, got {start}")
        write_texts(file, "keys", [""])
        write_failures(file, ())
        about = {
            "stage": name,
            "modality": modality,
            "extractor": "made",
            "extractor_version": 1,
            "params": "{}",
            "weights": "",
            "licence": "",
            "environment": "{}",
        }
        _describe(file, about | {"format": FEATURE_FORMAT, "rows": rows_digest, "align": "nearest", "fill": "none"})


def _describe(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    created_utc = datetime.now(UTC).isoformat(timespec="seconds")
    for name, value in {**attributes, "format_version": FORMAT_VERSION, "inputs": "", "created_utc": created_utc}.items():
        file.attrs[name] = value
