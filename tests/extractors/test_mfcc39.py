"""The 39 cepstral features against openSMILE, without its drift, and bounded in memory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from extractors.audio.mfcc39 import COLUMNS, Mfcc39, cepstra, with_slopes
from extractors.contract import ExtractorError, Runtime, Waveform


def sound(samples: np.ndarray, rate_hz: int = 16000) -> Waveform:
    blocks = math.ceil(len(samples) / (rate_hz // 100))
    return Waveform(samples=samples.astype(np.float32), rate_hz=rate_hz, valid=np.ones(blocks, np.bool_))


def extractor() -> Mfcc39:
    return Mfcc39(Mfcc39.Params(), Runtime())


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


def test_equals_opensmile_at_other_frame_starts(parity: Path) -> None:
    """At 25 rows a second openSMILE's rows start at every fourth of ours: the same 13 values, though not the same slopes."""
    with np.load(parity / "opensmile_mfcc39.npz") as known:
        starts = known["start_25fps"]
        assert not (starts % 160).any()
        rows = starts[starts + 400 <= 32000] // 160
        for wave, expected in zip(known["wave"], known["mfcc_25fps"], strict=True):
            ours = cepstra((wave / 32768).astype(np.float32))
            np.testing.assert_allclose(ours[rows], expected[: len(rows), :13], rtol=0, atol=2e-4)


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
