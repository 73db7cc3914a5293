"""The mel spectrogram in decibels that the published spectrogram networks are given: torchaudio's definition."""

from __future__ import annotations

from functools import cache

import numpy as np

from extractors.contract import Float32, Float64
from extractors.threads import one_torch_thread

RATE_HZ = 44100
FFT = 1024
WINDOW = 882  # 20 ms, in the middle of the transform's 1024 samples
HOP = 441  # 10 ms
N_BANDS = 64
LEAST_POWER = 1e-10
TOP_DB = 80.0  # below the loudest value of the sound, everything is cut off
COLUMNS_AT_ONCE = 4096  # 17 MB of spectra


def n_columns(n_samples: int) -> int:
    """Of the spectrogram of so many samples."""
    return 1 + n_samples // HOP


def mel_decibels(samples: Float32) -> Float32:
    """(S,) or (N, S) sound at 44.1 kHz, S of 513 or more -> (64, 1 + S // 441) or (N, 64, 1 + S // 441) float32, in dB.

    Column k is centred at sample 441 k: the sound is mirrored at its ends. Periodic Hann window of 882 samples, power of the 1024-point
    FFT, 64 triangles of peak 1 from 0 to 22,050 Hz, evenly spaced on the HTK mel scale and straight in Hz, 10 log10 of at least
    1e-10, and at least each sound's maximum - 80 dB. Source: torchaudio's MelSpectrogram and AmplitudeToDB with their defaults.
    """
    import torch

    with one_torch_thread():
        sound, hann = torch.tensor(samples.astype(np.float32)), torch.hann_window(WINDOW)
        spectra = torch.stft(sound, FFT, HOP, WINDOW, hann, center=True, pad_mode="reflect", return_complex=True)
        bank = torch.tensor(mel_bank().T.astype(np.float32))
        decibels = 10 * torch.log10((bank @ (spectra.real.square() + spectra.imag.square())).clamp(min=LEAST_POWER))
        found: Float32 = torch.maximum(decibels, decibels.amax(dim=(-2, -1), keepdim=True) - TOP_DB).numpy()
    return found


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
