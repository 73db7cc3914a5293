"""wav2vec 2.0, HuBERT and WavLM: self-supervised speech features, about 50 per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from extractors import saved_model
from extractors.audio import speech
from extractors.contract import Float64, Kind, Runtime, Track, Waveform
from extractors.hub import SavedModel, Source
from extractors.networks import place
from extractors.weights import Layout, load_strict
from extractors.windows import require_rate

if TYPE_CHECKING:
    from torch import Tensor

LAST = 4  # hidden states that are summed or averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Wav2Vec2Params:
    """output: one hidden state, or the mean or the sum of the last four.

    layer (for output "layer"): 0 is what goes into the first transformer block, k what comes out of block k; -1 is the model's
    last hidden state, and -2 what comes out of the last block but one. chunk_s, overlap_s: longer sound is heard in chunks of chunk_s
    that share overlap_s with the next.
    """

    layer: int = -1
    output: Literal["layer", "last4_mean", "last4_sum"] = "layer"
    chunk_s: float = 20.0
    overlap_s: float = 3.0

    def __post_init__(self) -> None:
        speech.check_chunking(self.chunk_s, self.overlap_s)


class Wav2Vec2:
    """Hidden states of a speech model of the wav2vec 2.0 family, all of whose sizes its own folder says.

    Source: Baevski et al., "wav2vec 2.0", NeurIPS 2020; Hsu et al., "HuBERT", TASLP 2021; Chen et al., "WavLM", JSTSP 2022. The sum of
    the last four: Lian et al., "MERTools" (their frame-level features).
    """

    name: ClassVar[str] = "wav2vec2"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = Wav2Vec2Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "a wav2vec 2.0, HuBERT or WavLM model of https://huggingface.co, such as facebook/wav2vec2-base-960h"
    licence: ClassVar[str] = "the model's (facebook/wav2vec2-*, hubert-*: Apache-2.0)"
    hears_hz: ClassVar[int] = speech.RATE_HZ
    layout: ClassVar[Layout] = speech.LAYOUT

    @staticmethod
    def reads(params: Wav2Vec2Params) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    @staticmethod
    def hub(params: Wav2Vec2Params) -> Source:
        return SavedModel("facebook/wav2vec2-base-960h")

    def __init__(self, params: Wav2Vec2Params, runtime: Runtime) -> None:
        import torch

        folder = saved_model.weights_of(self.name, runtime)
        config = saved_model.read_config(folder)
        speech.check_family(config, folder)
        choose = (
            speech.chosen_layer(params.layer, config.num_hidden_layers)
            if params.output == "layer"
            else partial(_of_last, mean=params.output == "last4_mean")
        )
        with torch.device("meta"):
            network = saved_model.build(config)
        load_strict(network, folder, self.layout)
        self._network, self._runtime = place(speech.hidden_states(network, choose), runtime), runtime
        self.dim: int = config.hidden_size
        self._how = speech.Listening(
            frames=speech.frames_of(config),
            dim=self.dim,
            chunking=speech.Chunking(chunk_s=params.chunk_s, overlap_s=params.overlap_s),
            normalise=saved_model.reads_normalised(folder, speech.RATE_HZ),
        )

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, hidden size) float32, row k from the samples [320 k, 320 k + 400), at their centre (320 k + 200) / 16000 s.

        Every row hears all of the sound (up to chunk_s), before and after it. The sound is normalised as a whole where the model's
        preprocessor_config.json says so. Valid where the source has sound in the row's 400 samples; less sound gives no rows.
        Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, speech.RATE_HZ)
        return speech.frame_track(self._network, waveform, self._runtime, self._how)


def _of_last(states: Sequence[Tensor], last: Tensor, *, mean: bool) -> Tensor:
    import torch

    stacked = torch.stack(tuple(states[-LAST:]))
    return stacked.mean(dim=0) if mean else stacked.sum(dim=0)
