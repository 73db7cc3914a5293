"""Crops out of an artifact as pictures: both codings, any size, and what is no crop is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extractors.contract import Bool, Clips, Coding, Detections, Faces, Float32, Kind, Rows, UInt8
from extractors.face import jpeg
from extractors.visual.clips import Anchor, ClipWindow
from pipeline import artifact, embedding, stages
from pipeline.artifact import Provenance
from pipeline.errors import TrialError
from pipeline.hdf5 import guarded_file
from pipeline.keys import identity, key_of, stage_part
from pipeline.spent import Spent

PART = stage_part(extractor="mtcnn", version=2, params={}, precision="float32", weights=None, decoder="pyav 1")
IDENTITY = identity(PART, source="cd" * 32, person="main", pictures=None, inputs=["ef" * 32])
SIZE_PX = 48


def pictures(n: int) -> UInt8:
    """(n, SIZE_PX, SIZE_PX, 3): slopes of grey that are steeper from picture to picture, so that scaling has little to change."""
    slope = np.linspace(0, 1, SIZE_PX)[None, :, None, None] * np.linspace(100, 200, n)[:, None, None, None]
    return np.broadcast_to(slope, (n, SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


def written(path: Path, coding: Coding, crops: list[bytes]) -> Path:
    n = len(crops)
    found = Detections.none()
    faces = Faces(
        size_px=SIZE_PX,
        coding=coding,
        frame=np.arange(n),
        valid=np.array([bool(crop) for crop in crops], np.bool_),
        boxes=np.zeros((n, 4), np.float32),
        landmarks=np.zeros((n, 5, 2), np.float32),
        prob=np.ones(n, np.float32),
        track=np.zeros(n, np.int64),
        crops=crops,
        found=found,
    )
    about = Provenance(key=key_of(IDENTITY), stage="faces", trial="106", licence="MIT", code="12" * 32, identity=IDENTITY, seconds=1.0)
    rows = Rows(times_s=np.arange(2 * n) / 50, frame=np.repeat(np.arange(n), 2))
    artifact.write_faces(path, about, faces=faces, rows=rows)
    return path


class Means:
    """Embeds a picture as its mean colour, and counts."""

    dim, batch = 3, 4

    def __init__(self, size_px: int) -> None:
        self.size_px, self.n_seen = size_px, 0

    def embed(self, crops: UInt8) -> Float32:
        assert crops.shape[1:] == (self.size_px, self.size_px, 3)
        self.n_seen += len(crops)
        return np.asarray(crops.mean(axis=(1, 2)), np.float32)


@pytest.mark.parametrize("size_px", [SIZE_PX, 24, 60])
@pytest.mark.parametrize("coding", ["jpeg", "raw"])
def test_both_codings_are_embedded_alike(tmp_path: Path, coding: Any, size_px: int) -> None:
    """Each frame once, though two rows show it; rows without a face stay empty."""
    images = pictures(9)
    crops = [image.tobytes() if coding == "raw" else jpeg.encode(image, 95) for image in images]
    crops[3] = b""
    means = Means(size_px)
    track = embedding.embed(means, written(tmp_path / "f.h5", coding, crops))
    assert means.n_seen == 8
    assert track.valid.tolist() == [i // 2 != 3 for i in range(18)]
    expected = np.repeat(images.mean(axis=(1, 2)), 2, axis=0)
    np.testing.assert_allclose(track.values[track.valid], expected[track.valid], atol=1.0)  # JPEG and scaling round to whole greys


def test_raw_crops_are_read_to_the_bit(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    path = written(tmp_path / "f.h5", "raw", [image.tobytes() for image in images])
    with guarded_file(path) as file:
        rows = artifact.read_crop_rows(file)
        np.testing.assert_array_equal(embedding._crops(file, rows, np.array([0, 3, 8]), Means(SIZE_PX)), images[[0, 1, 4]])


def test_a_crop_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "f.h5", "jpeg", [jpeg.encode(pictures(1)[0], 90), b"\xff\xd8 not a picture"])
    with pytest.raises(TrialError, match=r"f\.h5: a crop cannot be decoded: row 2; run verify, then run again"):
        embedding.embed(Means(SIZE_PX), path)


@pytest.mark.parametrize("size_px", [24, 112, 224])
@pytest.mark.parametrize(("resample", "pillows"), [("pil_bilinear", Image.Resampling.BILINEAR), ("pil_bicubic", Image.Resampling.BICUBIC)])
def test_crops_are_brought_to_size_as_pillow_does(tmp_path: Path, resample: Any, pillows: Image.Resampling, size_px: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    with guarded_file(written(tmp_path / "f.h5", "raw", [image.tobytes() for image in images])) as file:
        rows, which = artifact.read_crop_rows(file), np.array([0, 2, 4])
        wanting, plain = Means(size_px), Means(size_px)
        wanting.resample = resample
        got, by_area = embedding._crops(file, rows, which, wanting), embedding._crops(file, rows, which, plain)
    for picture, image in zip(got, images, strict=True):
        np.testing.assert_array_equal(picture, np.asarray(Image.fromarray(image).resize((size_px, size_px), pillows)))
    assert not np.array_equal(got, by_area)


def test_an_extractor_says_how_crops_are_resized_and_what_its_columns_are(tmp_path: Path) -> None:
    class Named(Means):
        columns, resample = ("red", "green", "blue"), "pil_bicubic"

        def embed(self, crops: UInt8) -> Float32:
            self.seen = crops
            return super().embed(crops)

    image = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    named, path = Named(24), written(tmp_path / "f.h5", "raw", [image.tobytes()])
    track = embedding.embed(named, path)
    assert track.columns == Named.columns
    np.testing.assert_array_equal(named.seen[0], np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC)))
    assert embedding.embed(Means(24), path).columns == ()


@pytest.mark.parametrize("warnings", [(), ["normalised otherwise"]])
def test_an_extractors_warnings_are_published(tmp_path: Path, warnings: list[str]) -> None:
    extractor: Any = Means(SIZE_PX)
    if warnings:
        extractor.warnings = warnings
    faces = written(tmp_path / "f.h5", "raw", [image.tobytes() for image in pictures(2)])
    item = stages.Item(key="k", trial="106", person="main", inputs=(faces,), target=tmp_path / "t.h5")
    recipe = stages.Recipe(yields=Kind.FEATURE, reads=(Kind.FACES,), extractor=extractor)
    said: list[Any] = []
    stages.run(recipe, tmp_path / "106.mp4", [item], lambda item, write, warnings, media: said.append((item, warnings, media)), Spent())
    assert said == [(item, tuple(warnings), {})]


class Film:
    """Embeds a clip as the mean of each of its pictures."""

    size_px, batch = SIZE_PX, 5

    def __init__(self, *, clip_frames: int, dilation: int, stride: int, anchor: Anchor = "end") -> None:
        self.window = ClipWindow(clip_frames=clip_frames, dilation=dilation, stride=stride, anchor=anchor)
        self.dim, self.batches = clip_frames, []

    def clips(self, valid: Bool) -> Clips:
        return self.window.clips(valid)

    def embed_clips(self, clips: UInt8) -> Float32:
        assert clips.shape[1:] == (self.dim, SIZE_PX, SIZE_PX, 3)
        self.batches.append(len(clips))
        return np.asarray(clips.mean(axis=(2, 3, 4)), np.float32)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many crops were decoded at a time."""
    seen: list[int] = []
    crops = embedding._crops

    def counted(file: Any, rows: Any, which: Any, extractor: Any) -> UInt8:
        seen.append(len(which))
        return crops(file, rows, which, extractor)

    monkeypatch.setattr(embedding, "_crops", counted)
    return seen


