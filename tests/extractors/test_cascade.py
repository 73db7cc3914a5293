"""The cascade against facenet-pytorch: its recorded detections, and itself on other pictures; and nothing depends on what is in a batch."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from extractors.contract import Float32, Frames, UInt8
from extractors.face import cascade as module
from extractors.face.cascade import Cascade, EveryFrame, Spotted
from extractors.face.detector import Found, nothing

# The fixtures' own limits, and what was measured here: 2e-4 pixels and 5e-7.
FIXTURE_PX, FIXTURE_PROB = 0.05, 1e-4
REFERENCE_PX, REFERENCE_PROB = 2e-3, 1e-5
# Nothing of what is computed depends on the batch but the order of some additions. In a picture 1,280 wide the next float32 is 1e-4 on.
BATCH_PX, BATCH_PROB = 3e-4, 1e-6


@functools.cache
def loaded(min_face_px: int, precision: str = "float32") -> Cascade:
    return Cascade(min_face_px=min_face_px, device="cpu", precision=precision)


@functools.cache
def decoded(clip: Path, numbers: tuple[int, ...]) -> UInt8:
    """(N, H, W, 3) uint8: the frames of ascending numbers."""
    import av

    with av.open(str(clip)) as container:
        images = []
        for number, frame in enumerate(container.decode(video=0)):
            if number in numbers:
                images.append(frame.to_ndarray(format="rgb24"))
            if number == numbers[-1]:
                break
    return np.stack(images)


@pytest.fixture(scope="session")
def astronaut(parity: Path) -> UInt8:
    """(256, 256, 3), one face."""
    image: UInt8 = np.load(parity / "mtcnn_picture.npz")["image"]
    return image


def reference(image: UInt8, min_face_px: int) -> Found:
    from facenet_pytorch import MTCNN

    boxes, probs, landmarks = MTCNN(keep_all=True, min_face_size=min_face_px, device="cpu").detect(image, landmarks=True)
    if boxes is None:
        return nothing()
    return Found(boxes=boxes.astype(np.float32), prob=probs.astype(np.float32), landmarks=landmarks.astype(np.float32))


def assert_same(found: Found, expected: Found, px: float, prob: float) -> None:
    assert len(found.prob) == len(expected.prob)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=px)
    np.testing.assert_allclose(found.landmarks, expected.landmarks, rtol=0, atol=px)
    np.testing.assert_allclose(found.prob, expected.prob, rtol=0, atol=prob)


def assert_all_same(found: Sequence[Spotted], expected: Sequence[Spotted]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_same(one.found, other.found, BATCH_PX, BATCH_PROB)
        np.testing.assert_allclose(one.squares, other.squares, rtol=0, atol=BATCH_PX)


def iou(a: Float32, b: Float32) -> float:
    """Of two boxes."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def check_recorded(arrays: dict[str, np.ndarray], min_face_px: int, frame: int, found: Found) -> None:
    rows = np.flatnonzero((arrays["index"][:, 0] == min_face_px) & (arrays["index"][:, 1] == frame))
    expected = Found(boxes=arrays["boxes"][rows], prob=arrays["probs"][rows], landmarks=arrays["landmarks"][rows])
    assert_same(found, expected, FIXTURE_PX, FIXTURE_PROB)


@pytest.mark.parametrize("min_face_px", [20, 40, 80])
def test_parity_on_a_picture(parity: Path, min_face_px: int) -> None:
    arrays = dict(np.load(parity / "mtcnn_picture.npz"))
    check_recorded(arrays, min_face_px, 0, loaded(min_face_px).search(arrays["image"][None])[0].found)


