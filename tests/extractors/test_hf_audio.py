"""Any audio encoder of transformers: spectrogram or samples, encoder and decoder or encoder alone, heads or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from extractors.audio.hf_audio import hf_audio
from extractors.contract import ExtractorError, Kind, Runtime, Track, Waveform
from extractors.protocols import Extractor

RATE_HZ = 16000
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CONVOLVED = {**SMALL, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
WHISPER = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
WHISPER |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {  # the published class, its configuration, its feature extractor
    "whisper": ("WhisperForConditionalGeneration", WHISPER | {"decoder_start_token_id": 1}, "WhisperFeatureExtractor"),
    "ast": ("ASTForAudioClassification", SMALL, "ASTFeatureExtractor"),
    "unispeech-sat": ("UniSpeechSatForCTC", CONVOLVED, "Wav2Vec2FeatureExtractor"),
    "wav2vec2-bert": ("Wav2Vec2BertModel", SMALL, "SeamlessM4TFeatureExtractor"),
    "sew": ("SEWModel", {**CONVOLVED, "conv_dim": [16] * 13}, "Wav2Vec2FeatureExtractor"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from torch's threads, which spin while they wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """saved(model): a folder as transformers' own save_pretrained makes it, with random weights."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            torch.manual_seed(0)
            kind, config, prepare = MODELS[name]
            model = getattr(transformers, kind)
            model(model.config_class(**config)).save_pretrained(root / name)
            getattr(transformers, prepare)().save_pretrained(root / name)
        return root / name

    return folder


