"""What `inspect` tells of a faces artifact: who was found, for how long, and who was chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from extractors.contract import Detections, Faces, Rows
from pipeline import artifact
from pipeline.artifact import Provenance
from pipeline.keys import identity, key_of, stage_part
from pipeline.story import inspect

PART = stage_part(extractor="mtcnn", version=2, params={}, precision="float32", weights=None, decoder="pyav 1")
IDENTITY = identity(PART, source="cd" * 32, person="main", pictures=None, inputs=["ef" * 32])


def written(path: Path, found: Detections, chosen: list[int], rows: Rows) -> Path:
    """An artifact of frames 0, 2, 4, ... in which these tracks are kept, -1 where none is."""
    frame = np.arange(len(chosen)) * 2
    valid = np.array(chosen) >= 0
    faces = Faces(
        size_px=112,
        coding="jpeg",
        frame=frame,
        valid=valid,
        boxes=np.zeros((len(chosen), 4), np.float32),
        landmarks=np.zeros((len(chosen), 5, 2), np.float32),
        prob=np.ones(len(chosen), np.float32),
        track=np.array(chosen),
        crops=[b"crop" if one else b"" for one in valid],
        found=found,
    )
    about = Provenance(key=key_of(IDENTITY), stage="faces", trial="106", licence="MIT", code="12" * 32, identity=IDENTITY, seconds=1.0)
    artifact.write_faces(path, about, faces=faces, rows=rows)
    return path


def faces_of(*tracks: tuple[int, list[int], float, float]) -> Detections:
    """(id, frames, side of the box, probability) of each."""
    listed = sorted((frame, track, side, prob) for track, frames, side, prob in tracks for frame in frames)
    frame, track, side, prob = (np.array(column) for column in zip(*listed, strict=True))
    boxes = np.stack([frame, frame, frame + side, frame + side + 4], axis=1).astype(np.float32)
    landmarks, shots = np.zeros((len(frame), 5, 2), np.float32), np.array([[0, 640, 480]])
    return Detections(frame=frame, track=track, boxes=boxes, landmarks=landmarks, prob=prob.astype(np.float32), shots=shots)


def test_tracks_are_listed_the_longest_first(tmp_path: Path) -> None:
    """Times are those of the rows, of which several may show one frame."""
    found = faces_of((0, [0, 2], 50, 0.95), (1, [2, 4, 8], 80, 0.999), (2, [8], 30, 0.9))
    rows = Rows(times_s=np.arange(10) / 10, frame=np.repeat([0, 2, 4, 6, 8], 2))
    story = inspect(written(tmp_path / "f.h5", found, [-1, 1, 1, -1, 1], rows))
    assert story["n_tracks"] == 3
    assert list(story["tracks"].items()) == [
        ("1", {"first_s": 0.2, "last_s": 0.8, "n_frames": 3, "mean_side_px": 82.0, "mean_prob": 0.999, "chosen": True}),
        ("0", {"first_s": 0.0, "last_s": 0.2, "n_frames": 2, "mean_side_px": 52.0, "mean_prob": 0.95, "chosen": False}),
        ("2", {"first_s": 0.8, "last_s": 0.8, "n_frames": 1, "mean_side_px": 32.0, "mean_prob": 0.9, "chosen": False}),
    ]


def test_of_many_tracks_the_longest_ten_are_listed(tmp_path: Path) -> None:
    found = faces_of(*((track, [2 * i for i in range(track + 1)], 40, 0.95) for track in range(14)))
    rows = Rows(times_s=np.arange(14) / 25, frame=np.arange(14) * 2)
    story = inspect(written(tmp_path / "f.h5", found, [13] * 14, rows))
    assert story["n_tracks"] == 14
    assert list(story["tracks"]) == [str(track) for track in range(13, 3, -1)]
    assert [track["chosen"] for track in story["tracks"].values()] == [True] + [False] * 9


def test_a_video_without_a_face_has_no_tracks(tmp_path: Path) -> None:
    found = Detections.none()
    story = inspect(written(tmp_path / "f.h5", found, [-1, -1], Rows(times_s=np.arange(2) / 25, frame=np.arange(2) * 2)))
    assert (story["n_tracks"], story["tracks"], story["whole"]) == (0, {}, True)