@pytest.mark.parametrize("at_once", [1, 30, 512])
@pytest.mark.parametrize("anchor", ["end", "centre"])
@pytest.mark.parametrize(("clip_frames", "dilation", "stride"), [(8, 4, 1), (3, 16, 1), (4, 2, 7), (2, 1, 100), (1, 1, 1)])
def test_clips_are_of_the_pictures_they_say(
    tmp_path: Path,
    decoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    clip_frames: int,
    dilation: int,
    stride: int,
    anchor: Any,
    at_once: int,
) -> None:
    """However many are decoded at a time: the right ones, each picture once, in batches of no more than five."""
    monkeypatch.setattr(embedding, "CROPS_AT_ONCE", at_once)
    images = np.random.default_rng(0).integers(0, 256, (60, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    crops = [b"" if i in (0, 1, 20, 21, 22, 59) else image.tobytes() for i, image in enumerate(images)]
    film = Film(clip_frames=clip_frames, dilation=dilation, stride=stride, anchor=anchor)
    track = embedding.embed(film, written(tmp_path / "f.h5", "raw", crops))  # two rows show each frame
    valid = np.repeat([bool(crop) for crop in crops], 2)
    clips = film.clips(valid)
    np.testing.assert_array_equal(track.valid, valid[::stride])
    np.testing.assert_array_equal(track.times_s, np.arange(0, 120, stride) / 50)
    expected = images.mean(axis=(1, 2, 3))[clips.rows // 2]
    np.testing.assert_allclose(track.values[track.valid], expected[track.valid], rtol=0, atol=1e-4)
    assert np.isnan(track.values[~track.valid]).all()
    assert sum(decoded) == len(np.unique(clips.rows[clips.valid] // 2))
    assert sum(film.batches) == clips.valid.sum()
    assert max(film.batches, default=0) <= 5


def test_what_no_later_clip_shows_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    monkeypatch.setattr(
        embedding._Film, "clips", lambda self, some, take=embedding._Film.clips: held.append(len(self._have)) or take(self, some)
    )
    monkeypatch.setattr(embedding, "CROPS_AT_ONCE", 16)
    path = written(tmp_path / "f.h5", "raw", [image.tobytes() for image in np.repeat(pictures(10), 30, axis=0)])
    embedding.embed(Film(clip_frames=4, dilation=8, stride=1), path)
    # Four clips at a time, of 600; one spans 25 rows, which show 13 frames, and the four three rows more.
    assert 10 < max(held) <= 16


@pytest.mark.parametrize("n", [0, 1, 4])
def test_no_clips_one_clip_and_no_faces(n: int, tmp_path: Path) -> None:
    film = Film(clip_frames=8, dilation=4, stride=1)
    nobody = embedding.embed(film, written(tmp_path / "nobody.h5", "raw", [b""] * n))
    assert nobody.values.shape == (2 * n, 8)
    assert not nobody.valid.any()
    track = embedding.embed(film, written(tmp_path / "f.h5", "raw", [image.tobytes() for image in pictures(n)]))
    assert track.valid.tolist() == [True] * (2 * n)


def test_a_stage_of_clips_is_run_as_such(tmp_path: Path) -> None:
    """The pipeline's own way to it: from an item to what is published."""
    faces, published = written(tmp_path / "f.h5", "raw", [image.tobytes() for image in pictures(4)]), []
    recipe = stages.Recipe(yields=Kind.FEATURE, reads=(Kind.FACES,), extractor=Film(clip_frames=2, dilation=1, stride=3))
    item = stages.Item(key="ab" * 32, trial="106", person="main", inputs=(faces,), target=tmp_path / "t.h5")
    stages.run(
        recipe, tmp_path / "106.mp4", [item], lambda item, write, warnings, media: published.append(write.keywords["track"]), Spent()
    )
    assert published[0].values.shape == (3, 2)
    np.testing.assert_array_equal(published[0].times_s, [0, 0.06, 0.12])
