"""What every extractor that sees a source must do: rows(times), condition(waveform), and follow(frames) or read(pictures)."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Faces, Float64, Frames, Person, UInt8, Waveform
from extractors.face import jpeg

Build = Callable[..., Any]


def pictures(golden: types.ModuleType, shown: Sequence[bool]) -> UInt8:
    """(F, 240, 240, 3): a photograph of one face where it is shown, else grey."""
    face = golden.photograph()
    grey = np.full_like(face, 128)
    return np.stack([face if one else grey for one in shown]) if len(shown) else np.zeros((0, *face.shape), np.uint8)


def crop(
    golden: types.ModuleType, extractor: Any, shown: Sequence[bool], persons: Sequence[Person], together: int
) -> Mapping[Person, Faces]:
    """Faces of frames 0, 2, 4, ... at 4 Hz, given `together` at a time; a reader of pictures has none of those without a face."""
    images, index = pictures(golden, shown), 2 * np.arange(len(shown))
    if hasattr(extractor, "read"):
        data = {int(at): jpeg.encode(image, 90) for at, image, one in zip(index, images, shown, strict=True) if one}
        return {person: extractor.read(data, index) for person in persons}
    parts = [slice(at, at + together) for at in range(0, len(shown), together)]
    found: Mapping[Person, Faces] = extractor.follow(
        [Frames(images=images[part], times_s=index[part] / 8, index=index[part]) for part in parts], persons
    )
    return found


def crop_of(faces: Faces, data: bytes) -> UInt8 | None:
    if faces.coding == "jpeg" or not data:
        return jpeg.decode(data)
    return np.frombuffer(data, np.uint8).reshape(faces.size_px, faces.size_px, 3)


def check(faces: Faces) -> None:
    assert [one.dtype.name for one in (faces.frame, faces.valid, faces.track)] == ["int64", "bool", "int64"]
    assert [one.dtype.name for one in (faces.boxes, faces.landmarks, faces.prob)] == ["float32"] * 3
    assert (faces.track[~faces.valid] == -1).all()
    assert (faces.track[faces.valid] >= 0).all()
    for name in ("boxes", "landmarks", "prob"):
        values = getattr(faces, name)
        assert np.isnan(values[~faces.valid]).all()
        known = np.isfinite(values[faces.valid])
        assert known.all() or not known.any(), "known of every face or of none"
    for data, valid in zip(faces.crops, faces.valid, strict=True):
        picture = crop_of(faces, data)
        assert (picture is not None) == valid
        assert picture is None or picture.shape == (faces.size_px, faces.size_px, 3)
    assert np.isin(faces.found.frame, faces.frame).all()


def same(a: Faces, b: Faces) -> bool:
    """To the last bit."""
    assert (a.size_px, a.coding) == (b.size_px, b.coding)
    arrays = ("frame", "valid", "boxes", "landmarks", "prob", "track")
    found = (getattr(a.found, one.name).tobytes() == getattr(b.found, one.name).tobytes() for one in dataclasses.fields(a.found))
    return (
        all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in arrays) and list(a.crops) == list(b.crops) and all(found)
    )


@pytest.mark.parametrize("shown", [(), (False,), (True,), (True, False, True, True)], ids=["no frame", "no face", "one frame", "a gap"])
def test_faces_have_their_form(shown: tuple[bool, ...], cropper: str, kept: Build, golden: types.ModuleType) -> None:
    faces = crop(golden, kept(cropper), shown, ["main"], 2)["main"]
    check(faces)
    assert faces.size_px == 112
    assert faces.frame.tolist() == [2 * i for i in range(len(shown))]
    assert faces.valid.tolist() == list(shown)


def test_faces_do_not_depend_on_batches_and_company(cropper: str, kept: Build, build: Build, golden: types.ModuleType) -> None:
    shown = (True, False, True)
    persons: tuple[Person, ...] = ("main", "left", "right")
    first = crop(golden, kept(cropper), shown, persons, 1)
    for extractor, together in ((kept(cropper), 1), (kept(cropper), 3), (build(cropper), 2)):
        again = crop(golden, extractor, shown, persons, together)
        assert again.keys() == first.keys() == set(persons)
        assert all(same(again[person], first[person]) for person in persons)
    assert same(crop(golden, kept(cropper), shown, ["main"], 3)["main"], first["main"])


def test_faces_with_other_parameters(cropper: str, rows: dict[str, Any], kept: Build, golden: types.ModuleType) -> None:
    params = rows[cropper].params
    for faces in crop(golden, kept(cropper, **params), (True, False, True), ["main", "left"], 3).values():
        check(faces)
        assert faces.size_px == params["size_px"]


@pytest.mark.parametrize("rate_hz", ["native", 25.0, 1000.0])
@pytest.mark.parametrize("times_s", [[0.0], [0.0, 0.0], [0.0, 0.04, 0.5, 0.51, 3.0], np.arange(5000) / 30.0], ids=len)
def test_a_timeline_shows_frames_in_order(times_s: Float64, rate_hz: Any, kept: Build) -> None:
    source = np.asarray(times_s, np.float64)
    rows = kept("timeline", rate_hz=rate_hz).rows(source)
    assert (rows.times_s.dtype, rows.frame.dtype) == (np.float64, np.int64)
    assert rows.times_s[0] == 0
    assert rows.frame[0] == np.flatnonzero(source <= source[0])[-1] or rate_hz == "native"
    assert (np.diff(rows.frame) >= 0).all()
    assert ((rows.frame >= 0) & (rows.frame < len(source))).all()
    assert (source[rows.frame] <= rows.times_s + 2e-3).all(), "no frame before its time, but for a coarse clock's rounding"
    again = kept("timeline", rate_hz=rate_hz).rows(source)
    assert (again.times_s.tobytes(), again.frame.tobytes()) == (rows.times_s.tobytes(), rows.frame.tobytes())
    if rate_hz == "native":
        np.testing.assert_array_equal(rows.times_s, source)


def test_a_timeline_without_frames_is_refused(kept: Build) -> None:
    with pytest.raises(ExtractorError, match=r"no timeline: the source has no decodable frame; .*doctor"):
        kept("timeline").rows(np.zeros(0))


@pytest.mark.parametrize("peak_dbfs", [None, -3.0, 0.0])
@pytest.mark.parametrize("n", [0, 1, 100, 4800, 60 * 16000])
def test_a_waveform_keeps_its_clock(n: int, peak_dbfs: float | None, kept: Build, golden: types.ModuleType) -> None:
    for gain in (0.0, 1e-6, 1.0):
        valid = np.arange(-(-n // 160)) % 7 > 0
        sound = Waveform(samples=gain * golden.uniform("waveform", n), rate_hz=16000, valid=valid)
        before = sound.samples.copy()
        first, again = (kept("waveform", peak_dbfs=peak_dbfs).condition(sound) for _ in range(2))
        assert first.samples.dtype == np.float32
        assert len(first.samples) == n
        assert first.rate_hz == 16000
        assert np.abs(first.samples).max(initial=0) <= 1
        np.testing.assert_array_equal(first.valid, valid)
        np.testing.assert_array_equal(again.samples, first.samples)
        np.testing.assert_array_equal(sound.samples, before)
