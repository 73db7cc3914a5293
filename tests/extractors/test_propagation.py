"""Following faces between whole searches, against a cascade of known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from extractors.contract import Float32, Float64, Frames, UInt8
from extractors.face import propagation
from extractors.face.cascade import Spotted
from extractors.face.detector import Found, Seen
from extractors.face.propagation import Propagation

Face = tuple[float, float, float]  # the middle, x and y, and the side
Truth = Callable[[int], Sequence[Face]]  # the faces in the frame of this number
STILL: Face = (200.0, 150.0, 80.0)


def squares_of(faces: Sequence[Face]) -> Float32:
    at = np.array(faces, np.float32).reshape(-1, 3)
    return np.concatenate([at[:, :2] - at[:, 2:] / 2, at[:, :2] + at[:, 2:] / 2], axis=1)


def overlap(a: Float32, b: Float32) -> Float32:
    """(A, 4), (B, 4) -> (A, B) intersection over union."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(sides, 0, None).prod(axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    return np.asarray(shared / (area_a[:, None] + area_b[None] - shared), np.float32)


class Known:
    """A cascade that knows where faces are, by the frame's number, which its pictures tell; it notes which frames it was asked about."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.searched: list[int] = []
        self.looked: list[int] = []
        self.checked: list[int] = []

    def search(self, images: Sequence[UInt8]) -> list[Spotted]:
        self.searched += map(number_of, images)
        return [self._spotted(squares_of(self.truth(number_of(image)))) for image in images]

    def look(self, images: Sequence[UInt8], expected: Sequence[Float32]) -> list[Spotted]:
        """Whoever overlaps an expected square by more than a tenth."""
        self.looked += map(number_of, images)
        found = []
        for image, squares in zip(images, expected, strict=True):
            there = squares_of(self.truth(number_of(image)))
            found.append(self._spotted(there[(overlap(there, squares) > 0.1).any(axis=1)]))
        return found

    def check(self, images: Sequence[UInt8], squares: Sequence[Float32]) -> list[Spotted]:
        """The face that a square overlaps by more than four tenths; the square itself, improbable, where there is none."""
        self.checked += map(number_of, images)
        found = []
        for image, given in zip(images, squares, strict=True):
            there = squares_of(self.truth(number_of(image)))
            alike = np.concatenate([overlap(given, there), np.full((len(given), 1), 0.4)], axis=1)
            best, has = alike.argmax(axis=1), alike.max(axis=1) > 0.4
            boxes = np.where(has[:, None], np.concatenate([there, np.zeros((1, 4), np.float32)])[best], given)
            found.append(self._spotted(boxes, given, np.where(has, 0.99, 0.1).astype(np.float32)))
        return found

    @staticmethod
    def _spotted(boxes: Float32, squares: Float32 | None = None, prob: Float32 | None = None) -> Spotted:
        if squares is None:
            boxes = boxes[np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")]
        prob = np.full(len(boxes), 0.99, np.float32) if prob is None else prob
        landmarks = np.repeat((boxes[:, None, :2] + boxes[:, None, 2:]) / np.float32(2), 5, axis=1)
        return Spotted(found=Found(boxes=boxes, prob=prob, landmarks=landmarks), squares=boxes if squares is None else squares)


def number_of(image: UInt8) -> int:
    return int(image[0, 0, 0]) + 256 * int(image[0, 0, 1])


def picture(number: int, *, grey: int = 128, height: int = 64, width: int = 64) -> UInt8:
    image = np.full((height, width, 3), grey, np.uint8)
    image[0, 0] = number % 256, number // 256, 0
    return image


def batched(images: Sequence[UInt8], times_s: Float64, size: int) -> Iterator[Frames]:
    """Batches of at most that size, and of pictures of one size."""
    start = 0
    while start < len(images):
        alike = [image.shape == images[start].shape for image in images[start : start + size]]
        stop = start + (alike.index(False) if False in alike else len(alike))
        numbers = np.array([number_of(image) for image in images[start:stop]])
        yield Frames(images=np.stack(images[start:stop]), times_s=np.asarray(times_s[start:stop], np.float64), index=numbers)
        start = stop


def follow(
    truth: Truth, images: Sequence[UInt8], times_s: Float64, *, batch: int = 8, redetect_s: float = 1.0, search_s: float = 0.25
) -> tuple[list[Seen], Known]:
    known: Any = Known(truth)
    seen = list(Propagation(known, redetect_s=redetect_s, search_s=search_s).find(batched(images, times_s, batch)))
    assert [one.frame for one in seen] == [number_of(image) for image in images]
    assert [one.time_s for one in seen] == list(times_s)
    assert all(np.array_equal(one.image, image) for one, image in zip(seen, images, strict=True))
    return seen, known


def clip(n: int, rate_hz: float = 25.0) -> tuple[list[UInt8], Float64]:
    return [picture(i) for i in range(n)], np.arange(n) / rate_hz


def assert_true(seen: Sequence[Seen], truth: Truth, px: float = 1e-3) -> None:
    """Every face of every frame, nothing else, the largest first."""
    for one in seen:
        expected = squares_of(sorted(truth(one.frame), key=lambda face: -face[2]))
        np.testing.assert_allclose(one.found.boxes, expected, rtol=0, atol=px, err_msg=f"frame {one.frame}")


@pytest.mark.parametrize("n_frames", [113, 120])
@pytest.mark.parametrize("redetect_s", [0.4, 1.0, 2.0])
def test_whole_pictures_are_searched_every_redetect_s(redetect_s: float, n_frames: int) -> None:
    """And the last one where that was long ago; every other frame is looked at, or checked, once. Even motion is followed exactly."""

    def moving(i: int) -> list[Face]:
        return [(100 + 2.0 * i, 150 - 0.5 * i, 80 + 0.25 * i)]

    seen, known = follow(moving, *clip(n_frames), redetect_s=redetect_s)
    assert_true(seen, moving)
    keys = list(range(0, n_frames, round(redetect_s * 25)))
    assert sorted(known.searched) == keys + [n_frames - 1] * ((n_frames - 1 - keys[-1]) / 25 > redetect_s / 2)
    assert sorted(known.searched + known.looked + known.checked) == list(range(n_frames))
    assert len(known.looked) < len(known.checked)


@pytest.mark.parametrize("search_s", [0.1, 0.25, 0.5, 1.0, 3.0])
def test_while_nobody_is_there_it_searches_every_search_s(search_s: float) -> None:
    """Never rarer, no more rarely than redetect_s, and at most twice as often."""
    seen, known = follow(lambda i: [], *clip(251), search_s=search_s)
    assert not any(len(one.found.prob) for one in seen)
    assert len(known.searched) == len(set(known.searched))
    assert not known.looked + known.checked
    gaps = np.diff(sorted(known.searched)) / 25
    assert gaps.max() <= min(search_s, 1.0) + 1e-9
    assert gaps.mean() >= min(search_s, 1.0) / 2
    assert {0, 25, 50, 250} <= set(known.searched)
    assert sorted(follow(lambda i: [], *clip(60), search_s=0)[1].searched) == list(range(60))


def test_the_first_and_the_last_frame_of_a_face_are_found_exactly() -> None:
    """At whatever frame of a stretch it comes, stays (not less than search_s) and goes: it is in all of its frames and in no other."""
    for first in range(46):
        for last in {first + 6, first + 9, max(first + 6, 40), 51}:

            def truth(i: int, first: int = first, last: int = last) -> list[Face]:
                return [STILL] if first <= i <= last else []

            assert_true(follow(truth, *clip(60))[0], truth)


@pytest.mark.parametrize("moves", [0.0, 3.0])
def test_who_comes_and_who_goes_beside_one_who_stays(moves: float) -> None:
    for first in range(1, 51, 3):

        def truth(i: int, first: int = first) -> list[Face]:
            stays, comes, goes = (120.0, 100.0, 60.0), (300 + moves * (i - first), 100.0, 70.0), (220.0, 250 - moves * (i - first), 50.0)
            return [stays, *([comes] if i >= first else [goes])]

        assert_true(follow(truth, *clip(60))[0], truth)


def test_short_absence_is_told() -> None:
    """A face that is hidden for some frames within a stretch: looked for, searched for, and not made up."""
    for first in (3, 10, 12, 13, 20):

        def truth(i: int, first: int = first) -> list[Face]:
            return [] if first <= i < first + 5 else [STILL]

        assert_true(follow(truth, *clip(51))[0], truth)


def test_a_face_that_is_not_where_it_should_be_is_searched_for() -> None:
    """Between two keys it jumps far away and back: the looks in between miss it, so those pictures are searched whole."""

    def truth(i: int) -> list[Face]:
        return [(500.0, 400.0, 80.0)] if 8 <= i <= 17 else [STILL]

    seen, known = follow(truth, *clip(26))
    assert_true(seen, truth)
    assert {10, 14, 17} <= set(known.looked) & set(known.searched)


def test_uneven_motion_is_measured_not_guessed() -> None:
    """A nod, a shake: a box is the mean of O-Net's and of the one between its neighbours, which are up to a quarter of a second away.

    Between these the face leaves the straight line by 1.7 px / frame^2 x (6.5 frames)^2 / 8 = 9 px at most, and the mean by half of that.
    """

    def truth(i: int) -> list[Face]:
        return [(200 + 30 * np.sin(i / 5), 150 + 15 * np.sin(i / 3), 80 + 10 * np.sin(i / 7))]

    seen, known = follow(truth, *clip(101))
    away = np.concatenate([one.found.boxes - squares_of(truth(one.frame)) for one in seen])
    assert np.abs(away).max() < 4.5
    assert [one.frame for one in seen if len(one.found.prob) != 1] == []
    for one in seen:  # the landmarks are O-Net's own, in every frame
        np.testing.assert_allclose(one.found.landmarks[0, 0], truth(one.frame)[0][:2], rtol=0, atol=1e-3)
    assert {0, 25, 50, 75, 100} <= set(known.searched)
    assert len(known.searched) <= 10


def test_who_moves_fast_is_not_lost() -> None:
    """By two of its sizes a second and more, as who walks past a camera does: the first middle frame is far from both keys' places."""
    for speed in (2.0, 3.0, 4.0):

        def truth(i: int, speed: float = speed) -> list[Face]:
            return [(100 + speed * 80 / 25 * i, 200.0, 80.0)]

        assert_true(follow(truth, *clip(51))[0], truth, px=1.0)


