"""Artifacts: every kind reads back bit by bit, tells its whole story, and any damage to it is found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from extractors.contract import Detections, Faces, Rows, Track, Waveform
from pipeline import artifact
from pipeline.artifact import Provenance
from pipeline.errors import PassingError
from pipeline.hdf5 import CorruptFileError, guarded_file, is_whole, sealed_file
from pipeline.keys import identity, key_of, stage_part

PART = stage_part(extractor="made_up", version=4, params={"hop": "timeline"}, precision="float32", weights="ab" * 32, decoder=None)
IDENTITY = identity(PART, source="cd" * 32, person="left", pictures=None, inputs=["ef" * 32])


def about(**changes: Any) -> Provenance:
    known: dict[str, Any] = {
        "key": key_of(IDENTITY),
        "stage": "arcface",
        "trial": "video5_left",
        "licence": "MIT",
        "code": "12" * 32,
        "identity": IDENTITY,
        "seconds": 1.5,
        "warnings": ["odd: 'ü'"],
        "media": {"codec": "h264"},
    }
    return Provenance(**{**known, **changes})


@pytest.fixture
def track() -> Track:
    values = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    values[2] = np.nan
    return Track(values=values, times_s=np.array([0.0, 0.1, 0.1, 0.7]), valid=np.array([True, True, False, True]), columns=("a", "b"))


@pytest.fixture
def path(tmp_path: Path, track: Track) -> Path:
    path = tmp_path / "arcface" / "ab" / "key.h5"
    artifact.write_track(path, about(), track=track)
    return path


def assert_same(one: Any, other: Any) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


def test_a_track_reads_back(path: Path, track: Track) -> None:
    back = artifact.read_track(path)
    assert back.columns == track.columns
    for name in ("values", "times_s", "valid"):
        assert_same(getattr(back, name), getattr(track, name))
    assert is_whole(path)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1])
def test_short_tracks_of_any_precision_read_back(tmp_path: Path, dtype: Any, n: int) -> None:
    short = Track(values=np.ones((n, 3), dtype), times_s=np.zeros(n), valid=np.ones(n, np.bool_))
    artifact.write_track(tmp_path / "x.h5", about(), track=short)
    back = artifact.read_track(tmp_path / "x.h5")
    assert_same(back.values, short.values)
    assert back.columns == ()


def test_an_artifact_tells_its_story(path: Path) -> None:
    told = artifact.read_about(path)
    expected = {
        "format": "affectpipe/track",
        "format_version": 1,
        "key": key_of(IDENTITY),
        "stage": "arcface",
        "trial": "video5_left",
        "extractor": "made_up",
        "extractor_version": 4,
        "params": {"hop": "timeline"},
        "inputs": ["ef" * 32],
        "source": "cd" * 32,
        "weights": "ab" * 32,
        "licence": "MIT",
        "identity": IDENTITY,
        "code": "12" * 32,
        "seconds": 1.5,
        "warnings": ["odd: 'ü'"],
        "media": {"codec": "h264"},
    }
    assert {name: told[name] for name in expected} == expected
    assert key_of(told["identity"]) == told["key"]  # the file proves its own key
    assert told["environment"]["device"] == "cpu"
    assert told["environment"]["numpy"] == np.__version__
    assert told["checksum"].startswith("sha256:")
    assert told["created_utc"].endswith("+00:00")


def test_plain_h5py_reads_it(path: Path) -> None:
    with h5py.File(path) as file:
        assert json.loads(file.attrs["params"]) == {"hop": "timeline"}
        assert file["values"].shape == (4, 2)
        assert file["valid"][:].dtype == np.bool_
        assert file["columns"].asstr()[:].tolist() == ["a", "b"]


def test_any_changed_or_missing_byte_of_an_artifact_is_found(path: Path) -> None:
    whole = path.read_bytes()
    for i in range(0, len(whole), 7):  # test_hdf5.py flips every byte of a smaller file
        path.write_bytes(whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :])
        assert not is_whole(path), f"byte {i}"
    for length in range(0, len(whole), 501):
        path.write_bytes(whole[:length])
        assert not is_whole(path), f"cut to {length} bytes"


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path, track: Track) -> None:
    with pytest.raises(KeyError, match="stage"):
        artifact.write_track(tmp_path / "x.h5", about(identity={}), track=track)
    with pytest.raises(TypeError, match="not JSON serializable"):
        artifact.write_track(tmp_path / "x.h5", about(media={"size": object()}), track=track)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_may_pass(tmp_path: Path, track: Track) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PassingError, match="cannot be written"):
        artifact.write_track(tmp_path / "file" / "x.h5", about(), track=track)


def test_a_timeline_reads_back(tmp_path: Path) -> None:
    source_times_s = np.array([0.0, 0.04, 0.08])
    rows = Rows(times_s=np.array([0.0, 1 / 30, 2 / 30, 0.1]), frame=np.array([0, 0, 1, 2]))
    artifact.write_timeline(tmp_path / "t.h5", about(), rows=rows, source_times_s=source_times_s)
    back = artifact.read_rows(tmp_path / "t.h5")
    assert_same(back.times_s, rows.times_s)
    assert_same(back.frame, rows.frame)
    assert_same(artifact.read_source_times(tmp_path / "t.h5"), source_times_s)


@pytest.mark.parametrize("n_samples", [0, 1, 159, 160, 161, 16000])
def test_sound_reads_back_whatever_its_length(tmp_path: Path, n_samples: int) -> None:
    samples = np.sin(np.arange(n_samples)).astype(np.float32)
    valid = np.arange(-(-n_samples // 160)) % 3 != 1
    artifact.write_waveform(tmp_path / "w.h5", about(), waveform=Waveform(samples=samples, rate_hz=16000, valid=valid))
    back = artifact.read_waveform(tmp_path / "w.h5")
    assert back.rate_hz == 16000
    assert_same(back.samples, samples)
    assert_same(back.valid, valid)
    blocks = artifact.read_track(tmp_path / "w.h5") if valid.all() else None
    with h5py.File(tmp_path / "w.h5") as file:
        np.testing.assert_allclose(file["times_s"][:], 0.005 + 0.01 * np.arange(len(valid)), atol=1e-12)
        assert blocks is None or blocks.values.shape == file["values"].shape == (len(valid), 160)


def made_faces() -> Faces:
    """Four source frames; the second has no face. Every number tells its frame."""
    frame = np.array([0, 1, 2, 5])
    valid = np.array([True, False, True, True])

    def numbers(*shape: int) -> Any:
        array = frame.reshape(-1, *[1] * len(shape)) + np.arange(np.prod(shape, dtype=int)).reshape(shape) / 100
        return np.where(valid.reshape(-1, *[1] * len(shape)), array, np.nan).astype(np.float32)

    m = 3
    found = Detections(
        frame=np.array([0, 2, 2]),
        track=np.array([0, 0, 1]),
        boxes=np.ones((m, 4), np.float32),
        landmarks=np.ones((m, 5, 2), np.float32),
        prob=np.ones(m, np.float32),
        shots=np.array([[0, 640, 480], [2, 320, 240]]),
    )
    crops = [b"\xff\xd8zero", b"", b"\xff\xd8two!", b"\xff\xd8five?!"]
    return Faces(
        size_px=112,
        coding="jpeg",
        frame=frame,
        valid=valid,
        boxes=numbers(4),
        landmarks=numbers(5, 2),
        prob=numbers(),
        track=np.where(valid, 0, -1),
        crops=crops,
        found=found,
    )


def test_faces_are_spread_over_the_rows_that_show_their_frames(tmp_path: Path) -> None:
    faces = made_faces()
    rows = Rows(times_s=np.arange(7) / 30, frame=np.array([0, 0, 1, 2, 2, 5, 5]))
    artifact.write_faces(tmp_path / "f.h5", about(), faces=faces, rows=rows)
    with guarded_file(tmp_path / "f.h5") as file:
        crops = artifact.read_crop_rows(file)
        jpeg = file["jpeg"][:].tobytes()
        assert "raw" not in file
        boxes, landmarks, prob, ids = (file[name][:] for name in ("boxes", "landmarks", "prob", "track"))
    assert (crops.size_px, crops.coding) == (112, "jpeg")
    assert crops.frame.tolist() == rows.frame.tolist()
    assert crops.valid.tolist() == [True, True, False, True, True, True, True]
    for row, frame in enumerate(rows.frame):
        source = faces.frame.tolist().index(frame)
        assert jpeg[crops.offsets[row] : crops.offsets[row + 1]] == faces.crops[source]
        np.testing.assert_array_equal(boxes[row], faces.boxes[source])
        np.testing.assert_array_equal(landmarks[row], faces.landmarks[source])
        np.testing.assert_array_equal(prob[row], faces.prob[source])
        assert ids[row] == faces.track[source]
    assert crops.offsets[-1] == len(jpeg)
    geometry = artifact.read_track(tmp_path / "f.h5")
    named = dict(zip(geometry.columns, geometry.values[3], strict=True))
    assert (named["x1"], named["y2"], named["prob"]) == (boxes[3, 0], boxes[3, 3], prob[3])
    assert (named["nose_x"], named["mouth_right_y"]) == (landmarks[3, 2, 0], landmarks[3, 4, 1])
    found = artifact.read_found(tmp_path / "f.h5")
    assert found.frame.tolist() == [0, 2, 2]
    assert found.landmarks.shape == (3, 5, 2)


@pytest.mark.parametrize("at_once", [1, 5, 48, 49, 200, 1 << 22])
@pytest.mark.parametrize("coding", ["jpeg", "raw"])
def test_crops_read_back_however_many_are_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: Any, at_once: int
) -> None:
    """Also of rows between which others lie, and where the last row has none."""
    monkeypatch.setattr(artifact, "CROP_BYTES_AT_ONCE", at_once)
    valid = np.array([False, True, True, False, True, True, False])
    n = len(valid)
    crops = [bytes([i]) * (4 * 4 * 3 if coding == "raw" else 10 * i + 1) if valid[i] else b"" for i in range(n)]
    nowhere = np.full((n, 4), np.nan, np.float32)
    faces = Faces(
        size_px=4,
        coding=coding,
        frame=np.arange(n),
        valid=valid,
        boxes=nowhere,
        landmarks=np.full((n, 5, 2), np.nan, np.float32),
        prob=nowhere[:, 0],
        track=np.where(valid, 0, -1),
        crops=crops,
        found=made_faces().found,
    )
    shown = np.repeat(np.arange(n), 3)
    artifact.write_faces(tmp_path / "f.h5", about(), faces=faces, rows=Rows(times_s=np.arange(3 * n) / 90, frame=shown))
    with guarded_file(tmp_path / "f.h5") as file:
        rows = artifact.read_crop_rows(file)
        assert (rows.coding, rows.size_px) == (coding, 4)
        assert file[coding].shape == (3 * sum(map(len, crops)),)
        assert len({"jpeg", "raw"} & set(file)) == 1
        for which in (np.arange(3 * n), np.array([4, 13]), np.array([20]), np.zeros(0, np.int64)):
            assert [data.tobytes() for data in artifact.read_crops(file, rows, which)] == [crops[shown[row]] for row in which]


@pytest.mark.parametrize("n", [0, 3])
def test_a_video_without_a_face_is_written(tmp_path: Path, n: int) -> None:
    nowhere = np.full((n, 4), np.nan, np.float32)
    found = Detections.none()
    faces = Faces(
        size_px=112,
        coding="jpeg",
        frame=np.arange(n),
        valid=np.zeros(n, np.bool_),
        boxes=nowhere,
        landmarks=np.full((n, 5, 2), np.nan, np.float32),
        prob=nowhere[:, 0],
        track=np.full(n, -1),
        crops=[b""] * n,
        found=found,
    )
    artifact.write_faces(tmp_path / "f.h5", about(), faces=faces, rows=Rows(times_s=np.arange(n) / 25, frame=np.arange(n)))
    with guarded_file(tmp_path / "f.h5") as file:
        assert file["jpeg"].shape == (0,)
        assert file["jpeg_offsets"][:].tolist() == [0] * (n + 1)
    assert len(artifact.read_found(tmp_path / "f.h5").frame) == 0


def test_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Faces\.crops: expected a crop where valid, and nowhere else, got a mismatch"):
        dataclasses.replace(made_faces(), crops=[b"one", b"two", b"three", b"four"])
    with pytest.raises(ValueError, match=r"Faces\.crops: expected 37632 bytes each, got \[6 8\]"):
        dataclasses.replace(made_faces(), coding="raw")


def sealed_with(path: Path, changes: dict[str, Any], but: str = "") -> None:
    """A well-sealed file whose attributes are an artifact's, some of them changed, one left out."""
    with guarded_file(path) as whole:
        attributes = {name: value for name, value in whole.attrs.items() if name != "checksum"}
    with sealed_file(path) as file:
        for name, value in {**attributes, **changes}.items():
            if name != but:
                file.attrs[name] = value


