"""Windows over a waveform: how many fit, which seconds each covers, and the track that rows of them make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from extractors.contract import Bool, ExtractorError, Float32, Float64, Int64, Track, Waveform


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Equal windows that start every `hop` samples; only those that lie fully inside the signal count.

    Their times follow from whole sample numbers, so they do not drift however long the signal is.
    """

    length: int
    hop: int
    rate_hz: int

    def count(self, n_samples: int) -> int:
        return max(0, 1 + (n_samples - self.length) // self.hop)

    def start_s(self, n_windows: int) -> Float64:
        """(n_windows,) float64 seconds: where each window starts."""
        return np.asarray(np.arange(n_windows) * self.hop / self.rate_hz, dtype=np.float64)

    def stop_s(self, n_windows: int) -> Float64:
        """(n_windows,) float64 seconds: where each window ends, exclusive."""
        return np.asarray((np.arange(n_windows) * self.hop + self.length) / self.rate_hz, dtype=np.float64)

    def centre_s(self, n_windows: int) -> Float64:
        """(n_windows,) float64 seconds."""
        return np.asarray((np.arange(n_windows) * (2 * self.hop) + self.length) / (2 * self.rate_hz), dtype=np.float64)

    def batches(self, samples: Float32, size: int) -> Iterator[tuple[slice, Float64]]:
        """The windows, at most `size` at a time: the rows they are, and (n, length) float64, a copy that may be changed."""
        rows = self.count(len(samples))
        if rows:
            view = np.lib.stride_tricks.sliding_window_view(samples, self.length)[:: self.hop]
            for start in range(0, rows, size):
                yield slice(start, min(start + size, rows)), view[start : start + size].astype(np.float64)

    def track(self, values: Float32, waveform: Waveform, columns: tuple[str, ...] = ()) -> Track:
        """A track of one row per window, valid where the source has sound in the whole window."""
        n = len(values)
        valid = waveform.covers(self.start_s(n), self.stop_s(n))
        return masked_track(values, times_s=self.centre_s(n), valid=valid, columns=columns)


def masked_track(values: Float32, *, times_s: Float64, valid: Bool, columns: tuple[str, ...] = ()) -> Track:
    """A track whose values are NaN where it is not valid. values: (T, D) float32, changed in place."""
    values[~valid] = np.nan
    return Track(values=values, times_s=times_s, valid=valid, columns=columns)


def sounding_s(waveform: Waveform) -> tuple[float, float]:
    """From where to where the source has sound, in seconds, half-open, to 10 ms; (0, 0) where it has none."""
    blocks: Int64 = np.flatnonzero(waveform.valid)
    if not len(blocks):
        return 0.0, 0.0
    block = waveform.rate_hz // 100
    return int(blocks[0]) * block / waveform.rate_hz, min((int(blocks[-1]) + 1) * block, len(waveform.samples)) / waveform.rate_hz


def require_rate(extractor: str, waveform: Waveform, rate_hz: int) -> None:
    """Raises ExtractorError where an extractor that is defined at one rate gets sound of another."""
    if waveform.rate_hz != rate_hz:
        why = f"it is defined at {rate_hz} Hz and got {waveform.rate_hz} Hz"
        raise ExtractorError(f"{extractor} cannot read this sound", why=why, fix=f"give it a waveform stage with rate_hz: {rate_hz}")
