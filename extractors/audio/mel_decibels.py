"""The mel spectrogram in decibels that the published spectrogram networks are given: torchaudio's definition, in NumPy."""

from __future__ import annotations

from functools import cache

import numpy as np

from extractors.contract import Float32, Float64

RATE_HZ = 44100
FFT = 1024
WINDOW = 882  # 20 ms, in the middle of the transform's 1024 samples
HOP = 441  # 10 ms
N_BANDS = 64
LEAST_POWER = 1e-10
TOP_DB = 80.0  # below the loudest value of the sound, everything is cut off
COLUMNS_AT_ONCE = 2048  # 17 MB of windows, whatever the length


def n_columns(n_samples: int) -> int:
    """Of the spectrogram of so many samples."""
    return 1 + n_samples // HOP


def mel_decibels(samples: Float32) -> Float32:
    """(S,) sound at 44.1 kHz, S of 513 or more -> (64, 1 + S // 441) float32, in dB.

    Column k is centred at sample 441 k: the sound is mirrored at its ends. Periodic Hann window of 882 samples, power of the 1024-point
    FFT, 64 triangles of peak 1 from 0 to 22,050 Hz, evenly spaced on the HTK mel scale and straight in Hz, 10 log10 of at least
    1e-10, and at least the sound's maximum - 80 dB. Source: torchaudio's MelSpectrogram and AmplitudeToDB with their defaults.
    """
    mirrored = np.pad(samples.astype(np.float64), FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(mirrored, FFT)[::HOP]
    hann, bank = np.zeros(FFT), mel_bank()
    hann[(FFT - WINDOW) // 2 :][:WINDOW] = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * np.arange(WINDOW))
    energies = np.empty((len(frames), N_BANDS))
    for start in range(0, len(frames), COLUMNS_AT_ONCE):
        spectra = np.fft.rfft(frames[start : start + COLUMNS_AT_ONCE] * hann)
        energies[start : start + COLUMNS_AT_ONCE] = (spectra.real**2 + spectra.imag**2) @ bank
    decibels = 10 * np.log10(np.maximum(energies, LEAST_POWER))
    return np.asarray(np.maximum(decibels, decibels.max() - TOP_DB).T, np.float32)


@cache
def mel_bank() -> Float64:
    """(513, 64) the weight of each bin of the FFT in each band; mel(f) = 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + RATE_HZ / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, N_BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE_HZ / 2, FFT // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bank = np.asarray(np.maximum(0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))), np.float64)
    bank.setflags(write=False)
    return bank
