"""Tracks and persons from synthetic sightings of known truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from extractors.contract import ExtractorError, Int64, Person
from extractors.face.persons import choose, find_people, follow_track, prominence
from extractors.face.tracking import Sightings, associate

RATE_HZ = 25
WIDTH, HEIGHT = 640, 360
PERSONS: tuple[Person, ...] = ("main", "left", "right")
# Where a face is at a time: centre x, centre y, side of the box in pixels, probability; None where there is none.
Face = Callable[[float], tuple[float, float, float, float] | None]


def still(x: float, y: float = 180, side: float = 80, *, start_s: float = 0, stop_s: float = 1e9, prob: float = 0.99) -> Face:
    return lambda t: (x, y, side, prob) if start_s <= t < stop_s else None


def moving(x: float, speed: float, y: float = 180, side: float = 80, *, hidden: tuple[float, float] = (0, 0)) -> Face:
    return lambda t: None if hidden[0] <= t < hidden[1] else (x + speed * t, y, side, 0.99)


def scene(
    *faces: Face, seconds: float = 4, rate_hz: float = RATE_HZ, jitter_px: float = 1.0, cuts_s: Sequence[float] = (), seed: int = 0
) -> tuple[Sightings, Int64]:
    """The sightings of these faces, largest first within a row as a detector gives them, and the number of each one's face."""
    rng = np.random.default_rng(seed)
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    found = []
    for row, t in enumerate(times_s):
        here = [(*face, truth) for truth, face in enumerate(f(t) for f in faces) if face is not None]
        for x, y, side, prob, truth in sorted(here, key=lambda face: -face[2]):
            dx, dy = rng.uniform(-jitter_px, jitter_px, 2)
            found.append((row, x + dx - side / 2, y + dy - side / 2, x + dx + side / 2, y + dy + side / 2, prob, truth))
    table = np.array(found, dtype=np.float64).reshape(-1, 7)
    seen = Sightings(
        row=table[:, 0].astype(np.int64),
        boxes=table[:, 1:5].astype(np.float32),
        prob=table[:, 5].astype(np.float32),
        times_s=times_s,
        picture_px=np.tile(np.array([WIDTH, HEIGHT]), (len(times_s), 1)),
        shot=np.searchsorted(np.array(cuts_s), times_s, side="right").astype(np.int64),
    )
    return seen, table[:, 6].astype(np.int64)


def followed(seen: Sightings, truth: Int64, person: Person, *, min_track_s: float = 0.2) -> list[int]:
    """Which face is chosen in each row, -1 for none."""
    number = choose(find_people(seen, associate(seen), min_track_s=min_track_s), person)
    return [int(truth[n]) if n >= 0 else -1 for n in number]


def same_partition(a: Int64, b: Int64) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_two_people_keep_their_tracks() -> None:
    seen, truth = scene(still(200), still(440))
    assert same_partition(associate(seen), truth)


@pytest.mark.parametrize("apart_px", [0, 25])
def test_people_who_cross_keep_their_tracks(apart_px: float) -> None:
    seen, truth = scene(moving(120, 100, y=170), moving(520, -100, y=170 + apart_px))
    assert same_partition(associate(seen), truth)


def test_crossing_with_one_hidden_behind_the_other() -> None:
    seen, truth = scene(moving(120, 100), moving(520, -100, hidden=(1.8, 2.2)))
    assert same_partition(associate(seen), truth)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speed", [60, 100, 200, 320])
def test_people_who_pass_each_other_keep_their_tracks(speed: float, seed: int) -> None:
    """From 0.03 to 0.16 face sizes per row, trembling by up to 0.02 sizes. On one height they are for a moment the same box: there
    the ids may change for a row or two, and must not stay so."""
    for apart_px in (15, 40):
        seen, truth = scene(moving(320 - 2 * speed, speed, y=170), moving(320 + 2 * speed, -speed, y=170 + apart_px), seed=seed)
        assert same_partition(associate(seen), truth)
    seen, truth = scene(moving(320 - 2 * speed, speed), moving(320 + 2 * speed, -speed), seed=seed)
    track = associate(seen)
    away = np.abs(seen.times_s[seen.row] - 2) > 0.1
    assert same_partition(track[away], truth[away])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speed", [60, 120, 250])