def test_both_sides_of_a_cut_are_keys() -> None:
    """At any frame. Two faces that would pass for one, had there been no cut, and then none."""
    for cut in range(1, 50):

        def truth(i: int, cut: int = cut) -> list[Face]:
            return [STILL] if i < cut else [(260.0, 180.0, 100.0)]

        images = [picture(i, grey=40 if i < cut else 200) for i in range(51)]
        seen, known = follow(truth, images, np.arange(51) / 25)
        assert_true(seen, truth)
        assert {cut - 1, cut} <= set(known.searched)
        assert [one.shot for one in seen] == [int(i >= cut) for i in range(51)]
        assert len(known.searched) <= 6


def test_a_change_of_size_is_a_cut() -> None:
    images = [picture(i, height=64 if i < 30 else 32, width=64 if i < 30 else 48) for i in range(60)]
    seen, known = follow(lambda i: [STILL], images, np.arange(60) / 25, batch=7)
    assert_true(seen, lambda i: [STILL])
    assert {29, 30} <= set(known.searched)
    assert [one.shot for one in seen] == [int(i >= 30) for i in range(60)]


def test_faces_at_the_two_ends_of_a_stretch_keep_their_own_places() -> None:
    """Two who cross: each is followed by where it is and how large, so they neither merge nor are exchanged for one another."""

    def truth(i: int) -> list[Face]:
        return [(100 + 4.0 * i, 100.0, 60.0), (500 - 4.0 * i, 220.0, 90.0)]

    assert_true(follow(truth, *clip(101))[0], truth)


