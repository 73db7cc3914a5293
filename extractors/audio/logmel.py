"""Log-mel energies: what VGGish sees, as a feature of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from extractors.audio.mel import N_BANDS, RATE_HZ, WINDOWS, log_mel
from extractors.contract import Float64, Kind, Runtime, Track, Waveform
from extractors.windows import require_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMelParams:
    """None: the definition is fixed."""


class LogMel:
    """64 log-mel energies every 10 ms, exactly those of VGGish's front end."""

    name: ClassVar[str] = "logmel"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = LogMelParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"
    hears_hz: ClassVar[int] = RATE_HZ
    dim = N_BANDS

    @staticmethod
    def reads(params: LogMelParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def __init__(self, params: LogMelParams, runtime: Runtime) -> None:
        pass

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """One row per 25 ms window, at its centre. values: (T, 64) float32, ln(mel + 0.01), low to high frequency.

        Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, RATE_HZ)
        return WINDOWS.track(log_mel(waveform.samples), waveform, tuple(f"logmel{i}" for i in range(N_BANDS)))
