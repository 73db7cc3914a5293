"""Who is who: tracks that broke apart are joined to people again, and one of them is chosen. Pure: no I/O.

Faces are told apart by place, size and time only, never by how they look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extractors.contract import Bool, ExtractorError, Float64, Int64, Person
from extractors.face.tracking import Sightings, apart

# A lost face is joined to one that appears later within one face size, plus one per second of absence, but never beyond three.
JOIN_REACH = 1.0
JOIN_REACH_PER_S = 1.0
MAX_JOIN_REACH = 3.0
MAX_JOIN_SIZE_RATIO = 2.0
# Bounds for hours of a crowd: joins that are weighed per track, and people who are looked at for `left` and `right`.
MAX_JOINS = 16
MAX_PEOPLE = 100
NAMED_TRACKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Everyone in a video, the most prominent first. who: (M,) int64 person of each sighting, -1 where its track was too short."""

    seen: Sightings
    who: Int64
    n_people: int

    def rows(self, person: int) -> Bool:
        """(F,) bool: where this person is seen, or unseen for no longer than a track may be, without a cut."""
        mine = self.seen.row[self.who == person]
        brief = (np.diff(self.seen.times_s[mine]) <= self.seen.gap_s) & (np.diff(self.seen.shot[mine]) == 0)
        edges = np.zeros(len(self.seen.times_s), dtype=np.int64)
        edges[mine[:-1][brief]] += 1
        edges[mine[1:][brief]] -= 1
        there = np.cumsum(edges) > 0
        there[mine] = True
        return np.asarray(there)

    def sighting(self, person: int) -> Int64:
        """(F,) int64: the number of this person's sighting in each row, -1 where there is none."""
        number = np.full(len(self.seen.times_s), -1, dtype=np.int64)
        mine = np.flatnonzero(self.who == person)
        number[self.seen.row[mine]] = mine
        return number

    def x(self, person: int, rows: Bool) -> float:
        """Mean horizontal place in the given rows (in all of the person's where that leaves none), from 0 (left) to 1 (right)."""
        mine = self.who == person
        chosen = mine & rows[self.seen.row]
        use = chosen if chosen.any() else mine
        return float(np.mean(self.seen.centre[use, 0])) / float(self.seen.picture_px[0, 0])

    def size(self, person: int) -> float:
        """Median face size, in pixels of the first row's picture."""
        return float(np.median(self.seen.size[self.who == person]))


def prominence(seen: Sightings) -> Float64:
    """(M,) float64: seconds shown x share of the picture's area x probability x centrality, for each sighting.

    Centrality falls linearly from 1 in the picture's middle to 1/2 in its corners.
    """
    picture = seen.picture_px[seen.row].astype(np.float64)
    sides = np.maximum((seen.boxes[:, 2:] - seen.boxes[:, :2]).astype(np.float64), 0.0)
    middle = (seen.boxes[:, :2] + seen.boxes[:, 2:]).astype(np.float64) / 2 - picture / 2
    off_centre = np.linalg.norm(middle, axis=1) / (np.linalg.norm(picture, axis=1) / 2)
    share = (sides / picture).prod(axis=1)
    return np.asarray(seen.shown_s[seen.row] * share * seen.prob * (1 - 0.5 * np.minimum(off_centre, 1.0)))


def find_people(seen: Sightings, track: Int64, *, min_track_s: float) -> People:
    """Joins tracks to people and ranks these by the sum of their prominence, ties by first appearance.

    Tracks that are seen for less than min_track_s in all, or than the whole video where that is shorter, belong to nobody. Then every
    track is joined to at most one later and one earlier one that do not overlap it in time and are near in place and size: the
    pair that costs least (absence in seconds + distance in face sizes + logarithm of the size ratio) first.

    Cuts do not count here: who is away for a cutaway and then sits where they sat is the same person, and so is who jumps a little
    between two takes. The price: two people who are shown in turn, at the same place and size, are one person.
    """
    n_tracks = int(track.max(initial=-1)) + 1
    shown_s = np.bincount(track, weights=seen.shown_s[seen.row], minlength=n_tracks)
    kept = np.flatnonzero(shown_s >= min(min_track_s, float(seen.shown_s.sum())) - 1e-9)
    if not len(kept):
        return People(seen=seen, who=np.full(len(track), -1, dtype=np.int64), n_people=0)
    chain = _join(seen, track, kept)
    person_of_track = np.full(n_tracks, -1, dtype=np.int64)
    score = np.bincount(track, weights=prominence(seen), minlength=n_tracks)[kept]
    chain_score = np.bincount(chain, weights=score)
    rank = np.empty(len(chain_score), dtype=np.int64)
    rank[np.argsort(-chain_score, kind="stable")] = np.arange(len(chain_score))
    person_of_track[kept] = rank[chain]
    return People(seen=seen, who=person_of_track[track], n_people=len(chain_score))


