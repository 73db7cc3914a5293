"""`inspect`: one file's story, or a store's."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline import artifact
from pipeline.errors import Problem, RequestError
from pipeline.hdf5 import CorruptFileError, guarded_file, is_whole
from pipeline.store import open_store

STORE_JSON_ATTRIBUTES = ("params", "environment")  # a store's `inputs` is a digest
TRACKS_SHOWN = 10


def inspect(path: Path) -> dict[str, Any]:
    """Attributes and datasets of an HDF5 file of ours, or the contents of a store's folder. Raises RequestError, StoreError."""
    if path.is_dir():
        return store_story(path)
    try:
        with guarded_file(path) as file:
            if not str(file.attrs.get("format", "")).startswith("affectpipe/"):
                raise CorruptFileError("it has no `format` attribute of affectpipe's")
            structured = artifact.JSON_ATTRIBUTES if file.attrs["format"] == artifact.FORMAT else STORE_JSON_ATTRIBUTES
            attributes = {name: _plain(name, value, structured) for name, value in sorted(file.attrs.items())}
            story = {"file": str(path), "bytes": path.stat().st_size, "attributes": attributes, "datasets": _datasets(file)}
            if isinstance(file.get("found"), h5py.Group):
                story |= _tracks(file)
            if isinstance(file.get("valid"), h5py.Dataset):
                story["valid_share"] = round(float(np.mean(file["valid"][:])), 4) if len(file["valid"]) else 0.0
    except (FileNotFoundError, CorruptFileError) as error:
        fix = "give an artifact, a store's file, or a store's folder"
        raise RequestError(Problem(what="cannot be inspected", where=str(path), why=str(error), fix=fix)) from error
    return story | {"whole": is_whole(path)}


def _plain(name: str, value: Any, structured: Collection[str]) -> Any:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if name in structured and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise CorruptFileError(f"the attribute {name!r} is not JSON ({error})") from error
    return value


def _datasets(file: h5py.File) -> dict[str, str]:
    found: dict[str, str] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = f"{item.shape} {item.dtype}"

    file.visititems(note)
    return found


def _tracks(file: h5py.File) -> dict[str, Any]:
    """Of a faces artifact: how many faces were followed, and the longest of these tracks by id. Times are those of rows."""
    frame, track, boxes, prob = (file[f"found/{name}"][:] for name in ("frame", "track", "boxes", "prob"))
    shown, first_row = np.unique(file["frame"][:], return_index=True)
    ids, n_frames = np.unique(track, return_counts=True)
    chosen = set(np.unique(file["track"][:]).tolist())
    tracks = {}
    for number in np.argsort(-n_frames, kind="stable")[:TRACKS_SHOWN].tolist():
        mine = track == ids[number]
        at_s = file["times_s"][:][first_row[np.searchsorted(shown, frame[mine])]]
        tracks[str(ids[number])] = {
            "first_s": round(float(at_s.min()), 3),
            "last_s": round(float(at_s.max()), 3),
            "n_frames": int(n_frames[number]),
            "mean_side_px": round(float(np.mean(boxes[mine, 2:] - boxes[mine, :2])), 1),
            "mean_prob": round(float(prob[mine].mean()), 4),
            "chosen": ids[number] in chosen,
        }
    return {"n_tracks": len(ids), "tracks": tracks}


def store_story(folder: Path) -> dict[str, Any]:
    """Trials, rows, tasks, per feature its size, type, the share of valid rows and its licence, and the files that cannot be read."""
    store = open_store(folder)
    index = store.index
    features = {}
    for name in store.features:
        with guarded_file(folder / f"{name}.h5") as file:
            features[name] = {
                "dim": file["values"].shape[1],
                "dtype": str(file["values"].dtype),
                "valid_share": round(float(np.mean(file["valid"][:])), 4) if len(file["valid"]) else 0.0,
                "licence": str(file.attrs["licence"]),
                "extractor": f"{file.attrs['extractor']} {file.attrs['extractor_version']}",
                "fits_index": file.attrs["rows"] == index.rows_digest,
            }
    tasks = {
        task: {"columns": list(labels.columns), "valid_share": round(float(labels.valid.mean()), 4) if labels.valid.size else 0.0}
        for task, labels in index.labels.items()
    }
    rows = {trial: int(index.offsets[i + 1] - index.offsets[i]) for i, trial in enumerate(index.trials)}
    counts = {"n_trials": len(index.trials), "n_rows": len(index.times_s)}
    return {"store": str(folder), **counts, "tasks": tasks, "features": features, "damaged": list(store.damaged), "rows": rows}
