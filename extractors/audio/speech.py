"""Networks of the wav2vec 2.0 family: frames of sound, the whole of it or chunk by chunk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors import saved_model
from extractors.contract import Bool, ExtractorError, Float32, Runtime, Track, Waveform
from extractors.networks import forward_whole
from extractors.weights import Layout, State
from extractors.windows import Windows, sounding_s

if TYPE_CHECKING:
    from torch import Tensor, nn

RATE_HZ = 16000
FAMILY = ("wav2vec2", "hubert", "wavlm")
# Heads for other purposes: transcription, pre-training, classification of utterances and of speakers.
HEADS = (
    *("lm_head.", "quantizer.", "project_hid.", "project_q.", "projector.", "classifier.", "layer_weights", "masked_spec_embed"),
    *("tdnn.", "objective.", "feature_extractor.weight", "feature_extractor.bias"),
)
WEIGHT_NORM = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}


def with_new_weight_norm(state: State) -> State:
    """The positional convolution's magnitude and direction under the names that torch gives them since 2.0."""
    renamed: State = {}
    for key, tensor in state.items():
        old = next((end for end in WEIGHT_NORM if key.endswith(end)), "")
        renamed[key.removesuffix(old) + WEIGHT_NORM.get(old, "")] = tensor
    return renamed


def without_family(state: State) -> State:
    """As above, and without the name of the network inside a larger one (`wav2vec2.` beside `lm_head.`)."""
    prefixes = tuple(f"{name}." for name in FAMILY)
    bare = {key.partition(".")[2] if key.startswith(prefixes) else key: tensor for key, tensor in state.items()}
    return with_new_weight_norm(bare)


LAYOUT = Layout(converted=without_family, dropped=HEADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """Sound longer than chunk_s is heard in chunks of it, of which neighbours share overlap_s."""

    chunk_s: float
    overlap_s: float

    def plan(self, n: int, frames: Windows) -> Iterator[tuple[slice, slice]]:
        """Of n frames, per chunk those that the network sees, and of these those that are kept: up to the middle of what two share.

        The last chunk begins early enough to be as long as the others.
        """
        size, shared = (round(at_s * frames.rate_hz / frames.hop) for at_s in (self.chunk_s, self.overlap_s))
        starts = [*range(0, n - size, size - shared), max(0, n - size)]
        cuts = [0, *((a + size + b) // 2 for a, b in itertools.pairwise(starts)), n]
        for i, start in enumerate(starts):
            yield slice(start, min(start + size, n)), slice(cuts[i], cuts[i + 1])


def check_chunking(chunk_s: float, overlap_s: float) -> None:
    """Raises ValueError, beginning with the name of the parameter that is wrong."""
    if not (math.isfinite(chunk_s) and chunk_s >= 1):
        raise ValueError(f"chunk_s: expected 1 s or more, got {chunk_s}")
    if not 0 <= overlap_s <= chunk_s / 2:
        raise ValueError(f"overlap_s: expected 0 s to half of chunk_s ({chunk_s / 2} s), got {overlap_s}")


def frames_of(config: Any) -> Windows:
    """The samples that a frame sees, and from one frame to the next: 400 and 320 with the published convolutions."""
    length = hop = 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        length, hop = length + (kernel - 1) * hop, hop * stride
    return Windows(length=length, hop=hop, rate_hz=RATE_HZ)


def hidden_states(network: nn.Module, choose: Any) -> nn.Module:
    """A network from (N, S) sound to (N, T, D): what `choose` makes of the hidden states and the last hidden state."""
    from torch import nn

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, sound: Tensor) -> Tensor:
            output = self.network(sound, output_hidden_states=True)
            chosen: Tensor = choose(output.hidden_states, output.last_hidden_state)
            return chosen

    return Chosen()


def chosen_layer(layer: int, blocks: int) -> Any:
    """From the hidden states (one more than blocks) and the last hidden state to one of them. Raises ExtractorError: no such layer.

    -1 is the last hidden state, which differs from the last block's output where a norm follows (do_stable_layer_norm).
    """
    if not -blocks - 1 <= layer <= blocks:
        what, why = f"layer {layer} is not there", f"the model has hidden states 0 to {blocks}, or -1 to {-blocks - 1} from the end"
        raise ExtractorError(what, why=why, fix="mend the stage's layer")
    return lambda states, last: last if layer == -1 else states[layer]


def normalised(samples: Float32, sounding: Bool | None = None) -> Float32:
    """(x - mean) / sqrt(variance + 1e-7) over all that sounds, 0 elsewhere: as the models' own feature extractor does.

    samples: (S,) float32; sounding: (S,) bool.
    """
    heard = samples.astype(np.float64) if sounding is None else samples[sounding].astype(np.float64)
    scaled = ((samples - heard.mean()) / np.sqrt(heard.var() + 1e-7)).astype(np.float32)
    return scaled if sounding is None else np.where(sounding, scaled, np.float32(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How a network hears: the frames it makes of sound, of what dimension, in which chunks, and whether of normalised sound."""

    frames: Windows
    dim: int
    chunking: Chunking
    normalise: bool


def frame_track(network: nn.Module, waveform: Waveform, runtime: Runtime, how: Listening) -> Track:
    """values: (T, dim) float32, a row per frame, of a network from (1, S) sound to (1, T, dim).

    The network hears the sound from its first frame that sounds to its last, normalised as one; gaps in it are zero.
    """
    frames = how.frames
    values = np.full((frames.count(len(waveform.samples)), how.dim), np.nan, np.float32)
    begin, end = (round(at_s * RATE_HZ) for at_s in sounding_s(waveform))
    first, last = -(-begin // frames.hop), frames.count(end)
    if last > first:
        heard = slice(first * frames.hop, end)
        sound = waveform.samples[heard]
        if how.normalise:
            sound = normalised(sound, np.repeat(waveform.valid, RATE_HZ // 100)[heard])
        values[first:last] = _in_chunks(network, sound, runtime, how)
    return frames.track(values, waveform)


def _in_chunks(network: nn.Module, sound: Float32, runtime: Runtime, how: Listening) -> Float32:
    frames = how.frames
    n = frames.count(len(sound))
    values = np.empty((n, how.dim), np.float32)
    for seen, kept in how.chunking.plan(n, frames):
        # With the last frame goes the rest of the sound, too short for another: a group norm in the first convolution hears it too.
        stop = (seen.stop - 1) * frames.hop + frames.length if seen.stop < n else len(sound)
        piece = sound[seen.start * frames.hop : stop]
        values[kept] = forward_whole(network, piece[None], runtime)[0, kept.start - seen.start : kept.stop - seen.start]
    return values


def check_family(config: Any, path: Any) -> None:
    """Raises ExtractorError unless the network is of the family, with one frame per step of its convolutions."""
    if config.model_type not in FAMILY:
        why = f"its model_type is {config.model_type!r}, expected {', '.join(FAMILY)}"
        raise saved_model.refused(path, why, "use hf_audio for other audio models")
    if getattr(config, "add_adapter", False):
        raise saved_model.refused(path, "its frames go through an adapter that makes fewer of them", "give a model without add_adapter")
