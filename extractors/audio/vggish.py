"""VGGish: 128 numbers for about a second of sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from extractors.audio import whitening
from extractors.audio.mel import N_BANDS, RATE_HZ, WINDOWS, log_mel
from extractors.contract import ExtractorError, Float32, Float64, Int64, Kind, Runtime, Track, Waveform
from extractors.networks import forward, loaded, place
from extractors.weights import Layout
from extractors.windows import Windows, masked_track, require_rate, sounding_s

ROWS = 96  # log-mel rows of an example
EXAMPLES = Windows(length=(ROWS - 1) * WINDOWS.hop + WINDOWS.length, hop=ROWS * WINDOWS.hop, rate_hz=RATE_HZ)
EXAMPLE_S = EXAMPLES.length / RATE_HZ  # 0.975 s
BATCH = 64
FILES = ("vggish-10086976.pth", "vggish_pca_params-970ea276.pth")  # the network, and what follows it on request
TAIL_S = 1  # by so much the sound's last sample is repeated, so that an example can start at any time before its end


@dataclass(frozen=True, slots=True, kw_only=True)
class VggishParams:
    """hop: where examples start. output: before or after the last layer's ReLU, with the same weights; or what follows of either by
    AudioSet's whitening and 8 bits ("pca" and "relu_pca"), for which `weights` is a folder of both published files.

    "pre_activation" is what Google's own model and the published affect systems give, and all others follow from it, not the
    reverse; hence the default.
    """

    hop: Literal["timeline", "native"] = "timeline"
    output: Literal["pre_activation", "relu", "pca", "relu_pca"] = "pre_activation"


class Vggish:
    """VGGish on examples that start at each row of the timeline, or on Google's examples of 0.96 s, one after the other.

    Source: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017; framing per video frame as in
    Zhang et al., "Continuous emotion recognition using visual-audio-linguistic information", CVPRW 2022.
    """

    name: ClassVar[str] = "vggish"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = VggishParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
    licence: ClassVar[str] = "Apache-2.0"
    hears_hz: ClassVar[int] = RATE_HZ
    layout: ClassVar[Layout] = Layout(files=FILES)
    dim = 128

    @staticmethod
    def reads(params: VggishParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM, Kind.TIMELINE) if params.hop == "timeline" else (Kind.WAVEFORM,)

    @staticmethod
    def network(params: VggishParams) -> Any:
        from torchvggish.torchvggish import VGG, make_layers

        return VGG(make_layers(), postprocess=False)

    def __init__(self, params: VggishParams, runtime: Runtime) -> None:
        folder = runtime.weights if runtime.weights and runtime.weights.is_dir() else None
        self._whitening = _whitening(runtime.weights, folder) if params.output.endswith("pca") else None
        network = loaded(self, params, replace(runtime, weights=folder / FILES[0]) if folder else runtime)
        if not params.output.startswith("relu"):
            network.embeddings = network.embeddings[:-1]
        self._network, self._runtime, self._hop = place(network, runtime), runtime, params.hop

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 128) float32, after the whitening whole numbers from 0 to 255.

        hop "timeline": row t hears [t, t + 0.975 s), so it looks ahead; its time is t, that of the timeline's row. Where the
        sound ends inside that, its last sample is repeated; where the sound has not begun, has a gap, or is over, the row is
        not valid. hop "native": one row per full 0.96 s, at the centre of what it hears.
        Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, RATE_HZ)
        if self._hop == "native":
            rows = log_mel(waveform.samples)
            starts = np.arange(EXAMPLES.count(len(waveform.samples)), dtype=np.int64) * ROWS
            return EXAMPLES.track(self._embed(rows, starts), waveform)
        if row_times_s is None:
            raise ValueError("vggish: expected the timeline's row times for hop 'timeline', got none")
        return self._per_row(waveform, row_times_s)

    def _per_row(self, waveform: Waveform, times_s: Float64) -> Track:
        end_s = sounding_s(waveform)[1]
        valid = (times_s < end_s) & waveform.covers(times_s, np.minimum(times_s + EXAMPLE_S, end_s))
        values = np.empty((len(times_s), self.dim), np.float32)
        if valid.any():
            sound = waveform.samples[: round(end_s * RATE_HZ)]
            rows = log_mel(np.pad(sound, (0, TAIL_S * RATE_HZ), mode="edge"))
            starts, row_example = np.unique(example_starts(times_s[valid]), return_inverse=True)  # rows under 10 ms apart share one
            values[valid] = self._embed(rows, starts)[row_example]
        return masked_track(values, times_s=times_s, valid=valid)

    def _embed(self, rows: Float32, starts: Int64) -> Float32:
        """(R, 64) log-mel rows, (E,) first rows of examples -> (E, 128)."""
        values = np.empty((len(starts), self.dim), np.float32)
        for i in range(0, len(starts), BATCH):
            examples = rows[starts[i : i + BATCH, None] + np.arange(ROWS)].reshape(-1, 1, ROWS, N_BANDS)
            values[i : i + BATCH] = forward(self._network, examples, self._runtime)
        return values if self._whitening is None else self._whitening.apply(values)


def _whitening(weights: Path | None, folder: Path | None) -> whitening.Whitening:
    if folder is None:
        why = f"it takes two files, {' and '.join(FILES)}, and {weights} is one"
        fix = "put both into a folder in a weights folder, under these names, and name that folder in `weights`"
        raise ExtractorError("vggish cannot give its output whitened", why=why, fix=fix)
    return whitening.read(folder / FILES[1])


def example_starts(times_s: Float64) -> Int64:
    """(T,) seconds -> (T,) the log-mel row (10 ms) at which each time's example starts, the nearest one, ties to the even one.

    Ties are real (at 40 frames per second every second row is one), so what floating point adds to them is taken off first.
    """
    return np.asarray(np.rint(np.round(times_s * (RATE_HZ / WINDOWS.hop), 6)), dtype=np.int64)
