"""The waveform stage: the peak level, and parameters that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from extractors.audio.waveform import WaveformConditioner
from extractors.contract import Runtime, Waveform


def sound(samples: np.ndarray, rate_hz: int = 16000) -> Waveform:
    blocks = math.ceil(len(samples) / (rate_hz // 100))
    return Waveform(samples=samples.astype(np.float32), rate_hz=rate_hz, valid=np.ones(blocks, np.bool_))


def conditioned(waveform: Waveform, **params: object) -> Waveform:
    return WaveformConditioner(WaveformConditioner.Params(**params), Runtime()).condition(waveform)


@pytest.mark.parametrize("peak_dbfs", [-3.0, 0.0, -40.0])
def test_the_largest_sample_gets_the_level_and_the_shape_stays(peak_dbfs: float) -> None:
    samples = np.array([0.1, -0.25, 0.0, 0.2], np.float32)
    given = sound(samples)
    result = conditioned(given, peak_dbfs=peak_dbfs)
    assert 20 * np.log10(np.abs(result.samples).max()) == pytest.approx(peak_dbfs, abs=1e-5)  # float32
    assert np.argmin(result.samples) == 1
    np.testing.assert_allclose(result.samples / result.samples[1], samples / samples[1], rtol=3e-7)  # two roundings to float32
    np.testing.assert_array_equal(result.valid, given.valid)


def test_no_level_leaves_every_bit() -> None:
    given = sound(np.random.default_rng(0).normal(0, 0.2, 1000))
    assert conditioned(given).samples.tobytes() == given.samples.tobytes()


@pytest.mark.parametrize("n", [0, 500])
def test_silence_stays_silence(n: int) -> None:
    assert not conditioned(sound(np.zeros(n)), peak_dbfs=-3).samples.any()


def test_sound_of_another_rate_is_a_defect() -> None:
    with pytest.raises(ValueError, match="waveform: expected 16000 Hz, got 8000 Hz"):
        conditioned(sound(np.zeros(10), 8000))


@pytest.mark.parametrize("rate_hz", [0, -16000, 22051])
def test_a_rate_without_whole_10_ms_blocks_is_refused(rate_hz: int) -> None:
    with pytest.raises(ValueError, match=r"^rate_hz: expected a positive multiple of 100"):
        WaveformConditioner.Params(rate_hz=rate_hz)


@pytest.mark.parametrize("peak_dbfs", [0.1, math.nan, math.inf, -math.inf])
def test_a_level_above_full_scale_is_refused(peak_dbfs: float) -> None:
    with pytest.raises(ValueError, match=r"^peak_dbfs: expected a level of 0 dB or below"):
        WaveformConditioner.Params(peak_dbfs=peak_dbfs)
