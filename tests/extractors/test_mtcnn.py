"""MTCNN: whose faces of a video are kept, and what of them; real clips, and a finder of known truth."""

from __future__ import annotations

import dataclasses
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import Detections, ExtractorError, Faces, Frames, Person, Runtime, UInt8
from extractors.face import jpeg
from extractors.face.alignment import TEMPLATE_112, similarity, warp
from extractors.face.detector import Found, Seen
from extractors.face.mtcnn import Mtcnn, MtcnnParams


def decoded(clip: Path, every: int = 1) -> Iterator[tuple[int, float, UInt8]]:
    """(source frame, seconds, RGB picture) of every n-th frame."""
    import av

    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number % every == 0:
                yield number, float(frame.time), np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def batches(clip: Path, every: int = 1) -> Iterator[Frames]:
    for number, time_s, image in decoded(clip, every):
        yield Frames(images=image[None], times_s=np.array([time_s]), index=np.array([number]))


class Astronauts:
    """A finder that finds as many faces as the first pixel's red says, on the diagonal, each as the template itself lies."""

    def find(self, batches: Iterable[Frames]) -> Iterator[Seen]:
        for frames in batches:
            for image, time_s, frame in zip(frames.images, frames.times_s, frames.index, strict=True):
                yield Seen(image=image, time_s=float(time_s), frame=int(frame), found=self.found(image), shot=int(image[0, 0, 1]))

    def found(self, image: UInt8) -> Found:
        k = int(image[0, 0, 0])
        corner = np.arange(k, dtype=np.float32)[:, None, None] * 120
        landmarks = TEMPLATE_112.astype(np.float32)[None] + corner
        box = np.concatenate([corner[:, 0], corner[:, 0], corner[:, 0] + 112, corner[:, 0] + 112], axis=1)
        return Found(boxes=box, prob=np.full(k, 0.99, np.float32), landmarks=landmarks)


def picture(n_faces: int, side_px: int = 240, shot: int = 0) -> UInt8:
    image = np.random.default_rng(n_faces).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    image[0, 0, :2] = n_faces, shot
    return image


def check_crop(faces: Faces, row: int, image: UInt8) -> None:
    """The crop is the frame, warped by its landmarks: up to what JPEG at quality 95 changes in a natural picture."""
    matrices, _ = similarity(faces.landmarks[row][None], faces.size_px)
    crop = jpeg.decode(faces.crops[row])
    assert crop is not None
    assert np.abs(crop.astype(int) - warp(image, matrices[0], faces.size_px)).mean() < 4


def test_face_only_in_the_second_half(media: Path) -> None:
    clip = media / "noface_then_face_vfr.mov"
    faces = Mtcnn(MtcnnParams(), Runtime()).follow(batches(clip, every=4), ["main"])["main"]
    assert faces.frame.tolist() == list(range(0, 169, 4))
    assert not faces.valid[faces.frame < 96].any()
    assert faces.valid[(faces.frame >= 96) & (faces.frame < 168)].all()
    assert len(set(faces.track[faces.valid].tolist())) == 1
    assert np.isnan(faces.boxes[~faces.valid]).all()
    assert (faces.track[~faces.valid] == -1).all()
    for row, (_, _, image) in enumerate(decoded(clip, every=4)):
        if faces.valid[row]:
            check_crop(faces, row, image)


@pytest.mark.parametrize("name", ["no_face.mp4", "cartoon_5_1_audio.mp4"])
def test_clips_without_a_human_face(media: Path, name: str) -> None:
    faces = Mtcnn(MtcnnParams(), Runtime()).follow(batches(media / name), ["main", "left", "right"])
    assert not any(one.valid.any() for one in faces.values())


def test_one_speaker_has_a_face_in_every_frame(media: Path) -> None:
    faces = Mtcnn(MtcnnParams(), Runtime()).follow(batches(media / "speech_512.mp4", every=5), ["main"])["main"]
    assert faces.valid.all()
    assert len(faces.valid) == 40


