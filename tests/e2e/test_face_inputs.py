"""Unusual videos through the faces stage: turned, grey, see-through, odd-sized, tiny, short and huge; both of the detector's modes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.sound import ffmpeg_binary

FACES = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: native}
  faces:    {use: mtcnn, from: timeline, mode: MODE, min_face_px: MIN_FACE_PX}
store: {rows: timeline, dtype: float32}
"""
N_FRAMES = 12
LEFT, TOP = 81, 13  # of what the odd-sized clip keeps
LOSSLESS = ("-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast")
# What becomes of the first frames of a clip with one face, 640 x 360, by file name.
MADE: dict[str, tuple[str, ...]] = {
    "plain.mkv": LOSSLESS,
    "grey.mkv": ("-pix_fmt", "gray", "-c:v", "ffv1"),
    "grey_10_bit.mkv": ("-pix_fmt", "gray10le", "-c:v", "ffv1"),
    "alpha_qtrle.mov": ("-vf", "format=argb,colorchannelmixer=aa=0.5", "-c:v", "qtrle"),
    "alpha_png.mov": ("-vf", "format=rgba,colorchannelmixer=aa=0.3", "-c:v", "png"),
    "alpha_prores.mov": ("-pix_fmt", "yuva444p10le", "-c:v", "prores_ks", "-profile:v", "4444"),
    "odd.mkv": ("-vf", f"format=gbrp,crop=477:333:{LEFT}:{TOP}", "-c:v", "ffv1"),
    "tiny.mkv": ("-vf", "scale=46:46", *LOSSLESS),
    "a_few_pixels.mkv": ("-vf", "scale=7:5", "-c:v", "ffv1", "-pix_fmt", "gbrp"),
    "one_frame.mkv": ("-frames:v", "1", *LOSSLESS),
}
TURNED = {"turned_90.mp4": ("transpose=clock", "90"), "turned_180.mp4": ("hflip,vflip", "180")}


def _ffmpeg(*words: str | Path) -> None:
    argv = [ffmpeg_binary(), "-nostdin", "-v", "error", *map(str, words)]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=120)


@pytest.fixture(scope="module")
def unusual(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of them."""
    folder = tmp_path_factory.mktemp("unusual")
    first = ("-i", media / "single_face.mp4", "-an", "-frames:v", str(N_FRAMES))
    for name, words in MADE.items():
        _ffmpeg(*first, *words, folder / name)
    for name, (turn, back) in TURNED.items():
        lying = folder.with_name(f"lying_{name}")
        _ffmpeg(*first, "-vf", turn, "-c:v", "libx264", "-qp", "5", "-preset", "ultrafast", lying)
        _ffmpeg("-display_rotation", back, "-i", lying, "-c", "copy", folder / name)
    return folder


def _found(desk: Any) -> dict[str, dict[str, Any]]:
    found = {}
    for trial, path in desk.tracks("faces").items():
        with h5py.File(path) as file:
            found[trial] = {name: file[name][:] for name in ("boxes", "landmarks", "valid", "frame", "track", "times_s") if name in file}
    return found


def _ious(a: Any, b: Any) -> Any:
    """(N, 4), (N, 4) -> (N,)"""
    shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    return shared / (np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - shared)


@pytest.mark.parametrize("mode", ["tracked", "exact"])
def test_each_has_the_faces_of_the_plain_clip(unusual: Path, new_desk: Callable[..., Any], mode: str) -> None:
    """In the upright picture's pixels; what is too small has none, and is no failure."""
    desk = new_desk(unusual, stages=FACES.replace("MODE", mode).replace("MIN_FACE_PX", "40"))
    result = desk.run("--only", "faces")
    n = len(MADE) + len(TURNED)
    assert result["computed"] == {"timeline": n, "faces": n}
    found = _found(desk)
    plain = found["plain"]
    assert plain["valid"].all()
    assert len(plain["valid"]) == N_FRAMES
    for name, faces in found.items():
        assert faces["frame"].tolist() == list(range(1 if name == "one_frame" else N_FRAMES)), name
        if name in ("tiny", "a_few_pixels"):
            assert not faces["valid"].any(), name
            continue
        assert faces["valid"].all(), name
        assert set(faces["track"].tolist()) == {0}, name
        shift = np.array([LEFT, TOP] if name == "odd" else [0, 0])
        rows = slice(0, len(faces["valid"]))
        # Other colours, and a pyramid that begins elsewhere, move boxes of MTCNN by some pixels.
        assert _ious(faces["boxes"] + np.tile(shift, 2), plain["boxes"][rows]).min() > 0.75, name
        points, eyes = plain["landmarks"][rows], plain["landmarks"][rows, 1] - plain["landmarks"][rows, 0]
        off = np.linalg.norm(faces["landmarks"] + shift - points, axis=2).mean(axis=1) / np.linalg.norm(eyes, axis=1)
        assert off.max() < 0.15, name


@pytest.mark.parametrize("mode", ["tracked", "exact"])
def test_one_second_of_2160_rows(media: Path, tmp_path: Path, new_desk: Callable[..., Any], mode: str) -> None:
    """Six times the size of the same clip: boxes come in the source's own pixels."""
    n = 30 if mode == "tracked" else 6
    first = ("-i", media / "single_face.mp4", "-an", "-frames:v", str(n))
    for name, scale in (("large", 6), ("small", 1)):
        (tmp_path / name).mkdir()
        words = ("-vf", f"scale={640 * scale}:{360 * scale}", "-c:v", "mjpeg", "-q:v", "3", tmp_path / name / "clip.mkv")
        _ffmpeg(*first, *words)
    faces = []
    for name, min_face_px in (("large", 240), ("small", 40)):
        stages = FACES.replace("MODE", mode).replace("MIN_FACE_PX", str(min_face_px))
        desk = new_desk(tmp_path / name, stages=stages, name=f"{name}_desk")
        desk.run("--only", "faces")
        faces.append(_found(desk)["clip"])
    large, small = faces
    assert large["frame"].tolist() == small["frame"].tolist() == list(range(n))
    assert large["valid"].all()
    assert set(large["track"].tolist()) == {0}
    assert _ious(large["boxes"], small["boxes"] * 6).min() > 0.75


@pytest.mark.parametrize("mode", ["tracked", "exact"])
def test_left_and_right_of_two_people(some_clips: Callable[..., Any], sample: Any, new_desk: Callable[..., Any], mode: str) -> None:
    """Each trial's face is its own person's in every row, whichever the mode."""
    name, clip = next((name, clip) for name, clip in sample.clips.items() if clip["kind"] == "two_people")
    desk = new_desk(*some_clips(name), stages=FACES.replace("MODE", mode).replace("MIN_FACE_PX", "40"))
    desk.run("--only", "faces")
    found = _found(desk)
    truth = clip["trials"]
    assert found.keys() == truth.keys()
    assert {one["person"] for one in truth.values()} == {"left", "right"}
    for trial, faces in found.items():
        rows = np.flatnonzero(faces["valid"])
        assert len(rows) > 0.8 * clip["n_frames"]
        middle = (faces["boxes"][rows, :2] + faces["boxes"][rows, 2:]) / 2
        away = {}
        for other, about in truth.items():
            boxes = np.array(about["boxes"])[faces["frame"][rows]]
            away[other] = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - middle, axis=1)
        (elsewhere,) = (away[other] for other in away if other != trial)
        assert (away[trial] < elsewhere).all()
        assert len(set(faces["track"][rows].tolist())) == 1
