"""39 mel-frequency cepstral coefficients as openSMILE's MFCC12_0_D_A configuration defines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from extractors.audio.mel import FFT, RATE_HZ, ROWS_AT_ONCE, WINDOWS, band_energies, mel_bands
from extractors.contract import Float32, Float64, Kind, Runtime, Track, Waveform
from extractors.windows import require_rate

N_BANDS = 26
N_CEPSTRA = 13
LIFTER = 22
ORDER = (*range(1, N_CEPSTRA), 0)  # coefficient 0, the energy, comes last
COLUMNS = tuple(f"mfcc{k}{suffix}" for suffix in ("", "_de", "_dede") for k in ORDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mfcc39Params:
    """None: the definition is fixed."""


class Mfcc39:
    """12 cepstra and the energy one, their slopes and their accelerations, every 10 ms.

    The rows are at 10 ms exactly. (With a frame step of 1 / fps openSMILE rounds the step to whole samples, and its rows
    slide against the video: by a frame per minute at 30 fps.)
    """

    name: ClassVar[str] = "mfcc39"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = Mfcc39Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"
    dim = len(COLUMNS)

    @staticmethod
    def reads(params: Mfcc39Params) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def __init__(self, params: Mfcc39Params, runtime: Runtime) -> None:
        pass

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """One row per 25 ms window, at its centre. values: (T, 39) float32: mfcc1..12, mfcc0; the same _de; the same _dede.

        A row is valid where its own window has sound; slopes and accelerations next to a gap also see up to 40 ms of it.
        Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, RATE_HZ)
        return WINDOWS.track(with_slopes(cepstra(waveform.samples)), waveform, COLUMNS)


def cepstra(samples: Float32, rows_at_once: int = ROWS_AT_ONCE) -> Float64:
    """(S,) sound at 16 kHz in [-1, 1] -> (T, 13) float64, coefficients 1 to 12 and then 0; T = 1 + (S - 400) // 160, or 0.

    Per window, at the scale of 16-bit samples: pre-emphasis 0.97, symmetric Hamming, 512-point power spectrum, 26 mel bands
    from 0 to 8000 Hz, ln(max(E, 1)), DCT-II by sqrt(2 / 26), sine lifter 22.
    """
    bands = mel_bands(N_BANDS, 0.0, RATE_HZ / 2)
    k = np.array(ORDER)[:, None]
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * k / LIFTER)
    transform = lifter * np.sqrt(2 / N_BANDS) * np.cos(np.pi * k / N_BANDS * (np.arange(N_BANDS) + 0.5))
    hamming = np.hamming(WINDOWS.length)
    values = np.empty((WINDOWS.count(len(samples)), N_CEPSTRA))
    for rows, frames in WINDOWS.batches(samples, rows_at_once):
        frames *= 32768
        frames[:, 1:] -= 0.97 * frames[:, :-1]
        frames[:, 0] *= 1 - 0.97
        power = np.square(np.abs(np.fft.rfft(frames * hamming, FFT)))
        logs = np.log(np.maximum(band_energies(power, bands), 1.0))
        values[rows] = (logs[:, None, :] * transform).sum(axis=2)  # row by row, see band_energies
    return values


def with_slopes(base: Float64) -> Float32:
    """(T, D) -> (T, 3 D) float32: the values, their slopes and the slopes of those, by regression over two rows to each side.

    The ends are repeated, as openSMILE does it: at the start the first slope, but at the end the last *values*, so that the
    two slopes after the last row are computed from a repeated tail.
    """
    if not len(base):
        return np.empty((0, 3 * base.shape[1]), np.float32)
    slopes = _regression(np.pad(base, ((2, 4), (0, 0)), mode="edge"))
    accelerations = _regression(np.concatenate([slopes[:1], slopes[:1], slopes]))
    return np.concatenate([base, slopes[:-2], accelerations], axis=1).astype(np.float32)


def _regression(x: Float64) -> Float64:
    """(T + 4, D) -> (T, D): the slope per row of a straight line through five rows."""
    return np.asarray((x[3:-1] - x[1:-3] + 2 * (x[4:] - x[:-4])) / 10, dtype=np.float64)
