"""Frame-exactness: every row of every kind of clip shows the frame it says, at the time it says, and the sound is where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline import artifact, video
from pipeline.sample import find_onsets, read_frame_number

TONE_TOLERANCE_S = 0.010
TICK_S = 1e-6  # truth.json's times are exact to this; a variable-rate clip's clock has 90,000 ticks a second

TIMELINE_ONLY = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: RATE}
  audio:    {use: waveform}
  logmel:   {use: logmel, from: audio}
store: {rows: ROWS, dtype: float32, align: {default: nearest}}
"""


@pytest.fixture(scope="module")
def numbers_in_pixels(sample: Any) -> dict[str, list[int]]:
    """Per clip the number that is drawn into each decoded frame, in the order of decoding."""
    found = {}
    for name, clip in sample.clips.items():
        n = clip["n_frames"]
        batches = video.frames(sample.videos / f"{name}.mp4", np.arange(n), n)
        found[name] = [read_frame_number(image) for batch in batches for image in batch.images]
    return found


def _trials(sample: Any) -> dict[str, str]:
    """Trial -> the clip that shows it."""
    return {trial: name for name, clip in sample.clips.items() for trial in clip["trials"]}


def _rows(desk: Any) -> dict[str, tuple[Any, Any]]:
    """Trial -> its rows' source frames and times, by plain h5py."""
    with h5py.File(desk.store / "index.h5") as index:
        spans = zip(index["trials"].asstr()[:], index["offsets"][:-1], index["offsets"][1:], strict=True)
        return {trial: (index["frame"][start:stop], index["times_s"][start:stop]) for trial, start, stop in spans}


@pytest.mark.parametrize(("rate", "rows"), [("native", "timeline"), ("native", "labels"), ("30", "labels")])
def test_rows_of_the_source_show_every_frame_once(
    sample: Any, numbers_in_pixels: dict[str, list[int]], new_desk: Callable[..., Any], rate: str, rows: str
) -> None:
    """Labels are per source frame, so `rows: labels` gives a row per frame whatever the timeline's rate."""
    desk = new_desk(sample.videos, sample.labels, stages=TIMELINE_ONLY.replace("RATE", rate).replace("ROWS", rows))
    desk.run("--only", "timeline")
    found = _rows(desk)
    assert found.keys() == _trials(sample).keys()
    for trial, name in _trials(sample).items():
        frame, times_s = found[trial]
        assert [numbers_in_pixels[name][i] for i in frame] == frame.tolist() == list(range(sample.clips[name]["n_frames"]))
        np.testing.assert_allclose(times_s, sample.clips[name]["times_s"], rtol=0, atol=TICK_S)


@pytest.mark.parametrize("rate_hz", [30, 12.5])
def test_a_constant_rate_shows_the_latest_frame_at_each_tick(
    sample: Any, numbers_in_pixels: dict[str, list[int]], new_desk: Callable[..., Any], rate_hz: float
) -> None:
    desk = new_desk(sample.videos, stages=TIMELINE_ONLY.replace("RATE", str(rate_hz)).replace("ROWS", "timeline"))
    desk.run("--only", "timeline")
    for name, (frame, times_s) in _rows(desk).items():
        true_s = np.array(sample.clips[name]["times_s"])
        ticks_s = np.arange(len(frame)) / rate_hz
        latest = [max(i for i, shown_s in enumerate(true_s) if shown_s <= tick_s + TICK_S) for tick_s in ticks_s]
        np.testing.assert_allclose(times_s, ticks_s, rtol=0, atol=1e-12)
        assert [numbers_in_pixels[name][i] for i in frame] == latest
        # The last frame lasts as long as one does; how long that is at a variable rate is a guess.
        assert len(frame) / rate_hz == pytest.approx(sample.truth["seconds"], abs=1.01 / min(rate_hz, 8))