def test_batches_of_several_sizes_and_persons() -> None:
    """Two faces side by side, then only the first, in pictures of another size. Batching changes nothing."""
    two, one = picture(2), picture(1, side_px=360)
    single = [
        Frames(images=image[None], times_s=np.array([i / 25]), index=np.array([2 * i])) for i, image in enumerate([two] * 9 + [one] * 3)
    ]
    joined = [
        Frames(images=np.stack([two] * 9), times_s=np.arange(9) / 25, index=np.arange(0, 18, 2)),
        Frames(images=np.stack([one] * 3), times_s=np.arange(9, 12) / 25, index=np.arange(18, 24, 2)),
    ]
    mtcnn = Mtcnn(MtcnnParams(min_track_s=0), Runtime(), finder=Astronauts())
    a, b = mtcnn.follow(single, ["left", "right"]), mtcnn.follow(joined, ["left", "right"])
    assert a.keys() == b.keys() == {"left", "right"}
    for person in ("left", "right"):
        for name in ("valid", "boxes", "landmarks", "prob", "track"):
            np.testing.assert_array_equal(getattr(a[person], name), getattr(b[person], name))
        assert list(a[person].crops) == list(b[person].crops)
    assert a["right"].frame.tolist() == list(range(0, 24, 2))
    assert a["right"].valid.tolist() == [True] * 9 + [False] * 3
    assert list(a["right"].crops[9:]) == [b""] * 3
    assert a["left"].found.frame.tolist() == sorted([*range(0, 18, 2)] * 2 + [18, 20, 22])
    colour = jpeg.decode(a["left"].crops[0])
    assert colour is not None
    assert np.corrcoef(colour[..., 0].ravel(), two[:112, :112, 0].ravel())[0, 1] > 0.5  # red is red, and in place


def test_improbable_faces_and_degenerate_landmarks_are_not_kept() -> None:
    class Doubtful(Astronauts):
        def found(self, image: UInt8) -> Found:
            found = super().found(image)
            prob, landmarks, boxes = found.prob.copy(), found.landmarks.copy(), found.boxes.copy()
            prob[0], landmarks[1], boxes[2, 0] = 0.89, 7.0, np.nan
            return Found(boxes=boxes, prob=prob, landmarks=landmarks)

    for n_faces, expected in ((3, []), (4, [360.0])):
        mtcnn = Mtcnn(MtcnnParams(), Runtime(), finder=Doubtful())
        faces = mtcnn.follow([frames(picture(n_faces, 480))], ["main"])["main"]
        assert faces.valid.tolist() == [bool(expected)]
        assert faces.found.boxes[:, 0].tolist() == expected
        assert [len(crop) > 0 for crop in faces.crops] == [bool(expected)]


def frames(*images: UInt8) -> Frames:
    """At 25 Hz."""
    return Frames(images=np.stack(images), times_s=np.arange(len(images)) / 25, index=np.arange(len(images)))


def test_a_track_overrides_the_choice_of_person() -> None:
    """Two people; after a cut they are there again, under other ids."""
    clip = frames(*[picture(2)] * 6, *[picture(2, shot=1)] * 4)
    plain = Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts()).follow([clip], ["main", "right"])
    assert plain["main"].found.track.tolist() == [0, 1] * 6 + [2, 3] * 4
    for track, n_rows, corner in ((0, 6, 0.0), (3, 4, 120.0)):
        # Less than min_track_s is no matter: who is asked for by id is meant.
        mtcnn = Mtcnn(MtcnnParams(track=track, min_track_s=5), Runtime(), finder=Astronauts())
        chosen = mtcnn.follow([clip], ["main", "right"])
        for faces in chosen.values():
            assert set(faces.track.tolist()) == {track, -1}
            assert faces.valid.sum() == n_rows
            assert (faces.boxes[faces.valid, 0] == corner).all()
            for name in ("frame", "track", "boxes", "landmarks", "prob"):
                np.testing.assert_array_equal(getattr(faces.found, name), getattr(plain["main"].found, name))
        assert list(chosen["main"].crops) == list(chosen["right"].crops)
    with pytest.raises(ExtractorError, match=r"there is no track 4: its tracks are, the longest first, 0 \(0\.0 to 0\.2 s\), 1 "):
        Mtcnn(MtcnnParams(track=4), Runtime(), finder=Astronauts()).follow([clip], ["main"])


