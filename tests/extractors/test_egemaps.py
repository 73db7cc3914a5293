"""eGeMAPS against openSMILE's recorded output, with its rows at their true times."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from extractors import registry
from extractors.audio.egemaps import EgemapsFunctionals, EgemapsLld
from extractors.contract import ExtractorError, Kind, Runtime, Waveform

LIMIT = 1e-3  # of 1 + |expected|: the fixture's own, for other versions and platforms of the same library


def sound(samples: np.ndarray, rate_hz: int = 16000) -> Waveform:
    blocks = math.ceil(len(samples) / (rate_hz // 100))
    return Waveform(samples=samples.astype(np.float32), rate_hz=rate_hz, valid=np.ones(blocks, np.bool_))


def voice(seconds: float, start_s: float, stop_s: float) -> np.ndarray:
    """A pulse train of 130 Hz through three resonances: voiced for openSMILE, between two times; faint noise elsewhere."""
    rng = np.random.default_rng(0)
    samples = np.zeros(round(seconds * 16000))
    samples[round(start_s * 16000) : round(stop_s * 16000) : 123] = 1
    for hz, width_hz in ((700, 80), (1200, 90), (2600, 120)):
        t = np.arange(800) / 16000
        samples = np.convolve(samples, np.exp(-np.pi * width_hz * t) * np.sin(2 * np.pi * hz * t))[: len(samples)]
    return np.asarray(samples / np.abs(samples).max() * 0.5 + rng.normal(0, 1e-4, len(samples)))


def lld(**params: str) -> EgemapsLld:
    return EgemapsLld(EgemapsLld.Params(**params), Runtime())


def functionals(**params: object) -> EgemapsFunctionals:
    return EgemapsFunctionals(EgemapsFunctionals.Params(**params), Runtime())


@pytest.mark.parametrize(("feature_set", "array"), [("eGeMAPSv02", "egemapsv02_lld"), ("eGeMAPSv01a", "egemapsv01a_lld")])
def test_descriptors_equal_the_reference(feature_set: str, array: str, parity: Path) -> None:
    names = json.loads((parity / "opensmile_egemaps.json").read_text())["output"]["names"][array]
    extractor = lld(feature_set=feature_set)
    with np.load(parity / "opensmile_egemaps.npz") as known:
        for wave, expected in zip(known["wave"], known[array], strict=True):
            track = extractor.extract(sound(wave / 32768), None)
            assert track.values.shape == (196, len(names))
            assert track.columns == tuple(names)
            assert track.valid.all()
            assert (np.abs(track.values[:24] - expected) / (1 + np.abs(expected))).max() < LIMIT


def test_functionals_equal_the_reference(parity: Path) -> None:
    names = json.loads((parity / "opensmile_egemaps.json").read_text())["output"]["names"]["egemapsv02_functionals"]
    extractor = functionals(window_s=2.0, hop="window")
    with np.load(parity / "opensmile_egemaps.npz") as known:
        for wave, expected in zip(known["wave"], known["egemapsv02_functionals"], strict=True):
            track = extractor.extract(sound(wave / 32768), None)
            assert track.columns == tuple(names)
            np.testing.assert_allclose(track.times_s, [1.0])
            assert (np.abs(track.values - expected) / (1 + np.abs(expected))).max() < LIMIT


@pytest.mark.parametrize("array", ["egemapsv02_lld", "egemapsv01a_lld"])
def test_a_mistake_would_be_noticed(array: str, parity: Path) -> None:
    """Rows of one later, samples of another scale, the other version's descriptors."""
    feature_set = {"egemapsv02_lld": "eGeMAPSv02", "egemapsv01a_lld": "eGeMAPSv01a"}[array]
    with np.load(parity / "opensmile_egemaps.npz") as known:
        wave, expected = known["wave"][0], known[array][0]
        other = known["egemapsv01a_lld" if array == "egemapsv02_lld" else "egemapsv02_lld"][0]
    values, half = (lld(feature_set=feature_set).extract(sound(wave / scale), None).values for scale in (32768, 65536))
    n = min(expected.shape[1], other.shape[1])
    for wrong in (values[1:25], half[:24], np.hstack([other[:, :n], expected[:, n:]])):
        assert (np.abs(wrong - expected) / (1 + np.abs(expected))).max() > 10 * LIMIT


def test_v01b_has_23_descriptors_and_88_functionals_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lld(feature_set="eGeMAPSv01b").dim == 23
        assert functionals(feature_set="eGeMAPSv01b").dim == 88


def test_rows_are_at_the_centres_of_their_windows() -> None:
    """Loudness changes where the sound does; the voice, heard through 60 ms, is centred 20 ms later than times_s says."""
    track = lld().extract(sound(voice(3, 1.0, 2.0)), None)
    loud = track.values[:, track.columns.index("Loudness_sma3")]
    heard = track.times_s[loud > 0.5 * loud.max()]
    # A row takes in 20 ms, and its two neighbours' by smoothing: half of that to each side.
    assert heard[0] == pytest.approx(1.0, abs=0.02)
    assert heard[-1] == pytest.approx(2.0, abs=0.02)
    pitch = track.values[:, track.columns.index("F0semitoneFrom27.5Hz_sma3nz")]
    voiced = track.times_s[pitch > 0]
    assert voiced.mean() + 0.02 == pytest.approx(1.5, abs=0.01)
    np.testing.assert_allclose(np.median(pitch[pitch > 0]), 12 * math.log2(16000 / 123 / 27.5), atol=0.2)
    np.testing.assert_allclose(np.diff(track.times_s), 0.01, atol=1e-9)
    assert track.times_s[0] == pytest.approx(0.01)


