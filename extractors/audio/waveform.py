"""The waveform stage: decoded sound becomes the samples that every audio extractor reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from extractors.contract import Kind, Runtime, Waveform


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveformConditionerParams:
    """rate_hz: samples per second. peak_dbfs: the level of the largest sample, in dB below full scale; None leaves it."""

    rate_hz: int = 16000
    peak_dbfs: float | None = None

    def __post_init__(self) -> None:
        if self.rate_hz <= 0 or self.rate_hz % 100:
            raise ValueError(f"rate_hz: expected a positive multiple of 100, got {self.rate_hz}")
        if self.peak_dbfs is not None and not (math.isfinite(self.peak_dbfs) and self.peak_dbfs <= 0):
            raise ValueError(f"peak_dbfs: expected a level of 0 dB or below, got {self.peak_dbfs}")


class WaveformConditioner:
    """Mono sound at one rate, optionally scaled to a peak level.

    The pipeline decodes and resamples (with ffmpeg) to `rate_hz`; this decides what happens to the samples. Scaling to a peak
    changes loudness and energy features, so it is off unless asked for.
    """

    name: ClassVar[str] = "waveform"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = WaveformConditionerParams
    yields: ClassVar[Kind] = Kind.WAVEFORM
    decoder: ClassVar[str | None] = "ffmpeg"
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"

    @staticmethod
    def reads(params: WaveformConditionerParams) -> tuple[Kind, ...]:
        return ()

    def __init__(self, params: WaveformConditionerParams, runtime: Runtime) -> None:
        self.rate_hz = params.rate_hz
        self._peak_dbfs = params.peak_dbfs

    def condition(self, waveform: Waveform) -> Waveform:
        """The sound scaled by gain = 10^(peak_dbfs / 20) / max|x|; silence and, without a peak level, all sound is left as it is.

        Raises ValueError for sound of another rate: the decoder was asked for this one.
        """
        if waveform.rate_hz != self.rate_hz:
            raise ValueError(f"waveform: expected {self.rate_hz} Hz, got {waveform.rate_hz} Hz")
        largest = float(np.max(np.abs(waveform.samples), initial=0.0))
        if self._peak_dbfs is None or largest == 0:
            return waveform
        gain = 10 ** (self._peak_dbfs / 20) / largest
        samples = (waveform.samples * np.float64(gain)).astype(np.float32)
        return Waveform(samples=samples, rate_hz=waveform.rate_hz, valid=waveform.valid)