@pytest.mark.parametrize("size_px", [48, 112])
@pytest.mark.parametrize(("template", "margin"), [("arcface", 0.0), ("box", 0.0), ("box", 0.3)])
def test_raw_crops_in_both_templates(template: Any, margin: float, size_px: int) -> None:
    """The finder's box is the template's own frame, so without a margin both templates cut the same 112 pixels."""
    params = MtcnnParams(coding="raw", template=template, margin=margin, size_px=size_px)
    image = picture(1)
    raw, coded = (
        Mtcnn(one, Runtime(), finder=Astronauts()).follow([frames(*[image] * 8)], ["main"])["main"]
        for one in (params, dataclasses.replace(params, coding="jpeg", jpeg_quality=70))
    )
    assert (raw.coding, coded.coding) == ("raw", "jpeg")
    crop = np.frombuffer(raw.crops[0], np.uint8).reshape(size_px, size_px, 3)
    assert coded.crops[0] == jpeg.encode(crop, 70)
    if size_px == 112 and not margin:
        np.testing.assert_array_equal(crop, image[:112, :112])
    if margin:  # the square goes past the picture's corner by 0.3 of 112 px, at the crop's own scale
        outside = int(0.3 / 1.6 * size_px)
        assert not crop[:outside].any()
        assert crop[outside + 1 :, outside + 1 :].any()


def test_an_error_among_the_frames_ends_the_threads() -> None:
    def broken() -> Iterator[Frames]:
        yield frames(*[picture(2)] * 20)
        raise OSError("the decoder is gone")

    with pytest.raises(OSError, match="the decoder is gone"):
        Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts()).follow(broken(), ["main"])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


def test_no_frames_and_no_persons() -> None:
    mtcnn = Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts())
    assert len(mtcnn.follow([], ["main"])["main"].frame) == 0
    assert mtcnn.follow([], []) == {}