def test_a_crowd_is_searched_more_often() -> None:
    def truth(i: int) -> list[Face]:
        return [(100.0 + 120 * k, 150.0, 80.0 + k) for k in range(propagation.CROWD)]

    seen, known = follow(truth, *clip(101))
    assert_true(seen, truth)
    times_s = np.array(sorted(known.searched)) / 25
    assert np.diff(times_s).max() <= 1 / propagation.CROWD_SEARCHES + 1 / 25 + 1e-9
    assert len(known.searched) < 101 / 2


@pytest.mark.parametrize("bytes_together", [1, 20 * 64 * 64 * 3, 1 << 40])
def test_batches_and_work_done_together_change_nothing(monkeypatch: pytest.MonkeyPatch, bytes_together: int) -> None:
    """People who come, go, move and hide, and a cut: to the bit, whatever comes at once, and the same pictures are searched."""
    rng = np.random.default_rng(5)
    start = np.array([[100, 100], [300, 120], [200, 300], [420, 330]])
    walks = start[:, None] + np.cumsum(rng.normal(0, 3, (4, 300, 2)), axis=1)
    there = np.repeat(rng.random((4, 20)) < 0.6, 15, axis=1)

    def truth(i: int) -> list[Face]:
        return [(*walks[k, i], 60 + 10.0 * k) for k in range(4) if there[k, i]]

    images = [picture(i, grey=60 if i < 170 else 190) for i in range(300)]
    times_s = np.arange(300) / 25
    expected, wanted = follow(truth, images, times_s, batch=300)
    assert np.mean([len(one.found.prob) == len(truth(one.frame)) for one in expected]) > 0.9
    monkeypatch.setattr(propagation, "TOGETHER_BYTES", bytes_together)
    for batch in (1, 7, 32):
        seen, known = follow(truth, images, times_s, batch=batch)
        for one, other in zip(seen, expected, strict=True):
            assert (one.frame, one.shot) == (other.frame, other.shot)
            for name in ("boxes", "prob", "landmarks"):
                np.testing.assert_array_equal(getattr(one.found, name), getattr(other.found, name))
        for name in ("searched", "looked", "checked"):
            assert sorted(getattr(known, name)) == sorted(getattr(wanted, name))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_frames(n: int) -> None:
    seen, known = follow(lambda i: [STILL], *clip(n))
    assert_true(seen, lambda i: [STILL])
    assert known.searched == [0] * (n > 0)


