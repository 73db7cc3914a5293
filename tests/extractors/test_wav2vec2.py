"""wav2vec 2.0, HuBERT and WavLM against transformers, from folders of every published form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from extractors.audio.speech import Chunking
from extractors.audio.wav2vec2 import Wav2Vec2
from extractors.contract import ExtractorError, Runtime, Waveform
from extractors.windows import Windows

RATE_HZ = 16000
FRAMES = Windows(length=400, hop=320, rate_hz=RATE_HZ)
KINDS = {"w2v2_base_tiny": "wav2vec2", "w2v2_emotion_tiny": "wav2vec2", "wavlm_tiny": "wavlm"}
State = dict[str, torch.Tensor]


def config_of(known: Any, kind: str) -> dict[str, Any]:
    """What the fixture says of its model, as its config.json."""
    text = known.facts["reference"]
    return {**json.loads(text[text.index("{") : text.rindex("}") + 1]), "model_type": kind}


def save(folder: Path, config: dict[str, Any], state: State, *, normalise: bool = True, file: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": normalise, "sampling_rate": RATE_HZ}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    return folder


def waveform(samples: np.ndarray, silent: slice = slice(0, 0)) -> Waveform:
    valid = np.ones(-(-len(samples) // 160), np.bool_)
    valid[silent] = False
    samples = np.where(np.repeat(valid, 160)[: len(samples)], samples, 0).astype(np.float32)
    return Waveform(samples=samples, rate_hz=RATE_HZ, valid=valid)


def hear(folder: Path, known: Any, **params: Any) -> np.ndarray:
    """(N, T, D) of the fixture's N sounds."""
    extractor = Wav2Vec2(Wav2Vec2.Params(**params), Runtime(weights=folder))
    return np.stack([extractor.extract(waveform(wave / 32768), None).values for wave in known.arrays["wave"]])


