"""Faces over time: from single sightings to tracks. Pure: no I/O, no networks, no randomness.

A *sighting* is one face in one row; a *track* is one face followed without a long gap. Who the tracks belong to is decided
in `persons`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extractors.contract import Float32, Float64, Int64

# A face that is not found for this long still has the same track afterwards, if it is where it could have moved to.
GAP_S = 0.5
# A face may move this many face sizes between two rows, plus as many per second of time between them, and never more than MAX_REACH.
# At 25 Hz that is 0.64 sizes, an overlap (intersection over union) of about 0.2 sideways: faster than people move, nearer than
# the next face can be. A cut to another picture moves faces by more.
REACH = 0.6
REACH_PER_S = 1.0
MAX_REACH = 1.2
MAX_SIZE_RATIO = 1.6
# A face is looked for where its motion would have taken it, but motion that was seen long ago says nothing.
MAX_EXTRAPOLATION_S = 0.3
VELOCITY_MEMORY = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sightings:
    """Every face found in a video: M sightings, ordered by row, over F rows.

    row: (M,) int64 from 0 to F - 1; boxes: (M, 4) float32 x1 y1 x2 y2 in pixels of that row's picture; prob: (M,) float32;
    times_s: (F,) float64 non-decreasing; picture_px: (F, 2) width and height of each row's picture.
    """

    row: Int64
    boxes: Float32
    prob: Float32
    times_s: Float64
    picture_px: Int64

    def __post_init__(self) -> None:
        m, f = len(self.row), len(self.times_s)
        shapes = (self.boxes.shape, self.prob.shape, self.picture_px.shape)
        if shapes != ((m, 4), (m,), (f, 2)):
            raise ValueError(f"Sightings: expected {m} faces and {f} rows in every array, got {shapes}")
        if m and (np.any(np.diff(self.row) < 0) or self.row[0] < 0 or self.row[-1] >= f):
            raise ValueError(f"Sightings.row: expected ascending rows below {f}, got {self.row[0]} to {self.row[-1]}")
        if np.any(np.diff(self.times_s) < 0):
            raise ValueError("Sightings.times_s: expected non-decreasing times, got a step back")

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


@dataclass(slots=True)
class _Open:
    """A track that may go on: where its face was last, and how it moved (sizes and pixels of the first picture, per second)."""

    id: int
    time_s: float
    centre: Float64
    size: float
    velocity: Float64

    def expected(self, time_s: float) -> Float64:
        return np.asarray(self.centre + self.velocity * min(time_s - self.time_s, MAX_EXTRAPOLATION_S))

    def see(self, time_s: float, centre: Float64, size: float) -> None:
        if time_s > self.time_s:
            moved = (centre - self.centre) / (time_s - self.time_s)
            self.velocity = VELOCITY_MEMORY * self.velocity + (1 - VELOCITY_MEMORY) * moved
        self.time_s, self.centre, self.size = time_s, centre, size


def associate(seen: Sightings) -> Int64:
    """(M,) int64 track ids, numbered from 0 by first appearance; a track has at most one sighting per row.

    Row by row, open tracks and faces are paired, the best pair first, by how far the face lies from where the track's motion
    leads (in face sizes) plus how much its size differs (natural logarithm). A face that no track can reach opens a new one. A
    track is closed when it was not seen for longer than Sightings.gap_s.
    """
    track = np.full(len(seen.row), -1, dtype=np.int64)
    centre, size, gap_s = seen.centre, seen.size, seen.gap_s
    bounds = np.searchsorted(seen.row, np.arange(len(seen.times_s) + 1))
    open_tracks: list[_Open] = []
    n_tracks = 0
    for row, time_s in enumerate(seen.times_s.tolist()):
        faces = range(bounds[row], bounds[row + 1])
        open_tracks = [old for old in open_tracks if time_s - old.time_s <= gap_s]
        pairs = _pair(open_tracks, centre[faces.start : faces.stop], size[faces.start : faces.stop], time_s)
        for i, face in enumerate(faces):
            if i in pairs:
                old = open_tracks[pairs[i]]
                old.see(time_s, centre[face], float(size[face]))
                track[face] = old.id
            else:
                track[face] = n_tracks
                open_tracks.append(_Open(n_tracks, time_s, centre[face], float(size[face]), np.zeros(2)))
                n_tracks += 1
    return track


def _pair(open_tracks: list[_Open], centre: Float64, size: Float64, time_s: float) -> dict[int, int]:
    """Face number -> number of its track among open_tracks, each at most once: the cheapest pair first, ties by number."""
    if not open_tracks or not len(centre):
        return {}
    expected = np.array([old.expected(time_s) for old in open_tracks])
    old_size = np.array([old.size for old in open_tracks])
    waited_s = time_s - np.array([old.time_s for old in open_tracks])
    distance, ratio = apart(expected[:, None], old_size[:, None], centre[None], size[None])
    reach = np.minimum(REACH + REACH_PER_S * waited_s, MAX_REACH)
    cost = np.where((distance <= reach[:, None]) & (ratio <= np.log(MAX_SIZE_RATIO)), distance + ratio, np.inf)
    return {face: old for old, face in cheapest_first(cost)}


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
