"""An outside extractor that does nothing, so that a job of it is all overhead: it reads a waveform and gives one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from extractors.contract import Float64, Kind, Runtime, Track, Waveform


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingParams:
    """number: tells one stage from another."""

    number: int = 0


class Nothing:
    """The waveform's length in samples, times 0."""

    name: ClassVar[str] = "nothing"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = NothingParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"
    dim = 1

    @staticmethod
    def reads(params: NothingParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def __init__(self, params: NothingParams, runtime: Runtime) -> None:
        pass

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        return Track(values=np.zeros((1, 1), np.float32), times_s=np.zeros(1), valid=np.ones(1, np.bool_))