@pytest.mark.parametrize("name", ["speech_512", "crying_640"])
def test_parity_on_clips(parity: Path, media: Path, name: str) -> None:
    about = json.loads((parity / f"mtcnn_{name}.json").read_text())["input"]
    arrays = dict(np.load(parity / f"mtcnn_{name}.npz"))
    images = decoded(media / f"{name}.mp4", tuple(about["frames"]))
    for image, spotted, frame in zip(images, loaded(40).search(images), about["frames"], strict=True):
        assert hashlib.sha256(image.tobytes()).hexdigest() == about["rgb_sha256"][str(frame)]
        check_recorded(arrays, 40, frame, spotted.found)
    for min_face_px in (20, 80):
        at = about["frames"].index(100)
        check_recorded(arrays, min_face_px, 100, loaded(min_face_px).search(images[at : at + 1])[0].found)


@pytest.mark.parametrize("min_face_px", [20, 40, 80])
@pytest.mark.parametrize(("name", "frames", "n_faces"), [("crowd_1080p", (0, 60), 10), ("far_face_480", (330, 345, 375), 2)])
def test_the_reference_itself_finds_the_same(media: Path, name: str, frames: tuple[int, ...], n_faces: int, min_face_px: int) -> None:
    """Far faces are smaller than 80 pixels: of these nobody is found."""
    images = decoded(media / f"{name}.mp4", frames)
    n_found = 0
    for image, spotted in zip(images, loaded(min_face_px).search(images), strict=True):
        assert_same(spotted.found, reference(image, min_face_px), REFERENCE_PX, REFERENCE_PROB)
        n_found += len(spotted.found.prob)
    if (name, min_face_px) != ("far_face_480", 80):
        assert n_found >= n_faces, "or the comparison says nothing"


def odd_pictures(face: UInt8) -> dict[str, UInt8]:
    grey = np.repeat(face.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    return {
        "grey": grey,
        "odd sides": face[:201, 3:240],
        "cut at the left": face[:, 115:],
        "cut at the right": face[:, :145],
        "cut at the chin": face[:138],
        "cut at the top": face[100:],
        "half of it": face[:, 128:],
        "upright stripe": face[:, 60:190],
        "dark": face // 4,
        "not copied": face[:, ::-1],
        "black": np.zeros((120, 90, 3), np.uint8),
        "white": np.full((120, 90, 3), 255, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (150, 151, 3), dtype=np.uint8),
        "47 x 47": face[70:117, 100:147],
        "49 x 48": face[70:119, 100:148],
    }


def test_odd_pictures(astronaut: UInt8) -> None:
    """What the reference finds in each. The face is found with a third of it outside; half of it nobody finds."""
    n_found = {}
    for name, image in odd_pictures(astronaut).items():
        found = loaded(40).search(image[None])[0].found
        assert_same(found, reference(np.ascontiguousarray(image), 40), REFERENCE_PX, REFERENCE_PROB)
        n_found[name] = len(found.prob)
    nobody = {"half of it", "black", "white", "noise", "47 x 47", "49 x 48"}
    assert n_found == {name: int(name not in nobody) for name in n_found}


def test_nothing_found_is_empty_and_silent() -> None:
    """Also in pictures that are smaller than any face looked for, where the reference fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((120, 90), (8, 8), (1, 300), (300, 1), (1, 1), (39, 200), (40, 40), (41, 41), (47, 47)):
            images = np.full((2, *shape, 3), 128, dtype=np.uint8)
            square = np.array([[0, 0, 40, 40]], np.float32)
            for spotted in loaded(40).search(images) + loaded(40).look(images, [square, square[:0]]):
                assert (spotted.found.boxes.shape, spotted.squares.shape) == ((0, 4), (0, 4))
            (checked,) = loaded(40).check(images[:1], [square])
            assert checked.found.prob[0] < 0.7
        assert loaded(40).search([]) == loaded(40).look([], []) == loaded(40).check([], []) == []


def test_a_face_in_a_picture_of_2160_rows(media: Path) -> None:
    """At its own place, far down and right, where the sums are largest; the picture is larger than what is worked on at once."""
    (face,) = decoded(media / "speech_512.mp4", (10,))
    image = np.full((2160, 3840, 3), 90, np.uint8)
    image[-512:, -512:] = face
    assert image.shape[0] * image.shape[1] > module.PIXELS_AT_ONCE["cpu"]
    expected, found = loaded(80).search(face[None])[0].found, loaded(80).search(image[None])[0].found
    assert len(found.prob) == len(expected.prob) == 1
    assert found.prob[0] > 0.99
    corner = np.array([3840 - 512, 2160 - 512])
    # The pyramid's cells lie otherwise in the larger picture, which moves boxes of MTCNN by some pixels.
    assert iou(found.boxes[0], expected.boxes[0] + np.tile(corner, 2)) > 0.85
    eyes_px = np.linalg.norm(expected.landmarks[0, 1] - expected.landmarks[0, 0])
    assert np.linalg.norm(found.landmarks[0] - expected.landmarks[0] - corner, axis=1).max() < 0.1 * eyes_px


def test_a_picture_does_not_depend_on_its_batch(media: Path, astronaut: UInt8) -> None:
    images = decoded(media / "speech_512.mp4", tuple(range(8, 16)))
    together = loaded(40).search(images)
    for size in (1, 3):
        parts = [spotted for start in range(0, 8, size) for spotted in loaded(40).search(images[start : start + size])]
        assert_all_same(parts, together)
    alone = loaded(20).search(astronaut[None])
    among = loaded(20).search(np.stack([np.zeros_like(astronaut), astronaut[:, ::-1], astronaut, astronaut // 2]))
    assert_all_same(among[2:3], alone)
    assert_all_same(loaded(20).search([astronaut[:, ::-1]]), among[1:2])


def test_limits_of_memory_change_nothing(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd, so that there are more crops than a batch takes. A cascade of its own, whose networks grow with the batches."""
    cascade = Cascade(min_face_px=40, device="cpu")
    images = decoded(media / "crowd_1080p.mp4", (0, 60))[:, :700, :1280]
    expected = cascade.search(images)
    assert sum(len(one.found.prob) for one in expected) >= 4
    squares = [one.squares for one in expected]
    near, judged = cascade.look(images, squares), cascade.check(images, squares)
    for name, value in (("PIXELS_AT_ONCE", 1), ("R_BATCH", 7), ("O_BATCH", 1), ("R_BATCH", 4096), ("O_BATCH", 512)):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, {"cpu": value})
            assert_all_same(cascade.search(images), expected)
            assert_all_same(cascade.look(images, squares), near)
            assert_all_same(cascade.check(images, squares), judged)