def test_a_stretch_is_no_longer_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures wait for the next key, and those of one more stretch while it is worked on: so many bytes of each at most, plus its end."""
    one_picture = picture(0).nbytes
    monkeypatch.setattr(propagation, "MAX_STRETCH_BYTES", 10 * one_picture)
    monkeypatch.setattr(propagation, "TOGETHER_BYTES", 1)
    taken = 0

    def counted() -> Iterator[Frames]:
        nonlocal taken
        for frames in batched(*clip(100), 1):
            taken += 1
            yield frames

    known: Any = Known(lambda i: [STILL])
    waiting = [taken - one.frame for one in Propagation(known, redetect_s=60.0, search_s=0.25).find(counted())]
    assert max(waiting) <= 2 * 12
    assert np.diff(sorted(known.searched)).max() <= 11
    assert len(known.searched) >= 10
    monkeypatch.undo()
    assert follow(lambda i: [STILL], *clip(100), redetect_s=60.0)[1].searched == [0]


def test_rows_a_second_apart_are_all_searched() -> None:
    """At 1 Hz no frame is near enough to another to say where a face is."""
    for rate_hz in (1.0, 0.2):
        seen, known = follow(lambda i: [STILL] if i % 3 else [], *clip(12, rate_hz))
        assert sorted(known.searched) == list(range(12))
        assert_true(seen, lambda i: [STILL] if i % 3 else [])


def test_a_rate_of_120_hz() -> None:
    def truth(i: int) -> list[Face]:
        return [(100 + 0.5 * i, 150.0, 80.0)] if 77 <= i < 400 else []

    seen, known = follow(truth, *clip(481, 120))
    assert_true(seen, truth)
    assert len(known.searched) < 30


def test_a_variable_rate() -> None:
    """Bursts, pauses and two frames at one time: keys go by time, and so does the place between two frames."""
    times_s = np.concatenate([np.arange(20) / 25, [0.9, 0.9], 1.7 + np.arange(60) / 90, [5.0, 5.04], 9 + np.arange(30) / 25])
    images = [picture(i) for i in range(len(times_s))]

    def truth(i: int) -> list[Face]:
        return [(100 + 20 * times_s[i], 150 - 5 * times_s[i], 80.0)]

    seen, known = follow(truth, images, times_s)
    assert_true(seen, truth)
    keys = np.array(sorted(known.searched))
    before_next = np.maximum(keys[1:] - 1, keys[:-1])
    assert (times_s[before_next] - times_s[keys[:-1]] < 1).all(), "a second after a key is another"
