"""The spectrogram of torchaudio, the window of the published code, and ResNet-18 as the audio part of the two-stream network."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extractors.audio import mel_decibels, spectrogram_resnet18
from extractors.audio.spectrogram_resnet18 import SpectrogramResnet18, spectrogram
from extractors.audio.waveform import WaveformConditioner
from extractors.contract import ExtractorError, Float32, Runtime, Waveform

RATE_HZ = 44100


def sound(samples: np.ndarray) -> Waveform:
    valid = np.ones(math.ceil(len(samples) / 441), np.bool_)
    return Waveform(samples=samples.astype(np.float32), rate_hz=RATE_HZ, valid=valid)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE_HZ))


@pytest.fixture(scope="module")
def tsav(reference: Callable[[str], Any]) -> Any:
    return reference("tsav")


@pytest.fixture(scope="module")
def logmel(reference: Callable[[str], Any]) -> Any:
    return reference("tsav_logmel")


@pytest.fixture(scope="module")
def weights(tsav: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's pseudo-random weights, the whole two-stream network's, as its checkpoint holds them."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "TSAV_Sub4_544k.pth.tar"
    torch.save({"state_dict": tsav.tensors}, path)
    return path


@pytest.fixture(scope="module")
def extractor(weights: Path) -> SpectrogramResnet18:
    return SpectrogramResnet18(SpectrogramResnet18.Params(), Runtime(weights=weights))


def spectrograms(logmel: Any) -> Float32:
    return np.stack([spectrogram((wave / 32768).astype(np.float32))[None] for wave in logmel.arrays["wave"]])


def test_spectrograms_equal_torchaudios(logmel: Any) -> None:
    values = spectrograms(logmel)
    assert values.dtype == np.float32
    assert logmel.error(values, "logmel") < logmel.limit


def area_normalised() -> np.ndarray:
    """The bands divided by their widths, as librosa has them."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 22050 / 700), 66) / 2595) - 1)
    return np.asarray(mel_decibels.mel_bank() * (2 / (edges[2:] - edges[:-2])))


