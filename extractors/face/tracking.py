"""Faces over time: from single sightings to tracks. Pure: no I/O, no networks, no randomness.

A *sighting* is one face in one row; a *track* is one face followed without a long gap. Who the tracks belong to is decided
in `persons`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from extractors.contract import Float32, Float64, Int64

# A face that is not found for this long still has the same track afterwards, if it is where it could have moved to.
GAP_S = 0.5
# And for this long (a hand before the face, a look away) if it comes back where it was, at the same size, and nobody else is near.
STILL_GAP_S = 1.0
STILL_REACH = 0.5
STILL_SIZE_RATIO = 1.25
ALONE_REACH = 2.0
# A face may move this many face sizes between two rows, plus as many per second of time between them, and never more than MAX_REACH.
# At 25 Hz that is 0.64 sizes, an overlap (intersection over union) of about 0.2 sideways: faster than people move, nearer than
# the next face can be. A cut to another picture moves faces by more.
REACH = 0.6
REACH_PER_S = 1.0
MAX_REACH = 1.2
MAX_SIZE_RATIO = 1.6
# A face is looked for where its motion would have taken it, but motion that was seen long ago says nothing.
MAX_EXTRAPOLATION_S = 0.3
# Over so many seconds a track's motion is averaged: boxes tremble, and those of people who cross must not trade motions.
VELOCITY_MEMORY_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """Every face found in a video: M sightings, ordered by row, over F rows.

    row: (M,) int64 from 0 to F - 1; boxes: (M, 4) float32 x1 y1 x2 y2 in pixels of that row's picture; prob: (M,) float32;
    times_s: (F,) float64 non-decreasing; picture_px: (F, 2) width and height of each row's picture; shot: (F,) int64 non-decreasing,
    another one after every hard cut.
    """

    row: Int64
    boxes: Float32
    prob: Float32
    times_s: Float64
    picture_px: Int64
    shot: Int64

    def __post_init__(self) -> None:
        m, f = len(self.row), len(self.times_s)
        shapes = (self.boxes.shape, self.prob.shape, self.picture_px.shape, self.shot.shape)
        if shapes != ((m, 4), (m,), (f, 2), (f,)):
            raise ValueError(f"Sightings: expected {m} faces and {f} rows in every array, got {shapes}")
        if m and (np.any(np.diff(self.row) < 0) or self.row[0] < 0 or self.row[-1] >= f):
            raise ValueError(f"Sightings.row: expected ascending rows below {f}, got {self.row[0]} to {self.row[-1]}")
        if np.any(np.diff(self.times_s) < 0):
            raise ValueError("Sightings.times_s: expected non-decreasing times, got a step back")
        if np.any(np.diff(self.shot) < 0):
            raise ValueError("Sightings.shot: expected non-decreasing numbers, got a step back")

    @property
    def centre(self) -> Float64:
        """(M, 2) x, y in pixels of the first row's picture, so that a change of resolution on the way moves nobody."""
        return np.asarray((self.boxes[:, :2] + self.boxes[:, 2:]).astype(np.float64) / 2 * self._to_first())

    @property
    def size(self) -> Float64:
        """(M,) square root of the box's area, in pixels of the first row's picture."""
        sides = np.maximum((self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.float64) * self._to_first(), 1e-6)
        return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]))

    def _to_first(self) -> Float64:
        return np.asarray(self.picture_px[:1] / self.picture_px[self.row], dtype=np.float64)

    @property
    def shown_s(self) -> Float64:
        """(F,) how long each row is shown: until the next; the last one for the median interval, a single picture for one second."""
        intervals = np.diff(self.times_s)
        return np.append(intervals, np.median(intervals) if len(intervals) else 1.0)

    @property
    def gap_s(self) -> float:
        """How long a face may be unseen within one track: GAP_S, or two and a half rows where rows are rarer than that."""
        intervals = np.diff(self.times_s)
        return max(GAP_S, 2.5 * float(np.median(intervals))) + 1e-9 if len(intervals) else GAP_S


class _Face(NamedTuple):
    """One sighting: centre and size in pixels of the first row's picture."""

    number: int
    x: float
    y: float
    size: float


@dataclass(slots=True)
class _Open:
    """A track that may go on: where its face was last, and how it moved (pixels of the first picture, per second)."""

    id: int
    time_s: float
    face: _Face
    vx: float = 0.0
    vy: float = 0.0

    def see(self, time_s: float, face: _Face) -> None:
        if time_s > self.time_s:
            passed_s = time_s - self.time_s
            kept = math.exp(-passed_s / VELOCITY_MEMORY_S)
            self.vx = kept * self.vx + (1 - kept) * (face.x - self.face.x) / passed_s
            self.vy = kept * self.vy + (1 - kept) * (face.y - self.face.y) / passed_s
        self.time_s, self.face = time_s, face


