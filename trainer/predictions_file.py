"""The file of predictions: HDF5 in the manner of a store's files. See docs/formats.md.

It is sealed by a checksum and becomes visible only when it is whole. When it is read, its bytes are checked before HDF5 sees them, and
what leads outside it or claims more than it holds is refused.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.store import CorruptFileError, guarded_file, is_whole, published, read_texts, sealed_file, text_attr, write_texts
from trainer.errors import Problem, TrainerError
from trainer.predictions import Predictions

FORMAT, FORMAT_VERSION = "affectpipe/predictions", 1
_ARRAYS = {"offsets": np.int64, "frame": np.int64, "times_s": np.float64, "values": np.float32, "valid": np.bool_, "fold": np.int64}


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Atomically. Raises the pipeline's PassingError where the disk is full or cannot be written."""
    with published(path) as temporary, sealed_file(temporary) as file:
        write_texts(file, "trials", predictions.trials)
        write_texts(file, "columns", predictions.columns)
        for name, dtype in _ARRAYS.items():
            file[name] = getattr(predictions, name).astype(dtype)
        if predictions.thresholds is not None:
            file["thresholds"] = predictions.thresholds
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "task": predictions.task,
            "per_trial": predictions.per_trial,
            "rows": predictions.rows,
            "made_by": json.dumps(predictions.made_by, sort_keys=True),
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for name, value in attributes.items():
            file.attrs[name] = value


def read_predictions(path: Path) -> Predictions:
    """Raises TrainerError where it is no such file, is damaged, does not fit together or has a valid value that is not finite."""
    try:
        if not is_whole(path):
            raise CorruptFileError("it is not as it was written, or was not written by affectpipe")
        with guarded_file(path) as file:
            return _read(file)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except TrainerError as error:
        raise TrainerError([_in_file(path, problem) for problem in error.problems]) from error
    except (CorruptFileError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, str(error)) from error


def _read(file: h5py.File) -> Predictions:
    if text_attr(file.attrs, "format") != FORMAT or int(file.attrs["format_version"]) != FORMAT_VERSION:
        raise CorruptFileError(f"it is not an {FORMAT} file of version {FORMAT_VERSION}")
    return Predictions(
        task=text_attr(file.attrs, "task"),
        columns=_texts(file, "columns"),
        trials=_texts(file, "trials"),
        **{name: _array(file, name, dtype) for name, dtype in _ARRAYS.items()},
        thresholds=_array(file, "thresholds", np.float64) if "thresholds" in file else None,
        per_trial=bool(file.attrs["per_trial"]),
        rows=text_attr(file.attrs, "rows"),
        made_by=_mapping(text_attr(file.attrs, "made_by")),
    )


def _array(file: h5py.File, name: str, dtype: Any) -> Any:
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.dtype != dtype:
        raise CorruptFileError(f"{name}: expected a dataset of {np.dtype(dtype).name}, got {getattr(found, 'dtype', 'a group')}")
    return found[()]


def _texts(file: h5py.File, name: str) -> tuple[str, ...]:
    if not isinstance(file[name], h5py.Dataset) or file[name].ndim != 1:
        raise CorruptFileError(f"{name}: expected a list of texts")
    return tuple(read_texts(file, name))


def _mapping(text: str) -> dict[str, Any]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise CorruptFileError(f"made_by: expected a JSON object, got {text[:40]!r}")
    return said


def _unusable(path: Path, why: str) -> TrainerError:
    fix = "name a file that `affectpipe predict` wrote, or predict again"
    return TrainerError(Problem(what="no usable predictions", where=str(path), why=why, fix=fix))


def _in_file(path: Path, problem: Problem) -> Problem:
    return Problem(what=problem.what, where=f"{path}: {problem.where}", why=problem.why, fix=problem.fix)
