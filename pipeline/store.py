"""Reading a store: `index.h5` and one `<feature>.h5` per feature, all on one row axis. Needs h5py and numpy only.

It is the one door for programs that read stores: what they need to read and write files with the same care is handed on from here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.errors import AffectpipeError, Problem
from pipeline.hdf5 import CHECKSUM, CorruptFileError, guarded_file, is_whole, read_texts, sealed_file, text_attr, write_texts
from pipeline.publish import publish_text, published

__all__ = [
    "AffectpipeError",
    "CorruptFileError",
    "Index",
    "Labels",
    "Store",
    "StoreError",
    "guarded_file",
    "is_whole",
    "open_store",
    "publish_text",
    "published",
    "read_texts",
    "sealed_file",
    "text_attr",
    "write_texts",
]

INDEX = "index.h5"
INDEX_FORMAT, FEATURE_FORMAT = "affectpipe/index", "affectpipe/feature"
FORMAT_VERSION = 1


class StoreError(AffectpipeError):
    """A store, a feature or a trial that is not there or does not fit the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """One task's labels. values, valid: (N, C) over all rows, or (V, C), one row per trial, where per_trial."""

    columns: tuple[str, ...]
    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    per_trial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The row axis. Trial i has the rows offsets[i] : offsets[i + 1] of every array with N rows.

    source: of each trial the sha256 of the media file that shows it; trials of one source have the same.
    """

    trials: tuple[str, ...]
    split: tuple[str, ...]
    source: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    times_s: npt.NDArray[np.float64]
    frame: npt.NDArray[np.int64]
    labels: Mapping[str, Labels]
    rows_digest: str
    _number: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_number", {trial: i for i, trial in enumerate(self.trials)})

    def rows(self, trial: str) -> slice:
        """Raises StoreError for a trial that the store does not have."""
        i = self._number.get(trial)
        if i is None:
            why, fix = f"it has {len(self.trials)} others", "see `affectpipe inspect STORE`"
            raise StoreError(Problem(what=f"no trial {trial!r}", where=INDEX, why=why, fix=fix))
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An opened store. Feature files are opened per read, so a Store can be sent to another process.

    damaged: names of HDF5 files in the folder that cannot be read, ours or not. Whole files of other formats are left out.
    """

    folder: Path
    index: Index
    features: tuple[str, ...] = field(default=())
    damaged: tuple[str, ...] = field(default=())

    def read(self, feature: str, rows: slice | None = None) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """values (R, D) and valid (R,) of the given rows, or of all. Raises StoreError where the feature is missing or of other rows."""
        path = self._path(feature)
        with guarded_file(path) as file:
            self._check_rows(file, path)
            window = rows if rows is not None else slice(None)
            return file["values"][window], file["valid"][window]

    def open_feature(self, feature: str) -> Feature:
        """The feature, for reading many short pieces. Raises StoreError where it is missing, damaged or of other rows."""
        path = self._path(feature)
        try:
            with guarded_file(path) as file:
                self._check_rows(file, path)
                return Feature(path, file, len(self.index.times_s))
        except (CorruptFileError, KeyError, OSError) as error:
            raise _damaged(path, str(error)) from error

    def _path(self, feature: str) -> Path:
        if feature in self.damaged:
            raise _damaged(self.folder / f"{feature}.h5", "its file cannot be read")
        if feature not in self.features:
            known = ", ".join(self.features) or "none"
            raise StoreError(Problem(what=f"no feature {feature!r}", where=str(self.folder), why=f"it has: {known}", fix="run its stage"))
        return self.folder / f"{feature}.h5"

    def _check_rows(self, file: h5py.File, path: Path) -> None:
        if text_attr(file.attrs, "rows") != self.index.rows_digest:
            why, fix = "its rows are not those of index.h5", "run `affectpipe run` to its end"
            raise StoreError(Problem(what="does not belong to this index", where=str(path), why=why, fix=fix))


def _damaged(path: Path, why: str) -> StoreError:
    fix = "run `affectpipe verify`, then run again"
    return StoreError(Problem(what=f"feature {path.stem!r} is damaged", where=str(path), why=why, fix=fix))