def largest_error(values: np.ndarray, known: Any) -> float:
    t = values.shape[1]
    return max(known.error(values.mean(axis=1), "pooled"), known.error(values[:, [0, 1, t // 2, t - 1]], "frames_some"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from torch's threads, which spin while they wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=KINDS)
def known(request: pytest.FixtureRequest, reference: Callable[[str], Any]) -> Any:
    return reference(request.param)


@pytest.fixture(scope="module")
def config(known: Any) -> dict[str, Any]:
    return config_of(known, KINDS[known.name])


@pytest.fixture(scope="module")
def folder(known: Any, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / known.name, config, known.tensors)


@pytest.fixture(scope="module")
def base(reference: Callable[[str], Any]) -> Any:
    return reference("w2v2_base_tiny")


@pytest.fixture(scope="module")
def base_folder(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "base", config_of(base, "wav2vec2"), base.tensors)


def test_equals_the_reference(folder: Path, known: Any) -> None:
    values = hear(folder, known)
    assert values.shape[1] == 1 + (known.arrays["wave"].shape[1] - 400) // 320
    assert largest_error(values, known) < known.limit


def test_the_last_four_are_summed_and_averaged(folder: Path, known: Any) -> None:
    summed, mean = hear(folder, known, output="last4_sum"), hear(folder, known, output="last4_mean")
    np.testing.assert_allclose(summed, mean * 4, rtol=1e-5, atol=1e-5)
    if "out_last4_sum_some" in known.arrays:
        assert known.error(summed[:, [0, -1]], "last4_sum_some") < known.limit


def test_layers_are_counted_from_both_ends(folder: Path, known: Any) -> None:
    layers = [hear(folder, known, layer=k) for k in range(5)]
    for k in range(4):
        np.testing.assert_array_equal(hear(folder, known, layer=k - 5), layers[k])
        assert largest_error(layers[k], known) > 0.1
    np.testing.assert_allclose(hear(folder, known, output="last4_sum"), sum(layers[1:]), rtol=1e-5, atol=1e-5)
    normed = json.loads((folder / "config.json").read_text()).get("do_stable_layer_norm", False)
    assert np.array_equal(hear(folder, known, layer=-1), layers[4]) is not normed


def test_sound_that_is_not_normalised_is_noticed(known: Any, config: dict[str, Any], tmp_path: Path) -> None:
    assert largest_error(hear(save(tmp_path / "raw", config, known.tensors, normalise=False), known), known) > 10 * known.limit


def test_a_look_alike_network_is_noticed(known: Any, config: dict[str, Any], tmp_path: Path) -> None:
    """Each has the same tensors and computes something else."""
    for key, value in {"do_stable_layer_norm": True, "hidden_act": "relu", "layer_norm_eps": 1e-3}.items():
        if config.get(key) != value:
            wrong = save(tmp_path / key, {**config, key: value}, known.tensors)
            assert largest_error(hear(wrong, known), known) > 2 * known.limit


def renamed(known: Any, form: str) -> State:
    """The fixture's tensors in the layouts of published files."""
    inner = {key.removeprefix("wav2vec2."): value for key, value in known.tensors.items() if not key.startswith("classifier.")}
    new = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    if form == "new weight norm":
        return {key.removesuffix(key[-9:]) + new[key[-9:]] if key[-9:] in new else key: value for key, value in inner.items()}
    if form == "bare":
        return {key: value for key, value in inner.items() if key != "masked_spec_embed"}
    heads = {"lm_head.weight": torch.ones(32, 32), "quantizer.codevectors": torch.ones(1, 4, 2), "project_hid.bias": torch.ones(8)}
    heads |= {"project_q.weight": torch.ones(8, 8), "projector.weight": torch.ones(8, 32), "layer_weights": torch.ones(5)}
    return {f"{form}.{key}": value for key, value in inner.items()} | heads


@pytest.mark.parametrize("form", ["bare", "new weight norm", "wav2vec2", "hubert"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_every_published_layout_is_the_same_network(form: str, file: str, base: Any, tmp_path: Path) -> None:
    """HuBERT's base model has the layout of wav2vec 2.0's."""
    config = config_of(base, "hubert" if form == "hubert" else "wav2vec2")
    assert largest_error(hear(save(tmp_path / "m", config, renamed(base, form), file=file), base), base) < base.limit


def test_half_precision_in_the_file_is_computed_in_float32(base: Any, base_folder: Path, tmp_path: Path) -> None:
    half = {key: value.half() for key, value in base.tensors.items()}
    values = hear(save(tmp_path / "half", config_of(base, "wav2vec2"), half), base)
    full = hear(save(tmp_path / "full", config_of(base, "wav2vec2"), {key: value.float() for key, value in half.items()}), base)
    np.testing.assert_array_equal(values, full)
    assert np.abs(values - hear(base_folder, base)).max() < 0.05


def test_a_file_that_lacks_tensors_or_has_others_is_refused(base: Any, tmp_path: Path) -> None:
    state = renamed(base, "bare")
    del state["encoder.layers.3.attention.q_proj.weight"]
    state["encoder.layers.4.attention.q_proj.weight"] = torch.ones(32, 32)
    state["feature_projection.projection.weight"] = torch.ones(64, 16)
    wrong = save(tmp_path / "wrong", config_of(base, "wav2vec2"), state)
    said = r"1 missing \(encoder\.layers\.3\.attention\.q_proj.*1 unexpected \(encoder\.layers\.4.*1 of another shape .*\(64, 16\)"
    with pytest.raises(ExtractorError, match=said):
        Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=wrong))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', expected wav2vec2, hubert, wavlm; use hf_audio"),
        ({"model_type": "their_own", "auto_map": {"AutoModel": "code.Model"}}, "transformers cannot read config.json"),
        ({"hidden_size": "wide"}, "transformers cannot read config.json"),
        ({"add_adapter": True}, "adapter that makes fewer"),
    ],
)
def test_a_folder_of_another_model_is_refused(change: dict[str, Any], said: str, base: Any, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(ExtractorError, match=said):
        Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=save(tmp_path, {**config_of(base, "wav2vec2"), **change}, base.tensors)))


def test_a_folder_that_lacks_a_file_is_refused(base: Any, tmp_path: Path) -> None:
    folder = save(tmp_path, config_of(base, "wav2vec2"), base.tensors)
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ExtractorError, match="asks for 8000 Hz"):
        Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=folder))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ExtractorError, match=r"preprocessor_config\.json cannot be read"):
        Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=folder))
    save(folder, config_of(base, "wav2vec2"), base.tensors)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ExtractorError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=folder))
    (folder / "config.json").write_text("[]")
    with pytest.raises(ExtractorError, match=r"config\.json holds no JSON object"):
        Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=folder))
    with pytest.raises(ValueError, match="wav2vec2: expected a saved model's folder, got none"):
        Wav2Vec2(Wav2Vec2.Params(), Runtime())


