"""The 39 cepstral features against openSMILE, without its drift, and bounded in memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from extractors.audio import mel, mfcc39
from extractors.audio.mfcc39 import COLUMNS, Mfcc39, cepstra, cepstra_at, with_slopes
from extractors.contract import ExtractorError, Kind, Runtime, Waveform


def sound(samples: np.ndarray, rate_hz: int = 16000) -> Waveform:
    blocks = math.ceil(len(samples) / (rate_hz // 100))
    return Waveform(samples=samples.astype(np.float32), rate_hz=rate_hz, valid=np.ones(blocks, np.bool_))


def extractor(hop: Literal["native", "timeline"] = "native") -> Mfcc39:
    return Mfcc39(Mfcc39.Params(hop=hop), Runtime())


def test_equals_opensmile(parity: Path) -> None:
    """The reference computes in float32, on values up to 160: a float64 version of the definition is said to be within 2e-4."""
    facts = json.loads((parity / "opensmile_mfcc39.json").read_text())
    with np.load(parity / "opensmile_mfcc39.npz") as known:
        for wave, expected in zip(known["wave"], known["mfcc_10ms"], strict=True):
            track = extractor().extract(sound(wave / 32768), None)
            assert track.values.shape == (198, 39)
            kept = np.concatenate([track.values[:40], track.values[-8:]])
            difference = float(np.abs(kept - expected).max())
            assert difference < facts["tolerance"]["limit"]
            assert difference < 2e-4


MISTAKES = {"C0 first": ("ORDER", tuple(range(13))), "lifter": ("LIFTER", 21), "bands": ("N_BANDS", 25), "scale": ("FFT", 1024)}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_noticed(mistake: str, parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = json.loads((parity / "opensmile_mfcc39.json").read_text())["tolerance"]["limit"]
    name, value = MISTAKES[mistake]
    monkeypatch.setattr(mfcc39, name, value)
    if name == "FFT":
        monkeypatch.setattr(mel, name, value)
    with np.load(parity / "opensmile_mfcc39.npz") as known:
        values = extractor().extract(sound(known["wave"][0] / 32768), None).values
        assert float(np.abs(values[:40] - known["mfcc_10ms"][0, :40]).max()) > 10 * limit


@pytest.mark.parametrize("rate", ["25fps", "30fps"])
def test_a_row_per_frame_equals_opensmile(rate: str, parity: Path) -> None:
    """With its frame step set to the video's, slopes over frames and all, on a timeline of the very times at which its rows start."""
    with np.load(parity / "opensmile_mfcc39.npz") as known:
        times_s = known[f"start_{rate}"] / 16000
        for wave, expected in zip(known["wave"], known[f"mfcc_{rate}"], strict=True):
            track = extractor("timeline").extract(sound(wave / 32768), times_s)
            assert track.values.shape == expected.shape
            assert track.valid.all()
            assert float(np.abs(track.values - expected).max()) < 2e-4
            np.testing.assert_array_equal(track.times_s, times_s)
            every_10_ms = extractor().extract(sound(wave / 32768), None)
            if rate == "25fps":  # every fourth of ours: the same 13 values, though not the same slopes
                np.testing.assert_array_equal(track.values[:, :13], every_10_ms.values[::4, :13][: len(times_s)])
                assert np.abs(track.values[:, 13:] - every_10_ms.values[::4, 13:][: len(times_s)]).max() > 1


def test_opensmiles_step_of_a_frame_is_not_the_frames(parity: Path) -> None:
    """At 30 frames a second it steps by 533 samples. Rows at the frames' own times leave it by a third of a sample each."""
    with np.load(parity / "opensmile_mfcc39.npz") as known:
        assert set(np.diff(known["start_30fps"]).tolist()) == {533}
        wave, expected = known["wave"][0], known["mfcc_30fps"][0]
        track = extractor("timeline").extract(sound(wave / 32768), np.arange(60) / 30)
        differences = np.abs(track.values - expected)
        assert differences[0, :13].max() < 2e-4  # the one window that starts at the same sample
        assert differences[30:].max() > 0.1


def test_rows_of_the_timeline() -> None:
    """Of one time they are one window; where it is not fully inside the sound, or the source has none, they are not valid."""
    waveform = sound(np.random.default_rng(3).normal(0, 0.1, 16000))
    waveform.valid[30:35] = False
    times_s = np.array([0.0, 0.04, 0.04, 0.1, 0.2751, 0.31, 0.35, 0.5, 0.975, 0.9751, 1.0, 7.0])
    track = extractor("timeline").extract(waveform, times_s)
    assert track.valid.tolist() == [True] * 4 + [False, False, True, True, True, False, False, False]
    np.testing.assert_array_equal(track.times_s, times_s)
    np.testing.assert_array_equal(track.values[1], track.values[2])
    native = extractor().extract(sound(waveform.samples), None)
    np.testing.assert_array_equal(track.values[[0, 1, 3, 6, 7], :13], native.values[[0, 4, 10, 35, 50], :13])
    assert not extractor("timeline").extract(sound(np.zeros(0)), times_s).valid.any()
    assert extractor("timeline").extract(waveform, np.zeros(0)).values.shape == (0, 39)