def _join(seen: Sightings, track: Int64, kept: Int64) -> Int64:
    """(len(kept),) int64: the chain of each kept track, chains numbered by their earliest track."""
    order = np.lexsort((seen.row, track))
    first = order[np.searchsorted(track[order], kept, side="left")]
    last = order[np.searchsorted(track[order], kept, side="right") - 1]
    chain = np.arange(len(kept))
    has_later, has_earlier = np.zeros(len(kept), dtype=np.bool_), np.zeros(len(kept), dtype=np.bool_)
    for _, earlier, later in _links(seen, first, last):
        if not has_later[earlier] and not has_earlier[later]:
            has_later[earlier] = has_earlier[later] = True
            chain[later] = earlier  # for now: the track that it continues
    for i in np.argsort(seen.row[first], kind="stable").tolist():
        chain[i] = chain[chain[i]]  # a continued track starts earlier, so its own chain is known
    return np.unique(chain, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _links(seen: Sightings, first: Int64, last: Int64) -> list[tuple[float, int, int]]:
    """(cost, earlier, later) of every two tracks that could be one face, the cheapest first; first, last: sightings of each track."""
    centre, size, row, time_s = seen.centre, seen.size, seen.row, seen.times_s[seen.row]
    links: list[tuple[float, int, int]] = []
    for i, end in enumerate(last.tolist()):
        later = np.flatnonzero(row[first] > row[end])
        away_s = time_s[first[later]] - time_s[end]
        distance, ratio = apart(centre[end], size[end], centre[first[later]], size[first[later]])
        reach = np.minimum(JOIN_REACH + JOIN_REACH_PER_S * away_s, MAX_JOIN_REACH)
        near = (distance <= reach) & (ratio <= np.log(MAX_JOIN_SIZE_RATIO))
        cost = (away_s + distance + ratio)[near]
        best = np.argsort(cost, kind="stable")[:MAX_JOINS]
        links += [(c, i, j) for c, j in zip(cost[best].tolist(), later[near][best].tolist(), strict=True)]
    return sorted(links)


def choose(people: People, person: Person) -> Int64:
    """(F,) int64: the number of the chosen person's sighting in each row, -1 where there is none.

    main: whoever is most prominent over the whole video. Of two people shown in turn that is the one with more of it, and in the
    other's shots nobody; where both are shown at the same place and size, whoever is shown (see `find_people`).

    left, right: of the most prominent person and the most prominent one seen beside them (the second most prominent, where nobody
    is), whoever is further to that side of the picture in the rows that show both, with everyone else who appears on that side in
    their absence at a like size. Where only one person was found, they are `left` or `right` by their own place in the picture, and
    the other one is nowhere.
    """
    if not people.n_people:
        return np.full(len(people.seen.times_s), -1, dtype=np.int64)
    if person == "main":
        return people.sighting(0)
    other = _beside(people)
    if other is None:
        side: Person = "left" if people.x(0, people.rows(0)) < 0.5 else "right"
        return people.sighting(0) if person == side else np.full(len(people.seen.times_s), -1, dtype=np.int64)
    both = people.rows(0) & people.rows(other)
    x0, x1 = people.x(0, both), people.x(other, both)
    zero_is_wanted = (x0 <= x1) == (person == "left")
    return _with_fragments(people, *((0, other) if zero_is_wanted else (other, 0)))


def follow_track(seen: Sightings, track: Int64, wanted: int) -> Int64:
    """(F,) int64: the number of the sighting of track `wanted` in each row, -1 where there is none. Raises ExtractorError if there is
    no such track, naming those there are."""
    mine = np.flatnonzero(track == wanted)
    if not len(mine):
        raise ExtractorError(
            f"there is no track {wanted}",
            why=_tracks_in_words(seen, track),
            fix="give one of these, or leave `track` out, run, and see all with `affectpipe inspect` of the faces artifact",
        )
    number = np.full(len(seen.times_s), -1, dtype=np.int64)
    number[seen.row[mine]] = mine
    return number


def _tracks_in_words(seen: Sightings, track: Int64) -> str:
    if not len(track):
        return "no face was found"
    shown_s = np.bincount(track, weights=seen.shown_s[seen.row])
    longest = np.argsort(-shown_s, kind="stable")[:NAMED_TRACKS]
    spans = []
    for one in longest.tolist():
        at_s = seen.times_s[seen.row[track == one]]
        spans.append(f"{one} ({at_s[0]:.1f} to {at_s[-1]:.1f} s)")
    rest = f" and {len(shown_s) - len(longest)} shorter ones" if len(shown_s) > len(longest) else ""
    return f"its tracks are, the longest first, {', '.join(spans)}{rest}"


def _beside(people: People) -> int | None:
    if people.n_people == 1:
        return None
    rows = people.rows(0)
    return next((p for p in range(1, min(people.n_people, MAX_PEOPLE)) if (people.rows(p) & rows).any()), 1)


def _with_fragments(people: People, wanted: int, other: int) -> Int64:
    """The wanted person's sightings, and in their absence those of people who are on their side at a like size."""
    number, taken = people.sighting(wanted), people.rows(wanted)
    x_wanted, x_other = people.x(wanted, taken), people.x(other, people.rows(other))
    size = people.size(wanted)
    for p in range(min(people.n_people, MAX_PEOPLE)):
        rows = people.rows(p)
        if p in (wanted, other) or (rows & taken).any():
            continue
        x = people.x(p, rows)
        if abs(x - x_wanted) < abs(x - x_other) and abs(np.log(people.size(p) / size)) <= np.log(MAX_JOIN_SIZE_RATIO):
            fragment = people.sighting(p)
            number = np.where(fragment >= 0, fragment, number)
            taken |= rows
    return number