def test_one_is_hidden_for_a_moment_behind_another(speed: float, seed: int) -> None:
    """For 0.3 s, while someone passes in front: behind one who stands, and behind one who comes the other way."""
    passing, standing = moving(320 - 2 * speed, speed), still(320, 190)
    hidden = (1.85, 2.15)
    seen, truth = scene(passing, lambda t: None if hidden[0] <= t < hidden[1] else standing(t), seed=seed)
    assert same_partition(associate(seen), truth)
    seen, truth = scene(passing, moving(320 + 2 * speed, -speed, y=190, hidden=hidden), seed=seed)
    assert same_partition(associate(seen), truth)


def gone(face: Face, start_s: float, stop_s: float) -> Face:
    return lambda t: None if start_s <= t < stop_s else face(t)


def test_short_gap_keeps_the_track_and_a_long_one_opens_a_new_one() -> None:
    for stop_s, expected in ((1.4, {0}), (1.9, {0}), (2.1, {0, 1})):  # a gap counts from the last row with the face, at 0.96 s
        assert set(associate(scene(gone(still(300), 1, stop_s))[0])) == expected


@pytest.mark.parametrize(
    "back",
    [still(350, start_s=1.8), still(300, side=105, start_s=1.8), still(300, side=60, start_s=1.8)],
    ids=["elsewhere", "larger", "smaller"],
)
def test_a_gap_over_half_a_second_keeps_the_track_only_at_the_same_place_and_size(back: Face) -> None:
    seen, truth = scene(still(300, stop_s=1), back)
    assert same_partition(associate(seen), truth)


def test_a_gap_over_half_a_second_opens_a_new_track_where_someone_else_is_near() -> None:
    for x in (300 + 120, 300 - 140):
        seen, _ = scene(gone(still(300), 1, 1.8), still(x))
        assert len(set(associate(seen))) == 3
    seen, truth = scene(gone(still(300), 1, 1.8), still(300 + 240))  # three sizes away is not near
    assert same_partition(associate(seen), truth)


def test_tracks_end_at_a_cut() -> None:
    """The same two places before and after it: nothing tells that the faces are the same, and ids do not leak across."""
    seen, truth = scene(still(200), still(440), cuts_s=[2.0])
    after = seen.shot[seen.row]
    assert same_partition(associate(seen), truth * 2 + after)
    assert set(associate(seen)) == {0, 1, 2, 3}
    seen, _ = scene(still(200), cuts_s=[1.0, 1.1, 3.0])  # a flash of light is two cuts
    assert set(associate(seen)) == {0, 1, 2, 3}


def test_main_comes_back_after_a_cutaway() -> None:
    """Two seconds of somebody else, at another place: people are joined across cuts, by place and size."""
    seen, truth = scene(gone(still(320, side=100), 1.5, 3.5), still(150, side=60, start_s=1.5, stop_s=3.5), seconds=6, cuts_s=[1.5, 3.5])
    assert followed(seen, truth, "main") == [0 if row < 38 or row >= 88 else -1 for row in range(150)]


def test_main_of_an_interview_cut_to_and_fro() -> None:
    """The interviewer on the left third and the guest, who has more of the time, on the right: main is the guest alone."""
    shots = [still(160 if i % 2 == 0 else 480, start_s=1.5 * i, stop_s=1.5 * i + (1 if i % 2 == 0 else 1.5)) for i in range(6)]
    seen, truth = scene(*shots, seconds=9, cuts_s=[1.5 * i for i in range(1, 6)])
    assert {shot % 2 for shot in followed(seen, truth, "main") if shot >= 0} == {1}
    # Both in the middle and of one size: by place alone they are one, and main is whoever is shown.
    shots = [still(320 + i % 2, start_s=i, stop_s=i + 1) for i in range(4)]
    seen, truth = scene(*shots, cuts_s=[1, 2, 3])
    assert followed(seen, truth, "main") == [0] * 25 + [1] * 25 + [2] * 25 + [3] * 25


