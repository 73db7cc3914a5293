"""Building a store's index: the row axis and the labels on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from extractors.contract import Float64, Int64
from pipeline import artifact
from pipeline.annotations import TrialLabels
from pipeline.cache import Cache, State
from pipeline.errors import read_problem
from pipeline.hdf5 import guarded_file, read_texts, text_attr, write_texts
from pipeline.plan import Plan
from pipeline.rows import Axis, make_axis, put_labels
from pipeline.store import FORMAT_VERSION, INDEX_FORMAT
from pipeline.trials import Failure, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An index that was written: what the features need of it, and what its making had to say."""

    trials: tuple[str, ...]
    offsets: Int64
    times_s: Float64
    frame: Int64
    rows_digest: str
    failures: tuple[Failure, ...]


class IndexBuilder:
    """Those of the plan's trials whose timeline is in the cache, with their labels."""

    def __init__(self, plan: Plan, cache: Cache) -> None:
        self.spec, self.cache, self.stage = plan.config.store, cache, plan.config.timeline.name
        keys = plan.keys[self.stage]
        self.trials = [(trial, key) for trial, key in zip(plan.trials, keys, strict=True) if cache.state(self.stage, key) is State.DONE]

    def inputs(self) -> list[Any]:
        """Everything that decides the index's content."""
        policy = [self.spec.rows, self.spec.tail, self.spec.tolerance_rows, FORMAT_VERSION]
        return [policy, [self._inputs_of(trial, key) for trial, key in self.trials]]

    def _inputs_of(self, trial: Trial, key: str) -> list[str]:
        labels = [_label_digest(record) for record in trial.labels]
        timeline = self.cache.known(self.stage, key)["data"]
        return [trial.name, trial.source.digest, trial.person, trial.split, timeline, *labels]

    def write(self, file: h5py.File) -> Built:
        axes: list[tuple[Trial, Axis]] = []
        failures: list[Failure] = []
        for trial, key in self.trials:
            path = self.cache.path(self.stage, key)
            axis, problems = make_axis(
                *artifact.read_timeline(path),
                trial.labels,
                by_labels=self.spec.rows == "labels",
                tail=self.spec.tail,
                tolerance_rows=self.spec.tolerance_rows,
            )
            failures += [Failure(trial=trial.name, stage="labels", problem=problem) for problem in problems]
            if axis is not None:
                axes.append((trial, axis))
        offsets = np.concatenate([[0], np.cumsum([len(axis.times_s) for _, axis in axes])]).astype(np.int64)
        built = Built(
            trials=tuple(trial.name for trial, _ in axes),
            offsets=offsets,
            times_s=_joined([axis.times_s for _, axis in axes], np.float64),
            frame=_joined([axis.frame for _, axis in axes], np.int64),
            rows_digest=_rows_digest(axes),
            failures=tuple(failures),
        )
        _write(file, axes, built)
        return built


def read_built(path: Path) -> Built:
    with guarded_file(path) as file:
        return Built(
            trials=tuple(read_texts(file, "trials")),
            offsets=file["offsets"][:],
            times_s=file["times_s"][:],
            frame=file["frame"][:],
            rows_digest=text_attr(file.attrs, "rows"),
            failures=read_failures(file),
        )


def write_failures(file: h5py.File, failures: Sequence[Failure]) -> None:
    """What a file's making had to say of trials goes with the file, so that a run which leaves it as it is can say it again."""
    said = [asdict(failure) for failure in failures]
    file["problems"] = np.frombuffer(json.dumps(said).encode(), np.uint8)


def read_failures(file: h5py.File) -> tuple[Failure, ...]:
    """None where an older version wrote the file."""
    said = json.loads(bytes(file["problems"][:])) if "problems" in file else []
    return tuple(Failure(trial=entry["trial"], stage=entry["stage"], problem=read_problem(entry["problem"])) for entry in said)


def _joined(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)


def _label_digest(record: TrialLabels) -> str:
    digest = hashlib.sha256(f"{record.task}|{'|'.join(record.columns)}|{record.split}|{record.dense}".encode())
    for array in (record.frame, record.values, record.valid):
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _rows_digest(axes: list[tuple[Trial, Axis]]) -> str:
    digest = hashlib.sha256()
    for trial, axis in axes:
        digest.update(f"{trial.name}|{len(axis.times_s)}|".encode() + axis.times_s.tobytes() + axis.frame.tobytes())
    return digest.hexdigest()


def _write(file: h5py.File, axes: list[tuple[Trial, Axis]], built: Built) -> None:
    write_texts(file, "trials", built.trials)
    write_texts(file, "split", [trial.split for trial, _ in axes])
    write_texts(file, "source", [trial.source.digest for trial, _ in axes])
    write_texts(file, "person", [trial.person for trial, _ in axes])
    file["offsets"], file["times_s"], file["frame"] = built.offsets, built.times_s, built.frame
    labels = file.create_group("labels")
    for task, columns, per_trial in sorted(_tasks(axes)):
        group = labels.create_group(task)
        _write_task(group, task, columns, per_trial, axes)
    write_failures(file, built.failures)
    attributes = {
        "format": INDEX_FORMAT,
        "format_version": FORMAT_VERSION,
        "rows": built.rows_digest,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name, value in attributes.items():
        file.attrs[name] = value


def _tasks(axes: list[tuple[Trial, Axis]]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    seen = set()
    for trial, _ in axes:
        for record in trial.labels:
            if record.task not in seen:
                seen.add(record.task)
                yield record.task, record.columns, record.frame is None


def _write_task(group: h5py.Group, task: str, columns: tuple[str, ...], per_trial: bool, axes: list[tuple[Trial, Axis]]) -> None:
    """Every trial of a task has the same columns and is per frame or per clip alike: the reader of the labels saw to it."""
    values, valid = [], []
    for trial, axis in axes:
        record = next((record for record in trial.labels if record.task == task), None)
        n = 1 if per_trial else len(axis.times_s)
        if record is None:
            part = np.full((n, len(columns)), np.nan, np.float32), np.zeros((n, len(columns)), np.bool_)
        else:
            part = (record.values, record.valid) if per_trial else put_labels(record, axis)
        values.append(part[0])
        valid.append(part[1])
    group["values"], group["valid"] = np.concatenate(values), np.concatenate(valid)
    write_texts(group, "columns", columns)
    group.attrs["per_trial"] = per_trial
