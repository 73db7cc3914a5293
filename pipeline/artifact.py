"""An artifact: one track in one immutable, self-describing HDF5 file. docs/formats.md is its specification."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from extractors.contract import Coding, Detections, Faces, Float64, Int64, Rows, Track, UInt8, Waveform
from pipeline.hdf5 import CorruptFileError, guarded_file, read_texts, sealed_file, text_attr, write_texts
from pipeline.publish import published

FORMAT = "affectpipe/track"
FORMAT_VERSION = 1
ROWS_AT_ONCE = 1 << 16
CROP_BYTES_AT_ONCE = 1 << 22
JSON_ATTRIBUTES = ("params", "inputs", "identity", "environment", "warnings", "media")
ATTRIBUTES = (
    *("key", "stage", "trial", "extractor", "extractor_version", "params", "inputs", "source", "weights", "licence"),
    *("environment", "created_utc", "identity", "code", "seconds", "warnings", "media"),
)
PACKAGES = ("affectpipe", "numpy", "h5py", "torch", "torchvision", "facenet-pytorch", "opencv-python-headless", "av", "opensmile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What an artifact says of itself, beside its data. finding: see `keys.finding`, empty where it has none."""

    key: str
    stage: str
    trial: str
    licence: str
    code: str
    identity: Mapping[str, Any]
    seconds: float
    device: str = "cpu"
    warnings: Sequence[str] = ()
    media: Mapping[str, Any] = field(default_factory=dict)
    finding: str = ""


@cache
def environment() -> dict[str, str]:
    """The versions of what computed it. Not part of any key."""
    import platform

    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_track(path: Path, about: Provenance, *, track: Track) -> None:
    with _new(path, about, track.columns) as file:
        _core(file, track.values, track.times_s, track.valid)


def write_timeline(path: Path, about: Provenance, *, rows: Rows, source_times_s: Float64) -> None:
    """values (T, 1) int64 source frame numbers; source_times_s (F,): the times of all source frames."""
    with _new(path, about, ["frame"]) as file:
        _core(file, rows.frame[:, None], rows.times_s, np.ones(len(rows.frame), np.bool_))
        file["source_times_s"] = source_times_s


def write_waveform(path: Path, about: Provenance, *, waveform: Waveform) -> None:
    """values (B, rate_hz / 100) float32: row b holds the 10 ms from b / 100 s on; the last row is padded with zeros."""
    block = waveform.rate_hz // 100
    n_blocks = len(waveform.valid)
    values = np.zeros(n_blocks * block, np.float32)
    values[: len(waveform.samples)] = waveform.samples
    with _new(path, about, []) as file:
        _core(file, values.reshape(n_blocks, block), (np.arange(n_blocks) + 0.5) / 100, waveform.valid)
        file.attrs["rate_hz"], file.attrs["n_samples"] = waveform.rate_hz, len(waveform.samples)


GEOMETRY = (
    *("x1", "y1", "x2", "y2", "prob"),
    *(f"{point}_{axis}" for point in ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right") for axis in "xy"),
)


FOUND = ("frame", "track", "boxes", "landmarks", "prob", "shots")


def write_faces(path: Path, about: Provenance, *, faces: Faces, rows: Rows, found_in: str = "") -> None:
    """Rows of the timeline; values (T, 15) are the geometry, flat; `jpeg` or `raw` holds the crops of all rows end to end.

    found_in: the key of the artifact from which `found` is taken, where this one is only another choice.
    """
    at = np.searchsorted(faces.frame, rows.frame)
    geometry = np.concatenate([faces.boxes, faces.prob[:, None], faces.landmarks.reshape(-1, 10)], axis=1)[at]
    sizes = np.fromiter(map(len, faces.crops), np.int64, len(faces.crops))[at]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    with _new(path, about, GEOMETRY) as file:
        _core(file, geometry, rows.times_s, faces.valid[at])
        for name, array in (("boxes", faces.boxes), ("landmarks", faces.landmarks), ("prob", faces.prob), ("track", faces.track)):
            file[name] = array[at]
        file["frame"] = rows.frame
        file[f"{faces.coding}_offsets"] = offsets
        _write_crops(file.create_dataset(faces.coding, (int(offsets[-1]),), np.uint8), faces.crops, at)
        for name in FOUND:
            file[f"found/{name}"] = getattr(faces.found, name)
        file.attrs["size_px"] = faces.size_px
        if found_in:
            file.attrs["found_in"] = found_in


def _write_crops(data: h5py.Dataset, crops: Sequence[bytes], at: Int64) -> None:
    """at: (T,) which crop each row has. Many at a time: a write to HDF5 costs more than the coding of a crop."""
    waiting, start, n_bytes = [], 0, 0
    for row, number in enumerate(at.tolist(), 1):
        waiting.append(crops[number])
        n_bytes += len(waiting[-1])
        if n_bytes >= CROP_BYTES_AT_ONCE or (n_bytes and row == len(at)):
            data[start : start + n_bytes] = np.frombuffer(b"".join(waiting), np.uint8)
            waiting, start, n_bytes = [], start + n_bytes, 0


def _core(file: h5py.File, values: Any, times_s: Float64, valid: Any) -> None:
    file["values"], file["times_s"], file["valid"] = values, times_s.astype(np.float64), valid


@contextlib.contextmanager
def _new(path: Path, about: Provenance, columns: Sequence[str]) -> Iterator[h5py.File]:
    """A file to fill, with its provenance; sealed and published on leaving without an error."""
    with published(path) as temporary, sealed_file(temporary) as file:
        for name, value in _attributes(about).items():
            file.attrs[name] = json.dumps(value) if name in JSON_ATTRIBUTES else value
        if columns:
            write_texts(file, "columns", columns)
        yield file
        file.attrs["data"] = _data_digest(file)


def _data_digest(file: h5py.File) -> str:
    """sha256 over the names, types, shapes and values of all datasets: the same whenever and wherever they were computed."""
    digest = hashlib.sha256()

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name}|{item.dtype}|{item.shape}|".encode())
            for start in range(0, len(item), ROWS_AT_ONCE):
                digest.update(np.ascontiguousarray(item[start : start + ROWS_AT_ONCE]).tobytes())

    file.visititems(add)
    return digest.hexdigest()