def test_rows_of_a_long_timeline_do_not_depend_on_batches() -> None:
    samples = np.random.default_rng(4).normal(0, 0.1, 160 * 3000).astype(np.float32)
    starts = np.arange(2990) * 160
    assert cepstra_at(samples, starts).tobytes() == cepstra(samples)[:2990].tobytes()


def test_what_it_reads_follows_the_hop() -> None:
    assert Mfcc39.reads(Mfcc39.Params()) == (Kind.WAVEFORM,)
    assert Mfcc39.reads(Mfcc39.Params(hop="timeline")) == (Kind.WAVEFORM, Kind.TIMELINE)
    with pytest.raises(ValueError, match="mfcc39: expected the timeline's row times for hop 'timeline', got none"):
        extractor("timeline").extract(sound(np.zeros(800)), None)


def test_columns_say_what_they_hold() -> None:
    assert COLUMNS[:13] == (*(f"mfcc{k}" for k in range(1, 13)), "mfcc0")
    assert COLUMNS[25] == "mfcc0_de"
    assert COLUMNS[38] == "mfcc0_dede"
    noise = np.random.default_rng(0).normal(0, 0.05, 8000)
    quiet, loud = (extractor().extract(sound(gain * noise), None) for gain in (0.1, 1.0))
    rise = (loud.values - quiet.values)[:, :13]
    # Ten times the amplitude is 100 times each band's energy: coefficient 0 alone rises, by 26 ln(100) sqrt(2 / 26).
    np.testing.assert_allclose(rise[:, 12], 26 * math.log(100) * math.sqrt(2 / 26), rtol=1e-4)
    np.testing.assert_allclose(rise[:, :12], 0, atol=1e-3)


def test_rows_do_not_drift() -> None:
    """A click far into the sound is found at its time. With openSMILE's step for 60 rows a second it would be 75 ms off."""
    samples = np.zeros(60 * 16000)
    clicks_s = (0.5, 30.005, 59.25)
    for at_s in clicks_s:
        samples[round(at_s * 16000)] = 0.5
    track = extractor().extract(sound(samples), None)
    energy = track.values[:, 12]
    for at_s in clicks_s:
        near = np.flatnonzero(np.abs(track.times_s - at_s) < 0.2)
        loud = near[energy[near] > energy[near].min() + 1]
        # Every window that holds the click hears it, and they lie about it.
        assert track.times_s[loud].mean() == pytest.approx(at_s, abs=0.005)
    steps = np.diff(track.times_s)
    np.testing.assert_allclose(steps, 0.01, rtol=0, atol=1e-12)
    assert track.times_s[-1] == pytest.approx(0.0125 + 0.01 * (len(track.times_s) - 1), abs=1e-12)


def test_bits_do_not_depend_on_the_batch() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 16000 * 3 + 77).astype(np.float32)
    whole = cepstra(samples)
    for rows_at_once in (1, 7, 64, 299):
        assert cepstra(samples, rows_at_once).tobytes() == whole.tobytes()


def test_the_slope_of_a_ramp_is_its_step() -> None:
    values = with_slopes(np.arange(20.0)[:, None] * 3)
    np.testing.assert_allclose(values[2:-2, 1], 3)
    np.testing.assert_allclose(values[4:-4, 2], 0, atol=1e-6)


@pytest.mark.parametrize(("n", "rows"), [(0, 0), (399, 0), (400, 1), (560, 2)])
def test_short_sound(n: int, rows: int) -> None:
    track = extractor().extract(sound(np.full(n, 0.1)), None)
    assert track.values.shape == (rows, 39)
    assert track.valid.all()


def test_rows_that_touch_a_gap_are_masked() -> None:
    waveform = sound(np.random.default_rng(2).normal(0, 0.1, 16000))
    waveform.valid[:30] = False
    track = extractor().extract(waveform, None)
    np.testing.assert_array_equal(track.valid, np.arange(len(track.values)) >= 30)
    assert np.isnan(track.values[:30]).all()


def test_sound_of_another_rate_is_refused() -> None:
    with pytest.raises(ExtractorError, match="mfcc39 cannot read this sound: it is defined at 16000 Hz and got 8000 Hz"):
        extractor().extract(sound(np.zeros(800), 8000), None)
