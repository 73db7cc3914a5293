"""Any audio encoder that transformers has a class for, from a saved model's folder, with its own feature extractor."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from extractors import saved_model
from extractors.audio import speech
from extractors.contract import ExtractorError, Float32, Float64, Kind, Runtime, Track, Waveform
from extractors.hub import SavedModel
from extractors.networks import forward_whole, place
from extractors.threads import one_torch_thread
from extractors.weights import load_state
from extractors.windows import masked_track, require_rate

RATE_HZ = 16000
LEAST_S = 0.1  # less sound than this at the end makes no window
PATCHES = "audio-spectrogram-transformer"  # its hidden states are patches of a spectrogram
MODEL = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
TOKENS = 2  # in front of its patches


@dataclass(frozen=True, slots=True, kw_only=True)
class HfAudioParams:
    """layer: 0 is what goes into the encoder's first block, k what comes out of block k; -1 is the last hidden state, after any norm.

    pooling: every step of the hidden states is a row, or their mean over a window is. chunk_s: the windows' length.
    """

    layer: int = -1
    pooling: Literal["frames", "mean"] = "frames"
    chunk_s: float = 10.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.chunk_s) and self.chunk_s >= 1):
            raise ValueError(f"chunk_s: expected 1 s or more, got {self.chunk_s}")


@cache
def hf_audio(model: str) -> type:
    """The extractor class of one model, `hf_audio:MODEL`, by its name on https://huggingface.co, such as openai/whisper-base.

    What the model is, its folder says. Raises ExtractorError where that is no such name.
    """
    if not MODEL.fullmatch(model):
        why = "it is no name of a model on huggingface.co"
        raise ExtractorError(f"hf_audio:{model}", why=why, fix="name one, such as hf_audio:openai/whisper-base")
    own: dict[str, Any] = {"name": f"hf_audio:{model}", "origin": f"https://huggingface.co/{model}", "__doc__": HfAudio.__doc__}
    own["licence"] = f"the model's, see https://huggingface.co/{model}"
    own["hub"] = staticmethod(lambda params: SavedModel(model))
    return type(f"hf_audio:{model}", (HfAudio,), own)


class HfAudio:
    """Hidden states of an audio encoder, over windows of chunk_s one after the other, each prepared and heard by itself.

    Source: Wolf et al., "Transformers: state-of-the-art natural language processing", EMNLP 2020, and the model's own paper.
    """

    name: ClassVar[str] = "hf_audio"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = HfAudioParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "an audio model of https://huggingface.co, saved as a folder"
    licence: ClassVar[str] = "the model's"
    hears_hz: ClassVar[int] = RATE_HZ

    @staticmethod
    def reads(params: HfAudioParams) -> tuple[Kind, ...]:
        return (Kind.WAVEFORM,)

    def __init__(self, params: HfAudioParams, runtime: Runtime) -> None:
        folder = saved_model.weights_of(self.name, runtime)
        config = saved_model.read_config(folder)
        self._prepare, self._span_s = _feature_extractor(folder)
        if self._span_s and params.chunk_s > self._span_s:
            what, why = f"chunk_s {params.chunk_s} is too long", f"the model in {folder} hears {self._span_s} s at a time"
            raise ExtractorError(what, why=why, fix=f"set the stage's chunk_s to {self._span_s} or less")
        encoder = _encoder(config, folder)
        blocks: int = getattr(encoder.config, "encoder_layers", 0) or getattr(encoder.config, "num_hidden_layers", 0)
        choose = speech.chosen_layer(params.layer, blocks)
        self._network, self._runtime = place(speech.hidden_states(encoder, choose), runtime), runtime
        self._params, self._config = params, encoder.config
        self.dim: int = getattr(encoder.config, "hidden_size", 0)
        self._probe(folder)

    def _probe(self, folder: Path) -> None:
        """Raises ExtractorError where the model does not make steps in time of sound: at once, not in the middle of a run."""
        import torch

        try:
            self._window(np.zeros(RATE_HZ, np.float32))
        except torch.OutOfMemoryError:
            raise  # says nothing about the model
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            why = f"it makes no steps of {self.dim} numbers of a second of sound ({type(error).__name__}: {error})"
            raise saved_model.refused(folder, why, "models of this kind are not supported") from error

    def extract(self, waveform: Waveform, row_times_s: Float64 | None) -> Track:
        """values: (T, hidden size) float32.

        pooling "frames": of a model that hears samples, a row is at the centre of what its convolutions see, as of `wav2vec2`, but for
        frames across two windows, which there are none of. A model that hears a spectrogram makes a number of steps for a window;
        they are taken to divide it (or the fixed time that it is padded to: 30 s for Whisper) evenly, a row at each one's centre, and
        those of padding alone are left out. pooling "mean": the mean of these rows, at the window's centre.
        Valid where the source has sound in all of the row's part. What is left at the end is a shorter window, down to 0.1 s.
        Raises ExtractorError unless the sound is at 16 kHz.
        """
        require_rate(self.name, waveform, RATE_HZ)
        values, bounds_s = [np.empty((0, self.dim), np.float32)], [np.empty((0, 2))]
        for start, stop in _windows(len(waveform.samples), round(self._params.chunk_s * RATE_HZ)):
            states, rows_s = self._window(waveform.samples[start:stop])
            if self._params.pooling == "mean" and len(states):
                states, rows_s = states.mean(axis=0, keepdims=True), np.array([[0, (stop - start) / RATE_HZ]])
            values.append(states)
            bounds_s.append(rows_s + start / RATE_HZ)
        times_s = np.concatenate(bounds_s)
        valid = waveform.covers(times_s[:, 0], times_s[:, 1])
        return masked_track(np.concatenate(values), times_s=times_s.mean(axis=1), valid=valid)

    def _window(self, samples: Float32) -> tuple[Float32, Float64]:
        """The rows of a window, (T, D), and from where to where each of them is, (T, 2) seconds from its beginning."""
        with one_torch_thread():
            inputs = self._prepare(samples)
        states = forward_whole(self._network, inputs, self._runtime)
        if states.ndim != 3 or states.shape[::2] != (1, self.dim):
            raise ValueError(f"expected (1, steps, {self.dim}), got {states.shape}")
        steps = states[0]
        if inputs.ndim == 2 and hasattr(self._config, "conv_kernel"):
            frames = speech.frames_of(self._config)
            if frames.count(len(samples)) == len(steps):
                return steps, np.stack([frames.start_s(len(steps)), frames.stop_s(len(steps))], axis=1)
        if self._config.model_type == PATCHES:
            steps = _over_bands(steps, self._config)
        return _spread(steps, len(samples) / RATE_HZ, self._span_s)


def _windows(n_samples: int, length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n_samples, length):
        stop = min(start + length, n_samples)
        if stop - start >= LEAST_S * RATE_HZ:
            yield start, stop


def _spread(steps: Float32, sound_s: float, span_s: float) -> tuple[Float32, Float64]:
    """Steps that divide span_s (or, where that is 0, the sound) evenly; of these, those that begin inside the sound."""
    edges = np.linspace(0, span_s or sound_s, len(steps) + 1)
    kept = int(np.searchsorted(edges[:-1], sound_s - 1e-9))
    return steps[:kept], np.minimum(np.stack([edges[:kept], edges[1 : kept + 1]], axis=1), sound_s)


def _over_bands(patches: Float32, config: Any) -> Float32:
    """Patches of a spectrogram, (2 + bands x times, D) -> (times, D), the mean over the bands; the two tokens are left out."""
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    means: Float32 = patches[TOKENS:].reshape(bands, -1, patches.shape[1]).mean(axis=0)
    return means


def _feature_extractor(folder: Path) -> tuple[Any, float]:
    """What makes a model's input, (1, ...) float32, of a window of samples, and the seconds that it always pads to, or 0."""
    from transformers import SequenceFeatureExtractor
    from transformers.models.auto import feature_extraction_auto

    values = saved_model.read_json(folder, saved_model.PREPROCESSOR)
    kind = str(values.get("feature_extractor_type"))
    found: Any = feature_extraction_auto.feature_extractor_class_from_name(kind)
    try:
        if not issubclass(found, SequenceFeatureExtractor):
            raise TypeError("it is no feature extractor of sound")
        extractor = found.from_dict(values)
        rate_hz, inputs = extractor.sampling_rate, extractor.model_input_names[0]
    except Exception as error:  # not there, not of sound, or its values are not what it takes
        why = f"feature_extractor_type is {kind!r}, which does not read sound here ({type(error).__name__}: {error})"
        raise saved_model.refused(folder, why, "give the folder of an audio model, with its own preprocessor_config.json") from error
    if rate_hz != RATE_HZ:
        raise saved_model.refused(folder, f"it reads sound at {rate_hz} Hz", f"give a model for sound at {RATE_HZ} Hz")
    span_s = {"WhisperFeatureExtractor": "n_samples", "ASTFeatureExtractor": "max_length"}.get(type(extractor).__name__)
    unit_s = {"n_samples": 1 / RATE_HZ, "max_length": 0.01}.get(span_s or "", 0.0)

    def prepare(samples: Float32) -> Float32:
        made = extractor(samples, sampling_rate=RATE_HZ, return_tensors="np")[inputs]
        return np.asarray(made, dtype=np.float32)

    return prepare, getattr(extractor, span_s) * unit_s if span_s else 0.0


