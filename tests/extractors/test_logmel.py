"""Log-mel energies against VGGish's own front end, and tones at known times and frequencies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from extractors.audio import mel
from extractors.audio.logmel import LogMel
from extractors.audio.mel import log_mel
from extractors.contract import ExtractorError, Runtime, Waveform


def sound(samples: np.ndarray, rate_hz: int = 16000) -> Waveform:
    blocks = math.ceil(len(samples) / (rate_hz // 100))
    return Waveform(samples=samples.astype(np.float32), rate_hz=rate_hz, valid=np.ones(blocks, np.bool_))


def extractor() -> LogMel:
    return LogMel(LogMel.Params(), Runtime())


def test_equals_the_reference(parity: Path) -> None:
    """Both compute in float64 and round once to float32: what is left is the order of a sum."""
    with np.load(parity / "vggish.npz") as known:
        for wave, expected in zip(known["wave"], known["out_logmel"], strict=True):
            track = extractor().extract(sound(wave / 32768), None)
            np.testing.assert_allclose(track.values[:96], expected, rtol=0, atol=1e-6)


def test_equals_the_reference_of_the_framing(parity: Path) -> None:
    limit = json.loads((parity / "vggish_framing.json").read_text())["tolerance"]["logmel"]
    assert "1e-4" in limit
    with np.load(parity / "vggish_framing.npz") as known:
        padded = np.pad(known["wave"] / 32768, (0, 16000), mode="edge")
        np.testing.assert_allclose(log_mel(padded.astype(np.float32)), known["logmel"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mistake", ["offset", "bands", "a longer FFT"])
def test_a_mistake_would_be_noticed(mistake: str, parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands = mel.mel_bands
    wrong = {"offset": ("LOG_OFFSET", 1e-6), "bands": ("mel_bands", lambda n, *_: bands(n, 0.0, 8000.0)), "a longer FFT": ("FFT", 1024)}
    monkeypatch.setattr(mel, *wrong[mistake])
    with np.load(parity / "vggish.npz") as known:
        values = log_mel((known["wave"][0] / 32768).astype(np.float32))
        assert np.abs(values[:96] - known["out_logmel"][0]).max() > 0.05


def test_a_tone_is_found_in_its_band_at_its_time() -> None:
    t = np.arange(3 * 16000) / 16000
    track = extractor().extract(sound(np.where((t >= 1.0) & (t < 1.5), np.sin(2 * np.pi * 1000 * t), 0)), None)
    low, high = (1127 * math.log(1 + hz / 700) for hz in (125, 7500))
    edges = np.linspace(low, high, 66)
    band = int(np.searchsorted(edges[1:-1], 1127 * np.log(1 + 1000 / 700)))  # the two bands around 1000 Hz
    loud = track.values.max(axis=1) > math.log(1.0)
    assert set(track.values[loud].argmax(axis=1)) <= {band - 1, band}
    # A row is loud as soon as its 25 ms Hann window reaches well into the tone, so within half of it.
    assert track.times_s[loud][0] == pytest.approx(1.0, abs=0.0125)
    assert track.times_s[loud][-1] == pytest.approx(1.5, abs=0.0125)


def test_bits_do_not_depend_on_the_batch() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 16000 * 3 + 77).astype(np.float32)
    whole = log_mel(samples)
    for rows_at_once in (1, 7, 64, 299):
        assert log_mel(samples, rows_at_once).tobytes() == whole.tobytes()


@pytest.mark.parametrize(("n", "rows"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_only_full_windows_count(n: int, rows: int) -> None:
    track = extractor().extract(sound(np.zeros(n)), None)
    assert track.values.shape == (rows, 64)
    np.testing.assert_allclose(track.values, math.log(0.01), rtol=1e-6)


def test_rows_that_touch_a_gap_are_masked() -> None:
    waveform = sound(np.random.default_rng(2).normal(0, 0.1, 16000))
    waveform.valid[50:60] = False
    track = extractor().extract(waveform, None)
    start = np.arange(len(track.values)) * 10  # ms; a window of 25 ms touches the blocks of 10 ms up to 30 ms after its start
    np.testing.assert_array_equal(track.valid, (start + 30 <= 500) | (start >= 600))
    assert np.isnan(track.values[~track.valid]).all()


def test_sound_of_another_rate_is_refused() -> None:
    with pytest.raises(ExtractorError, match=r"logmel cannot read this sound: it is defined at 16000 Hz and got 44100 Hz; .*rate_hz"):
        extractor().extract(sound(np.zeros(44100), 44100), None)
