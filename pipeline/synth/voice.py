"""The sound of a sample clip: a voice whose pitch and loudness follow arousal, and tone bursts at known times.

Nothing in it depends on valence. The voice is a sum of harmonics below the tone, so the two are told apart by frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extractors.contract import Float32, Float64, FloatArray
from pipeline.synth.motion import Curve

RATE_HZ = 48_000
TONE_HZ, TONE_S, TONE_AMPLITUDE = 4_000.0, 0.04, 0.5
GAPS_S = (0.7, 1.3)  # between onsets: irregular, so that no whole number of gaps can be mistaken for another
PITCH_HZ = (90.0, 230.0)
LOUDNESS_DBFS = (-38.0, -20.0)  # of the voice's root mean square, from the calmest to the most aroused
HARMONICS_BELOW_HZ = 3_000.0
FADE_S = 0.03
BLOCK_S = 5  # synthesised at a time, which bounds memory
GRID_HZ = 200  # of pitch, formants and loudness

SMOOTH_S = 0.0025  # of the onset finder: it passes the tone and stops the voice, 1 kHz away
TONAL = 0.4  # the least share of the energy that is the tone's
SILENCE = 1e-3  # amplitude


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One clip's sound, from start_s to stop_s on the video's clock. Of two people's arousal the mean is heard."""

    arousals: Sequence[Curve]
    vowels: Curve
    phases_rad: Float64
    start_s: float
    stop_s: float
    onsets_s: Float64

    @classmethod
    def draw(cls, arousals: Sequence[Curve], start_s: float, stop_s: float, rng: np.random.Generator) -> Voice:
        phases_rad = rng.uniform(0, 2 * np.pi, int(HARMONICS_BELOW_HZ / PITCH_HZ[0]) + 1)
        gaps_s = rng.uniform(*GAPS_S, int(stop_s / GAPS_S[0]) + 2)
        onsets_s = max(start_s, 0.0) + rng.uniform(0.1, 0.4) + np.cumsum(gaps_s) - gaps_s[0]
        return cls(
            arousals=tuple(arousals),
            vowels=Curve.draw(rng),
            phases_rad=phases_rad,
            start_s=start_s,
            stop_s=stop_s,
            onsets_s=np.round(onsets_s[onsets_s + 2 * TONE_S < stop_s], 6),
        )

    def samples(self) -> Float32:
        """(S,) float32 in [-1, 1] at RATE_HZ; sample i is at start_s + i / RATE_HZ seconds on the video's clock."""
        count = round((self.stop_s - self.start_s) * RATE_HZ)
        grid_s = np.arange(self.start_s, self.stop_s + 2 / GRID_HZ, 1 / GRID_HZ)
        arousal = np.mean([curve.at(grid_s) for curve in self.arousals], axis=0)
        pitch_hz = np.interp(arousal, (-1, 1), PITCH_HZ) * (1 + 0.015 * np.sin(2 * np.pi * 5 * grid_s))
        turns = np.concatenate([[0.0], np.cumsum((pitch_hz[1:] + pitch_hz[:-1]) / 2)]) / GRID_HZ
        gains = self._gains(pitch_hz, self.vowels.at(grid_s))
        gains *= 10 ** (np.interp(arousal, (-1, 1), LOUDNESS_DBFS) / 20) * (0.75 + 0.25 * np.sin(2 * np.pi * 3.5 * grid_s))
        out = np.zeros(count, dtype=np.float32)
        for first in range(0, count, BLOCK_S * RATE_HZ):
            times_s = self.start_s + np.arange(first, min(count, first + BLOCK_S * RATE_HZ)) / RATE_HZ
            out[first : first + len(times_s)] = self._block(times_s, grid_s, turns, gains)
        return out

    def _gains(self, pitch_hz: Float64, vowel: Float64) -> Float64:
        """(K, G) amplitudes of the harmonics over the grid: a source that falls with 1/k, shaped by three formants; unit power."""
        k = np.arange(1, len(self.phases_rad) + 1)[:, None]
        formants_hz = (600 + 180 * vowel, 1_350 + 350 * vowel, np.full_like(vowel, 2_500.0))
        frequency_hz = k * pitch_hz
        shape = sum(1 / np.hypot(1, (frequency_hz - centre) / width) for centre, width in zip(formants_hz, (80, 110, 160), strict=True))
        gains = np.where(frequency_hz < HARMONICS_BELOW_HZ, shape / k, 0.0)
        return np.asarray(gains / np.sqrt((gains**2).sum(axis=0) / 2))

    def _block(self, times_s: Float64, grid_s: Float64, turns: Float64, gains: Float64) -> Float64:
        angle = 2 * np.pi * np.interp(times_s, grid_s, turns)
        out = np.zeros(len(times_s))
        for k, (phase, gain) in enumerate(zip(self.phases_rad, gains, strict=True), start=1):
            out += np.interp(times_s, grid_s, gain) * np.sin(k * angle + phase)
        out *= np.clip((times_s - self.start_s) / FADE_S - 1, 0, 1)  # first silent: the encoder's first packet may be dropped
        for onset_s in self.onsets_s:
            since_s = times_s - onset_s
            on = (since_s >= 0) & (since_s < TONE_S)
            out[on] += TONE_AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * since_s[on])
        return np.clip(out, -1, 1)


def find_onsets(samples: FloatArray, rate_hz: int) -> Float64:
    """Where the tone bursts of a sample clip begin, whatever the level.

    samples: (S,) real, sample i at i / rate_hz seconds. Returns (B,) float64 seconds, ascending; none in silence or a voice alone.
    An onset is where the tone's amplitude first reaches half of what it comes to: the smoothing is symmetric, so that is the edge.
    Raises ValueError when the samples are not one channel, or the rate is too low for the tone.
    """
    if np.ndim(samples) != 1:
        raise ValueError(f"samples: expected (S,), got {np.shape(samples)}")
    if rate_hz < 2.5 * TONE_HZ:
        raise ValueError(f"rate_hz: expected at least {2.5 * TONE_HZ:.0f} to hold the {TONE_HZ:.0f} Hz tone, got {rate_hz}")
    x = np.asarray(samples, dtype=np.float64)
    window = np.hanning(2 * round(SMOOTH_S * rate_hz / 2) + 3)[1:-1]
    if len(x) < len(window):
        return np.zeros(0)
    window /= window.sum()
    beat = x * np.exp(-2j * np.pi * TONE_HZ / rate_hz * np.arange(len(x)))
    amplitude = 2 * np.abs(np.convolve(beat, window, mode="same"))
    power = np.convolve(x**2, window, mode="same")
    tonal = (amplitude > SILENCE) & (amplitude**2 / 2 > TONAL * power)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], tonal, [0]])))
    bursts = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > TONE_S / 2 * rate_hz]
    return np.array([_edge(amplitude[a:b], a) / rate_hz for a, b in bursts], dtype=np.float64)


def _edge(amplitude: Float64, first: int) -> float:
    """The fractional sample at which the amplitude first crosses half of its usual (median) height."""
    half = float(np.median(amplitude)) / 2
    i = int(np.argmax(amplitude >= half))
    step = (half - amplitude[i - 1]) / (amplitude[i] - amplitude[i - 1]) - 1 if i else 0.0
    return float(first + i + step)