def test_a_layer_that_the_model_does_not_have_is_refused(base_folder: Path) -> None:
    for layer in (5, -6):
        with pytest.raises(ExtractorError, match=f"layer {layer} is not there: the model has hidden states 0 to 4, or -1 to -5"):
            Wav2Vec2(Wav2Vec2.Params(layer=layer), Runtime(weights=base_folder))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"chunk_s": 0.5}, "^chunk_s: expected 1 s or more, got 0.5"),
        ({"chunk_s": float("nan")}, "^chunk_s: "),
        ({"overlap_s": -1.0}, "^overlap_s: expected 0 s to half of chunk_s"),
        ({"chunk_s": 4.0, "overlap_s": 2.5}, r"^overlap_s: .*\(2\.0 s\), got 2\.5"),
    ],
)
def test_chunks_that_cannot_be_made(params: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Wav2Vec2.Params(**params)


@pytest.mark.parametrize("n", [1, 49, 100, 101, 150, 151, 399, 1000])
@pytest.mark.parametrize("overlap_s", [0.0, 0.5, 1.0])
def test_chunks_keep_every_frame_once_and_far_from_their_ends(n: int, overlap_s: float) -> None:
    plan = list(Chunking(chunk_s=2.0, overlap_s=overlap_s).plan(n, FRAMES))
    assert [i for _, kept in plan for i in range(kept.start, kept.stop)] == list(range(n))
    for seen, kept in plan:
        assert seen.stop - seen.start == min(n, 100), "every chunk is whole"
        assert kept.start == 0 or kept.start - seen.start >= overlap_s * 25 - 1
        assert kept.stop == n or seen.stop - kept.stop >= overlap_s * 25 - 1


def test_chunked_sound_gives_the_same_up_to_what_the_blocks_hear_across(reference: Callable[[str], Any], tmp_path: Path) -> None:
    """Where each frame is normalised by itself, what goes into the first block is the same up to rounding as soon as half of what
    chunks share holds the positional convolution (8 frames here, 64 in the published models). The blocks hear all of a chunk: with the
    fixtures' weights the outputs then differ by 0.04 deviations in the mean, and by 0.3 at most.
    """
    known = reference("w2v2_emotion_tiny")
    folder = save(tmp_path / "m", config_of(known, "wav2vec2"), known.tensors)
    sound = waveform(np.random.default_rng(0).normal(0, 0.1, 7 * RATE_HZ))

    def of(**params: Any) -> np.ndarray:
        return Wav2Vec2(Wav2Vec2.Params(**params), Runtime(weights=folder)).extract(sound, None).values

    whole, chunked, last = of(layer=0), of(layer=0, chunk_s=2.0, overlap_s=0.4), of()
    np.testing.assert_allclose(chunked, whole, rtol=0, atol=5e-6 * whole.std())
    assert np.abs(of(layer=0, chunk_s=2.0, overlap_s=0.1) - whole).max() > 0.01
    off = np.abs(of(chunk_s=2.0, overlap_s=1.0) - last) / last.std()
    assert 0.001 < off.mean() < 0.15
    cosine = (of(chunk_s=2.0, overlap_s=1.0) * last).sum(axis=1) / np.linalg.norm(last, axis=1) ** 2
    assert cosine.min() > 0.9


def test_rows_are_in_their_place_and_missing_sound_is_not_heard(base_folder: Path) -> None:
    extractor = Wav2Vec2(Wav2Vec2.Params(), Runtime(weights=base_folder))
    samples = np.random.default_rng(0).normal(0, 0.1, 2 * RATE_HZ)
    alone = extractor.extract(waveform(samples), None)
    np.testing.assert_allclose(alone.times_s, (320 * np.arange(99) + 200) / RATE_HZ, rtol=0, atol=1e-12)
    late = extractor.extract(waveform(np.concatenate([np.ones(16000), samples, np.ones(4800)]), np.r_[0:100, 300:330]), None)
    assert np.flatnonzero(late.valid).tolist() == list(range(50, 149))
    np.testing.assert_array_equal(late.values[50:149], alone.values)
    for n, rows in ((399, 0), (400, 1), (719, 1), (720, 2)):
        assert len(extractor.extract(waveform(samples[:n]), None).values) == rows