def _attributes(about: Provenance) -> dict[str, Any]:
    stage = about.identity["stage"]
    return ({"finding": about.finding} if about.finding else {}) | {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "key": about.key,
        "stage": about.stage,
        "trial": about.trial,
        "extractor": stage["extractor"],
        "extractor_version": stage["version"],
        "params": stage["params"],
        "inputs": about.identity["inputs"],
        "source": about.identity["source"],
        "weights": stage["weights"] or "",
        "licence": about.licence,
        "environment": environment() | {"device": about.device},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": about.identity,
        "code": about.code,
        "seconds": about.seconds,
        "warnings": list(about.warnings),
        "media": dict(about.media),
    }


def read_about(path: Path) -> dict[str, Any]:
    """Every attribute, JSON ones parsed. Raises CorruptFileError where it is no artifact of this format."""
    with guarded_file(path) as file:
        return about_of(file)


def about_of(file: h5py.File) -> dict[str, Any]:
    """Every attribute of an open artifact, JSON ones parsed. Raises CorruptFileError where it is no artifact of this format."""
    if text_attr(file.attrs, "format") != FORMAT or file.attrs.get("format_version") != FORMAT_VERSION:
        raise CorruptFileError(f"{file.filename}: not an {FORMAT} file of version {FORMAT_VERSION}")
    if missing := [name for name in ATTRIBUTES if name not in file.attrs]:
        raise CorruptFileError(f"{file.filename}: lacks the attributes {', '.join(missing)}")
    about: dict[str, Any] = {}
    for name, value in file.attrs.items():
        if name in JSON_ATTRIBUTES:
            about[name] = _parsed(file, name)
        elif isinstance(value, bytes):
            about[name] = value.decode()
        else:
            about[name] = value.item() if isinstance(value, np.generic) else value
    return about


def _parsed(file: h5py.File, name: str) -> Any:
    try:
        return json.loads(text_attr(file.attrs, name))
    except ValueError as error:
        raise CorruptFileError(f"{file.filename}: the attribute {name!r} is not JSON ({error})") from error


def read_track(path: Path) -> Track:
    with guarded_file(path) as file:
        about_of(file)
        columns = tuple(read_texts(file, "columns")) if "columns" in file else ()
        return Track(values=file["values"][:], times_s=file["times_s"][:], valid=file["valid"][:], columns=columns)


def read_rows(path: Path) -> Rows:
    with guarded_file(path) as file:
        return Rows(times_s=file["times_s"][:], frame=file["values"][:, 0])


def read_timeline(path: Path) -> tuple[Rows, Float64]:
    """The rows, and (F,) the presentation times of all source frames, from a timeline artifact."""
    with guarded_file(path) as file:
        return Rows(times_s=file["times_s"][:], frame=file["values"][:, 0]), np.asarray(file["source_times_s"][:], np.float64)


def read_source_times(path: Path) -> Float64:
    """(F,) the presentation times of all source frames, from a timeline artifact."""
    with guarded_file(path) as file:
        return np.asarray(file["source_times_s"][:], np.float64)


def read_waveform(path: Path) -> Waveform:
    with guarded_file(path) as file:
        samples = file["values"][:].reshape(-1)[: int(file.attrs["n_samples"])]
        return Waveform(samples=samples, rate_hz=int(file.attrs["rate_hz"]), valid=file["valid"][:])


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRows:
    """Where the crops of a faces artifact are. times_s, valid, frame: (T,); coding: the dataset; offsets: (T + 1,) into it."""

    times_s: Float64
    valid: Any
    frame: Int64
    size_px: int
    coding: Coding
    offsets: Int64


def read_crop_rows(file: h5py.File) -> CropRows:
    coding: Coding = "raw" if "raw" in file else "jpeg"
    return CropRows(
        times_s=file["times_s"][:],
        valid=file["valid"][:],
        frame=file["frame"][:],
        size_px=int(file.attrs["size_px"]),
        coding=coding,
        offsets=file[f"{coding}_offsets"][:],
    )


def read_crops(file: h5py.File, rows: CropRows, which: Int64) -> Iterator[UInt8]:
    """The stored bytes, (n,) uint8, of each of the given rows, which ascend. Read many at a time, as they are written."""
    data, low, some = file[rows.coding], 0, np.zeros(0, np.uint8)
    for row in which.tolist():
        start, stop = rows.offsets[row], rows.offsets[row + 1]
        if stop > low + len(some):
            low, some = start, data[start : max(stop, start + CROP_BYTES_AT_ONCE)]
        yield some[start - low : stop - low]


def read_found(path: Path) -> Detections:
    """Every face of every person that was followed, from a faces artifact."""
    with guarded_file(path) as file:
        return Detections(**{name: file[f"found/{name}"][:] for name in FOUND})
