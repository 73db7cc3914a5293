"""audEERING's wav2vec 2.0 for emotional speech: 1024 numbers, about 50 per second, or arousal, dominance and valence per window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from extractors import saved_model
from extractors.audio import speech
from extractors.contract import Bool, Float32, Float64, Int64, Kind, Runtime, Track, Waveform
from extractors.hub import SavedModel, Source
from extractors.networks import forward, place
from extractors.weights import Layout, load_strict
from extractors.windows import Windows, masked_track, require_rate, sounding_s

if TYPE_CHECKING:
    from torch import Tensor, nn

SCORES = ("arousal", "dominance", "valence")
LEAST_WINDOW_S = 0.2
BATCH, PART = 32, 4  # windows of the same length at a time, and on a processor in a part of the batch
# What the published config.json says: for a bare file of tensors, which has none beside it.
PUBLISHED = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "layer_norm_eps": 1e-5,
    "id2label": dict(enumerate(SCORES)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wav2Vec2EmotionParams:
    """output: the last hidden states, at their own rate, or the three scores of windows of sound.

    window_s, hop, anchor (for scores): a window per timeline row, of which the row's time is the start, the centre or the end, or
    windows one after the other. chunk_s, overlap_s (for hidden states): longer sound is heard in chunks, as by `wav2vec2`.
    """

    output: Literal["hidden", "scores"] = "hidden"
    window_s: float = 4.0
    hop: Literal["timeline", "window"] = "timeline"
    anchor: Literal["start", "centre", "end"] = "centre"
    chunk_s: float = 20.0
    overlap_s: float = 3.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.window_s) and self.window_s >= LEAST_WINDOW_S):
            raise ValueError(f"window_s: expected {LEAST_WINDOW_S} s or more, got {self.window_s}")
        speech.check_chunking(self.chunk_s, self.overlap_s)


class Wav2Vec2Emotion:
    """wav2vec2-large-robust, twelve of its layers, fine-tuned on MSP-Podcast.

    Source: Wagner et al., "Dawn of the transformer era in speech emotion recognition: closing the valence gap", IEEE TPAMI 45(9), 2023,
    section 3.
    """

    name: ClassVar[str] = "wav2vec2_emotion"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = Wav2Vec2EmotionParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "https://huggingface.co/audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    hears_hz: ClassVar[int] = speech.RATE_HZ
    layout: ClassVar[Layout] = Layout(converted=speech.with_new_weight_norm, dropped=("wav2vec2.masked_spec_embed",))

    @staticmethod
    def reads(params: Wav2Vec2EmotionParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM, Kind.TIMELINE) if params.output == "scores" and params.hop == "timeline" else (Kind.WAVEFORM,)

    @staticmethod
    def hub(params: Wav2Vec2EmotionParams) -> Source:
        return SavedModel("audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim")

    def __init__(self, params: Wav2Vec2EmotionParams, runtime: Runtime) -> None:
        import torch

        path = saved_model.weights_of(self.name, runtime)
        config = _config(path)
        with torch.device("meta"):
            network = build(config)
        load_strict(network, path, self.layout)
        if params.output == "hidden":
            network = speech.hidden_states(network.get_submodule("wav2vec2"), lambda states, last: last)
        self._network, self._params, self._runtime = place(network, runtime), params, runtime
        self.dim: int = len(SCORES) if params.output == "scores" else config.hidden_size
        self._columns = _columns(config) if params.output == "scores" else ()
        self._how = speech.Listening(
            frames=speech.frames_of(config),
            dim=self.dim,
            chunking=speech.Chunking(chunk_s=params.chunk_s, overlap_s=params.overlap_s),
            normalise=not path.is_dir() or saved_model.reads_normalised(path, speech.RATE_HZ),
        )

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, 1024) float32 hidden states, or (T, 3) float32 scores, about 0 to 1, in the order of the columns.

        Hidden states: row k from the samples [320 k, 320 k + 400), as of `wav2vec2`.
        Scores, hop "timeline": a row per timeline row, at that row's time. A window that leaves the sound at its beginning or end is
        cut there; the row is valid where at least half of the window is left and the source has sound in all that is left.
        hop "window": only full windows, at their centres, valid where the source has sound in all of it. Every window is normalised
        and heard by itself, as an utterance is. Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, speech.RATE_HZ)
        if self._params.output == "hidden":
            return speech.frame_track(self._network, waveform, self._runtime, self._how)
        if self._params.hop == "window":
            length = round(self._params.window_s * speech.RATE_HZ)
            windows = Windows(length=length, hop=length, rate_hz=speech.RATE_HZ)
            n = windows.count(len(waveform.samples))
            start_s, stop_s = windows.start_s(n), windows.stop_s(n)
            return self._scores(waveform, windows.centre_s(n), start_s, stop_s, waveform.covers(start_s, stop_s))
        if row_times_s is None:
            raise ValueError("wav2vec2_emotion: expected the timeline's row times for hop 'timeline', got none")
        start_s = row_times_s - {"start": 0.0, "centre": 0.5, "end": 1.0}[self._params.anchor] * self._params.window_s
        first_s, last_s = sounding_s(waveform)
        start_s, stop_s = (np.clip(at_s, first_s, last_s) for at_s in (start_s, start_s + self._params.window_s))
        enough = stop_s - start_s >= self._params.window_s / 2 - 1e-9
        return self._scores(waveform, row_times_s, start_s, stop_s, enough & waveform.covers(start_s, stop_s))

    def _scores(self, waveform: Waveform, times_s: Float64, start_s: Float64, stop_s: Float64, valid: Bool) -> Track:
        values = np.full((len(times_s), self.dim), np.nan, np.float32)
        if valid.any():
            spans = np.rint(np.stack([start_s, stop_s], axis=1)[valid] * speech.RATE_HZ).astype(np.int64)
            once, row_span = np.unique(spans, axis=0, return_inverse=True)  # rows at the same time share a window
            values[valid] = self._of_spans(waveform.samples, once)[row_span.reshape(-1)]
        return masked_track(values, times_s=times_s, valid=valid, columns=self._columns)

    def _of_spans(self, samples: Float32, spans: Int64) -> Float32:
        """(W, 2) first and end samples of windows -> (W, 3); windows of one length go through the network together."""
        values = np.empty((len(spans), self.dim), np.float32)
        lengths = spans[:, 1] - spans[:, 0]
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            for i in range(0, len(alike), BATCH):
                rows = alike[i : i + BATCH]
                windows = [samples[start:stop] for start, stop in spans[rows]]
                values[rows] = forward(self._network, np.stack([self._prepared(window) for window in windows]), self._runtime, part=PART)
        return values

    def _prepared(self, window: Float32) -> Float32:
        return speech.normalised(window) if self._how.normalise else window


def build(config: Any) -> nn.Module:
    """The network, untrained, with the published names for its tensors, from (N, S) sound to (N, 3) scores."""
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(config.hidden_size, config.hidden_size)
            self.out_proj = nn.Linear(config.hidden_size, len(SCORES))

        def forward(self, pooled: Tensor) -> Tensor:
            scores: Tensor = self.out_proj(self.dense(pooled).tanh())
            return scores

    class EmotionModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wav2vec2 = saved_model.build(config)
            self.classifier = Head()

        def forward(self, sound: Tensor) -> Tensor:
            scores: Tensor = self.classifier(self.wav2vec2(sound).last_hidden_state.mean(dim=1))
            return scores

    return EmotionModel()


def _config(path: Path) -> Any:
    config = saved_model.read_config(path) if path.is_dir() else saved_model.configuration(PUBLISHED, path)
    speech.check_family(config, path)
    if config.model_type != "wav2vec2":
        raise saved_model.refused(path, f"its model_type is {config.model_type!r}, expected wav2vec2", f"fetch {Wav2Vec2Emotion.origin}")
    return config


def _columns(config: Any) -> tuple[str, ...]:
    """The scores in the order of config.json's labels; in the published order where it names none."""
    labels = tuple(config.id2label[i] for i in sorted(config.id2label))
    return labels if sorted(labels) == sorted(SCORES) else SCORES
