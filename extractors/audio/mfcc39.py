"""39 mel-frequency cepstral coefficients as openSMILE's MFCC12_0_D_A configuration defines them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from extractors.audio.mel import FFT, RATE_HZ, ROWS_AT_ONCE, WINDOWS, band_energies, mel_bands
from extractors.contract import Float32, Float64, Int64, Kind, Runtime, Track, Waveform
from extractors.windows import masked_track, require_rate

N_BANDS = 26
N_CEPSTRA = 13
LIFTER = 22
ORDER = (*range(1, N_CEPSTRA), 0)  # coefficient 0, the energy, comes last
COLUMNS = tuple(f"mfcc{k}{suffix}" for suffix in ("", "_de", "_dede") for k in ORDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mfcc39Params:
    """hop: where windows start, every 10 ms or at each row of the timeline."""

    hop: Literal["native", "timeline"] = "native"


class Mfcc39:
    """12 cepstra and the energy one, their slopes and their accelerations, every 10 ms or per row of the timeline.

    The rows are at 10 ms exactly, or at the timeline's own times. (With a frame step of 1 / fps, as some published systems have
    it, openSMILE rounds the step to whole samples, and its rows slide against the video: by a frame per minute at 30 fps.)
    """

    name: ClassVar[str] = "mfcc39"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = Mfcc39Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"
    hears_hz: ClassVar[int] = RATE_HZ
    dim = len(COLUMNS)

    @staticmethod
    def reads(params: Mfcc39Params) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM, Kind.TIMELINE) if params.hop == "timeline" else (Kind.WAVEFORM,)

    def __init__(self, params: Mfcc39Params, runtime: Runtime) -> None:
        self._hop = params.hop

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 39) float32: mfcc1..12, mfcc0; the same _de; the same _dede.

        hop "native": one row per 25 ms window, at its centre. hop "timeline": row t hears [t, t + 0.025 s); its time is t, that of
        the timeline's row, and its slopes are per row of the timeline, so they see four rows to each side.
        A row is valid where its own window has sound; slopes and accelerations next to a gap also see up to four rows of it.
        Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, RATE_HZ)
        if self._hop == "native":
            return WINDOWS.track(with_slopes(cepstra(waveform.samples)), waveform, COLUMNS)
        if row_times_s is None:
            raise ValueError("mfcc39: expected the timeline's row times for hop 'timeline', got none")
        return _per_row(waveform, row_times_s)


def _per_row(waveform: Waveform, times_s: Float64) -> Track:
    """Rows at one time are one window. A window that does not lie fully inside the sound is none, as in openSMILE."""
    starts, row_window = np.unique(np.rint(np.round(times_s * RATE_HZ, 6)).astype(np.int64), return_inverse=True)
    n = int(np.searchsorted(starts, len(waveform.samples) - WINDOWS.length, side="right"))
    of_window = np.full((len(starts), len(COLUMNS)), np.nan, np.float32)
    of_window[:n] = with_slopes(cepstra_at(waveform.samples, starts[:n]))
    start_s = starts / RATE_HZ
    valid = waveform.covers(start_s, start_s + WINDOWS.length / RATE_HZ) & (np.arange(len(starts)) < n)
    return masked_track(of_window[row_window], times_s=times_s.copy(), valid=valid[row_window], columns=COLUMNS)


def cepstra(samples: Float32, rows_at_once: int = ROWS_AT_ONCE) -> Float64:
    """(S,) sound at 16 kHz in [-1, 1] -> (T, 13) float64, every 10 ms; T = 1 + (S - 400) // 160, or 0. See `_cepstra`."""
    return _cepstra(WINDOWS.batches(samples, rows_at_once), WINDOWS.count(len(samples)))


def cepstra_at(samples: Float32, starts: Int64) -> Float64:
    """As `cepstra`, for windows that start at the given samples. (T,) int64, ascending, each window inside the sound."""
    parts = (slice(at, at + ROWS_AT_ONCE) for at in range(0, len(starts), ROWS_AT_ONCE))
    frames = ((part, samples[starts[part, None] + np.arange(WINDOWS.length)].astype(np.float64)) for part in parts)
    return _cepstra(frames, len(starts))


def _cepstra(batches: Iterator[tuple[slice, Float64]], n: int) -> Float64:
    """Windows of 400 samples, which are changed -> (n, 13) float64, coefficients 1 to 12 and then 0.

    Per window, at the scale of 16-bit samples: pre-emphasis 0.97, symmetric Hamming, 512-point power spectrum, 26 mel bands
    from 0 to 8000 Hz, ln(max(E, 1)), DCT-II by sqrt(2 / 26), sine lifter 22.
    """
    bands = mel_bands(N_BANDS, 0.0, RATE_HZ / 2)
    k = np.array(ORDER)[:, None]
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * k / LIFTER)
    transform = lifter * np.sqrt(2 / N_BANDS) * np.cos(np.pi * k / N_BANDS * (np.arange(N_BANDS) + 0.5))
    hamming = np.hamming(WINDOWS.length)
    values = np.empty((n, N_CEPSTRA))
    for rows, frames in batches:
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