def test_nobody_is_beside_someone_across_a_cut() -> None:
    """A flash of another picture, shorter than a gap: its face and the one around it were never seen together."""
    flash = scene(gone(still(320, side=100), 2, 2.2), still(150, start_s=2, stop_s=2.2), cuts_s=[2, 2.2])[0]
    people = find_people(flash, associate(flash), min_track_s=0.1)
    assert people.n_people == 2
    assert not (people.rows(0) & people.rows(1)).any()
    without = dataclasses.replace(flash, shot=np.zeros_like(flash.shot))
    together = find_people(without, associate(without), min_track_s=0.1)
    assert (together.rows(0) & together.rows(1)).any()


def test_a_track_may_be_asked_for() -> None:
    seen, truth = scene(still(440, side=100), still(200, start_s=1, stop_s=3))
    track = associate(seen)
    number = follow_track(seen, track, 1)
    assert [int(truth[n]) if n >= 0 else -1 for n in number] == [-1] * 25 + [1] * 50 + [-1] * 25
    message = r"there is no track 2: its tracks are, the longest first, 0 \(0\.0 to 4\.0 s\), 1 \(1\.0 to 3\.0 s\); .*`affectpipe inspect`"
    with pytest.raises(ExtractorError, match=message):
        follow_track(seen, track, 2)
    nobody, _ = scene(seconds=1)
    with pytest.raises(ExtractorError, match="there is no track 0: no face was found; "):
        follow_track(nobody, associate(nobody), 0)


def test_only_the_longest_tracks_are_named() -> None:
    seen, _ = scene(*(still(50 + 45 * i, 50 + 250 * (i % 2), side=30, stop_s=1 + i / 5) for i in range(13)))
    with pytest.raises(ExtractorError, match=r"first, 12 \(0\.0 to 3\.4 s\), .*, 3 \(0\.0 to 1\.6 s\) and 3 shorter ones; ") as error:
        follow_track(seen, associate(seen), 99)
    assert error.value.why.count(" s)") == 10


def test_a_jump_opens_a_new_track() -> None:
    seen, truth = scene(still(200, stop_s=2), still(420, start_s=2))
    assert same_partition(associate(seen), truth)
    seen, truth = scene(still(200, side=60, stop_s=2), still(200, side=140, start_s=2))  # a cut to a close-up
    assert same_partition(associate(seen), truth)


def test_rare_rows_still_make_tracks() -> None:
    seen, truth = scene(still(200), still(440), seconds=20, rate_hz=1)
    assert same_partition(associate(seen), truth)


def test_resolution_may_change_on_the_way() -> None:
    seen, truth = scene(still(200), still(440))
    half = seen.row >= 50
    picture_px = seen.picture_px.copy()
    picture_px[50:] *= 2
    boxes = np.where(half[:, None], seen.boxes * 2, seen.boxes)
    doubled = dataclasses.replace(seen, boxes=boxes, picture_px=picture_px)
    assert same_partition(associate(doubled), truth)
    np.testing.assert_allclose(prominence(doubled), prominence(seen), rtol=1e-6)


def test_main_is_the_large_central_lasting_face() -> None:
    seen, truth = scene(still(320, side=100), still(120, side=90), still(560, side=150, stop_s=0.6))
    assert followed(seen, truth, "main") == [0] * 100


def test_main_is_followed_through_fragments() -> None:
    face = still(320)
    seen, truth = scene(lambda t: None if int(t) % 2 else face(t), still(100, side=70), seconds=7)
    assert len(set(associate(seen)[truth == 0])) == 4
    assert followed(seen, truth, "main") == [0 if int(row / RATE_HZ) % 2 == 0 else -1 for row in range(175)]


def test_main_does_not_go_over_to_someone_far_away() -> None:
    seen, truth = scene(still(150, stop_s=2), still(500, side=70, start_s=2.5))
    assert followed(seen, truth, "main") == [0] * 50 + [-1] * 50


