"""audEERING's emotional speech network against transformers' wav2vec 2.0 with the model card's head."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from extractors.audio.wav2vec2_emotion import PUBLISHED, Wav2Vec2Emotion
from extractors.contract import ExtractorError, Kind, Runtime, Track, Waveform

RATE_HZ = 16000
SCORES = ("arousal", "dominance", "valence")
SECOND = {"output": "scores", "hop": "window", "window_s": 1.0}
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from torch's threads, which spin while they wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("w2v2_emotion_tiny")


@pytest.fixture(scope="module")
def folder(known: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny", known, known.tensors)


def save(folder: Path, known: Any, state: State, *, normalise: bool = True, file: str = "model.safetensors", **config: Any) -> Path:
    text = known.facts["reference"]
    own = json.loads(text[text.index("{") : text.rindex("}") + 1]) | {"architectures": ["Wav2Vec2ForSpeechClassification"]}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2", **own, **config}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalise, "sampling_rate": RATE_HZ}))
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    return folder


def waveform(samples: np.ndarray) -> Waveform:
    return Waveform(samples=samples.astype(np.float32), rate_hz=RATE_HZ, valid=np.ones(-(-len(samples) // 160), np.bool_))


def make(weights: Path, **params: Any) -> Wav2Vec2Emotion:
    return Wav2Vec2Emotion(Wav2Vec2Emotion.Params(**params), Runtime(weights=weights))


def errors(weights: Path, known: Any) -> dict[str, float]:
    """The largest differences from the fixture: of hidden states, of their means, and of scores."""
    sounds = [waveform(wave / 32768) for wave in known.arrays["wave"]]
    hidden, scores = make(weights), make(weights, **SECOND)
    frames = np.stack([hidden.extract(sound, None).values for sound in sounds])
    logits = np.concatenate([scores.extract(sound, None).values for sound in sounds])
    t = frames.shape[1]
    assert t == known.arrays["out_num_frames"][0]
    some = frames[:, [0, 1, t // 2, t - 1]]
    return {
        "frames_some": known.error(some, "frames_some"),
        "pooled": known.error(frames.mean(axis=1), "pooled"),
        "logits": known.error(logits, "logits"),
    }


def test_equals_the_reference(folder: Path, known: Any) -> None:
    assert max(errors(folder, known).values()) < known.limit


@pytest.mark.slow
def test_the_full_size_equals_the_reference_from_a_bare_file(reference: Callable[[str], Any], tmp_path: Path) -> None:
    """With the published configuration, which a bare file does not bring."""
    known = reference("w2v2_emotion")
    save_file(known.tensors, tmp_path / "emotion.safetensors")
    assert max(errors(tmp_path / "emotion.safetensors", known).values()) < known.limit
    (tmp_path / "emotion.safetensors").unlink()  # 0.7 GB, which pytest would keep for three runs


def test_a_mistake_is_noticed(known: Any, tmp_path: Path) -> None:
    """Each loads without a complaint and computes something else."""
    raw = save(tmp_path / "raw", known, known.tensors, normalise=False)
    post_norm = save(tmp_path / "post", known, known.tensors, do_stable_layer_norm=False)
    eps = save(tmp_path / "eps", known, known.tensors, layer_norm_eps=1e-3)
    for wrong in (raw, post_norm, eps):
        found = errors(wrong, known)
        assert min(found["frames_some"], found["logits"]) > 2 * known.limit, wrong.name


@pytest.mark.parametrize("form", ["weight_g", "parametrizations"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_old_and_new_names_of_weight_norm_load(form: str, file: str, known: Any, tmp_path: Path) -> None:
    new = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    state = {key[:-9] + new[key[-9:]] if form != "weight_g" and key[-9:] in new else key: value for key, value in known.tensors.items()}
    assert any(form in key for key in state)
    assert max(errors(save(tmp_path / "m", known, state, file=file), known).values()) < known.limit


def test_a_bare_file_of_another_size_is_refused(known: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": known.tensors}, tmp_path / "tiny.pth")
    with pytest.raises(ExtractorError, match=r"tiny\.pth cannot be loaded: of 2\d\d tensors, .* missing \(wav2vec2\.encoder\.layers\.4.*"):
        make(tmp_path / "tiny.pth")
    assert PUBLISHED["hidden_size"] == 1024


def test_another_head_or_family_is_refused(known: Any, tmp_path: Path) -> None:
    state = {key.replace("classifier.out_proj", "projector"): value for key, value in known.tensors.items()}
    said = r"2 missing \(classifier\.out_proj\.weight, classifier\.out_proj\.bias\), 2 unexpected \(projector"
    with pytest.raises(ExtractorError, match=said):
        make(save(tmp_path / "head", known, state))
    with pytest.raises(ExtractorError, match=r"model_type is 'hubert', expected wav2vec2; fetch https://huggingface\.co/audeering"):
        make(save(tmp_path / "hubert", known, known.tensors, model_type="hubert"))
    with pytest.raises(ValueError, match="wav2vec2_emotion: expected a saved model's folder, got none"):
        Wav2Vec2Emotion(Wav2Vec2Emotion.Params(), Runtime())


def test_scores_have_the_names_that_the_model_gives_them(known: Any, folder: Path, tmp_path: Path) -> None:
    def columns(weights: Path) -> tuple[str, ...]:
        return make(weights, **SECOND).extract(waveform(np.zeros(RATE_HZ)), None).columns

    assert columns(folder) == SCORES
    swapped = save(tmp_path / "m", known, known.tensors, id2label={"0": "valence", "1": "arousal", "2": "dominance"})
    assert columns(swapped) == ("valence", "arousal", "dominance")


def rows(extractor: Wav2Vec2Emotion, sound: Waveform, times_s: list[float]) -> Track:
    return extractor.extract(sound, np.asarray(times_s, np.float64))


@pytest.mark.parametrize(("anchor", "before_s"), [("start", 0.0), ("centre", 0.5), ("end", 1.0)])
def test_a_row_hears_its_window_alone(anchor: str, before_s: float, folder: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ)
    extractor = make(folder, output="scores", window_s=1.0, anchor=anchor)
    assert extractor.reads(Wav2Vec2Emotion.Params(output="scores", anchor=anchor)) == (Kind.WAVEFORM, Kind.TIMELINE)
    times_s = [before_s, before_s + 0.04, before_s + 0.04, before_s + 1.0, before_s + 2.5]
    track = rows(extractor, waveform(samples), times_s)
    assert track.valid.all()
    assert track.columns == SCORES
    np.testing.assert_array_equal(track.values[1], track.values[2])
    one = make(folder, **SECOND)
    for value, at_s in zip(track.values, times_s, strict=True):
        start = round((at_s - before_s) * RATE_HZ)
        alone = one.extract(waveform(samples[start : start + RATE_HZ]), None).values[0]
        assert np.abs(value - alone).max() < 1e-5  # alone or in a batch: rounding only


def test_windows_are_cut_at_the_sounds_ends_and_valid_where_half_is_left(folder: Path) -> None:
    extractor = make(folder, output="scores", window_s=1.0)
    sound = waveform(np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ))
    track = rows(extractor, sound, [-0.1, 0.0, 0.3, 1.0, 2.0, 2.1])
    assert track.valid.tolist() == [False, True, True, True, True, False]
    cut = make(folder, output="scores", hop="window", window_s=0.8).extract(waveform(sound.samples[: round(0.8 * RATE_HZ)]), None)
    assert np.abs(track.values[2] - cut.values[0]).max() < 1e-5
    gap = Waveform(samples=sound.samples, rate_hz=RATE_HZ, valid=np.arange(200) != 150)
    assert rows(extractor, gap, [0.9, 1.0, 1.4, 1.6]).valid.tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="wav2vec2_emotion: expected the timeline's row times for hop 'timeline', got none"):
        extractor.extract(sound, None)


def test_hidden_states_need_no_timeline_and_their_number_follows_the_sound(folder: Path) -> None:
    extractor = make(folder)
    assert extractor.reads(Wav2Vec2Emotion.Params()) == (Kind.WAVEFORM,)
    assert extractor.dim == 32
    for n, frames in ((399, 0), (RATE_HZ, 49), (10 * RATE_HZ, 499)):
        assert extractor.extract(waveform(np.zeros(n)), None).values.shape == (frames, 32)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"window_s": 0.1}, "^window_s: expected 0.2 s or more, got 0.1"),
        ({"window_s": float("inf")}, "^window_s: "),
        ({"chunk_s": 0.0}, "^chunk_s: "),
        ({"overlap_s": 11.0}, "^overlap_s: "),
    ],
)
def test_parameters_out_of_range(params: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Wav2Vec2Emotion.Params(**params)