def sound(seconds: float) -> Waveform:
    n = round(seconds * RATE_HZ)
    samples = np.random.default_rng(0).normal(0, 0.1, n).astype(np.float32)
    return Waveform(samples=samples, rate_hz=RATE_HZ, valid=np.ones(-(-n // 160), np.bool_))


def hear(folder: Path, heard: Waveform, **params: Any) -> Track:
    kind: Any = hf_audio("some/model")
    track: Track = kind(kind.Params(**params), Runtime(weights=folder)).extract(heard, None)
    return track


def its_own(folder: Path, heard: Waveform) -> np.ndarray:
    """(T, D): what transformers' own way of loading and preparing gives for a sound."""
    prepare: Any = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = prepare(heard.samples, sampling_rate=RATE_HZ, return_tensors="pt")[prepare.model_input_names[0]]
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.inference_mode():
        return np.asarray(model(inputs).last_hidden_state[0].numpy())


@pytest.mark.parametrize("name", MODELS)
def test_equals_transformers_own_loading(name: str, saved: Callable[[str], Path]) -> None:
    heard = sound(3.0)
    expected, track = its_own(saved(name), heard), hear(saved(name), heard)
    if name == "ast":  # two tokens, then 12 bands of 101 times
        expected = expected[2:].reshape(12, 101, 32).mean(axis=0)
    expected = expected[: len(track.values)]
    assert np.abs(track.values - expected).max() / expected.std() < 1e-4
    assert track.valid.all()
    assert track.values.shape[1] == 32


@pytest.mark.parametrize(("name", "first_s", "step_s", "n"), [("whisper", 0.01, 0.02, 150), ("unispeech-sat", 0.0125, 0.02, 149)])
def test_steps_are_in_their_place(name: str, first_s: float, step_s: float, n: int, saved: Callable[[str], Path]) -> None:
    track = hear(saved(name), sound(3.0))
    np.testing.assert_allclose(track.times_s, first_s + step_s * np.arange(n), rtol=0, atol=1e-9)


def test_windows_follow_each_other_and_each_is_heard_alone(saved: Callable[[str], Path]) -> None:
    heard = sound(5.05)
    for name in ("unispeech-sat", "whisper", "wav2vec2-bert", "ast"):
        track = hear(saved(name), heard, chunk_s=2.0)
        second = Waveform(samples=heard.samples[32000:64000], rate_hz=RATE_HZ, valid=heard.valid[200:400])
        alone = hear(saved(name), second, chunk_s=2.0)
        inside = (track.times_s > 2) & (track.times_s < 4)
        np.testing.assert_array_equal(track.values[inside], alone.values)
        np.testing.assert_allclose(track.times_s[inside], alone.times_s + 2, rtol=0, atol=1e-9)
        assert (np.diff(track.times_s) > 0).all()
        mean = hear(saved(name), heard, chunk_s=2.0, pooling="mean")
        np.testing.assert_allclose(mean.times_s, [1.0, 3.0, 4.525])
        np.testing.assert_allclose(mean.values[1], alone.values.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_rows_without_sound_are_not_valid(saved: Callable[[str], Path]) -> None:
    heard = sound(3.0)
    gap = Waveform(samples=heard.samples, rate_hz=RATE_HZ, valid=(np.arange(300) < 100) | (np.arange(300) >= 150))
    for name in ("unispeech-sat", "whisper"):
        track = hear(saved(name), gap)
        assert not track.valid[(track.times_s > 1) & (track.times_s < 1.5)].any()
        assert track.valid[(track.times_s < 0.95) | (track.times_s > 1.55)].all()
    assert len(hear(saved("whisper"), sound(0.09)).values) == 0
    assert not hear(saved("whisper"), gap, pooling="mean").valid.any()


def test_layers(saved: Callable[[str], Path]) -> None:
    for name in ("whisper", "unispeech-sat"):
        layers = [hear(saved(name), sound(1.0), layer=k).values for k in (0, 1, 2, -1)]
        assert len({values.tobytes() for values in layers}) >= 3
        np.testing.assert_array_equal(hear(saved(name), sound(1.0), layer=-2).values, layers[1])
        with pytest.raises(ExtractorError, match="layer 3 is not there: the model has hidden states 0 to 2"):
            hear(saved(name), sound(1.0), layer=3)


def copied(folder: Path, to: Path, **preprocessor: Any) -> Path:
    """The folder's files, with changes to its preprocessor_config.json."""
    to.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (to / name).write_bytes((folder / name).read_bytes())
    values = json.loads((folder / "preprocessor_config.json").read_text()) | preprocessor
    (to / "preprocessor_config.json").write_text(json.dumps(values))
    return to


def test_its_own_preprocessing_is_honoured(saved: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("unispeech-sat", "ast"):
        raw = copied(saved(name), tmp_path / name, do_normalize=False)
        assert np.abs(hear(raw, sound(1.0)).values - hear(saved(name), sound(1.0)).values).max() > 1e-3


def test_models_that_cannot_be_used_are_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    whisper = saved("whisper")
    with pytest.raises(ExtractorError, match=r"chunk_s 31\.0 is too long: .* hears 30\.0 s at a time"):
        hear(whisper, sound(1.0), chunk_s=31.0)
    with pytest.raises(ExtractorError, match="reads sound at 48000 Hz"):
        hear(copied(whisper, tmp_path / "a", sampling_rate=48000), sound(1.0))
    for kind in ("ViTImageProcessor", "TheirOwnFeatureExtractor"):
        with pytest.raises(ExtractorError, match=f"feature_extractor_type is '{kind}', which does not read sound here"):
            hear(copied(whisper, tmp_path / "b", feature_extractor_type=kind), sound(1.0))
    with pytest.raises(ExtractorError, match="it makes no steps of 32 numbers of a second of sound"):
        hear(copied(whisper, tmp_path / "c", feature_extractor_type="Wav2Vec2FeatureExtractor"), sound(1.0))
    kind: Any = hf_audio("some/model")
    eight = Waveform(samples=np.zeros(8000, np.float32), rate_hz=8000, valid=np.ones(100, np.bool_))
    with pytest.raises(ExtractorError, match=r"hf_audio:some/model cannot read this sound: .* got 8000 Hz"):
        kind(kind.Params(), Runtime(weights=whisper)).extract(eight, None)


def test_a_file_that_lacks_tensors_or_has_others_is_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """Transformers itself would go on with random ones."""
    from safetensors.torch import load_file, save_file

    folder = copied(saved("unispeech-sat"), tmp_path / "m")
    whole = load_file(folder / "model.safetensors")
    for change, said in (
        ("missing", r"1 missing \(encoder\.layers\.1\.attention\.q_proj\.bias\)"),
        ("other", r"1 unexpected \(\S*extra\.bias"),
    ):
        state = dict(whole)
        moved = state.pop("unispeech_sat.encoder.layers.1.attention.q_proj.bias")
        if change == "other":
            state |= {"unispeech_sat.encoder.layers.1.attention.q_proj.bias": moved, "unispeech_sat.extra.bias": moved.clone()}
        save_file(state, folder / "model.safetensors")
        with pytest.raises(ExtractorError, match=said):
            hear(folder, sound(1.0))
    state = {**whole, "unispeech_sat.encoder.layers.1.attention.q_proj.bias": torch.zeros(16)}
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ExtractorError, match=r"cannot be used: .*(shape|do not fit)"):
        hear(folder, sound(1.0))


def test_the_class_says_what_the_contract_asks() -> None:
    kind: Any = hf_audio("openai/whisper-base")
    assert kind is hf_audio("openai/whisper-base")
    assert kind.name == kind.__name__ == "hf_audio:openai/whisper-base"
    assert kind.origin == "https://huggingface.co/openai/whisper-base"
    assert [attribute for attribute in [*Extractor.__annotations__, "reads"] if not hasattr(kind, attribute)] == []
    assert kind.reads(kind.Params()) == (Kind.WAVEFORM,)
    for name in ("", "a/b/c", "../x", "a b"):
        with pytest.raises(ExtractorError, match=r"no name of a model on huggingface\.co"):
            hf_audio(name)
    with pytest.raises(ValueError, match=r"^chunk_s: expected 1 s or more"):
        kind.Params(chunk_s=0.5)
    with pytest.raises(ValueError, match="expected a saved model's folder, got none"):
        kind(kind.Params(), Runtime())
