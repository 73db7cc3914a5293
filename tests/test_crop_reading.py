"""Crops out of an artifact as pictures: both codings, any size, and what is no crop is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extractors.contract import Coding, Detections, Faces, Float32, Kind, Rows, UInt8
from extractors.face import jpeg
from pipeline import artifact, stages
from pipeline.artifact import Provenance
from pipeline.errors import TrialError
from pipeline.hdf5 import guarded_file
from pipeline.keys import identity, key_of, stage_part

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
        valid=np.array([bool(crop) for crop in crops]),
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
    track = stages._embed(means, written(tmp_path / "f.h5", coding, crops))
    assert means.n_seen == 8
    assert track.valid.tolist() == [i // 2 != 3 for i in range(18)]
    expected = np.repeat(images.mean(axis=(1, 2)), 2, axis=0)
    np.testing.assert_allclose(track.values[track.valid], expected[track.valid], atol=1.0)  # JPEG and scaling round to whole greys


def test_raw_crops_are_read_to_the_bit(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    path = written(tmp_path / "f.h5", "raw", [image.tobytes() for image in images])
    with guarded_file(path) as file:
        rows = artifact.read_crop_rows(file)
        np.testing.assert_array_equal(stages._crops(file, rows, np.array([0, 3, 8]), SIZE_PX), images[[0, 1, 4]])


def test_a_crop_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "f.h5", "jpeg", [jpeg.encode(pictures(1)[0], 90), b"\xff\xd8 not a picture"])
    with pytest.raises(TrialError, match=r"f\.h5: a crop cannot be decoded: row 2; run verify, then run again"):
        stages._embed(Means(SIZE_PX), path)


@pytest.mark.parametrize("size_px", [24, 112, 224])
@pytest.mark.parametrize(("resample", "pillows"), [("pil_bilinear", Image.Resampling.BILINEAR), ("pil_bicubic", Image.Resampling.BICUBIC)])
def test_crops_are_brought_to_size_as_pillow_does(tmp_path: Path, resample: Any, pillows: Image.Resampling, size_px: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    with guarded_file(written(tmp_path / "f.h5", "raw", [image.tobytes() for image in images])) as file:
        rows, which = artifact.read_crop_rows(file), np.array([0, 2, 4])
        got = stages._crops(file, rows, which, size_px, resample)
        by_area = stages._crops(file, rows, which, size_px)
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
    track = stages._embed(named, path)
    assert track.columns == Named.columns
    np.testing.assert_array_equal(named.seen[0], np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC)))
    assert stages._embed(Means(24), path).columns == ()


@pytest.mark.parametrize("warnings", [(), ["normalised otherwise"]])
def test_an_extractors_warnings_are_published(tmp_path: Path, warnings: list[str]) -> None:
    extractor: Any = Means(SIZE_PX)
    if warnings:
        extractor.warnings = warnings
    faces = written(tmp_path / "f.h5", "raw", [image.tobytes() for image in pictures(2)])
    item = stages.Item(key="k", trial="106", person="main", inputs=(faces,), target=tmp_path / "t.h5")
    recipe = stages.Recipe(yields=Kind.FEATURE, reads=(Kind.FACES,), extractor=extractor)
    said: list[Any] = []
    stages.run(recipe, tmp_path / "106.mp4", [item], lambda item, write, warnings, media: said.append((item, warnings, media)))
    assert said == [(item, tuple(warnings), {})]
