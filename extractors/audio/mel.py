"""Mel filters, and the log-mel spectrogram that VGGish is defined on.

Written in NumPy: the same functions of the torchvggish package cannot be had without importing torch and resampy with them.
"""

from __future__ import annotations

import numpy as np

from extractors.contract import Float32, Float64
from extractors.windows import Windows

RATE_HZ = 16000
FFT = 512
ROWS_AT_ONCE = 2048  # windows per batch, some 30 MB with their spectra: bounds the memory whatever the length
N_BANDS = 64
LOG_OFFSET = 0.01
WINDOWS = Windows(length=400, hop=160, rate_hz=RATE_HZ)  # 25 ms every 10 ms

Band = tuple[int, Float64]  # the first bin, and the weights of it and the bins after it


def mel_bands(n: int, low_hz: float, high_hz: float) -> tuple[Band, ...]:
    """n overlapping triangles of peak 1 over FFT bins, evenly spaced and straight on the HTK mel scale.

    mel(f) = 1127 ln(1 + f / 700). Bin 0 (the mean) has no weight in any.
    """

    def mel(hz: Float64) -> Float64:
        return np.asarray(1127.0 * np.log(1.0 + hz / 700.0), dtype=np.float64)

    bins = mel(np.linspace(0.0, RATE_HZ / 2, FFT // 2 + 1))
    low, high = mel(np.array([low_hz, high_hz]))
    edges = np.linspace(low, high, n + 2)
    bands = []
    for left, centre, right in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        weights = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
        inside = np.flatnonzero(weights)
        first = int(inside[0]) if len(inside) else 0
        bands.append((first, weights[first : first + len(inside)]))
    return tuple(bands)


def band_energies(spectra: Float64, bands: tuple[Band, ...]) -> Float64:
    """(n, FFT / 2 + 1) spectra -> (n, bands) weighted sums.

    Each row is summed by itself. A matrix product would be as fast, but its last bits depend on how many rows it is given,
    and so a track's bits would depend on the batch size.
    """
    sums = np.empty((len(spectra), len(bands)))
    for i, (first, weights) in enumerate(bands):
        sums[:, i] = (spectra[:, first : first + len(weights)] * weights).sum(axis=1)
    return sums


def log_mel(samples: Float32, rows_at_once: int = ROWS_AT_ONCE) -> Float32:
    """(S,) sound at 16 kHz in [-1, 1] -> (T, 64) float32, ln(mel + 0.01), one row per 10 ms; T = 1 + (S - 400) // 160, or 0.

    25 ms periodic Hann windows without centring or padding, 512-point FFT magnitude (not power), 64 bands from 125 to 7500 Hz.
    Source: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017, and the code released with it.
    """
    bands = mel_bands(N_BANDS, 125.0, 7500.0)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / WINDOWS.length * np.arange(WINDOWS.length))
    values = np.empty((WINDOWS.count(len(samples)), N_BANDS), np.float32)
    for rows, frames in WINDOWS.batches(samples, rows_at_once):
        magnitudes = np.abs(np.fft.rfft(frames * hann, FFT))
        values[rows] = np.log(band_energies(magnitudes, bands) + LOG_OFFSET)
    return values
