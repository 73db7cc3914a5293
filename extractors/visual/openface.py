"""Facial action units that OpenFace 2 measured: its tables, read by source frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from extractors.contract import ExtractorError, Float32, Kind, RootHolds, Rows, Runtime, Track
from extractors.windows import masked_track

UNITS = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
INTENSITIES = tuple(f"AU{unit}_r" for unit in UNITS)
PAIRED = tuple(f"AU{unit}_c" for unit in UNITS)  # the presences that have an intensity
PRESENCES = tuple(f"AU{unit}_c" for unit in sorted((*UNITS, "28")))
ALL = (*INTENSITIES, *PRESENCES, "confidence")
COLUMNS = {"all": ALL, "intensities": INTENSITIES, "presences": PRESENCES, "paired": (*INTENSITIES, *PAIRED)}
NEEDED = ("frame", "success", "confidence", *INTENSITIES, *PRESENCES)  # their order is that of `_measured`
HIGHEST = 5.0  # intensity
MOST_FRAMES = 10**9
SHOWN = 4  # of the columns that are missing, how many an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFaceParams:
    """columns: 17 intensities, 18 presences, both with the confidence, or the 17 intensities and the 17 presences of the same units."""

    columns: Literal["all", "intensities", "presences", "paired"] = "all"


class OpenFace:
    """Action units per source frame: intensities AUxx_r from 0 to 5, presences AUxx_c, 0 or 1, and the tracker's confidence.

    OpenFace corrects them per person over the whole video, so they are not causal. AU28 has a presence only.
    Source: Baltrusaitis et al., "OpenFace 2.0: facial behavior analysis toolkit", FG 2018; and "Cross-dataset learning and
    person-specific normalisation for automatic action unit detection", FG workshops 2015.
    """

    name: ClassVar[str] = "openface"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = OpenFaceParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = "openface"
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "academic or non-profit research (OpenFace's licence)"
    root_holds: ClassVar[RootHolds] = "tables"

    @staticmethod
    def reads(params: OpenFaceParams) -> tuple[Kind, ...]:
        return (Kind.TIMELINE,)

    def __init__(self, params: OpenFaceParams, runtime: Runtime) -> None:
        self._columns = COLUMNS[params.columns]
        self.dim = len(self._columns)

    def read_table(self, lines: Iterable[bytes], rows: Rows, n_frames: int) -> tuple[Track, tuple[str, ...]]:
        """lines: of a CSV file as FeatureExtraction or FaceLandmarkVidMulti of OpenFace 2 writes it, where the video's first frame
        is 1; n_frames: how many the video has. Returns a row per timeline row, at its time, and what the user should know.

        values: (T, dim) float32. A row is valid where its source frame has a face that was tracked with success; of several the
        most confident one counts. Raises ExtractorError with the line where it is no such file.
        """
        faces, last = parse(lines)
        picked = [ALL.index(name) for name in self._columns]
        values = np.full((len(rows.frame), self.dim), np.nan, np.float32)
        valid = np.zeros(len(rows.frame), np.bool_)
        for row, frame in enumerate(rows.frame.tolist()):
            if frame in faces:
                values[row], valid[row] = faces[frame][picked], True
        track = masked_track(values, times_s=rows.times_s.copy(), valid=valid, columns=self._columns)
        said = f"the table ends with frame {last}, the video has {n_frames} frames: is it of this very file?"
        return track, () if last == n_frames else (said,)


def parse(lines: Iterable[bytes]) -> tuple[Mapping[int, Float32], int]:
    """Source frame from 0 -> the (36,) float32 of `ALL`, of every frame with a face that was tracked; and the largest frame number.

    Names and numbers may be padded with blanks (OpenFace before 2.1), other columns are not looked at, lines may come in any order.
    Raises ExtractorError with the line.
    """
    numbered = enumerate(lines, 1)
    width, at = _header(next(numbered, (1, b""))[1])
    best: dict[int, Float32] = {}
    last = 0
    for number, line in numbered:
        if not line.strip():
            continue
        cells = line.split(b",")
        if len(cells) != width:
            raise _refused(number, f"it has {len(cells)} values, the first line names {width}")
        frame, measured = _measured(number, [cells[i] for i in at])
        last = max(last, frame)
        if measured is not None and (frame - 1 not in best or measured[-1] > best[frame - 1][-1]):
            best[frame - 1] = measured
    return best, last


def _header(line: bytes) -> tuple[int, list[int]]:
    """How many columns there are, and where those of `NEEDED` stand."""
    names = [name.strip() for name in line.decode("utf-8-sig", "replace").split(",")]
    if missing := [name for name in NEEDED if name not in names]:
        listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise _refused(1, f"it names no column {listed}")
    if twice := [name for name in NEEDED if names.count(name) > 1]:
        raise _refused(1, f"it names {twice[0]} twice")
    return len(names), [names.index(name) for name in NEEDED]


def _measured(number: int, cells: list[bytes]) -> tuple[int, Float32 | None]:
    """The frame from 1, and its (36,) values, or None where no face was tracked: what is written then is no measurement."""
    frame = _number(number, "frame", cells[0], MOST_FRAMES, whole=True)
    if frame < 1:
        raise _refused(number, "frame is 0, expected 1 for the first")
    if not _number(number, "success", cells[1], 1, whole=True):
        return int(frame), None
    confidence = _number(number, "confidence", cells[2], 1)
    units = zip(NEEDED[3:], cells[3:], strict=True)
    values = [_number(number, name, cell, HIGHEST if name in INTENSITIES else 1, whole=name in PRESENCES) for name, cell in units]
    return int(frame), np.array([*values, confidence], np.float32)


def _number(line: int, name: str, cell: bytes, highest: float, *, whole: bool = False) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not 0 <= value <= highest or (whole and value != int(value)) or b"_" in cell:
        shown = cell.strip()[:20].decode("ascii", "backslashreplace")
        raise _refused(line, f"{name} is {shown!r}, expected a {'whole ' * whole}number from 0 to {highest:g}")
    return value


def _refused(line: int, why: str) -> ExtractorError:
    fix = "give the CSV file of OpenFace 2's FeatureExtraction, made with -aus and whole"
    return ExtractorError(f"line {line} is not OpenFace's", why=why, fix=fix)