def test_pixels_are_read_back_by_number_whatever_is_asked_for(sample: Any) -> None:
    """A sparse selection, as a low constant rate makes it, gives the frames asked for and no neighbours."""
    for name, clip in sample.clips.items():
        wanted = np.array([0, 1, 5, 6, 7, 20, clip["n_frames"] - 1])
        batches = list(video.frames(sample.videos / f"{name}.mp4", wanted, clip["n_frames"]))
        assert [read_frame_number(image) for batch in batches for image in batch.images] == wanted.tolist()
        times_s = np.concatenate([batch.times_s for batch in batches])
        np.testing.assert_allclose(times_s, np.array(clip["times_s"])[wanted], rtol=0, atol=TICK_S)


def _with_sound(sample: Any) -> list[str]:
    return [name for name, clip in sample.clips.items() if clip["audio"]]


def _track(desk: Any, stage: str, name: str, sample: Any) -> Path:
    return Path(next(path for trial, path in desk.tracks(stage).items() if trial in sample.clips[name]["trials"]))


def test_tones_begin_in_the_waveform_when_they_should(sample: Any, light: Any) -> None:
    assert len(_with_sound(sample)) == 7
    for name in _with_sound(sample):
        waveform = artifact.read_waveform(_track(light, "audio", name, sample))
        onsets_s = find_onsets(waveform.samples, waveform.rate_hz)
        np.testing.assert_allclose(onsets_s, sample.clips[name]["tone_onsets_s"], rtol=0, atol=TONE_TOLERANCE_S, err_msg=name)


def _band_of(frequency_hz: float) -> int:
    """Of 64 bands evenly spaced on the mel scale from 125 to 7500 Hz, the one whose centre is nearest."""

    def mel(hz: Any) -> Any:
        return 1127 * np.log(1 + np.asarray(hz) / 700)

    centres = np.linspace(mel(125), mel(7500), 66)[1:-1]
    return int(np.argmin(np.abs(centres - mel(frequency_hz))))


def _first_crossing(times_s: Any, amplitude: Any, around_s: float) -> float:
    """When the amplitude first reaches half of its plateau, between 60 ms before and 100 ms after a time."""
    near = np.flatnonzero((times_s > around_s - 0.06) & (times_s < around_s + 0.1))
    half = amplitude[near].max() / 2
    i = near[int(np.argmax(amplitude[near] >= half))]
    return float(np.interp(half, amplitude[i - 1 : i + 1], times_s[i - 1 : i + 1]))


def test_tones_begin_in_the_features_when_they_should(sample: Any, light: Any) -> None:
    """A symmetric window that is half filled by the tone has half its amplitude: then the window's centre is the onset."""
    band = _band_of(sample.truth["tone"]["frequency_hz"])
    for name in _with_sound(sample):
        track = artifact.read_track(_track(light, "logmel", name, sample))
        times_s, amplitude = track.times_s[track.valid], np.exp(track.values[track.valid, band]) - 0.01
        for onset_s in sample.clips[name]["tone_onsets_s"]:
            assert _first_crossing(times_s, amplitude, onset_s) == pytest.approx(onset_s, abs=TONE_TOLERANCE_S), name


def test_rows_hold_the_sound_of_their_time(sample: Any, light: Any) -> None:
    """`nearest`: each row of the store is the feature row whose centre is nearest in time, and valid where sound is there."""
    with h5py.File(light.store / "logmel.h5") as file, h5py.File(light.store / "index.h5") as index:
        values, valid, offsets = file["values"][:], file["valid"][:], index["offsets"][:]
        trials, row_times_s = index["trials"].asstr()[:], index["times_s"][:]
    for i, trial in enumerate(trials):
        name, rows = _trials(sample)[trial], slice(offsets[i], offsets[i + 1])
        audio, times_s = sample.clips[name]["audio"], row_times_s[rows]
        if audio is None:
            assert not valid[rows].any()
            assert np.isnan(values[rows]).all()
            continue
        sounding = (times_s > audio["start_s"] + 0.03) & (times_s < audio["stop_s"] - 0.03)
        silent = times_s < audio["start_s"] - 0.03
        assert valid[rows][sounding].all(), name
        assert not valid[rows][silent].any(), name
        track = artifact.read_track(_track(light, "logmel", name, sample))
        nearest = np.abs(track.times_s[None] - times_s[sounding, None]).argmin(axis=1)
        np.testing.assert_array_equal(values[rows][sounding], track.values[nearest], err_msg=name)
