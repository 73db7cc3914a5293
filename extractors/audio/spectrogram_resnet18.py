"""ResNet-18 on mel spectrograms: 512 numbers for the second of sound before each row of the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from extractors.audio.mel_decibels import RATE_HZ, mel_decibels, n_columns
from extractors.contract import Bool, Float32, Float64, Int64, Kind, Runtime, Track, Waveform
from extractors.networks import PART, forward, loaded, place
from extractors.threads import crew
from extractors.weights import Layout, State
from extractors.windows import masked_track, require_rate, sounding_s

LEAST_SAMPLES = 45599  # 1.034 s, 104 columns: shorter sounds get zeros before them
MEAN_DB, DEVIATION_DB = -14.8, 19.895  # of the spectrograms that the network was trained on
MAX_FRAMES = 1000
COLUMNS_AT_ONCE = 64 * 104  # of all spectrograms in a batch
TSAV = "audio_model.resnet."


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrogramResnet18Params:
    """frames: from how many rows before it a row hears, 1 to 1000. The released code takes 31; the 107 columns that are also published
    would be 32 at 30 rows per second."""

    frames: int = 31

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"frames: expected a whole number from 1 to {MAX_FRAMES}, got {self.frames}")


def _audio_part(state: State) -> State:
    """The names of torchvision's network, of which the two-stream checkpoint's audio part is one under a prefix."""
    return {key.removeprefix(TSAV): value for key, value in state.items()}


class SpectrogramResnet18:
    """ResNet-18 with one channel of input on 64 mel bands in decibels, from the sound between two rows of the timeline.

    Source: Kuhnke et al., "Two-stream aural-visual affect analysis in the wild", FG 2020, section III; window per video frame as in
    Praveen et al., "Recursive joint attention for audio-visual fusion in regression based emotion recognition", ICASSP 2023.
    """

    name: ClassVar[str] = "spectrogram_resnet18"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = SpectrogramResnet18Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "https://github.com/kuhnkeF/ABAW2020TNT"
    licence: ClassVar[str] = "research only (the two-stream checkpoint)"
    hears_hz: ClassVar[int] = RATE_HZ
    layout: ClassVar[Layout] = Layout(converted=_audio_part, dropped=("fc.", "video_model."))
    dim = 512

    @staticmethod
    def reads(params: SpectrogramResnet18Params) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM, Kind.TIMELINE)

    @staticmethod
    def network(params: SpectrogramResnet18Params) -> Any:
        from torch import nn
        from torchvision.models import resnet18

        network = resnet18(weights=None)
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        network.fc = nn.Identity()
        return network

    def __init__(self, params: SpectrogramResnet18Params, runtime: Runtime) -> None:
        self._network, self._runtime, self._frames = place(loaded(self, params, runtime), runtime), runtime, params.frames

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 512) float32, at the times of the timeline's rows.

        Row j hears from the time of row j - frames (from 0 for the first rows) to its own time, so it looks back only. Sound begins where
        the source's does. A row is valid where it hears something, the source has sound in all of that, and is not over.
        Raises ExtractorError unless the sound is at 44.1 kHz.
        """
        require_rate(self.name, waveform, RATE_HZ)
        if row_times_s is None:
            raise ValueError(f"{self.name}: expected the timeline's row times, got none")
        start_s, stop_s, valid = _heard(waveform, row_times_s, self._frames)
        values = np.empty((len(row_times_s), self.dim), np.float32)
        if valid.any():
            spans = np.rint(np.stack([start_s, stop_s], axis=1)[valid] * RATE_HZ).astype(np.int64)
            spans, row_span = np.unique(spans, axis=0, return_inverse=True)  # rows of one time hear the same
            values[valid] = self._embed(waveform.samples, spans)[row_span.reshape(-1)]
        return masked_track(values, times_s=row_times_s, valid=valid)

    def of_spectrograms(self, spectrograms: Float32) -> Float32:
        """(N, 1, 64, W) float32 normalised spectrograms, see `spectrogram` -> (N, 512) float32."""
        return forward(self._network, spectrograms, self._runtime)

    def _embed(self, samples: Float32, spans: Int64) -> Float32:
        """(S,) sound, (N, 2) first samples and those after the last -> (N, 512). Each batch is of spectrograms of one width."""
        values = np.empty((len(spans), self.dim), np.float32)
        widths = n_columns(np.maximum(spans[:, 1] - spans[:, 0], LEAST_SAMPLES))
        for width in np.unique(widths):
            alike, size = np.flatnonzero(widths == width), max(1, COLUMNS_AT_ONCE // int(width))
            for i in range(0, len(alike), size):
                some = alike[i : i + size]
                sounds = [samples[start:stop] for start, stop in spans[some]]
                parts = [sounds[at : at + PART] for at in range(0, len(sounds), PART)]
                made = chain.from_iterable(crew(self._runtime.threads).map(spectrograms, parts))
                values[some] = self.of_spectrograms(np.stack(list(made))[:, None])
        return values


def spectrogram(samples: Float32) -> Float32:
    """(S,) sound at 44.1 kHz -> (64, W) float32, normalised: W = 104, or 1 + S // 441 where S is more than 45,599.

    Shorter sound gets zeros before it. From decibels x, (x + 14.8) / 19.895.
    """
    return spectrograms([samples])[0]


def spectrograms(sounds: Sequence[Float32]) -> list[Float32]:
    """That of each, those of one length together."""
    padded = [np.pad(samples, (max(0, LEAST_SAMPLES - len(samples)), 0)) for samples in sounds]
    found: dict[int, Float32] = {}
    for length in {len(samples) for samples in padded}:
        alike = [number for number, samples in enumerate(padded) if len(samples) == length]
        decibels = mel_decibels(np.stack([padded[number] for number in alike]))
        found |= zip(alike, (decibels - np.float32(MEAN_DB)) / np.float32(DEVIATION_DB), strict=True)
    return [found[number] for number in range(len(padded))]


def _heard(waveform: Waveform, times_s: Float64, frames: int) -> tuple[Float64, Float64, Bool]:
    """(T,) seconds from which to which each row hears, inside the sound of the source; and which rows are valid."""
    first_s, end_s = sounding_s(waveform)
    start_s = np.concatenate([np.zeros(min(frames, len(times_s))), times_s[:-frames]])
    start_s, stop_s = np.maximum(start_s, first_s), np.minimum(times_s, end_s)
    over = times_s > end_s + 1e-9  # times are sums of rounded intervals
    return start_s, stop_s, np.asarray(~over & waveform.covers(start_s, stop_s), np.bool_)