def test_looking_around_a_face_finds_what_searching_does(media: Path) -> None:
    """Of the frames of two clips with one face, 97 % have the very same box and the rest nearly: nothing is found twice, nobody is lost."""
    same = []
    for name, numbers in (("speech_512", range(0, 200, 10)), ("single_face", range(0, 72, 4))):
        images = decoded(media / f"{name}.mp4", tuple(numbers))
        searched = loaded(40).search(images)
        looked = loaded(40).look(images, [one.squares for one in searched])
        for one, other in zip(searched, looked, strict=True):
            assert len(other.found.prob) == len(one.found.prob) == 1
            assert iou(one.found.boxes[0], other.found.boxes[0]) > 0.8
            same.append(bool(np.abs(one.found.boxes - other.found.boxes).max() < BATCH_PX))
    assert np.mean(same) > 0.9


def test_looking_from_nearby_finds_the_face(media: Path) -> None:
    """From a tenth of its size away in any direction, and from a tenth larger or smaller: as far as a face moves in between."""
    (image,) = decoded(media / "speech_512.mp4", (10,))
    (expected,) = loaded(40).search(image[None])
    (x1, y1, x2, y2), side = expected.squares[0], expected.squares[0, 2] - expected.squares[0, 0]
    moved = [[x1 + dx, y1 + dy, x2 + dx, y2 + dy] for dx in (-0.1 * side, 0.1 * side) for dy in (-0.1 * side, 0.1 * side)]
    moved += [[x1 - d, y1 - d, x2 + d, y2 + d] for d in (-0.05 * side, 0.05 * side)]
    for spotted in loaded(40).look([image] * 6, [np.array([square], np.float32) for square in moved]):
        assert len(spotted.found.prob) == 1
        assert iou(spotted.found.boxes[0], expected.found.boxes[0]) > 0.85


