"""Faces over time without searching every picture: whole pictures now and then, and in between only where a face is expected.

Some frames are *keys* and are searched whole. The stretch between two keys is divided, and divided again: in the frames that divide it
faces are looked for where those of its ends lead: all three networks see that place at the scales of a search, and find what a search
would. Frames between two that are hardly apart are only shown to O-Net, at the place between, unless there is a crowd. So each face is
measured in its own frame, and nothing drifts: its neighbours only say where to look. A face that comes or goes between two keys is
followed from the key that has it to the first or last frame that shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from extractors.contract import Bool, Float32, Frames, Int64, UInt8
from extractors.face.candidates import overlaps
from extractors.face.cascade import Spotted, Spotter
from extractors.face.cuts import Cuts
from extractors.face.detector import Found, Seen, nothing
from extractors.face.tracking import apart, cheapest_first
from extractors.threads import ahead

# Faces at the two ends of a stretch are one face if they are this near, in their mean size, and this similar in size.
MAX_MOVE = 1.5
MAX_SIZE_RATIO = 1.6
# Over so short a time a face is near enough to the straight line between its places; longer stretches are halved first.
STRAIGHT_S = 1.1
# A stretch is divided into parts so long. Between frames so close in time a face hardly moves, and O-Net alone is asked. Its box is then
# averaged with the one between its neighbours': a box of MTCNN differs from its mean by some pixels, at random, and the average by less.
STEP_S = 0.16
CLOSE_S = 0.21
# A face that both ends are this sure of, and that is not found near where it should be, is searched for in the whole picture.
SURE = 0.9
FOUND_OVERLAP = 0.2
# Where O-Net alone is less certain than this of a face, all three networks look: what they say of it is what a search would say.
CERTAIN = 0.97
# Where this many are seen, faces come and go and hide each other all the time: whole pictures are searched so many times as often, and
# O-Net alone is never asked.
CROWD, CROWD_SEARCHES = 3, 4
# Frames wait in memory for the key that ends their stretch: so many bytes of them are worked on together (but the video's first
# stretch by itself, while the rest is decoded), and no stretch is longer than the second.
TOGETHER_BYTES = 32 << 20
MAX_STRETCH_BYTES = 48 << 20
SAME_S = 1e-6

Stretch = tuple[int, int]


@dataclass(slots=True)
class _Frame:
    """A frame that waits. spotted: its faces, None before anyone looked."""

    image: UInt8
    time_s: float
    number: int
    shot: int
    is_key: bool = True
    spotted: Spotted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    """Where faces should be in a frame.

    squares: (R, 4), those first that both neighbours have, and for these boxes: (B, 4) between their boxes there. sure: (R,) whether a
    face must be there, unless it is hidden.
    """

    squares: Float32
    boxes: Float32
    sure: Bool


@dataclass(slots=True)
class _Todo:
    """One round's work: frames to search whole, to look at around places, and to ask O-Net about; and the stretches left after it."""

    search: list[int] = field(default_factory=list)
    look: dict[int, _Expected] = field(default_factory=dict)
    check: dict[int, _Expected] = field(default_factory=dict)
    left: list[Stretch] = field(default_factory=list)


