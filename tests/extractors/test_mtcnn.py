"""MTCNN: boxes against the reference's, faces of real clips, and what is kept of them."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import Faces, Frames, Runtime, UInt8
from extractors.face import jpeg
from extractors.face.alignment import TEMPLATE_112, similarity, warp
from extractors.face.detector import Found, LibraryCascade
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
    """A detector that finds as many faces as the first pixel's red says, on the diagonal, each as the template itself lies."""

    def detect(self, images: UInt8) -> list[Found]:
        found = []
        for image in images:
            k = int(image[0, 0, 0])
            corner = np.arange(k, dtype=np.float32)[:, None, None] * 120
            landmarks = TEMPLATE_112.astype(np.float32)[None] + corner
            box = np.concatenate([corner[:, 0], corner[:, 0], corner[:, 0] + 112, corner[:, 0] + 112], axis=1)
            found.append(Found(boxes=box, prob=np.full(k, 0.99, np.float32), landmarks=landmarks))
        return found


def picture(n_faces: int, side_px: int = 240) -> UInt8:
    image = np.random.default_rng(n_faces).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    image[0, 0, 0] = n_faces
    return image


def check_against(expected: dict[str, np.ndarray], size: int, frame: int, found: Found) -> None:
    rows = np.flatnonzero((expected["index"][:, 0] == size) & (expected["index"][:, 1] == frame))
    assert len(found.prob) == len(rows)
    np.testing.assert_allclose(found.boxes, expected["boxes"][rows], rtol=0, atol=0.05)  # the fixtures' own limits
    np.testing.assert_allclose(found.landmarks, expected["landmarks"][rows], rtol=0, atol=0.05)
    np.testing.assert_allclose(found.prob, expected["probs"][rows], rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [20, 40, 80])
def test_parity_on_a_picture(parity: Path, size: int) -> None:
    expected = np.load(parity / "mtcnn_picture.npz")
    check_against(expected, size, 0, LibraryCascade(min_face_px=size, device="cpu").detect(expected["image"][None])[0])


@pytest.mark.parametrize("name", ["speech_512", "crying_640"])
def test_parity_on_clips(parity: Path, media: Path, name: str) -> None:
    about = json.loads((parity / f"mtcnn_{name}.json").read_text())["input"]
    expected = np.load(parity / f"mtcnn_{name}.npz")
    cascades = {size: LibraryCascade(min_face_px=size, device="cpu") for size in (20, 40, 80)}
    n_checked = 0
    for frame, _, image in decoded(media / f"{name}.mp4", about["every"]):
        assert hashlib.sha256(image.tobytes()).hexdigest() == about["rgb_sha256"][str(frame)]
        for size in (20, 40, 80) if frame == 100 else (40,):
            check_against(expected, size, frame, cascades[size].detect(image[None])[0])
            n_checked += 1
    assert n_checked == len(about["frames"]) + 2


def test_nothing_found_is_empty_and_silent() -> None:
    cascade = LibraryCascade(min_face_px=40, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cascade.detect(np.zeros((2, 120, 90, 3), dtype=np.uint8))
        for shape in ((8, 8), (1, 300), (39, 200), (40, 40), (41, 41)):
            found += cascade.detect(np.full((1, *shape, 3), 128, dtype=np.uint8))
    assert [len(one.prob) for one in found] == [0] * 7


def test_a_picture_does_not_depend_on_its_batch(parity: Path) -> None:
    face = np.load(parity / "mtcnn_picture.npz")["image"]
    cascade = LibraryCascade(min_face_px=40, device="cpu")
    alone, among = cascade.detect(face[None])[0], cascade.detect(np.stack([np.zeros_like(face), face[:, ::-1], face]))[2]
    for name in ("boxes", "prob", "landmarks"):
        np.testing.assert_array_equal(getattr(among, name), getattr(alone, name))


def check_crop(faces: Faces, row: int, image: UInt8) -> None:
    """The crop is the frame, warped by its landmarks: up to what JPEG at quality 95 changes in a natural picture."""
    matrices, _ = similarity(faces.landmarks[row][None], faces.size_px)
    crop = jpeg.decode(faces.jpeg[row])
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
    mtcnn = Mtcnn(MtcnnParams(min_track_s=0), Runtime(), detector=Astronauts())
    a, b = mtcnn.follow(single, ["left", "right"]), mtcnn.follow(joined, ["left", "right"])
    assert a.keys() == b.keys() == {"left", "right"}
    for person in ("left", "right"):
        for name in ("valid", "boxes", "landmarks", "prob", "track"):
            np.testing.assert_array_equal(getattr(a[person], name), getattr(b[person], name))
        assert list(a[person].jpeg) == list(b[person].jpeg)
    assert a["right"].frame.tolist() == list(range(0, 24, 2))
    assert a["right"].valid.tolist() == [True] * 9 + [False] * 3
    assert list(a["right"].jpeg[9:]) == [b""] * 3
    assert a["left"].found.frame.tolist() == sorted([*range(0, 18, 2)] * 2 + [18, 20, 22])
    colour = jpeg.decode(a["left"].jpeg[0])
    assert colour is not None
    assert np.corrcoef(colour[..., 0].ravel(), two[:112, :112, 0].ravel())[0, 1] > 0.5  # red is red, and in place


def test_improbable_faces_and_degenerate_landmarks_are_not_kept() -> None:
    class Doubtful(Astronauts):
        def detect(self, images: UInt8) -> list[Found]:
            found = super().detect(images)[0]
            prob, landmarks = found.prob.copy(), found.landmarks.copy()
            prob[0], landmarks[1] = 0.89, 7.0
            return [Found(boxes=found.boxes, prob=prob, landmarks=landmarks)]

    frame = Frames(images=picture(2)[None], times_s=np.zeros(1), index=np.zeros(1, dtype=np.int64))
    faces = Mtcnn(MtcnnParams(), Runtime(), detector=Doubtful()).follow([frame], ["main"])["main"]
    assert faces.valid.tolist() == [False]
    assert len(faces.found.frame) == 0


def test_no_frames_and_no_persons() -> None:
    mtcnn = Mtcnn(MtcnnParams(), Runtime(), detector=Astronauts())
    assert len(mtcnn.follow([], ["main"])["main"].frame) == 0
    assert mtcnn.follow([], []) == {}


def test_memory_does_not_hold_the_crops() -> None:
    """1,000 frames of three faces: 50 MB of crops, of which next to nothing stays in memory."""

    def frames() -> Iterator[Frames]:
        image = picture(3, side_px=400)[None]
        for i in range(1000):
            yield Frames(images=image, times_s=np.array([i / 25]), index=np.array([i]))

    mtcnn = Mtcnn(MtcnnParams(), Runtime(), detector=Astronauts())
    tracemalloc.start()
    faces = mtcnn.follow(frames(), ["main"])["main"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert faces.valid.all()
    assert sum(map(len, faces.jpeg)) * 3 > 30e6
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
    ],
)
def test_bad_parameters_are_named(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{expected}"):
        MtcnnParams(**{name: value})