def associate(seen: Sightings) -> Int64:
    """(M,) int64 track ids, numbered from 0 by first appearance; a track has at most one sighting per row and lies in one shot.

    Row by row, open tracks and faces are paired, the best pair first, by how far the face lies from where the track's motion
    leads (in face sizes), plus how much its size differs (natural logarithm), plus for how long the track was not seen (seconds).
    A face that no track can reach opens a new one. A track is closed by a cut, and when it was not seen for longer than
    STILL_GAP_S; after Sightings.gap_s it goes on only with a face that is where it was, and alone there.
    """
    track = np.empty(len(seen.row), dtype=np.int64)
    open_tracks: list[_Open] = []
    n_tracks, shot, gap_s = 0, -1, seen.gap_s
    longest_s = max(gap_s, STILL_GAP_S + 1e-9)
    for row, faces in _rows(seen):
        time_s = float(seen.times_s[row])
        known = open_tracks if seen.shot[row] == shot else []
        shot = seen.shot[row]
        open_tracks = [old for old in known if time_s - old.time_s <= longest_s]
        pairs = _pair(open_tracks, faces, time_s, gap_s)
        for i, face in enumerate(faces):
            if i in pairs:
                old = open_tracks[pairs[i]]
                old.see(time_s, face)
                track[face.number] = old.id
            else:
                open_tracks.append(_Open(n_tracks, time_s, face))
                track[face.number] = n_tracks
                n_tracks += 1
    return track


def _rows(seen: Sightings) -> list[tuple[int, list[_Face]]]:
    """The rows that have faces, with these."""
    rows: list[tuple[int, list[_Face]]] = []
    centre, size = seen.centre.tolist(), seen.size.tolist()
    for number, row in enumerate(seen.row.tolist()):
        if not rows or rows[-1][0] != row:
            rows.append((row, []))
        x, y = centre[number]
        rows[-1][1].append(_Face(number, x, y, size[number]))
    return rows


def _pair(open_tracks: Sequence[_Open], faces: Sequence[_Face], time_s: float, gap_s: float) -> dict[int, int]:
    """Number of a face among faces -> number of its track among open_tracks, each at most once: the cheapest first, ties by number.

    In plain numbers: most rows have one face or a few, for which arrays take many times as long.
    """
    costs: list[tuple[float, int, int]] = []
    for o, old in enumerate(open_tracks):
        waited_s = time_s - old.time_s
        ahead_s = min(waited_s, MAX_EXTRAPOLATION_S)
        x, y = old.face.x + old.vx * ahead_s, old.face.y + old.vy * ahead_s
        if waited_s > gap_s:
            x, y = old.face.x, old.face.y
        reach = min(REACH + REACH_PER_S * waited_s, MAX_REACH)
        far = reach * old.face.size * (1 + MAX_SIZE_RATIO) / 2  # no face of any allowed size can be reached from further off
        for f, face in enumerate(faces):
            if abs(face.x - x) > far or (waited_s > gap_s and not _came_back(old, face, open_tracks, faces)):
                continue
            distance = 2 * math.hypot(face.x - x, face.y - y) / (old.face.size + face.size)
            if distance <= reach and (ratio := _size_ratio(old.face, face)) <= math.log(MAX_SIZE_RATIO):
                costs.append((distance + ratio + waited_s, o, f))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, o, f in sorted(costs):
        if f not in pairs and o not in taken:
            pairs[f] = o
            taken.add(o)
    return pairs


def _size_ratio(a: _Face, b: _Face) -> float:
    return abs(math.log(a.size / b.size))


def _came_back(old: _Open, face: _Face, open_tracks: Sequence[_Open], faces: Sequence[_Face]) -> bool:
    """Whether a face is where a track was left, at its size, with no other face and no other open track near."""

    def near(other: _Face, reach: float) -> bool:
        return math.hypot(face.x - other.x, face.y - other.y) <= reach * face.size

    return (
        near(old.face, STILL_REACH)
        and _size_ratio(old.face, face) <= math.log(STILL_SIZE_RATIO)
        and sum(near(other, ALONE_REACH) for other in faces) == 1
        and sum(near(other.face, ALONE_REACH) for other in open_tracks) == 1
    )


def apart(centre_a: Float64, size_a: Float64, centre_b: Float64, size_b: Float64) -> tuple[Float64, Float64]:
    """How far apart two faces are, in units of their mean size, and the absolute logarithm of the ratio of their sizes."""
    distance = np.linalg.norm(centre_a - centre_b, axis=-1) / ((size_a + size_b) / 2)
    return np.asarray(distance), np.asarray(np.abs(np.log(size_a / size_b)))


def cheapest_first(cost: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """(A, B) costs, infinite where forbidden -> one-to-one pairs, taken greedily in order of cost, then of position."""
    pairs: list[tuple[int, int]] = []
    used_a: set[int] = set()
    used_b: set[int] = set()
    order = np.argsort(cost, axis=None, kind="stable")[: int(np.isfinite(cost).sum())]
    for flat in order.tolist():
        a, b = divmod(flat, cost.shape[1])
        if a not in used_a and b not in used_b:
            pairs.append((a, b))
            used_a.add(a)
            used_b.add(b)
    return pairs