MISTAKES = {
    "zeros after": ("", None),
    "symmetric Hann": ("torch.hann_window", functools.partial(torch.hann_window, periodic=False)),
    "a window as long as the transform": ("mel_decibels.WINDOW", 1024),
    "a hop of another sample": ("mel_decibels.HOP", 440),
    "bands of equal area": ("mel_decibels.mel_bank", functools.partial(np.array, area_normalised())),
    "another offset": ("spectrogram_resnet18.MEAN_DB", -14.7),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_spectrogram_is_noticed(mistake: str, logmel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waves = (logmel.arrays["wave"] / 32768).astype(np.float32)
    where, instead = MISTAKES[mistake]
    if where:
        owner = {"torch": torch, "mel_decibels": mel_decibels, "spectrogram_resnet18": spectrogram_resnet18}[where.partition(".")[0]]
        monkeypatch.setattr(owner, where.partition(".")[2], instead)
    else:
        waves = np.pad(waves, ((0, 0), (0, 45599 - waves.shape[1])))
    values = np.stack([spectrogram(wave)[None] for wave in waves])
    assert logmel.error(values, "logmel") > 5 * logmel.limit


def test_nothing_is_more_than_80_db_below_the_loudest() -> None:
    """The fixture's noise is never so far apart."""
    quiet_then_loud = np.concatenate([np.zeros(22050), noise(0.6)]).astype(np.float32)
    decibels = mel_decibels.mel_decibels(quiet_then_loud)
    assert decibels.min() == pytest.approx(decibels.max() - 80, abs=1e-4)
    assert mel_decibels.mel_decibels(np.zeros(22050, np.float32)).max() == -100


@pytest.mark.parametrize(("n", "width"), [(0, 104), (1, 104), (45570, 104), (45599, 104), (45600, 104), (47040, 107), (54684, 125)])
def test_widths_are_the_published_ones(n: int, width: int) -> None:
    """31 intervals at 30 frames per second, 32 of them (the papers' 107), 31 at 25."""
    values = spectrogram(noise(2)[:n].astype(np.float32))
    assert values.shape == (64, width)
    assert np.isfinite(values).all()


def test_a_long_sound_is_transformed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(3).astype(np.float32)
    whole = spectrogram(samples)
    monkeypatch.setattr(mel_decibels, "COLUMNS_AT_ONCE", 100)
    np.testing.assert_allclose(spectrogram(samples), whole, rtol=0, atol=1e-6)


def test_features_equal_the_reference(extractor: SpectrogramResnet18, tsav: Any) -> None:
    values = extractor.of_spectrograms(tsav.arrays["audio"])
    assert values.dtype == np.float32
    assert tsav.error(values, "audio") < tsav.limit


def test_a_mistake_in_the_network_is_noticed(extractor: SpectrogramResnet18, tsav: Any) -> None:
    audio = tsav.arrays["audio"]
    for wrong in (
        audio[..., ::-1].copy(),
        audio[:, :, ::-1].copy(),
        audio * 1.01,
        np.pad(audio, ((0, 0), (0, 0), (0, 0), (1, 0)))[..., :104],
    ):
        assert tsav.error(extractor.of_spectrograms(wrong), "audio") > 5 * tsav.limit


def test_the_row_after_31_intervals_hears_the_fixtures_sound(extractor: SpectrogramResnet18, logmel: Any) -> None:
    """Through extract: 31 intervals of 30 frames per second are its 45,570 samples."""
    expected = extractor.of_spectrograms(logmel.arrays["out_logmel"])
    for wave, known in zip(logmel.arrays["wave"], expected, strict=True):
        before = noise(0.5)[: 5 * 1470]
        track = extractor.extract(sound(np.concatenate([before, wave / 32768, noise(0.2)])), np.arange(38) / 30)
        assert np.abs(track.values[36] - known).max() / expected.std() < 1e-4
        assert np.abs(track.values[35] - known).max() / expected.std() > 1e-3


def test_a_row_hears_what_is_before_it(extractor: SpectrogramResnet18) -> None:
    """Silence but for a burst: the rows whose [time of the 31st row before, own time) meets it, and no others, differ from silence."""
    samples = np.zeros(3 * RATE_HZ)
    samples[RATE_HZ : RATE_HZ + 441] = noise(0.01)
    times_s = np.arange(90) / 40
    track = extractor.extract(sound(samples), times_s)
    start_s = np.maximum(times_s - 31 / 40, 0)
    heard = np.abs(track.values[1:] - track.values[1]).max(axis=1) > 1e-3
    np.testing.assert_array_equal(heard, ((start_s < 1.01 - 1e-9) & (times_s > 1.0 + 1e-9))[1:])
    np.testing.assert_array_equal(track.times_s, times_s)
    assert track.valid.tolist() == [False] + [True] * 89  # before the first row, nothing was heard


def test_validity_of_late_sound_gaps_and_the_end(weights: Path) -> None:
    """Sound in [0.5, 2.0) and [2.1, 4.0) of 4.5 s; a row every 0.1 s hears 0.5 s."""
    extractor = SpectrogramResnet18(SpectrogramResnet18.Params(frames=5), Runtime(weights=weights))
    waveform = sound(noise(4.5))
    for first, last in ((0, 50), (200, 210), (400, 450)):
        waveform.valid[first:last] = False
        waveform.samples[first * 441 : last * 441] = 0
    times_s = np.arange(45) / 10
    track = extractor.extract(waveform, times_s)
    expected = (times_s > 0.55) & (times_s < 4.05) & ~((times_s > 2.05) & (times_s < 2.55))
    np.testing.assert_array_equal(track.valid, expected)
    assert np.isnan(track.values[~track.valid]).all()


def test_a_row_depends_on_its_window_only(extractor: SpectrogramResnet18) -> None:
    """In any company, with windows of many widths: up to rounding in kernels for other batch sizes."""
    waveform, times_s = sound(noise(2)), np.concatenate([[0], np.cumsum(np.tile([0.04, 0.033, 0.05], 15))])
    values = extractor.extract(waveform, times_s).values
    for row in (31, 38, 45):
        start, stop = (round(times_s[at] * RATE_HZ) for at in (row - 31, row))
        alone = extractor.of_spectrograms(spectrogram(waveform.samples[start:stop])[None, None])[0]
        assert np.abs(values[row] - alone).max() / alone.std() < 1e-5


def test_no_sound_and_no_rows(extractor: SpectrogramResnet18) -> None:
    silent = Waveform(samples=np.zeros(2 * RATE_HZ, np.float32), rate_hz=RATE_HZ, valid=np.zeros(200, np.bool_))
    for waveform in (sound(np.zeros(0)), silent):
        assert not extractor.extract(waveform, np.array([0.0, 0.5, 1.5])).valid.any()
    assert extractor.extract(sound(noise(1)), np.empty(0)).values.shape == (0, 512)


def test_bare_and_parallel_files_are_the_same(weights: Path, tsav: Any, extractor: SpectrogramResnet18, tmp_path: Path) -> None:
    import torch

    prefix = "audio_model.resnet."
    state = tsav.tensors
    bare = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    bare["fc.weight"], bare["fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)
    torch.save(bare, tmp_path / "bare.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "parallel.pth")
    expected = extractor.of_spectrograms(tsav.arrays["audio"])
    for name in ("bare.pth", "parallel.pth"):
        other = SpectrogramResnet18(SpectrogramResnet18.Params(), Runtime(weights=tmp_path / name))
        np.testing.assert_array_equal(other.of_spectrograms(tsav.arrays["audio"]), expected)


def test_the_file_of_another_network_is_refused(tmp_path: Path) -> None:
    import torch
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "rgb.pth")
    with pytest.raises(ExtractorError, match=r"rgb\.pth cannot be loaded: .*conv1\.weight \(64, 3, 7, 7\) float, expected \(64, 1, 7, 7\)"):
        SpectrogramResnet18(SpectrogramResnet18.Params(), Runtime(weights=tmp_path / "rgb.pth"))


def test_sound_and_parameters_that_do_not_fit(extractor: SpectrogramResnet18) -> None:
    with pytest.raises(ExtractorError, match="defined at 44100 Hz and got 16000 Hz; give it a waveform stage with rate_hz: 44100"):
        extractor.extract(Waveform(samples=np.zeros(160, np.float32), rate_hz=16000, valid=np.ones(1, np.bool_)), np.zeros(1))
    assert WaveformConditioner(WaveformConditioner.Params(rate_hz=44100), Runtime()).condition(sound(noise(1))).rate_hz == 44100
    with pytest.raises(ValueError, match="spectrogram_resnet18: expected the timeline's row times, got none"):
        extractor.extract(sound(noise(1)), None)
    for frames in (0, 1001):
        with pytest.raises(ValueError, match=f"^frames: expected a whole number from 1 to 1000, got {frames}$"):
            SpectrogramResnet18.Params(frames=frames)