@pytest.mark.parametrize(
    ("changes", "but", "text"),
    [
        ({"format": "other/thing"}, "", "not an affectpipe/track file of version 1"),
        ({"format_version": 2}, "", "not an affectpipe/track file of version 1"),
        ({}, "format_version", "not an affectpipe/track file of version 1"),
        ({}, "format", "the attribute 'format' is missing or not text"),
        ({}, "identity", "lacks the attributes identity"),
        ({"params": "{"}, "", "the attribute 'params' is not JSON"),
        ({"params": 7}, "", "the attribute 'params' is missing or not text"),
    ],
)
def test_a_whole_file_that_is_no_artifact(path: Path, changes: dict[str, Any], but: str, text: str) -> None:
    sealed_with(path, changes, but)
    assert is_whole(path)
    with pytest.raises(CorruptFileError, match=text):
        artifact.read_about(path)


def test_the_data_digest_is_of_the_data_alone(tmp_path: Path, track: Track) -> None:
    other = Track(values=track.values + np.float32(1e-6), times_s=track.times_s, valid=track.valid, columns=track.columns)
    found = []
    for number, (values, said) in enumerate(((track, about()), (track, about(seconds=2.0, trial="b", code="d")), (other, about()))):
        artifact.write_track(tmp_path / f"{number}.h5", said, track=values)
        found.append(artifact.read_about(tmp_path / f"{number}.h5")["data"])
    assert found[0] == found[1] != found[2]
