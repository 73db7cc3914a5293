"""openSMILE, as the extractors that are made of it use it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from extractors.contract import Float32, Float64
from extractors.registry import require

require("opensmile")

SHORT_S = 0.020  # window of loudness, spectral and formant descriptors
LONG_S = 0.060  # window of pitch and what is measured from it; openSMILE yields nothing for less sound
HOP_S = 0.010
LICENCE = "audEERING research licence"


def smile(feature_set: str, level: str) -> Any:
    import opensmile

    with warnings.catch_warnings():
        # The older sets are asked for by name, to match published systems; that openSMILE prefers its newest is no news.
        warnings.filterwarnings("ignore", message="Feature set .* is deprecated", category=UserWarning)
        return opensmile.Smile(feature_set=opensmile.FeatureSet[feature_set], feature_level=opensmile.FeatureLevel[level])


def process(engine: Any, samples: Float32, rate_hz: int) -> tuple[Float32, Float64]:
    """(S,) sound -> (T, D) float32 values and (T,) float64 seconds from the first sample to each row's start.

    openSMILE is given 16-bit samples, and its binding turns the float 1.0 into the most negative of them: hence the limit.
    """
    frame = engine.process_signal(np.clip(samples, -1.0, 32767 / 32768), rate_hz)
    start_s = frame.index.get_level_values("start").total_seconds().to_numpy(np.float64)
    return frame.to_numpy(np.float32, copy=True), start_s