def test_looking_elsewhere_finds_nobody(media: Path) -> None:
    """And in a picture where none is expected, although there is one."""
    (image,) = decoded(media / "speech_512.mp4", (10,))
    (expected,) = loaded(40).search(image[None])
    corner = np.array([[1, 430, 61, 490]], np.float32)
    assert iou(corner[0], expected.found.boxes[0]) == 0
    away, nowhere, there = loaded(40).look([image] * 3, [corner, corner[:0], expected.squares])
    assert (len(away.found.prob), len(nowhere.found.prob), len(there.found.prob)) == (0, 0, 1)


def test_checking_keeps_number_and_order(media: Path) -> None:
    """Of a crowd's squares, smallest first, one of nobody between, one outside: O-Net's word on each. Of the true ones, the search's."""
    (image,) = decoded(media / "crowd_1080p.mp4", (0,))
    (expected,) = loaded(40).search(image[None])
    n = len(expected.found.prob)
    assert n > 2
    nobody, outside = np.array([[5, 5, 65, 65]], np.float32), np.array([[-300, -300, -200, -200]], np.float32)
    squares = np.concatenate([expected.squares[::-1], nobody, outside])
    none, checked = loaded(40).check([image, image], [squares[:0], squares])
    assert len(none.found.prob) == 0
    np.testing.assert_array_equal(checked.squares, squares)
    for name in ("boxes", "landmarks", "prob"):
        ours = getattr(checked.found, name)[:n][::-1]
        np.testing.assert_allclose(ours, getattr(expected.found, name), rtol=0, atol=BATCH_PX)
    assert (checked.found.prob[n:] < 0.7).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near(media: Path, astronaut: UInt8, precision: str) -> None:
    """It may choose another of the pyramid's cells, and so another box: of the same face, as good, but 0.88 of the first one."""
    (face,) = decoded(media / "single_face.mp4", (20,))
    for image in (face, astronaut):
        expected, found = (cascade.search(image[None])[0].found for cascade in (loaded(40), loaded(40, precision)))
        assert len(found.prob) == len(expected.prob) == 1
        assert iou(found.boxes[0], expected.boxes[0]) > 0.8
        eyes_px = np.linalg.norm(expected.landmarks[0, 1] - expected.landmarks[0, 0])
        assert np.linalg.norm(found.landmarks[0] - expected.landmarks[0], axis=1).max() < 0.1 * eyes_px
        assert abs(found.prob[0] - expected.prob[0]) < 0.02


def test_threads_are_as_before(astronaut: UInt8) -> None:
    """torch's own threads rest while the cascade works, and only then."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        loaded(40).search(astronaut[None])
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="not enough values to unpack"):
            loaded(40).search([np.zeros((4, 4), np.uint8)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_every_frame_is_searched_and_shots_are_counted(astronaut: UInt8) -> None:
    black = np.zeros_like(astronaut)
    white = np.full_like(astronaut, 255)
    images, numbers, times_s = np.stack([astronaut, astronaut, white, black]), np.array([4, 6, 7, 9]), np.array([0.1, 0.2, 0.2, 0.5])
    (expected,) = loaded(40).search(astronaut[None])
    for size in (1, 3, 4):
        batches = [
            Frames(images=images[at : at + size], times_s=times_s[at : at + size], index=numbers[at : at + size])
            for at in range(0, 4, size)
        ]
        seen = list(EveryFrame(loaded(40)).find(batches))
        assert [(one.frame, one.time_s, one.shot) for one in seen] == [(4, 0.1, 0), (6, 0.2, 0), (7, 0.2, 1), (9, 0.5, 2)]
        assert [len(one.found.prob) for one in seen] == [1, 1, 0, 0]
        assert all(np.array_equal(one.image, image) for one, image in zip(seen, images, strict=True))
        assert_same(seen[1].found, expected.found, BATCH_PX, BATCH_PROB)