def _encoder(config: Any, folder: Path) -> Any:
    """The model, or its encoder, with every one of its tensors from the folder's file. Raises ExtractorError where some are missing."""
    import torch

    try:
        with torch.device("meta"):
            plain = saved_model.build(config)
    except ValueError as error:
        raise saved_model.refused(folder, f"transformers has no plain model of type {config.model_type!r}", "give another") from error
    kind: Any = type(plain)
    state = load_state(folder, plain.state_dict().keys())
    try:
        model, found = saved_model.filled(kind.from_pretrained, config, state)
    except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise saved_model.refused(folder, f"its tensors do not fit its {saved_model.CONFIG} ({error})", "fetch both again") from error
    heads = (*speech.HEADS, "proj_out.")
    foreign = [key for key in found["unexpected_keys"] if not key.rpartition(f"{kind.base_model_prefix}.")[2].startswith(heads)]
    problems = {"missing": sorted(found["missing_keys"]), "unexpected": sorted(foreign), "of another shape": found["mismatched_keys"]}
    if any(problems.values()):
        listed = ", ".join(f"{len(keys)} {what} ({', '.join(map(str, list(keys)[:4]))})" for what, keys in problems.items() if keys)
        raise saved_model.refused(folder, f"of its tensors, {listed}", f"give the checkpoint of a {kind.__name__}")
    return model.get_encoder() if config.is_encoder_decoder else model