@pytest.mark.parametrize("n", [0, 1, 320, 959])
def test_too_little_sound_gives_no_rows_and_no_warning(n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        track = lld().extract(sound(np.zeros(n)), None)
        assert track.values.shape == (0, 25)
        assert functionals(hop="window").extract(sound(np.zeros(n)), None).values.shape == (0, 88)
        assert not functionals().extract(sound(np.zeros(n)), np.array([0.0, 0.04])).valid.any()


def test_a_little_sound_is_enough() -> None:
    assert lld().extract(sound(np.zeros(960)), None).valid.all()


def test_descriptors_that_touch_a_gap_are_masked() -> None:
    waveform = sound(voice(2, 0, 2))
    waveform.valid[:50] = False
    waveform.valid[100:110] = False
    track = lld().extract(waveform, None)
    start_ms = np.arange(len(track.values)) * 10
    np.testing.assert_array_equal(track.valid, (start_ms >= 500) & ((start_ms + 60 <= 1000) | (start_ms >= 1100)))


@pytest.mark.parametrize(("anchor", "first_s", "last_s"), [("start", 0.0, 1.5), ("centre", 0.0, 2.0), ("end", 0.5, 2.5)])
def test_functionals_are_anchored_and_cut_at_the_ends(anchor: str, first_s: float, last_s: float) -> None:
    """Two seconds of sound, windows of one: a row is valid while half of its window is left."""
    samples = voice(2, 0, 2)
    times_s = np.arange(0, 3.0, 0.25)
    track = functionals(anchor=anchor).extract(sound(samples), times_s)
    np.testing.assert_array_equal(track.valid, (times_s >= first_s) & (times_s <= last_s))
    np.testing.assert_array_equal(track.times_s, times_s)
    at_s = {"start": 0.5, "centre": 1.0, "end": 1.5}[anchor]  # the row whose window is [0.5, 1.5)
    alone = functionals(hop="window").extract(sound(samples[8000:24000]), None)
    np.testing.assert_array_equal(track.values[times_s == at_s], alone.values)


def test_functionals_across_a_gap_are_masked() -> None:
    waveform = sound(voice(3, 0, 3))
    waveform.valid[:30] = False
    waveform.valid[200] = False
    times_s = np.array([0.0, 0.3, 1.0, 1.01, 2.0, 2.01, 2.5])
    track = functionals().extract(waveform, times_s)
    # At 0 s the window begins with the sound, at 0.3 s. At 1.0 s it ends where the gap of 10 ms begins.
    assert track.valid.tolist() == [True, True, True, False, False, True, True]
    windows = functionals(hop="window").extract(waveform, None)
    assert windows.valid.tolist() == [False, True, False]
    np.testing.assert_allclose(windows.times_s, [0.5, 1.5, 2.5])


def test_full_scale_does_not_wrap() -> None:
    """At full scale the binding's 16-bit numbers would wrap to the other sign, which openSMILE hears as wide-band clicks."""
    t = np.arange(16000) / 16000
    sine = np.sin(2 * np.pi * 125 * t)  # 128 samples a period: the peaks are exactly 1.0
    assert (sine.astype(np.float32) == 1.0).any()
    full, below = (lld().extract(sound(gain * sine), None) for gain in (1.0, 0.999))
    ratio = full.columns.index("alphaRatio_sma3")
    np.testing.assert_allclose(full.values[:, ratio], below.values[:, ratio], atol=0.5)  # dB; wrapping changes it by tens


@pytest.mark.parametrize("window_s", [0.0, -1.0, 0.19, math.nan, math.inf])
def test_windows_too_short_for_statistics_are_refused(window_s: float) -> None:
    with pytest.raises(ValueError, match=r"^window_s: expected 0\.2 s or more"):
        EgemapsFunctionals.Params(window_s=window_s)


def test_what_functionals_read_follows_the_hop() -> None:
    assert EgemapsFunctionals.reads(EgemapsFunctionals.Params()) == (Kind.WAVEFORM, Kind.TIMELINE)
    assert EgemapsFunctionals.reads(EgemapsFunctionals.Params(hop="window")) == (Kind.WAVEFORM,)
    with pytest.raises(ValueError, match="expected the timeline's row times"):
        functionals().extract(sound(np.zeros(16000)), None)


def test_without_opensmile_the_table_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "opensmile" else known(name, *rest))
    for module in ("egemaps", "smile"):
        monkeypatch.delitem(sys.modules, f"extractors.audio.{module}")
    with pytest.raises(ExtractorError, match=r"No module named 'opensmile'; pip install 'affectpipe\[opensmile\]'"):
        registry.load("egemaps_lld")
