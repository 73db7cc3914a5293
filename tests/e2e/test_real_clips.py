"""The real clips: every container, codec and oddity of theirs through the command, with what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline import artifact

FRAMES = {
    "cartoon_5_1_audio": None,  # not known beforehand
    "crowd_1080p": 105,
    "crying_640": 472,
    "far_face_480": 420,
    "no_face": 95,  # the header says 98; the edit list leaves out the first 3
    "noface_then_face_vfr": 169,
    "single_face": 72,
    "speech_512": 200,
    "two_video_streams": 390,  # of the larger, second video stream
}
FACELESS = ("no_face", "cartoon_5_1_audio")

SOUND = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: native}
  audio:    {use: waveform}
  logmel:   {use: logmel, from: audio}
  mfcc39:   {use: mfcc39, from: audio}
  egemaps:  {use: egemaps_lld, from: audio}
store: {rows: timeline, dtype: float16}
"""
# Faces are slow to find, and no smaller ones are in these clips.
FACES = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: native}
  faces:    {use: mtcnn, from: timeline, min_face_px: 150}
  audio:    {use: waveform}
  onet:     {use: onet, from: faces}
  logmel:   {use: logmel, from: audio}
store: {rows: timeline, dtype: float32}
"""


@pytest.fixture(scope="module")
def sound_of_all(media: Path, tmp_path_factory: pytest.TempPathFactory, command_line: Callable[..., Any]) -> tuple[Path, Path, Any]:
    """The store of all nine, its cache, and how the command ended."""
    root = tmp_path_factory.mktemp("sound")
    (root / "stages.yaml").write_text(SOUND, encoding="utf-8")
    done = command_line("run", media, "--stages", root / "stages.yaml", "--cache", root / "cache", "--store", root / "store")
    return root / "store", root / "cache", done


def _lengths(store: Path) -> dict[str, int]:
    with h5py.File(store / "index.h5") as index:
        return dict(zip(index["trials"].asstr()[:].tolist(), np.diff(index["offsets"][:]).tolist(), strict=True))


def test_all_nine_end_well(sound_of_all: tuple[Path, Path, Any]) -> None:
    store, _, done = sound_of_all
    assert (done.status, "Traceback" in done.err) == (0, False), done.err
    lengths = _lengths(store)
    assert lengths.keys() == FRAMES.keys()
    assert {name: n for name, n in lengths.items() if FRAMES[name] is not None} == {n: f for n, f in FRAMES.items() if f is not None}


def test_features_lie_on_the_same_rows(sound_of_all: tuple[Path, Path, Any]) -> None:
    """Every clip has sound at its beginning; noface_then_face_vfr has 3.9 s of it for 6.4 s of pictures."""
    store, _, _ = sound_of_all
    with h5py.File(store / "index.h5") as index:
        n, offsets, times_s = len(index["times_s"]), index["offsets"][:], index["times_s"][:]
        trials = index["trials"].asstr()[:].tolist()
    for feature, dim in (("logmel", 64), ("mfcc39", 39), ("egemaps", 25)):
        with h5py.File(store / f"{feature}.h5") as file:
            assert file["values"].shape == (n, dim)
            valid = file["valid"][:]
            assert np.isfinite(file["values"][:][valid]).all()
        for i, name in enumerate(trials):
            rows = slice(offsets[i], offsets[i + 1])
            assert valid[rows].mean() > (0.55 if name == "noface_then_face_vfr" else 0.85), (feature, name)
        i = trials.index("noface_then_face_vfr")
        rows = slice(offsets[i], offsets[i + 1])
        assert not valid[rows][times_s[rows] > 4.0].any(), "there is no sound any more"


def test_a_store_is_read_with_h5py_alone(sound_of_all: tuple[Path, Path, Any], command_line: Callable[..., Any]) -> None:
    store, _, _ = sound_of_all
    with h5py.File(store / "index.h5") as index, h5py.File(store / "mfcc39.h5") as feature:
        i = index["trials"].asstr()[:].tolist().index("speech_512")
        start, stop = index["offsets"][i : i + 2]
        x = feature["values"][start:stop]
    assert x.shape == (200, 39)
    assert x.dtype == np.float16
    assert np.isfinite(x[:-2]).all(), "only the last windows may reach past the sound"
    assert command_line("inspect", store, "--json").json["rows"]["speech_512"] == 200


def test_the_chosen_stream_is_the_one_ffmpeg_picks(sound_of_all: tuple[Path, Path, Any]) -> None:
    """two_video_streams: the second video is larger."""
    _, cache, _ = sound_of_all
    about = next(
        about for path in (cache / "timeline").rglob("*.h5") if (about := artifact.read_about(path))["trial"] == "two_video_streams"
    )
    videos = [stream for stream in about["media"]["streams"] if stream["type"] == "video"]
    chosen = next(stream for stream in videos if stream["index"] == about["media"]["video"])
    assert len(videos) == 2
    assert chosen["width"] * chosen["height"] == max(stream["width"] * stream["height"] for stream in videos)
    assert chosen is videos[1]


@pytest.fixture(scope="module")
def faces(media: Path, tmp_path_factory: pytest.TempPathFactory, command_line: Callable[..., Any]) -> tuple[Path, Any]:
    """The store of the short clips with faces extracted."""
    root = tmp_path_factory.mktemp("faces")
    (root / "videos").mkdir()
    for name in ("no_face.mp4", "cartoon_5_1_audio.mp4", "noface_then_face_vfr.mov", "single_face.mp4"):
        (root / "videos" / name).symlink_to(media / name)
    (root / "stages.yaml").write_text(FACES, encoding="utf-8")
    words = ("--stages", root / "stages.yaml", "--cache", root / "cache", "--store", root / "store", "--follow-links")
    return root / "store", command_line("run", root / "videos", *words)


def test_masks_say_where_a_face_is(faces: tuple[Path, Any]) -> None:
    store, done = faces
    assert (done.status, "Traceback" in done.err) == (0, False), done.err
    with h5py.File(store / "index.h5") as index, h5py.File(store / "onet.h5") as feature:
        offsets, trials, times_s = index["offsets"][:], index["trials"].asstr()[:].tolist(), index["times_s"][:]
        valid, values = feature["valid"][:], feature["values"][:]
    assert np.isnan(values[~valid]).all()
    assert np.isfinite(values[valid]).all()
    rows = {name: slice(offsets[i], offsets[i + 1]) for i, name in enumerate(trials)}
    for name in FACELESS:
        assert not valid[rows[name]].any(), name
    assert valid[rows["single_face"]].mean() > 0.95
    seen, at_s = valid[rows["noface_then_face_vfr"]], times_s[rows["noface_then_face_vfr"]]
    half_s = at_s[-1] / 2
    assert len(seen) == 169
    assert not seen[at_s < 0.9 * half_s].any(), "the first half shows no face"
    assert seen[at_s > 1.2 * half_s].mean() > 0.9, "the second half shows one"


def test_a_constant_rate_gives_its_count(media: Path, new_desk: Callable[..., Any], tmp_path: Path) -> None:
    """noface_then_face_vfr: 169 frames in 6.4 s are 192 rows at 30 Hz, each showing the latest frame of its time."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "noface_then_face_vfr.mov").symlink_to(media / "noface_then_face_vfr.mov")
    desk = new_desk(tmp_path / "videos", stages=SOUND.replace("native", "30"))
    desk.run("--only", "logmel", "--follow-links")
    with h5py.File(desk.store / "index.h5") as index, h5py.File(desk.store / "logmel.h5") as feature:
        frame, times_s = index["frame"][:], index["times_s"][:]
        assert feature["values"].shape == (192, 64)
    source_s = artifact.read_source_times(desk.tracks("timeline")["noface_then_face_vfr"])
    assert len(source_s) == 169
    np.testing.assert_allclose(times_s, np.arange(192) / 30, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(frame, [max(i for i, shown_s in enumerate(source_s) if shown_s <= tick_s + 1e-6) for tick_s in times_s])
