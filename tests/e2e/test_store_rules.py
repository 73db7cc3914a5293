"""What stands in a store's rows: the tail, the narrow numbers, rows of one picture or of one time, and what failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest

from pipeline import artifact

FLOAT16_MAX = 65504.0
TAIL = 2  # labelled rows past the video's end
ALL_FRAMES = range(45)  # of the sample's clip 106
STAGES = """\
version: 1
stages:
  timeline: {{use: timeline, rate_hz: {rate}}}
  audio:    {{use: waveform}}
  crops:    {{use: folder, from: timeline, root: crops}}
  count:    {{use: {count}, from: [audio, timeline], scale: {scale}}}
  colour:   {{use: {colour}, from: crops}}
store: {{{store}}}
"""


def stages(plugin: Any, store: str, *, rate: float | str = "native", scale: float = 1.0) -> str:
    return STAGES.format(count=plugin.use("Count"), colour=plugin.use("Colour"), store=store, rate=rate, scale=scale)


def read(desk: Any, feature: str) -> tuple[Any, Any]:
    with h5py.File(desk.store / f"{feature}.h5") as file:
        return file["values"][:], file["valid"][:]


@pytest.fixture
def longer(some_clips: Callable[..., Any]) -> tuple[Path, Path]:
    """Clip 106, and its labels with two rows more than it has frames."""
    videos, labels = some_clips("106")
    path = next(labels.rglob("106.txt"))
    path.write_text(path.read_text(encoding="utf-8") + "0.25,-0.5\n" * TAIL, encoding="utf-8")
    return videos, labels


@pytest.mark.parametrize("align", ["nearest", "linear", "previous", "mean"])
def test_a_repeated_tail_has_the_last_row_and_is_never_valid(
    longer: tuple[Path, Path], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None], align: str
) -> None:
    """Row 45 is one interval past the last frame, where a track row still speaks: it is not valid all the same."""
    desk = new_desk(*longer)
    write_crops(desk.stages.parent / "crops" / "106", ALL_FRAMES)
    for fill, at_end in (("none", 45), ("zero", 0), ("nearest", 45), ("previous", 45)):
        policies = f"rows: labels, dtype: float32, tail: repeat, align: {{default: {align}}}, fill: {{default: {fill}}}"
        desk.write_stages(stages(plugin, policies))
        desk.run()
        with h5py.File(desk.store / "index.h5") as index:
            assert index["frame"][:].tolist() == [*ALL_FRAMES, -1, -1]
            np.testing.assert_allclose(index["times_s"][-TAIL:], np.array([45, 46]) / 30, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(index["labels/va/values"][-TAIL:], [[0.25, -0.5]] * TAIL)
            assert index["labels/va/valid"][-TAIL:].all()
        values, valid = read(desk, "count")
        assert valid.tolist() == [True] * 45 + [False] * TAIL
        np.testing.assert_array_equal(values[:, 0], [*range(1, 46), at_end, at_end])
        colour, valid = read(desk, "colour")
        assert valid.tolist() == [True] * 45 + [False] * TAIL
        np.testing.assert_array_equal(colour[-TAIL:], np.zeros((TAIL, 3)) if fill == "zero" else colour[[44, 44]])


def test_a_tail_after_a_missing_face_repeats_what_is_missing(
    longer: tuple[Path, Path], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None]
) -> None:
    desk = new_desk(*longer, stages=stages(plugin, "dtype: float32, fill: {default: none}"))
    write_crops(desk.stages.parent / "crops" / "106", range(44))
    desk.run()
    values, valid = read(desk, "colour")
    assert valid.tolist() == [True] * 44 + [False] * 3
    assert np.isnan(values[44:]).all()


def test_a_trimmed_tail_is_not_there(
    longer: tuple[Path, Path], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None]
) -> None:
    desk = new_desk(*longer, stages=stages(plugin, "dtype: float32, tail: trim"))
    write_crops(desk.stages.parent / "crops" / "106", ALL_FRAMES)
    desk.run()
    with h5py.File(desk.store / "index.h5") as index:
        assert index["frame"][:].tolist() == list(ALL_FRAMES)
        assert len(index["labels/va/values"]) == 45
    for feature in ("count", "colour"):
        values, valid = read(desk, feature)
        assert (len(values), valid.all()) == (45, True)


@pytest.mark.parametrize("scale", [1 / 3, 3000.3, -3000.3])
def test_float16_holds_the_rounded_values_and_says_what_it_clipped(
    some_clips: Callable[..., Any], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None], scale: float
) -> None:
    desk = new_desk(*some_clips("106"), stages=stages(plugin, "dtype: float16", scale=scale))
    write_crops(desk.stages.parent / "crops" / "106", ALL_FRAMES)
    results = [desk.run(), desk.run()]
    values, valid = read(desk, "count")
    exact = artifact.read_track(desk.tracks("count")["106"]).values
    np.testing.assert_array_equal(exact[:, 0], (np.arange(1, 46) * scale).astype(np.float32))
    assert values.dtype == np.float16
    assert valid.all()
    within = np.abs(exact) <= FLOAT16_MAX
    np.testing.assert_array_equal(values[within], exact[within].astype(np.float16))
    np.testing.assert_array_equal(values[~within], np.sign(exact[~within]) * np.float16(FLOAT16_MAX))
    assert [result["written"] for result in results] == [results[0]["written"], []], "the second run leaves all as it is"
    n_over = int((~within).sum())
    assert (n_over > 0) == (abs(scale) > 1)
    for result in results:
        said = [(row["trial"], row["stage"], row["severity"], row["what"]) for row in result["failures"]]
        assert said == ([("106", "count", "warning", "float16 is too narrow")] if n_over else [])
        assert not n_over or result["failures"][0]["why"].startswith(f"{n_over} values are beyond 65504")


def test_rows_that_show_one_picture_have_its_feature(
    some_clips: Callable[..., Any], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None]
) -> None:
    """At twice the source's rate every frame is two rows. It is embedded once, and both rows have it."""
    desk = new_desk(some_clips("106")[0], stages=stages(plugin, "rows: timeline, dtype: float32", rate=60))
    write_crops(desk.stages.parent / "crops" / "106", [frame for frame in ALL_FRAMES if frame != 7])
    desk.run()
    values, valid = read(desk, "colour")
    with h5py.File(desk.store / "index.h5") as index:
        assert index["frame"][:].tolist() == [frame for frame in ALL_FRAMES for _ in range(2)]
    assert np.flatnonzero(~valid).tolist() == [14, 15]
    np.testing.assert_array_equal(values[0::2], values[1::2])
    assert len({row.tobytes() for row in values[0::2]}) == 45, "every frame has its own"
    expected = [_mean_colour(desk.stages.parent / "crops" / "106" / f"{frame + 1:05d}.jpg") for frame in ALL_FRAMES if frame != 7]
    np.testing.assert_allclose(values[0::2][valid[0::2]], expected, rtol=1e-6)