def test_memory_does_not_hold_the_crops() -> None:
    """1,000 frames of three faces: 50 MB of crops, of which next to nothing stays in memory."""

    def frames() -> Iterator[Frames]:
        image = picture(3, side_px=400)[None]
        for i in range(1000):
            yield Frames(images=image, times_s=np.array([i / 25]), index=np.array([i]))

    mtcnn = Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts())
    tracemalloc.start()
    faces = mtcnn.follow(frames(), ["main"])["main"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert faces.valid.all()
    assert sum(map(len, faces.crops)) * 3 > 30e6
    assert peak < 12e6


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("min_face_px", 11, "12 or more, got 11"),
        ("size_px", 8, "from 16 to 1024, got 8"),
        ("min_prob", 1.5, "from 0 to 1, got 1.5"),
        ("min_prob", float("nan"), "from 0 to 1, got nan"),
        ("person", "middle", "main, left or right, got 'middle'"),
        ("jpeg_quality", 0, "from 1 to 100, got 0"),
        ("min_track_s", -1, "0 or more, got -1"),
        ("mode", "fast", "tracked or exact, got 'fast'"),
        ("redetect_s", 0, "more than 0, got 0"),
        ("redetect_s", float("inf"), "more than 0, got inf"),
        ("search_s", -0.1, "0 or more, got -0.1"),
        ("search_s", float("nan"), "0 or more, got nan"),
        ("track", -1, "0 or more, or null, got -1"),
        ("track", True, "0 or more, or null, got True"),
        ("template", "ffhq", "arcface or box, got 'ffhq'"),
        ("margin", 2.5, "0 to 2, got 2.5"),
        ("coding", "png", "jpeg or raw, got 'png'"),
    ],
)
def test_bad_parameters_are_named(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{expected}"):
        MtcnnParams(**{name: value})


def test_a_margin_needs_a_box() -> None:
    with pytest.raises(ValueError, match=r"^margin: only 'template: box' has one; the template arcface is placed by landmarks"):
        MtcnnParams(margin=0.1)


def test_parameters_at_the_edge_of_their_range() -> None:
    params = MtcnnParams(search_s=0, redetect_s=1e-9, min_prob=1, min_track_s=0, track=0, template="box", margin=2)
    assert (params.search_s, params.margin, MtcnnParams().track) == (0, 2, None)


def films() -> tuple[list[Frames], np.ndarray]:
    """Three shots of two sizes, frames at odd times; one to three people."""
    images = [picture(2)] * 6 + [picture(1, side_px=360, shot=1)] * 7 + [picture(3, side_px=360, shot=2)] * 5
    times_s = np.cumsum(np.random.default_rng(5).uniform(0.02, 0.07, len(images)))
    numbers = np.arange(len(images)) * 3
    return [Frames(images=image[None], times_s=times_s[i : i + 1], index=numbers[i : i + 1]) for i, image in enumerate(images)], times_s


def chosen(params: MtcnnParams, found: Detections) -> Any:
    batches, times_s = films()
    frame = np.concatenate([batch.index for batch in batches])
    asked: list[int] = []

    def pictures(wanted: Any) -> Iterator[Frames]:
        asked.extend(wanted.tolist())
        yield from (batch for batch in batches if batch.index[0] in wanted)

    made = Mtcnn(params, Runtime(), finder=Nobody()).choose(found, frame, times_s, pictures, PEOPLE)
    shown = {int(number) for faces in made.values() for number in faces.frame[faces.valid]}
    assert asked == sorted(shown), "no other picture is decoded"
    return made


class Nobody:
    def find(self, batches: Iterable[Frames]) -> Iterator[Seen]:
        raise AssertionError("nothing is to be found again")


PEOPLE: tuple[Person, ...] = ("main", "left", "right")
CHOICES = [
    {},
    {"min_track_s": 0.0},
    {"track": 1},
    {"size_px": 48, "template": "box", "margin": 0.2},
    {"coding": "raw"},
    {"min_track_s": 9.0},
]


@pytest.mark.parametrize("choice", CHOICES)
def test_choosing_is_following_without_finding(choice: dict[str, Any]) -> None:
    batches, _ = films()
    found = Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts()).follow(batches, ["main"])["main"].found
    assert found.shots.tolist() == [[0, 240, 240], [18, 360, 360], [39, 360, 360]]
    params = MtcnnParams(**choice)
    anew = Mtcnn(params, Runtime(), finder=Astronauts()).follow(batches, PEOPLE)
    made = chosen(params, found)
    assert made.keys() == anew.keys()
    for person, faces in anew.items():
        assert list(made[person].crops) == list(faces.crops)
        for name in ("frame", "valid", "boxes", "landmarks", "prob", "track"):
            np.testing.assert_array_equal(getattr(made[person], name), getattr(faces, name))


def test_what_was_found_in_other_frames_is_refused() -> None:
    batches, _ = films()
    found = Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts()).follow(batches, ["main"])["main"].found
    for wrong in ({"frame": found.frame + 1}, {"shots": found.shots[1:]}, {"shots": found.shots[:0]}):
        with pytest.raises(ValueError, match="found: expected shots and faces of the frames given"):
            chosen(MtcnnParams(), dataclasses.replace(found, **wrong))
    with pytest.raises(ValueError, match=r"found\.track: expected ids below \d+, got 99"):
        chosen(MtcnnParams(), dataclasses.replace(found, track=np.full_like(found.track, 99)))
    for wrong in (
        {"boxes": found.boxes * np.nan},
        {"track": found.track - 1},
        {"shots": found.shots * [1, 0, 1]},
    ):
        with pytest.raises(ValueError, match=r"^Detections"):
            dataclasses.replace(found, **wrong)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_video_shorter_than_a_track_must_be_has_its_face(n: int) -> None:
    batches = [Frames(images=picture(1)[None], times_s=np.array([i / 30]), index=np.array([i])) for i in range(n)]
    faces = Mtcnn(MtcnnParams(), Runtime(), finder=Astronauts()).follow(batches, ["main"])["main"]
    assert faces.valid.all()
