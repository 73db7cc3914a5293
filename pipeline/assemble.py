"""From the cache to a store. A file is written only where its content changes; every other keeps its bytes and its time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Float32, Kind
from pipeline import artifact
from pipeline.align import align, fill
from pipeline.cache import Cache, State
from pipeline.config import StoreSpec
from pipeline.errors import Problem, Severity
from pipeline.graph import Stage
from pipeline.hdf5 import CorruptFileError, guarded_file, is_whole, sealed_file, text_attr, write_texts
from pipeline.index import Built, IndexBuilder, read_built, read_failures, write_failures
from pipeline.keys import canonical
from pipeline.memo import StatMemo
from pipeline.plan import Plan
from pipeline.publish import published
from pipeline.store import FEATURE_FORMAT, FORMAT_VERSION, INDEX
from pipeline.trials import Failure

FLOAT16_MAX = 65504.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """What assembling did: the files written, those left as they were, and what there is to say about trials."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    failures: tuple[Failure, ...]
    trials: tuple[str, ...]


def assemble(plan: Plan, cache: Cache, folder: Path, *, only: Sequence[str] = ()) -> Assembled:
    """Bring the store in `folder` up to what the cache holds. Raises PassingError where it cannot be written."""
    files = _Files(folder, cache.stores)
    built = _index(plan, cache, files)
    failures = list(built.failures)
    for stage in plan.config.features:
        if not only or stage.name in only or not (folder / f"{stage.name}.h5").exists():
            failures += _feature(stage, plan, cache, files, built)
    cache.stores.save()
    return Assembled(
        written=tuple(files.written),
        kept=tuple(files.kept),
        removed=tuple(name for name in files.removed if name not in files.written),
        failures=tuple(failures),
        trials=built.trials,
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


class _Files:
    """The store's files: which are current, and the writing of those that are not."""

    def __init__(self, folder: Path, memo: StatMemo) -> None:
        self.folder, self.memo = folder, memo
        self.written: list[str] = []
        self.kept: list[str] = []
        self.removed: list[str] = []

    def is_current(self, name: str, inputs: str) -> bool:
        """Whether the file is whole and was made from these inputs."""
        path = self.folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        known = self.memo.get(str(path.resolve()), stat)
        if known is None:
            known = _inputs_of(path)
            self.memo.put(str(path.resolve()), stat, known, settled=True)
        if known != inputs:
            return False
        self.kept.append(name)
        return True

    def wrote(self, name: str, inputs: str) -> None:
        path = self.folder / name
        self.memo.put(str(path.resolve()), path.stat(), inputs, settled=True)
        self.written.append(name)

    def remove(self, name: str) -> None:
        if (self.folder / name).exists():
            (self.folder / name).unlink(missing_ok=True)
            self.removed.append(name)

    def remove_misfits(self, rows_digest: str) -> None:
        """Features on another row axis: a reader that does not compare digests would misread them, so they go before the index comes."""
        for path in sorted(self.folder.glob("*.h5")):
            if path.name != INDEX and not path.name.startswith(".") and _rows_of(path) not in (rows_digest, None):
                self.remove(path.name)


def _inputs_of(path: Path) -> str:
    """The `inputs` attribute of a whole store file; empty where it is damaged."""
    try:
        if is_whole(path):
            with guarded_file(path) as file:
                return text_attr(file.attrs, "inputs")
    except (CorruptFileError, FileNotFoundError):  # another client may have removed it
        return ""
    return ""


def _rows_of(path: Path) -> str | None:
    """The row axis of a feature file; None where it is none of ours."""
    try:
        with guarded_file(path) as file:
            return text_attr(file.attrs, "rows") if text_attr(file.attrs, "format") == FEATURE_FORMAT else None
    except (CorruptFileError, FileNotFoundError):  # another client may have removed it
        return None


def _index(plan: Plan, cache: Cache, files: _Files) -> Built:
    builder = IndexBuilder(plan, cache)
    inputs = _digest(builder.inputs())
    if files.is_current(INDEX, inputs):
        return read_built(files.folder / INDEX)
    with published(files.folder / INDEX) as temporary, sealed_file(temporary) as file:
        built = builder.write(file)
        file.attrs["inputs"] = inputs
        files.remove_misfits(built.rows_digest)
    files.wrote(INDEX, inputs)
    return built


def _feature(stage: Stage, plan: Plan, cache: Cache, files: _Files, built: Built) -> list[Failure]:
    spec, name = plan.config.store, f"{stage.name}.h5"
    index_of = {trial.name: i for i, trial in enumerate(plan.trials)}
    keys = [plan.keys[stage.name][index_of[trial]] for trial in built.trials]
    done = [cache.state(stage.name, key) is State.DONE for key in keys]
    if not any(done):  # nobody may take what another stages file left there for this one's
        files.remove(name)
        return []
    have = [key if there else None for key, there in zip(keys, done, strict=True)]
    data = [cache.known(stage.name, key)["data"] if key else None for key in have]
    policies = [spec.align_of(stage.name), spec.fill_of(stage.name), spec.dtype]
    inputs = _digest([built.rows_digest, have, data, *policies, _modality(stage), FORMAT_VERSION])
    if files.is_current(name, inputs):
        with guarded_file(files.folder / name) as file:
            return list(read_failures(file))
    with published(files.folder / name) as temporary, sealed_file(temporary) as file:
        clipped = _write_feature(file, stage, spec, cache, built, have)
        failures = [_clipped(trial, stage.name, count) for trial, count in clipped.items()]
        write_failures(file, failures)
        file.attrs["inputs"] = inputs
    files.wrote(name, inputs)
    return failures


def _clipped(trial: str, stage: str, count: int) -> Failure:
    why = f"{count} values are beyond {FLOAT16_MAX:g} and were clipped to it"
    problem = Problem(what="float16 is too narrow", where=stage, why=why, fix="set store.dtype: float32", severity=Severity.WARNING)
    return Failure(trial=trial, stage=stage, problem=problem)


def _write_feature(file: Any, stage: Stage, spec: StoreSpec, cache: Cache, built: Built, keys: Sequence[str | None]) -> Mapping[str, int]:
    """Fill one feature file, trial by trial. Returns per trial how many values float16 could not hold."""
    first = next(cache.path(stage.name, key) for key in keys if key)
    about, columns = artifact.read_about(first), artifact.read_track(first).columns
    dim = artifact.read_track(first).values.shape[1]
    n = int(built.offsets[-1])
    values = file.create_dataset("values", (n, dim), spec.dtype)
    valid = file.create_dataset("valid", (n,), np.bool_)
    clipped: dict[str, int] = {}
    for i, key in enumerate(keys):
        rows = slice(int(built.offsets[i]), int(built.offsets[i + 1]))
        times_s, shown = built.times_s[rows], built.frame[rows] >= 0
        if key is None:
            values[rows] = np.full((len(times_s), dim), 0.0 if spec.fill_of(stage.name) == "zero" else np.nan)
            continue
        track = artifact.read_track(cache.path(stage.name, key))
        placed, good = align(track, times_s, spec.align_of(stage.name))
        placed, good = _without_frame(placed, good, shown, spec.fill_of(stage.name))
        filled = fill(placed, good, times_s, spec.fill_of(stage.name))
        if spec.dtype == "float16" and (over := int((np.abs(filled) > FLOAT16_MAX).sum())):
            clipped[built.trials[i]] = over
            filled = np.clip(filled, -FLOAT16_MAX, FLOAT16_MAX)
        values[rows], valid[rows] = filled, good
    if columns:
        write_texts(file, "columns", columns)
    write_texts(file, "keys", [key or "" for key in keys])
    _describe(file, stage, spec, about, built)
    return clipped


def _without_frame(placed: Float32, good: Any, shown: Any, policy: str) -> tuple[Float32, Any]:
    """Rows past the source's end repeat the last row, and are never valid."""
    good = good & shown
    if not shown.all():
        placed = placed.copy()
        last = np.flatnonzero(shown)
        placed[~shown] = placed[last[-1]] if len(last) else np.nan
    placed[~good & shown] = np.nan
    return placed, good


def _modality(stage: Stage) -> str:
    """Of what hears and what sees."""
    return "audio" if Kind.WAVEFORM in stage.extractor.reads(stage.params) else "visual"


def _describe(file: Any, stage: Stage, spec: StoreSpec, about: Mapping[str, Any], built: Built) -> None:
    kept = ("extractor", "extractor_version", "params", "weights", "licence", "environment")
    attributes = {name: about[name] for name in kept} | {
        "format": FEATURE_FORMAT,
        "format_version": FORMAT_VERSION,
        "stage": stage.name,
        "modality": _modality(stage),
        "rows": built.rows_digest,
        "align": spec.align_of(stage.name),
        "fill": spec.fill_of(stage.name),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name, value in attributes.items():
        file.attrs[name] = json.dumps(value) if isinstance(value, Mapping) else value