def _mean_colour(path: Path) -> Any:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture.mean(axis=(0, 1))


def test_frames_of_one_time_keep_their_own_features(
    tmp_path: Path, new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None]
) -> None:
    """Matroska counts in milliseconds, so two frames 0.1 ms apart have one presentation time."""
    videos = tmp_path / "videos"
    videos.mkdir()
    with av.open(str(videos / "same.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10_000)
        for number, ticks in enumerate([0, 333, 334, 667, 1000, 1333]):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 10_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(videos / "same.mkv")) as container:
        assert [frame.pts for frame in container.decode(video=0)] == [0, 33, 33, 67, 100, 133]
    only_crops = "\n".join(line for line in stages(plugin, "rows: timeline, dtype: float32").split("\n") if "count:" not in line)
    desk = new_desk(videos, stages=only_crops)
    crops = desk.stages.parent / "crops" / "same"
    write_crops(crops, range(6))
    desk.run("--only", "colour")
    values, valid = read(desk, "colour")
    assert valid.all()
    with h5py.File(desk.store / "index.h5") as index:
        assert index["frame"][:].tolist() == list(range(6))
        np.testing.assert_allclose(index["times_s"][:], [0, 0.033, 0.033, 0.067, 0.1, 0.133], rtol=0, atol=1e-4)
    np.testing.assert_allclose(values, [_mean_colour(crops / f"{frame + 1:05d}.jpg") for frame in range(6)], rtol=1e-6)


CHAIN = """\
version: 1
stages:
  timeline: {{use: {clock}}}
  audio:    {{use: waveform}}
  crops:    {{use: folder, from: timeline, root: crops}}
  count:    {{use: {count}, from: [audio, timeline]}}
  colour:   {{use: {colour}, from: crops}}
store: {{rows: timeline}}
"""


def test_what_reads_a_failed_stage_is_not_tried(
    some_clips: Callable[..., Any], new_desk: Callable[..., Any], plugin: Any, write_crops: Callable[..., None]
) -> None:
    """Neither in the run in which it fails, nor in the next; and it is one failure, of the stage that failed."""
    plugin.write(refuse=True)
    text = CHAIN.format(clock=plugin.use("Clock"), count=plugin.use("Count"), colour=plugin.use("Colour"))
    desk = new_desk(some_clips("106")[0], stages=text)
    write_crops(desk.stages.parent / "crops" / "106", [0, 1])
    for computed, calls in (({"audio": 1}, ["new clock", "clock"]), ({}, ["new clock", "clock"])):
        result = desk.run(status=1)
        assert (result["computed"], plugin.calls) == (computed, calls)
        assert [(row["trial"], row["stage"], row["what"], row["also"]) for row in result["failures"]] == [
            ("106", "timeline", "refused", "")
        ]
    assert {path.parent.parent.name for path in desk.cache.glob("*/*/*.h5")} == {"audio"}
    assert {path.parent.parent.name for path in desk.cache.glob("*/*/*.failed.json")} == {"timeline"}
    plugin.write()
    result = desk.run("--retry-failed")
    assert result["computed"] == {"timeline": 1, "crops": 1, "count": 1, "colour": 1}
    assert plugin.calls == ["new clock", "clock", "new count", "count", "new colour", "colour"]


def test_a_failing_trial_does_not_keep_the_others_from_what_reads_it(
    sample: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any], plugin: Any
) -> None:
    text = CHAIN.format(clock="timeline", count=plugin.use("Count"), colour=plugin.use("Colour"))
    text = "".join(line for line in text.splitlines(keepends=True) if "crops" not in line)
    videos, labels = some_clips("106", "207")
    bad = videos / "bad.mp4"
    shutil.copyfile(videos / "106.mp4", bad)
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    desk = new_desk(videos, labels, stages=text)
    assert desk.run(status=1)["computed"] == {"timeline": 2, "audio": 2, "count": 2}
    assert plugin.calls == ["new count", "count", "count"]
    assert desk.failures()["bad"]["stage"] == "timeline"
    assert "count" not in desk.failures()["bad"]["also"], "the file is to blame, and nothing that would have read it"
