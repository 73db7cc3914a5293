"""How each kind of stage turns its inputs into an artifact. The extractor computes; this module reads, feeds and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from extractors.contract import Clips, Faces, Int64, Kind, Person, Rows, Track, UInt8
from pipeline import artifact, sound, video
from pipeline.artifact import CropRows, Provenance
from pipeline.errors import Problem, TrialError
from pipeline.hdf5 import guarded_file
from pipeline.pictures import Pictures

CROPS_AT_ONCE = 512  # decoded at a time: 20 MB of 112 px crops


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One artifact of a job: for which trial and person, from which input artifacts (in the order the stage reads them), to where.

    found_in: a faces artifact in which the same faces were found already, if it is there when the job runs.
    """

    key: str
    trial: str
    person: Person
    inputs: tuple[Path, ...]
    target: Path
    found_in: Path | None = None


# Writes one item's artifact: what it is and its warnings are handed over, the rest of the provenance is the worker's.
Publish = Callable[[Item, Callable[[Path, Provenance], None], Sequence[str], dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a stage does, whoever the trial is. reads: the kinds of its inputs, in order; root: of organisers' pictures."""

    yields: Kind
    reads: tuple[Kind, ...]
    extractor: Any
    root: Path | None = None


def run(recipe: Recipe, source: Path, items: Sequence[Item], publish: Publish) -> None:
    """Compute the items, all of one source. Raises TrialError, PassingError or ExtractorError."""
    kind, extractor = recipe.yields, recipe.extractor
    if kind is Kind.TIMELINE:
        _timeline(extractor, source, items, publish)
    elif kind is Kind.WAVEFORM:
        _waveform(extractor, source, items, publish)
    elif kind is Kind.FACES:
        _faces(extractor, source, recipe.root, items, publish)
    else:
        _feature(recipe, items, publish)


def _timeline(extractor: Any, source: Path, items: Sequence[Item], publish: Publish) -> None:
    decoded = video.frame_times(source)
    rows: Rows = extractor.rows(decoded.times_s)
    write = partial(artifact.write_timeline, rows=rows, source_times_s=decoded.times_s)
    for item in items:
        publish(item, write, _damage_warnings(decoded.info["damage"]), decoded.info)


def _damage_warnings(damage: dict[str, Any]) -> list[str]:
    said = {
        "packets_lost": "packets could not be decoded, so their frames are missing",
        "frames_untimed": "frames have no presentation time; theirs was guessed from the rate",
        "s_missing": "seconds before the end that the headers promise, the pictures end: the file may be cut off",
        "steps_back": "frames are timed before the one they follow; they were put just behind it",
        "same_time": "frames have the time of the one they follow; they were put just behind it",
    }
    return [f"{damage[name]} {text}" for name, text in said.items() if name in damage]


def _waveform(extractor: Any, source: Path, items: Sequence[Item], publish: Publish) -> None:
    decoded = sound.decode(source, extractor.rate_hz)
    waveform = extractor.condition(decoded.waveform)
    for item in items:
        publish(item, partial(artifact.write_waveform, waveform=waveform), decoded.warnings, decoded.info)


def _faces(extractor: Any, source: Path, root: Path | None, items: Sequence[Item], publish: Publish) -> None:
    """All persons of one source in one pass over its frames, where their timelines are the same."""
    groups: dict[tuple[Path, Path | None], list[Item]] = {}
    for item in items:
        found_in = item.found_in if item.found_in and item.found_in.exists() else None
        groups.setdefault((item.inputs[0], found_in), []).append(item)
    for (timeline, found_in), group in groups.items():
        rows, source_times_s = artifact.read_timeline(timeline)
        shown = np.unique(rows.frame)
        if root is not None:
            for item in group:
                pictures = Pictures(root / item.trial)
                _write_faces(item, extractor.read(pictures, shown), rows, publish, _picture_warnings(pictures))
            continue
        decoded = partial(video.frames, source, n_source=len(source_times_s))
        persons = tuple(dict.fromkeys(item.person for item in group))
        if found_in is None:
            faces = extractor.follow(decoded(shown), persons)
        else:
            faces = extractor.choose(artifact.read_found(found_in), shown, source_times_s[shown], decoded, persons)
        for item in group:
            _write_faces(item, faces[item.person], rows, publish)


def _write_faces(item: Item, faces: Faces, rows: Rows, publish: Publish, warnings: Sequence[str] = ()) -> None:
    publish(item, partial(artifact.write_faces, faces=faces, rows=rows), warnings, {})


def _picture_warnings(pictures: Pictures) -> list[str]:
    found = [f"{len(pictures.ignored)} entries of {pictures.folder.name} were ignored: {', '.join(pictures.ignored[:3])}"]
    return (found if pictures.ignored else []) + (
        [] if len(pictures) else [f"no pictures: {pictures.folder} has none, so all rows are masked"]
    )


def _feature(recipe: Recipe, items: Sequence[Item], publish: Publish) -> None:
    """Audio and visual extractors alike: one track per item."""
    extractor = recipe.extractor
    for item in items:
        inputs = dict(zip(recipe.reads, item.inputs, strict=True))
        if Kind.FACES in inputs:
            embed = _embed_clips if hasattr(extractor, "embed_clips") else _embed
            track = embed(extractor, inputs[Kind.FACES])
        else:
            row_times_s = artifact.read_rows(inputs[Kind.TIMELINE]).times_s if Kind.TIMELINE in inputs else None
            track = extractor.extract(artifact.read_waveform(inputs[Kind.WAVEFORM]), row_times_s)
        publish(item, partial(artifact.write_track, track=track), (), {})


def _embed(extractor: Any, faces: Path) -> Track:
    """One row per timeline row. A source frame that is shown in several rows is embedded once."""
    with guarded_file(faces) as file:
        rows = artifact.read_crop_rows(file)
        values = np.full((len(rows.times_s), extractor.dim), np.nan, np.float32)
        _, first, of_row = np.unique(rows.frame, return_index=True, return_inverse=True)
        seen = first[rows.valid[first]]
        for start in range(0, len(seen), CROPS_AT_ONCE):
            some = seen[start : start + CROPS_AT_ONCE]
            crops = _crops(file, rows, some, extractor.size_px)
            for at in range(0, len(some), extractor.batch):
                values[some[at : at + extractor.batch]] = extractor.embed(crops[at : at + extractor.batch])
    return Track(values=values[first][of_row], times_s=rows.times_s, valid=rows.valid)


def _embed_clips(extractor: Any, faces: Path) -> Track:
    """One row per clip. A picture is decoded once and kept until no later clip shows it, whatever the clips share."""
    with guarded_file(faces) as file:
        rows = artifact.read_crop_rows(file)
        clips: Clips = extractor.clips(rows.valid)
        values = np.full((len(clips.at), extractor.dim), np.nan, np.float32)
        seen = np.flatnonzero(clips.valid)
        _, first, of_row = np.unique(rows.frame, return_index=True, return_inverse=True)
        shown = first[of_row][clips.rows[seen]]  # per clip the rows whose crops are read: the first of those that show a frame
        film = _Film(file=file, rows=rows, size_px=extractor.size_px, shown=shown)
        at_once = max(1, CROPS_AT_ONCE // max(1, shown.shape[1]))
        for start in range(0, len(seen), at_once):
            film.wind(start, start + at_once)
            for at in range(start, min(start + at_once, len(seen)), extractor.batch):
                some = slice(at, min(at + extractor.batch, start + at_once))
                values[seen[some]] = extractor.embed_clips(film.clips(some))
    return Track(values=values, times_s=rows.times_s[clips.at], valid=clips.valid)


class _Film:
    """The decoded crops that some clips show. shown: (N, clip_frames) rows of all clips, in the order in which they are asked for."""

    def __init__(self, *, file: h5py.File, rows: CropRows, size_px: int, shown: Int64) -> None:
        self._file, self._rows, self._shown, self._size_px = file, rows, shown, size_px
        self._last_clip = np.full(len(rows.frame), -1, np.int64)  # the last clip that shows each row
        np.maximum.at(self._last_clip, shown, np.arange(len(shown))[:, None])
        self._have = np.zeros(0, np.int64)
        self._pictures = np.zeros((0, size_px, size_px, 3), np.uint8)

    def wind(self, start: int, stop: int) -> None:
        """Make the clips from start to before stop ready: decode what they show and earlier ones did not, let go what none needs."""
        kept = self._last_clip[self._have] >= start
        new = np.setdiff1d(self._shown[start:stop], self._have)
        have = np.concatenate([self._have[kept], new])
        pictures = np.concatenate([self._pictures[kept], _crops(self._file, self._rows, new, self._size_px)])
        order = np.argsort(have)
        self._have, self._pictures = have[order], pictures[order]

    def clips(self, some: slice) -> UInt8:
        """(n, clip_frames, size_px, size_px, 3) uint8 RGB."""
        return self._pictures[np.searchsorted(self._have, self._shown[some])]


def _crops(file: h5py.File, rows: CropRows, which: Int64, size_px: int) -> UInt8:
    """(n, size_px, size_px, 3) uint8 RGB of the given rows."""
    import cv2

    crops = np.empty((len(which), size_px, size_px, 3), np.uint8)
    for number, stored in enumerate(artifact.read_crops(file, rows, which)):
        picture = _picture(stored, rows)
        if picture is None:
            why = f"row {which[number]}"
            raise TrialError(Problem(what="a crop cannot be decoded", where=file.filename, why=why, fix="run verify, then run again"))
        if picture.shape[0] != size_px:
            shrinks = size_px < picture.shape[0]
            picture = cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        crops[number] = picture
    return crops


def _picture(stored: UInt8, rows: CropRows) -> Any:
    """(n,) bytes of one crop -> (rows.size_px, rows.size_px, 3) uint8 RGB, or None where they are no picture."""
    import cv2

    if rows.coding == "raw":
        return stored.reshape(rows.size_px, rows.size_px, 3) if len(stored) == 3 * rows.size_px**2 else None
    return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB)