class Propagation:
    """redetect_s: whole pictures are searched at least this often; search_s: this often while there is no face, 0 for all of them."""

    def __init__(self, cascade: Spotter, *, redetect_s: float, search_s: float) -> None:
        self.cascade, self.redetect_s, self.search_s = cascade, redetect_s, search_s

    def find(self, batches: Iterable[Frames]) -> Iterator[Seen]:
        """The faces of some frames are found while the next ones come in."""
        for done in ahead(lambda group: self._settled(*group), self._groups(batches)):
            yield from done

    def _groups(self, batches: Iterable[Frames]) -> Iterator[tuple[list[_Frame], bool]]:
        """Frames of some stretches that are worked on together, and whether they are the last; but for these the last one is a key,
        with which the next group begins.

        The video's first frame comes by itself, then its first stretch, so that there is something to do while the rest is decoded.
        """
        waiting: list[_Frame] = []
        enough_bytes = 0
        cuts = Cuts()
        for frames in batches:
            for i, image in enumerate(frames.images):
                is_first = not waiting
                self._wait(waiting, _Frame(image, float(frames.times_s[i]), int(frames.index[i]), cuts.shot(image)))
                if is_first or (waiting[-1].is_key and sum(frame.image.nbytes for frame in waiting) >= enough_bytes):
                    enough_bytes = 0 if is_first else TOGETHER_BYTES
                    yield waiting, False
                    waiting = waiting[-1:]
        if waiting:
            yield waiting, True

    def _wait(self, waiting: list[_Frame], frame: _Frame) -> None:
        """Decides by times and pictures alone whether the frame is a key, so that batches decide nothing."""
        if waiting:
            since = next(i for i in reversed(range(len(waiting))) if waiting[i].is_key)
            cut = waiting[-1].shot != frame.shot
            waiting[-1].is_key |= cut
            too_long = (len(waiting) - since) * frame.image.nbytes > MAX_STRETCH_BYTES
            frame.is_key = cut or too_long or frame.time_s - waiting[since].time_s >= self.redetect_s - SAME_S
        waiting.append(frame)

    def _settled(self, frames: Sequence[_Frame], is_last: bool) -> list[Seen]:
        """Find the faces of a group's frames. Gives those that no other group needs."""
        ends = [i for i, frame in enumerate(frames) if frame.is_key]
        self._search(frames, [i for i in ends if frames[i].spotted is None])
        if not frames[-1].is_key:
            self._follow(frames, ends[-1], len(frames) - 1)
            ends.append(len(frames) - 1)
        stretches = [(a, b) for a, b in pairwise(ends) if b - a > 1]
        while stretches:
            stretches = self._divide(frames, stretches)
        return [_seen(frame) for frame in (frames if is_last else frames[:-1])]

    def _follow(self, frames: Sequence[_Frame], a: int, b: int) -> None:
        """Find the faces of the video's last frame, b, which is no key: those of key a, if it has few and they are near where they were."""
        spotted = frames[a].spotted
        assert spotted is not None
        if not 0 < len(spotted.squares) < CROWD or frames[b].time_s - frames[a].time_s > self.redetect_s / 2:
            self._search(frames, [b])
            return
        expected = _Expected(squares=spotted.squares, boxes=spotted.found.boxes[:0], sure=spotted.found.prob > SURE)
        self._look(frames, {b: expected})
        if _is_lost(frames[b], expected):
            self._search(frames, [b])

    def _divide(self, frames: Sequence[_Frame], stretches: Sequence[Stretch]) -> list[Stretch]:
        """Find the faces of one frame within each stretch, or of several where it is short or shows nobody. Gives what is left of them."""
        todo = _Todo()
        for stretch in stretches:
            self._assign(frames, *stretch, todo)
        todo.look |= self._check(frames, todo.check)
        self._look(frames, todo.look)
        self._search(frames, todo.search + [i for i, expected in todo.look.items() if _is_lost(frames[i], expected)])
        return [(a, b) for a, b in todo.left if b - a > 1]

    def _assign(self, frames: Sequence[_Frame], a: int, b: int, todo: _Todo) -> None:
        """What is to be done between frames a and b next."""
        between = _Between.of(frames[a], frames[b])
        apart_s, n_faces = frames[b].time_s - frames[a].time_s, max(len(between.a.squares), len(between.b.squares))
        inner = [(a + b) // 2]
        if not n_faces:
            inner = _evenly(frames, a, b, self.search_s)
            todo.search += inner
        elif (n_faces >= CROWD and apart_s > self.redetect_s / CROWD_SEARCHES + SAME_S) or between.may_have_run:
            todo.search += inner
        elif apart_s <= CLOSE_S and len(between.pairs) == n_faces < CROWD:
            all_inner = range(a + 1, b)
            todo.check |= zip(all_inner, between.expected([frames[i].time_s for i in all_inner]), strict=True)
            return
        else:
            if apart_s <= STRAIGHT_S:
                inner = _evenly(frames, a, b, STEP_S) or inner
            todo.look |= zip(inner, between.expected([frames[i].time_s for i in inner]), strict=True)
        todo.left += pairwise([a, *inner, b]) if inner else []

    def _check(self, frames: Sequence[_Frame], expected: dict[int, _Expected]) -> dict[int, _Expected]:
        """Ask O-Net alone. Gives the frames in which it is not sure of every face."""

        def check(some: Sequence[int]) -> list[Spotted]:
            return self.cascade.check([frames[i].image for i in some], [expected[i].squares for i in some])

        _spot(frames, list(expected), check)
        doubtful = {}
        for i, wanted in expected.items():
            spotted = frames[i].spotted
            assert spotted is not None
            if (spotted.found.prob > CERTAIN).all():
                frames[i].spotted = _averaged(spotted, wanted.boxes)
            else:
                doubtful[i] = wanted
        return doubtful

    def _look(self, frames: Sequence[_Frame], expected: dict[int, _Expected]) -> None:
        def look(some: Sequence[int]) -> list[Spotted]:
            return self.cascade.look([frames[i].image for i in some], [expected[i].squares for i in some])

        _spot(frames, list(expected), look)

    def _search(self, frames: Sequence[_Frame], which: Sequence[int]) -> None:
        _spot(frames, which, lambda some: self.cascade.search([frames[i].image for i in some]))


def _evenly(frames: Sequence[_Frame], a: int, b: int, step_s: float) -> list[int]:
    """Frames between a and b, at most step_s apart where the frames are: none where the two are no further apart, all for a step of 0."""
    if not step_s:
        return list(range(a + 1, b))
    start_s, stop_s = frames[a].time_s, frames[b].time_s
    n = int(np.ceil((stop_s - start_s) / step_s - SAME_S))
    times_s = np.array([frame.time_s for frame in frames[a:b]])
    wanted_s = start_s + (stop_s - start_s) * np.arange(1, n) / max(n, 1)
    return [a + i for i in np.unique(np.searchsorted(times_s, wanted_s, side="right") - 1).tolist() if i > 0]


def _spot(frames: Sequence[_Frame], which: Sequence[int], how: Callable[[Sequence[int]], list[Spotted]]) -> None:
    """Pictures of one size together."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i in which:
        sizes.setdefault(frames[i].image.shape, []).append(i)
    for same in sizes.values():
        for i, spotted in zip(same, how(same), strict=True):
            frames[i].spotted = spotted


def _seen(frame: _Frame) -> Seen:
    found = frame.spotted.found if frame.spotted else nothing()
    return Seen(image=frame.image, time_s=frame.time_s, frame=frame.number, found=found, shot=frame.shot)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Between:
    """What the two ends of a stretch tell of the frames between. pairs: (P, 2) the faces that both have, by their numbers there."""

    before: _Frame
    after: _Frame
    a: Spotted
    b: Spotted
    pairs: Int64

    @classmethod
    def of(cls, before: _Frame, after: _Frame) -> _Between:
        assert before.spotted is not None
        assert after.spotted is not None
        a, b = before.spotted, after.spotted
        pairs = np.array(_pairs(a.squares, b.squares), dtype=np.int64).reshape(-1, 2)
        return cls(before=before, after=after, a=a, b=b, pairs=pairs)

    def expected(self, times_s: Sequence[float]) -> list[_Expected]:
        """At each time: a face that both have is on the straight line between its places; any other is where it was or will be."""
        first, last = self.pairs.T
        alone = np.delete(self.a.squares, first, axis=0), np.delete(self.b.squares, last, axis=0)
        sure = np.zeros(len(first) + len(alone[0]) + len(alone[1]), dtype=np.bool_)
        sure[: len(first)] = (self.a.found.prob[first] > SURE) & (self.b.found.prob[last] > SURE)
        squares = self._on_the_way(self.a.squares[first], self.b.squares[last], times_s)
        boxes = self._on_the_way(self.a.found.boxes[first], self.b.found.boxes[last], times_s)
        return [
            _Expected(squares=np.concatenate([some, *alone]), boxes=between, sure=sure)
            for some, between in zip(squares, boxes, strict=True)
        ]

    def _on_the_way(self, x: Float32, y: Float32, times_s: Sequence[float]) -> Float32:
        """(P, 4) each -> (T, P, 4)."""
        passed_s = np.array(times_s) - self.before.time_s
        share = (passed_s / max(self.after.time_s - self.before.time_s, SAME_S)).astype(np.float32)[:, None, None]
        return np.asarray(x * (1 - share) + y * share, np.float32)

    @property
    def may_have_run(self) -> bool:
        """Whether each end has a face that the other has not: it may be the same one, too far away to be known for it."""
        return len(self.pairs) < min(len(self.a.squares), len(self.b.squares))


def _averaged(spotted: Spotted, boxes: Float32) -> Spotted:
    """With the mean of the boxes and the given ones; the largest face first."""
    found = spotted.found
    mean = (found.boxes + boxes) * np.float32(0.5)
    order = np.argsort(-np.prod(mean[:, 2:] - mean[:, :2], axis=1), kind="stable")
    return Spotted(found=Found(boxes=mean[order], prob=found.prob[order], landmarks=found.landmarks[order]), squares=spotted.squares[order])


def _pairs(a: Float32, b: Float32) -> list[tuple[int, int]]:
    """Squares (A, 4) and (B, 4) that are one face, the most alike first."""
    if not len(a) or not len(b):
        return []
    centre_a, centre_b = ((squares[:, :2] + squares[:, 2:]).astype(np.float64) / 2 for squares in (a, b))
    size_a, size_b = ((squares[:, 2] - squares[:, 0]).astype(np.float64) for squares in (a, b))
    distance, ratio = apart(centre_a[:, None], size_a[:, None], centre_b[None], size_b[None])
    return cheapest_first(np.where((distance <= MAX_MOVE) & (ratio <= np.log(MAX_SIZE_RATIO)), distance + ratio, np.inf))


def _is_lost(frame: _Frame, expected: _Expected) -> bool:
    """Whether a face that must be there is not."""
    import torch

    assert frame.spotted is not None
    wanted, found = expected.squares[expected.sure], frame.spotted.squares
    overlap = overlaps(torch.from_numpy(wanted), torch.from_numpy(found)).numpy()
    return bool((overlap.max(axis=1, initial=0) < FOUND_OVERLAP).any())
