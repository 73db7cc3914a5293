"""Organiser-provided crops: kept where they fit, made to fit where they do not, refused where they are broken."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extractors.contract import ExtractorError, Runtime, UInt8
from extractors.face import jpeg
from extractors.face.folder import Folder, FolderParams


def folder(size_px: int = 112) -> Folder:
    return Folder(FolderParams(size_px=size_px), Runtime())


def colours(height: int, width: int) -> UInt8:
    """A smooth picture whose red grows to the right, green downwards, with a blue of 200: turns and swaps show."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([red, green, np.full_like(red, 200)], axis=-1).astype(np.uint8)


def encoded(image: UInt8 | Image.Image, kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(data, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return data.getvalue()


def close(data: bytes, expected: UInt8) -> bool:
    crop = jpeg.decode(data)
    return crop is not None and crop.shape == expected.shape and bool(np.abs(crop.astype(int) - expected).mean() < 3)


def test_gaps_are_masked_and_the_rest_is_kept_byte_for_byte() -> None:
    crops = {frame: encoded(np.roll(colours(112, 112), frame, axis=1)) for frame in (0, 2, 5, 99)}
    faces = folder().read(crops, np.array([0, 1, 2, 3, 5]))
    assert faces.valid.tolist() == [True, False, True, False, True]
    assert list(faces.crops) == [crops[0], b"", crops[2], b"", crops[5]]
    assert faces.coding == "jpeg"
    assert faces.track.tolist() == [0, -1, 0, -1, 0]
    assert np.isnan(faces.boxes).all()
    assert np.isnan(faces.landmarks).all()
    assert np.isnan(faces.prob).all()
    assert len(faces.found.frame) == 0


@pytest.mark.parametrize("shape", [(224, 224), (60, 60), (160, 100), (112, 113), (1, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_other_sizes_are_scaled(shape: tuple[int, int], kind: str) -> None:
    faces = folder().read({0: encoded(colours(*shape), kind)}, np.array([0]))
    crop = jpeg.decode(faces.crops[0])
    assert crop is not None
    assert crop.shape == (112, 112, 3)
    if min(shape) > 1:
        assert close(faces.crops[0], colours(112, 112))


def test_a_png_of_the_right_size_becomes_jpeg() -> None:
    data = folder().read({0: encoded(colours(112, 112), "PNG")}, np.array([0])).crops[0]
    assert data.startswith(jpeg.SOI)
    assert close(data, colours(112, 112))


def test_grey_alpha_and_palette_become_rgb() -> None:
    grey = Image.fromarray(colours(112, 112)[..., 0])
    alpha = Image.fromarray(np.dstack([colours(112, 112), np.full((112, 112), 255, dtype=np.uint8)]))
    palette = Image.fromarray(colours(112, 112)).quantize(256)
    crops = {0: encoded(grey), 1: encoded(alpha, "PNG"), 2: encoded(palette, "PNG")}
    faces = folder().read(crops, np.arange(3))
    assert faces.crops[0] != crops[0]
    with Image.open(io.BytesIO(faces.crops[0])) as written:
        assert written.mode == "RGB"
    assert close(faces.crops[0], np.repeat(colours(112, 112)[..., :1], 3, axis=2))
    assert close(faces.crops[1], colours(112, 112))
    assert close(faces.crops[2], np.asarray(palette.convert("RGB")))


def test_a_turned_picture_is_turned_upright() -> None:
    upright = Image.fromarray(colours(112, 112))
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's way to say: turn by 90 degrees to see this upright
    upright.rotate(90).save(data, "JPEG", quality=95, exif=exif)
    assert close(folder().read({0: data.getvalue()}, np.array([0])).crops[0], colours(112, 112))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"not a picture", "cut short or not a picture"),
        (encoded(colours(112, 112))[:-400], "cut short or not a picture"),
        (encoded(colours(112, 112), "PNG")[:200], "cut short or not a picture"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png"],
)
def test_a_broken_picture_is_named(data: bytes, why: str) -> None:
    with pytest.raises(ExtractorError, match=r"frame 6 \(image 00007\) cannot be read: it is .*; put the right file there") as error:
        folder().read({6: data}, np.array([5, 6]))
    assert why in error.value.why


def test_a_broken_picture_that_is_not_shown_does_not_matter() -> None:
    assert not folder().read({6: b"?"}, np.array([5])).valid.any()


def test_no_frames() -> None:
    assert len(folder().read({}, np.zeros(0, dtype=np.int64)).frame) == 0


@pytest.mark.parametrize(("name", "value"), [("size_px", 0), ("size_px", 112.0), ("jpeg_quality", 101), ("jpeg_quality", True)])
def test_bad_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected a whole number .* got {value!r}"):
        FolderParams(**{name: value})
