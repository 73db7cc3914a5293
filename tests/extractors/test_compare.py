"""ComParE's descriptors against openSMILE's recorded output, with its rows at their true times."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extractors import registry
from extractors.audio.compare import CompareLld
from extractors.contract import ExtractorError, Runtime, Waveform

LIMIT = 1e-3  # of 1 + |expected|: the fixture's own, for other versions and platforms of the same library


def sound(samples: np.ndarray, rate_hz: int = 16000) -> Waveform:
    blocks = math.ceil(len(samples) / (rate_hz // 100))
    return Waveform(samples=samples.astype(np.float32), rate_hz=rate_hz, valid=np.ones(blocks, np.bool_))


def extractor(*, deltas: bool = False) -> CompareLld:
    return CompareLld(CompareLld.Params(deltas=deltas), Runtime())


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("opensmile_egemaps")


@pytest.fixture(scope="module")
def wave(known: Any) -> np.ndarray:
    return np.asarray(known.arrays["wave"][0] / 32768)


def difference(values: np.ndarray, expected: np.ndarray) -> float:
    return float((np.abs(values - expected) / (1 + np.abs(expected))).max())


@pytest.mark.parametrize("deltas", [False, True])
def test_descriptors_equal_the_reference(deltas: bool, known: Any) -> None:
    names = known.facts["output"]["names"]["compare2016_lld"]
    for wave, expected in zip(known.arrays["wave"], known.arrays["compare2016_lld"], strict=True):
        track = extractor(deltas=deltas).extract(sound(wave / 32768), None)
        assert track.columns[:65] == tuple(names)
        assert track.valid.all()
        assert difference(track.values[:24, :65], expected) < LIMIT


def test_a_mistake_would_be_noticed(known: Any) -> None:
    """Rows of one later, samples of another scale, the other set's descriptors."""
    wave, expected = known.arrays["wave"][0], known.arrays["compare2016_lld"][0]
    right = extractor().extract(sound(wave / 32768), None).values
    half = extractor().extract(sound(wave / 65536), None).values
    assert difference(right[1:25], expected) > 100 * LIMIT
    assert difference(half[:24], expected) > 100 * LIMIT
    assert difference(right[:24, ::-1], expected) > 100 * LIMIT


def test_slopes_are_of_the_row_that_they_stand_in(wave: np.ndarray) -> None:
    """Of the energy and the bands' sum: a regression over two rows to each side, row by row, up to the last."""
    track = extractor(deltas=True).extract(sound(wave), None)
    assert track.columns[65:] == tuple(name.replace("_sma", "_sma_de") for name in track.columns[:65])
    for name in ("pcm_RMSenergy_sma", "audspec_lengthL1norm_sma", "pcm_fftMag_spectralFlux_sma"):
        base, slope = (track.values[:, track.columns.index(one)].astype(np.float64) for one in (name, f"{name}_de"))
        expected = (base[3:-1] - base[1:-3] + 2 * (base[4:] - base[:-4])) / 10
        np.testing.assert_allclose(slope[2:-2], expected, rtol=0, atol=1e-5 * np.abs(base).max())


def test_rows_whose_time_is_no_new_one_are_left_out(wave: np.ndarray) -> None:
    """openSMILE gives 196 rows of descriptors and 198 of slopes for two seconds, in which 195 windows of 60 ms lie."""
    for deltas, n in ((False, 195), (True, 194)):
        track = extractor(deltas=deltas).extract(sound(wave), None)
        np.testing.assert_allclose(track.times_s, 0.01 + 0.01 * np.arange(n), rtol=0, atol=1e-12)
        assert track.values.shape == (n, 130 if deltas else 65)
    with_slopes, without = (extractor(deltas=deltas).extract(sound(wave), None) for deltas in (True, False))
    np.testing.assert_array_equal(with_slopes.values[:, :65], without.values[:194])


def test_rows_are_at_the_centres_of_their_windows() -> None:
    """A burst of noise is heard in the 20 ms about times_s, and in a row to each side by smoothing."""
    samples = np.random.default_rng(0).normal(0, 1e-4, 3 * 16000)
    samples[16000:32000] += np.random.default_rng(1).normal(0, 0.1, 16000)
    track = extractor().extract(sound(samples), None)
    loud = track.values[:, track.columns.index("pcm_RMSenergy_sma")]
    heard = track.times_s[loud > 0.5 * loud.max()]
    assert heard[0] == pytest.approx(1.0, abs=0.02)
    assert heard[-1] == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("deltas", [False, True])
@pytest.mark.parametrize(("n", "rows"), [(0, 0), (1, 0), (959, 0), (960, 1), (1120, 2)])
def test_short_sound(n: int, rows: int, deltas: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        track = extractor(deltas=deltas).extract(sound(np.zeros(n)), None)
    assert track.values.shape[1] == (130 if deltas else 65)
    assert (len(track.values) > 0) == (rows > 0)
    assert track.valid.sum() == rows  # full windows; of 60 ms openSMILE makes a second row, which leaves the sound


def test_descriptors_that_touch_a_gap_are_masked(wave: np.ndarray) -> None:
    waveform = sound(wave)
    waveform.valid[:50] = False
    waveform.valid[100:110] = False
    waveform.valid[190:] = False
    track = extractor().extract(waveform, None)
    start_ms = np.arange(len(track.values)) * 10
    np.testing.assert_array_equal(track.valid, (start_ms >= 500) & ((start_ms + 60 <= 1000) | (start_ms >= 1100)) & (start_ms + 60 <= 1900))
    assert np.isnan(track.values[~track.valid]).all()


def test_without_opensmile_the_table_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "opensmile" else known(name, *rest))
    for module in ("compare", "smile"):
        monkeypatch.delitem(sys.modules, f"extractors.audio.{module}")
    with pytest.raises(ExtractorError, match=r"No module named 'opensmile'; pip install 'affectpipe\[opensmile\]'"):
        registry.load("compare_lld")
