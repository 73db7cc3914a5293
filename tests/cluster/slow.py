"""Extractors for runs on jobs: one that takes its time, and two that tell in which job they ran."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from extractors.contract import Float64, Kind, Runtime, Track, Waveform


@dataclass(frozen=True, kw_only=True)
class Params:
    n: int = 0


class Slow:
    """The mean of the sound, and n, after as many seconds as SLOW_S says."""

    name: ClassVar[str] = "slow"
    version: ClassVar[int] = 1
    Params = Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "MIT"
    dim = 2

    def __init__(self, params: Params, runtime: Runtime) -> None:
        self.params = params

    @staticmethod
    def reads(params: Any) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        time.sleep(float(os.environ.get("SLOW_S", "0")))
        return self.track(float(waveform.samples.mean()) if len(waveform.samples) else 0.0)

    def track(self, value: float) -> Track:
        values = np.tile(np.array([value, self.params.n], np.float32), (4, 1))
        return Track(values=values, times_s=np.arange(4) / 2, valid=np.ones(4, np.bool_))


class OnCpu(Slow):
    """Which GPUs SLURM gave the job: 1 for some."""

    name: ClassVar[str] = "on_cpu"

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        return self.track(float(bool(os.environ.get("SLURM_JOB_GPUS"))))


class OnGpu(OnCpu):
    name: ClassVar[str] = "on_gpu"
    on_gpu: ClassVar[bool] = True