def test_short_false_finds_are_nobody() -> None:
    seen, truth = scene(still(500, 100, side=60, start_s=1, stop_s=1.12), still(100, 300, side=60, start_s=3, stop_s=3.05))
    assert followed(seen, truth, "main") == [-1] * 100
    assert followed(seen, truth, "left") == [-1] * 100
    assert set(followed(seen, truth, "main", min_track_s=0)) == {0, -1}


def test_a_single_picture_has_no_duration() -> None:
    seen, truth = scene(still(320), seconds=1 / RATE_HZ)
    assert followed(seen, truth, "main", min_track_s=5) == [0]


def test_left_and_right_of_two() -> None:
    seen, truth = scene(still(440, side=100), still(200), still(40, 60, side=30))
    assert followed(seen, truth, "left") == [1] * 100
    assert followed(seen, truth, "right") == [0] * 100


def test_sides_of_people_who_move_together() -> None:
    """The camera pans: the right one, who leaves before, ends further left than where the left one stays."""
    seen, truth = scene(moving(400, -80), lambda t: (560 - 80 * t, 180, 90, 0.99) if t < 2 else None)
    assert followed(seen, truth, "left") == [0] * 100
    assert followed(seen, truth, "right") == [1] * 50 + [-1] * 50


def test_side_is_followed_through_fragments_that_jump() -> None:
    """Both are lost at times; the left one comes back too far off to be joined by place alone."""
    left = [still(230, stop_s=1.5), still(70, 60, start_s=2.5)]
    right = [still(460, stop_s=2), still(470, start_s=3)]
    seen, truth = scene(*left, *right)
    side = np.array([0, 0, 1, 1, -1])
    assert side[followed(seen, truth, "left")].tolist() == [0] * 38 + [-1] * 25 + [0] * 37
    assert side[followed(seen, truth, "right")].tolist() == [1] * 50 + [-1] * 25 + [1] * 25


def test_sides_of_people_who_are_never_seen_together() -> None:
    """A dialogue cut shot by shot."""
    shots = [still(180 if i % 2 == 0 else 470, start_s=i, stop_s=i + 1) for i in range(4)]
    seen, truth = scene(*shots)
    assert followed(seen, truth, "left") == [0] * 25 + [-1] * 25 + [2] * 25 + [-1] * 25
    assert followed(seen, truth, "right") == [-1] * 25 + [1] * 25 + [-1] * 25 + [3] * 25


def test_one_person_is_left_or_right_by_place() -> None:
    seen, truth = scene(still(200))
    assert followed(seen, truth, "left") == [0] * 100
    assert followed(seen, truth, "right") == [-1] * 100


def test_a_large_crowd_is_fast_and_repeatable() -> None:
    rng = np.random.default_rng(3)
    x, y, start_s = rng.uniform(0, WIDTH, 600), rng.uniform(0, HEIGHT, 600), rng.uniform(0, 60, 600)
    faces = [still(x[i], y[i], 30, start_s=start_s[i], stop_s=start_s[i] + 1.5) for i in range(600)]
    seen, _ = scene(*faces, seconds=60)
    first, again = (find_people(seen, associate(seen), min_track_s=0.2) for _ in range(2))
    assert first.n_people > 10
    for person in PERSONS:
        np.testing.assert_array_equal(choose(first, person), choose(again, person))


def test_no_sightings() -> None:
    seen, truth = scene(seconds=1)
    for person in PERSONS:
        assert followed(seen, truth, person) == [-1] * 25


def test_broken_records_are_refused() -> None:
    seen, _ = scene(still(200))
    with pytest.raises(ValueError, match=r"Sightings\.shot: expected non-decreasing numbers"):
        dataclasses.replace(seen, shot=-np.arange(100))
    with pytest.raises(ValueError, match="expected 100 faces and 100 rows"):
        dataclasses.replace(seen, prob=seen.prob[1:])
    with pytest.raises(ValueError, match="ascending rows below 100"):
        dataclasses.replace(seen, row=seen.row[::-1])
    with pytest.raises(ValueError, match="a step back"):
        dataclasses.replace(seen, times_s=seen.times_s[::-1])