class Feature:
    """One feature, its values read where they lie in the file: contiguous and uncompressed, so row i is `row_bytes` from row i - 1.

    HDF5 is used to open it and is not held open: reading is one positional read of the plain file, without HDF5's lock over all threads,
    and safe after a fork. A Feature can be sent to another process, which opens the file again when it first reads.

    dim: D. dtype: float16 or float32. valid: (N,) bool, in memory. columns: D names or none. extractor: its name. modality: "audio",
    "visual", or empty in stores of before it was told. checksum: of the file's bytes, as it was sealed.
    """

    def __init__(self, path: Path, file: h5py.File, n_rows: int) -> None:
        """file: the path's, opened and guarded. Raises CorruptFileError where it does not hold n_rows rows."""
        self._raw: io.FileIO | None = None
        values, valid = file["values"], file["valid"]
        if values.ndim != 2 or len(values) != n_rows or valid.shape != (n_rows,) or valid.dtype != np.bool_:
            raise CorruptFileError(f"expected {n_rows} rows of values and valid, got {values.shape} and {valid.shape} {valid.dtype}")
        if values.dtype not in (np.float16, np.float32):
            raise CorruptFileError(f"expected values of float16 or float32, got {values.dtype}")
        opened = os.fstat(file.id.get_vfd_handle())
        self._at, self._identity = values.id.get_offset() if values.size else 0, _identity(opened)
        if self._at is None or self._at + values.nbytes > opened.st_size:
            raise CorruptFileError("its values are not all in the file")
        self.path, self.dim, self.dtype, self.valid = path, int(values.shape[1]), values.dtype, valid[:]
        self.columns = tuple(read_texts(file, "columns")) if "columns" in file else ()
        self.extractor, self.modality = (text_attr(file.attrs, name) if name in file.attrs else "" for name in ("extractor", "modality"))
        self.checksum = text_attr(file.attrs, CHECKSUM)
        self._row_bytes = self.dim * self.dtype.itemsize

    def read(self, start: int, out: npt.NDArray[Any]) -> None:
        """Fill out (R, D), C-contiguous and of `dtype`, with the values of rows start : start + R.

        Raises StoreError where the file is no longer the one that was opened, and ValueError for rows that the store does not have.
        """
        if out.shape != (len(out), self.dim) or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out: expected contiguous (R, {self.dim}) {self.dtype}, got {out.shape} {out.dtype}")
        if start < 0 or start + len(out) > len(self.valid):
            raise ValueError(f"rows: expected some of 0 : {len(self.valid)}, got {start} : {start + len(out)}")
        raw = self._raw if self._raw is not None else self._open()
        self._raw = raw  # this read keeps its own, as another thread may have opened one at the same time and put it here
        view = out.data.cast("B") if out.size else memoryview(b"")
        at = self._at + start * self._row_bytes
        while view:  # the system may give less than was asked for
            try:
                n = os.preadv(raw.fileno(), [view], at)
            except OSError as error:
                raise _damaged(self.path, str(error)) from error
            if not n:
                raise _damaged(self.path, "it ends before its last row")
            view, at = view[n:], at + n

    def close(self) -> None:
        """The next read opens the file again."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def _open(self) -> io.FileIO:
        try:
            raw = io.FileIO(self.path)
        except OSError as error:
            raise _damaged(self.path, str(error)) from error
        if _identity(os.fstat(raw.fileno())) != self._identity:
            raw.close()
            why, fix = "another file has taken its place since it was opened", "start again, and let no `run` write to a store that is read"
            raise StoreError(Problem(what="was replaced", where=str(self.path), why=why, fix=fix))
        return raw

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_raw": None}

    def __del__(self) -> None:
        self.close()


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def open_store(folder: Path) -> Store:
    """Raises StoreError where there is no store or its index cannot be read."""
    try:
        with guarded_file(folder / INDEX) as file:
            index = _read_index(file)
    except (FileNotFoundError, CorruptFileError, KeyError) as error:
        fix = "give the folder of a store, or make it with `affectpipe run`"
        raise StoreError(Problem(what="no store", where=str(folder), why=str(error), fix=fix)) from error
    paths = sorted(path for path in folder.glob("*.h5") if path.name != INDEX and not path.name.startswith(".") and path.is_file())
    formats = {path.stem: _format(path) for path in paths}
    features = tuple(name for name, found in formats.items() if found == FEATURE_FORMAT)
    return Store(folder=folder, index=index, features=features, damaged=tuple(name for name, found in formats.items() if found is None))


def _format(path: Path) -> str | None:
    """What an HDF5 file says that it is, empty where it says nothing; None where it cannot be read."""
    try:
        with guarded_file(path) as file:
            return text_attr(file.attrs, "format") if "format" in file.attrs else ""
    except (CorruptFileError, OSError):
        return None


def _read_index(file: h5py.File) -> Index:
    if text_attr(file.attrs, "format") != INDEX_FORMAT or int(file.attrs["format_version"]) != FORMAT_VERSION:
        raise CorruptFileError(f"{file.filename}: not an {INDEX_FORMAT} file of version {FORMAT_VERSION}")
    labels = {}
    for task, group in file["labels"].items():
        labels[task] = Labels(
            columns=tuple(read_texts(group, "columns")),
            values=group["values"][:],
            valid=group["valid"][:],
            per_trial=bool(group.attrs["per_trial"]),
        )
    return Index(
        trials=tuple(read_texts(file, "trials")),
        split=tuple(read_texts(file, "split")),
        source=tuple(read_texts(file, "source")),
        offsets=file["offsets"][:],
        times_s=file["times_s"][:],
        frame=file["frame"][:],
        labels=labels,
        rows_digest=text_attr(file.attrs, "rows"),
    )
