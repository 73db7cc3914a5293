"""Whose face it is: the two people of one clip are never exchanged, a face that is away is masked, and organisers' crops come through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from extractors.face import alignment
from pipeline import video

CROPS = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: native}
  crops:    {use: folder, from: timeline, root: crops}
  onet:     {use: onet, from: crops}
store: {rows: labels, dtype: float32, fill: {default: FILL}}
"""


def _centres(boxes: Any) -> Any:
    boxes = np.asarray(boxes, dtype=np.float64)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _faces(desk: Any, trial: str) -> dict[str, Any]:
    with h5py.File(desk.tracks("faces")[trial]) as file:
        return {name: file[name][:] for name in ("boxes", "landmarks", "valid", "frame", "track")}


def test_every_row_has_the_face_of_its_frame_and_person(full: tuple[Any, Any], sample: Any) -> None:
    """Boxes lie where truth.json has them, and follow them frame by frame."""
    for clip in sample.clips.values():
        for trial, truth in clip["trials"].items():
            found = _faces(full[0], trial)
            valid, frame = found["valid"], found["frame"]
            assert frame.tolist() == list(range(clip["n_frames"]))
            boxes = np.array(truth["boxes"])[frame]
            away = np.linalg.norm(_centres(found["boxes"]) - _centres(boxes), axis=1)[valid]
            side = (boxes[:, 3] - boxes[:, 1])[valid]
            assert (away < 0.3 * side).all(), f"{trial}: a face is {np.max(away / side):.2f} faces away from where it is"
            present = np.array(truth["present"])[frame]
            assert valid[present].mean() > 0.9, trial
            assert not valid[~present].any(), trial


@pytest.mark.parametrize("kind", ["variable_rate", "late_video_turned"])
def test_each_crop_is_cut_from_its_own_frame(full: tuple[Any, Any], sample: Any, kind: str) -> None:
    """Cut with the row's landmarks out of the decoded frame it names, the face is the stored crop but for JPEG; out of the frames
    before and after it, which differ by a little motion, it fits less."""
    import cv2

    name, clip = next((name, clip) for name, clip in sample.clips.items() if clip["kind"] == kind)
    n = clip["n_frames"]
    images = [image for batch in video.frames(sample.videos / f"{name}.mp4", np.arange(n), n) for image in batch.images]
    with h5py.File(full[0].tracks("faces")[name]) as file:
        frame, landmarks, jpeg, offsets = (file[part][:] for part in ("frame", "landmarks", "jpeg", "jpeg_offsets"))
        rows = [row for row in np.flatnonzero(file["valid"][:]) if 0 < frame[row] < n - 1]
    matrices, _ = alignment.similarity(landmarks, 112)
    assert len(rows) > 0.8 * (n - 2)
    for row in rows:
        picture = cv2.imdecode(jpeg[offsets[row] : offsets[row + 1]], cv2.IMREAD_COLOR_RGB)
        assert picture is not None
        crop = picture.astype(np.float64)
        off = [np.abs(alignment.warp(images[frame[row] + lag], matrices[row], 112) - crop).mean() for lag in (-1, 0, 1)]
        assert off[1] < 0.8 * min(off[0], off[2]), (row, off)


def test_left_and_right_are_never_exchanged(full: tuple[Any, Any], sample: Any) -> None:
    trials = next(clip["trials"] for clip in sample.clips.values() if clip["kind"] == "two_people")
    left, right = (next(name for name, truth in trials.items() if truth["person"] == side) for side in ("left", "right"))
    found = {name: _faces(full[0], name) for name in (left, right)}
    for own, other in ((left, right), (right, left)):
        rows = found[own]["valid"]
        centres = _centres(found[own]["boxes"])[rows]
        to_own, to_other = (np.linalg.norm(centres - _centres(trials[name]["boxes"])[rows], axis=1) for name in (own, other))
        assert (to_own < to_other).all()
        assert len(set(found[own]["track"][rows])) == 1, "one person is one track"
    assert found[left]["track"][found[left]["valid"]][0] != found[right]["track"][found[right]["valid"]][0]


