"""Features out of faces: crops are read back from the artifact, brought to size, and embedded one by one or in clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from extractors.contract import Clips, Int64, Resample, Track, UInt8
from pipeline import artifact
from pipeline.artifact import CropRows
from pipeline.errors import Problem, TrialError
from pipeline.hdf5 import guarded_file

CROPS_AT_ONCE = 512  # decoded at a time: 20 MB of 112 px crops


def embed(extractor: Any, faces: Path) -> Track:
    """What the extractor makes of the crops of a faces artifact. Raises TrialError where a crop cannot be decoded."""
    return _of_clips(extractor, faces) if hasattr(extractor, "embed_clips") else _of_pictures(extractor, faces)


def _of_pictures(extractor: Any, faces: Path) -> Track:
    """One row per timeline row. A source frame that is shown in several rows is embedded once."""
    with guarded_file(faces) as file:
        rows = artifact.read_crop_rows(file)
        values = np.full((len(rows.times_s), extractor.dim), np.nan, np.float32)
        _, first, of_row = np.unique(rows.frame, return_index=True, return_inverse=True)
        seen = first[rows.valid[first]]
        for start in range(0, len(seen), CROPS_AT_ONCE):
            some = seen[start : start + CROPS_AT_ONCE]
            crops = _crops(file, rows, some, extractor)
            for at in range(0, len(some), extractor.batch):
                values[some[at : at + extractor.batch]] = extractor.embed(crops[at : at + extractor.batch])
    return Track(values=values[first][of_row], times_s=rows.times_s, valid=rows.valid, columns=getattr(extractor, "columns", ()))


def _of_clips(extractor: Any, faces: Path) -> Track:
    """One row per clip. A picture is decoded once and kept until no later clip shows it, whatever the clips share."""
    with guarded_file(faces) as file:
        rows = artifact.read_crop_rows(file)
        clips: Clips = extractor.clips(rows.valid)
        values = np.full((len(clips.at), extractor.dim), np.nan, np.float32)
        seen = np.flatnonzero(clips.valid)
        _, first, of_row = np.unique(rows.frame, return_index=True, return_inverse=True)
        shown = first[of_row][clips.rows[seen]]  # per clip the rows whose crops are read: the first of those that show a frame
        film = _Film(file=file, rows=rows, extractor=extractor, shown=shown)
        at_once = max(1, CROPS_AT_ONCE // max(1, shown.shape[1]))
        for start in range(0, len(seen), at_once):
            film.wind(start, start + at_once)
            for at in range(start, min(start + at_once, len(seen)), extractor.batch):
                some = slice(at, min(at + extractor.batch, start + at_once))
                values[seen[some]] = extractor.embed_clips(film.clips(some))
    return Track(values=values, times_s=rows.times_s[clips.at], valid=clips.valid, columns=getattr(extractor, "columns", ()))


class _Film:
    """The decoded crops that some clips show. shown: (N, clip_frames) rows of all clips, in the order in which they are asked for."""

    def __init__(self, *, file: h5py.File, rows: CropRows, extractor: Any, shown: Int64) -> None:
        self._file, self._rows, self._shown, self._extractor = file, rows, shown, extractor
        self._last_clip = np.full(len(rows.frame), -1, np.int64)  # the last clip that shows each row
        np.maximum.at(self._last_clip, shown, np.arange(len(shown))[:, None])
        self._have = np.zeros(0, np.int64)
        self._pictures = np.zeros((0, extractor.size_px, extractor.size_px, 3), np.uint8)

    def wind(self, start: int, stop: int) -> None:
        """Make the clips from start to before stop ready: decode what they show and earlier ones did not, let go what none needs."""
        kept = self._last_clip[self._have] >= start
        new = np.setdiff1d(self._shown[start:stop], self._have)
        have = np.concatenate([self._have[kept], new])
        pictures = np.concatenate([self._pictures[kept], _crops(self._file, self._rows, new, self._extractor)])
        order = np.argsort(have)
        self._have, self._pictures = have[order], pictures[order]

    def clips(self, some: slice) -> UInt8:
        """(n, clip_frames, size_px, size_px, 3) uint8 RGB."""
        return self._pictures[np.searchsorted(self._have, self._shown[some])]


def _crops(file: h5py.File, rows: CropRows, which: Int64, extractor: Any) -> UInt8:
    """(n, size_px, size_px, 3) uint8 RGB of the given rows, as the extractor wants them."""
    size_px: int = extractor.size_px
    resample: Resample = getattr(extractor, "resample", "area")
    crops = np.empty((len(which), size_px, size_px, 3), np.uint8)
    for number, stored in enumerate(artifact.read_crops(file, rows, which)):
        picture = _picture(stored, rows)
        if picture is None:
            why = f"row {which[number]}"
            raise TrialError(Problem(what="a crop cannot be decoded", where=file.filename, why=why, fix="run verify, then run again"))
        crops[number] = picture if picture.shape[0] == size_px else _resized(picture, size_px, resample)
    return crops


def _resized(picture: UInt8, size_px: int, resample: Resample) -> Any:
    """(S, S, 3) uint8 -> (size_px, size_px, 3) uint8, as `VisualExtractor` says."""
    if resample == "area":
        import cv2

        shrinks = size_px < picture.shape[0]
        return cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    from PIL import Image

    filters = {"pil_bilinear": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}
    return np.asarray(Image.fromarray(picture).resize((size_px, size_px), filters[resample]))


def _picture(stored: UInt8, rows: CropRows) -> Any:
    """(n,) bytes of one crop -> (rows.size_px, rows.size_px, 3) uint8 RGB, or None where they are no picture."""
    import cv2

    if rows.coding == "raw":
        return stored.reshape(rows.size_px, rows.size_px, 3) if len(stored) == 3 * rows.size_px**2 else None
    return cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB)