def test_the_eyes_are_in_order(full: tuple[Any, Any], sample: Any) -> None:
    """Landmarks, from which crops are aligned, are near the drawn ones and picture-left first, turned clip included."""
    for clip in sample.clips.values():
        for trial, truth in clip["trials"].items():
            found = _faces(full[0], trial)
            valid = found["valid"]
            drawn = np.array(truth["landmarks"])[valid]
            eyes_px = np.linalg.norm(drawn[:, 1] - drawn[:, 0], axis=1)
            off = np.linalg.norm(found["landmarks"][valid] - drawn, axis=2).max(axis=1)
            assert (found["landmarks"][valid, 0, 0] < found["landmarks"][valid, 1, 0]).all()
            assert np.median(off / eyes_px) < 0.35, trial


@pytest.mark.parametrize("fill", ["none", "zero", "nearest", "previous"])
def test_organisers_crops_with_gaps(
    fill: str, some_clips: Callable[..., Any], new_desk: Callable[..., Any], write_crops: Callable[..., None]
) -> None:
    """106 has a crop of some frames, also of one past its end; 106-30-416x304, whose name begins alike, has none."""
    desk = new_desk(*some_clips("106", "106-30-416x304"), stages=CROPS.replace("FILL", fill))
    there = [3, 4, 5, 9, 30, 44]
    write_crops(desk.stages.parent / "crops" / "106", [*there, 45])
    result = desk.run()
    assert result["computed"] == {"timeline": 2, "crops": 2, "onet": 2}
    with h5py.File(desk.store / "index.h5") as index, h5py.File(desk.store / "onet.h5") as file:
        offsets, trials = index["offsets"][:], index["trials"].asstr()[:].tolist()
        spans = {trial: slice(offsets[i], offsets[i + 1]) for i, trial in enumerate(trials)}
        values, valid = file["values"][spans["106"]], file["valid"][spans["106"]]
        none = file["values"][spans["106-30-416x304"]], file["valid"][spans["106-30-416x304"]]
    assert np.flatnonzero(valid).tolist() == there
    assert len({row.tobytes() for row in values[there]}) == len(there), "every row is of its own crop"
    assert not none[1].any()
    assert (none[0] == 0).all() if fill == "zero" else np.isnan(none[0]).all()
    expected = {"none": None, "zero": None, "nearest": {0: 3, 6: 5, 8: 9, 20: 30, 43: 44}, "previous": {6: 5, 8: 5, 20: 9, 43: 30}}[fill]
    for row, of in (expected or {}).items():
        np.testing.assert_array_equal(values[row], values[of])
    if fill != "nearest":
        assert (values[0] == 0).all() if fill == "zero" else np.isnan(values[0]).all()


def test_a_changed_crop_is_noticed(some_clips: Callable[..., Any], new_desk: Callable[..., Any], write_crops: Callable[..., None]) -> None:
    desk = new_desk(*some_clips("106", "207"), stages=CROPS.replace("FILL", "none"))
    folder = desk.stages.parent / "crops" / "106"
    write_crops(folder, [0, 1])
    assert desk.run()["computed"] == {"timeline": 2, "crops": 2, "onet": 2}
    assert desk.run()["computed"] == {}
    (folder / "00001.jpg").replace(folder / "00003.jpg")
    changed = desk.here("why", "--json", arguments=["106", "onet"]).json["changed"]
    assert list(changed) == ["crops.pictures"]
    assert desk.run()["computed"] == {"crops": 1, "onet": 1}
    with h5py.File(desk.store / "onet.h5") as file, h5py.File(desk.store / "index.h5") as index:
        assert index["trials"].asstr()[0] == "106"
        assert np.flatnonzero(file["valid"][:]).tolist() == [1, 2]


def test_a_crop_that_is_no_picture_is_one_failed_trial(
    some_clips: Callable[..., Any], new_desk: Callable[..., Any], write_crops: Callable[..., None]
) -> None:
    desk = new_desk(*some_clips("106", "207"), stages=CROPS.replace("FILL", "none"))
    for name in ("106", "207"):
        write_crops(desk.stages.parent / "crops" / name, [0, 1, 2])
    (desk.stages.parent / "crops" / "106" / "00002.jpg").write_bytes(b"\xff\xd8 cut short")
    assert desk.run(status=1)["computed"] == {"timeline": 2, "crops": 1, "onet": 1}
    row = desk.failures()["106"]
    assert (row["stage"], row["what"]) == ("crops", "the face picture of frame 1 (image 00002) cannot be read")
