"""`hf:NAME` against transformers' own model and image processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.hub import SavedModel
from extractors.registry import load
from pipeline.code_digest import code_digest
from pipeline.config import load as load_config
from pipeline.errors import RequestError

LIMIT = 1e-5  # of the deviation
VIT: dict[str, int] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def _vit(head: bool = False, **changed: Any) -> tuple[Any, Any]:
    import transformers as t

    config = t.ViTConfig(**{**VIT, **changed})
    made = t.ViTForImageClassification(config) if head else t.ViTModel(config)
    return made, t.ViTImageProcessor(size={"height": 32, "width": 32})


def _dinov2() -> tuple[Any, Any]:
    import transformers as t

    config = t.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    return t.Dinov2Model(config), t.BitImageProcessor(size={"shortest_edge": 35}, crop_size={"height": 28, "width": 28}, resample=3)


def _convnext() -> tuple[Any, Any]:
    import transformers as t

    config = t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64)
    return t.ConvNextModel(config), t.ConvNextImageProcessor(size={"shortest_edge": 64})


def _clip() -> tuple[Any, Any]:
    import transformers as t

    words = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}
    config = t.CLIPConfig(vision_config=dict(VIT), text_config={**words, "bos_token_id": 0, "eos_token_id": 1})
    size = {"height": 32, "width": 32}
    return t.CLIPModel(config), t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)


def _swin() -> tuple[Any, Any]:
    import transformers as t

    config = t.SwinConfig(image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    return t.SwinModel(config), t.ViTImageProcessor(size={"height": 32, "width": 32})


KINDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "vit": _vit,
    "vit with a classifier": lambda: _vit(head=True),
    "dinov2": _dinov2,
    "convnext": _convnext,
    "clip": _clip,
    "swin": _swin,
}
POOLS = [(kind, pool) for kind in KINDS for pool in ("cls", "mean") if pool == "mean" or kind not in ("convnext", "swin")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of model, saved."""
    import torch

    torch.manual_seed(0)
    return {kind: save(tmp_path_factory.mktemp("model"), *made()) for kind, made in KINDS.items()}


def save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make(folder: Path, pool: str = "cls", name: str = "hf:me/model") -> Any:
    extractor = load(name)
    return extractor(extractor.Params(pool=pool), Runtime(weights=folder))


def pictures(size_px: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, size_px, size_px, 3), dtype=np.uint8)


@pytest.mark.parametrize(("kind", "pool"), POOLS)
def test_equals_transformers(kind: str, pool: str, folders: dict[str, Path]) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    extractor = make(folders[kind], pool)
    crops = pictures(extractor.size_px)
    values = extractor.embed(crops)
    model, processor = AutoModel.from_pretrained(folders[kind]).eval(), AutoImageProcessor.from_pretrained(folders[kind])
    with torch.inference_mode():
        inputs = processor(images=[Image.fromarray(crop) for crop in crops], return_tensors="pt")
        hidden = getattr(model, "vision_model", model)(**inputs).last_hidden_state
    tokens = hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden
    expected = (tokens[:, 0] if pool == "cls" else tokens.mean(dim=1)).numpy()
    assert values.shape == (3, extractor.dim)
    assert values.dtype == np.float32
    assert np.abs(values - expected).max() / expected.std() < LIMIT
    swapped = extractor.embed(np.ascontiguousarray(crops[..., ::-1]))
    assert np.abs(swapped - expected).max() / expected.std() > 100 * LIMIT
    assert extractor.embed(crops[:0]).shape == (0, extractor.dim)


def test_the_folders_own_preprocessing_is_honoured(folders: dict[str, Path], tmp_path: Path) -> None:
    assert {kind: (made.size_px, made.resample) for kind in KINDS if (made := make(folders[kind], "mean"))} == {
        "vit": (32, "pil_bilinear"),
        "vit with a classifier": (32, "pil_bilinear"),
        "dinov2": (35, "pil_bicubic"),
        "convnext": (73, "pil_bicubic"),
        "clip": (32, "pil_bicubic"),
        "swin": (32, "pil_bilinear"),
    }
    other = changed(folders["vit"], tmp_path, "preprocessor_config.json", image_mean=[0.485, 0.456, 0.406])
    own, values = make(folders["vit"]).embed(pictures(32)), make(other).embed(pictures(32))
    assert np.abs(values - own).max() / own.std() > 100 * LIMIT
    still = changed(folders["vit"], tmp_path, "preprocessor_config.json", do_resize=False)
    assert (make(still).size_px, make(still).resample) == (32, "area")


def changed(folder: Path, below: Path, file: str, **values: Any) -> Path:
    """A copy of the folder with other values in one of its files."""
    copy = below / f"copy{len(list(below.iterdir()))}"
    shutil.copytree(folder, copy)
    (copy / file).write_text(json.dumps(json.loads((copy / file).read_text()) | values))
    return copy


def test_the_pooled_token_and_the_mean_differ(folders: dict[str, Path]) -> None:
    a, b = (make(folders["vit"], pool).embed(pictures(32)) for pool in ("cls", "mean"))
    assert np.abs(a - b).max() / a.std() > 100 * LIMIT
    with pytest.raises(ValueError, match=r"^pool: expected 'cls' or 'mean', got 'max'"):
        load("hf:me/model").Params(pool="max")


@pytest.mark.parametrize("kind", ["convnext", "swin"])
def test_the_first_place_of_a_picture_is_no_class_token(kind: str, folders: dict[str, Path]) -> None:
    with pytest.raises(ExtractorError, match=r"cannot be used: it gives no vector for a picture \(it has no class token: set pool to mean"):
        make(folders[kind])


def test_a_model_that_hides_parts_at_random_is_refused(tmp_path: Path) -> None:
    import transformers as t

    folder = save(tmp_path, t.ViTMAEModel(t.ViTMAEConfig(**VIT)), _vit()[1])
    with pytest.raises(ExtractorError, match="cannot be used: it gives other values for the same picture each time"):
        make(folder)


def test_tensors_that_lack_or_are_of_another_network_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    refused = {
        r"16 tensors are missing \(\S*layers\.2\.": changed(folders["vit"], tmp_path, "config.json", num_hidden_layers=3),
        r"16 tensors are of another network \(\S*layers\.1\.": changed(folders["vit"], tmp_path, "config.json", num_hidden_layers=1),
        r"16 tensors are of another network \(\S*layers\.1.": changed(
            folders["vit with a classifier"], tmp_path, "config.json", num_hidden_layers=1
        ),
        r"\d+ tensors are of another shape \(\S+ \(.*\), expected \(": changed(folders["vit"], tmp_path, "config.json", hidden_size=64),
    }
    for why, folder in refused.items():
        with pytest.raises(ExtractorError, match=rf"^saved model {folder} cannot be used: {why}"):
            make(folder)


def test_what_is_no_folder_of_an_image_encoder_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    import transformers as t

    words = t.BertModel(t.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=9))
    without = changed(folders["vit"], tmp_path, "config.json")
    (without / "preprocessor_config.json").unlink()
    parts = changed(folders["vit"], tmp_path, "config.json")
    (parts / "model.safetensors").rename(parts / "model-00001-of-00001.safetensors")
    damaged = changed(folders["vit"], tmp_path, "config.json")
    (damaged / "model.safetensors").write_bytes(b"text")
    refused = {
        "it gives no vector for a picture": save(tmp_path / "words", words, _vit()[1]),
        "it has no model.safetensors or pytorch_model.bin": parts,
        "it is a file; give the folder": damaged / "model.safetensors",
        r"\w+: .*": damaged,
        r"OSError: .*": without,
        r"its preprocessing does not make square pictures": changed(
            folders["vit"], tmp_path, "preprocessor_config.json", size={"height": 32, "width": 48}
        ),
        r"its preprocessing resizes with Pillow's filter 1": changed(folders["vit"], tmp_path, "preprocessor_config.json", resample=1),
        r"\w+: .*no_such_type": changed(folders["vit"], tmp_path, "config.json", model_type="no_such_type"),
    }
    for why, folder in refused.items():
        with pytest.raises(ExtractorError, match=rf"^saved model {folder} cannot be used: {why}"):
            make(folder, "mean")
    with pytest.raises(ValueError, match="hf:me/model: expected a saved model's folder, got none"):
        load("hf:me/model")(load("hf:me/model").Params(), Runtime())


def test_nothing_of_the_folder_is_run(folders: dict[str, Path], tmp_path: Path) -> None:
    """Neither code that it names nor a pickle with an object; nor is a file read that its digest leaves out."""
    import torch

    made = tmp_path / "executed"
    code = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoImageProcessor": "evil.Processor"}
    named = changed(folders["vit"], tmp_path, "config.json", auto_map=code, model_type="evil")
    (named / "evil.py").write_text(f"open({str(made)!r}, 'w')\nclass Config: pass\n")
    pickled = changed(folders["vit"], tmp_path, "config.json")
    (pickled / "model.safetensors").unlink()

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (made,)

    torch.save({"a": torch.ones(1), "b": Payload()}, pickled / "pytorch_model.bin")
    for folder in (named, pickled):
        with pytest.raises(ExtractorError, match="cannot be used"):
            make(folder)
    beside = changed(folders["vit"], tmp_path, "config.json")
    (beside / "processor_config.json").write_text('{"image_processor": {"image_mean": [0, 0, 0]}}')
    (beside / "adapter_config.json").write_text('{"base_model_name_or_path": "/nowhere"}')
    np.testing.assert_array_equal(make(beside).embed(pictures(32)), make(folders["vit"]).embed(pictures(32)))
    assert not made.exists()


def test_what_it_says_of_itself() -> None:
    extractor = load("hf:facebook/dino-vits16")
    assert (extractor.name, extractor.origin) == ("hf:facebook/dino-vits16", "https://huggingface.co/facebook/dino-vits16")
    assert extractor.hub(extractor.Params()) == SavedModel("facebook/dino-vits16")
    assert extractor is load("hf:facebook/dino-vits16")
    assert extractor is not load("hf:facebook/dino-vits8")
    assert load("hf:facebook/dino-vits8").name == "hf:facebook/dino-vits8"
    assert len(code_digest("hf:facebook/dino-vits16")) == 64


@pytest.mark.parametrize("name", ["", "../x", "/etc", "a/b/c", "-x", "a b", "a/", "a@b"])
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    stages = f'version: 1\nstages:\n  timeline: {{use: timeline}}\n  faces: {{use: mtcnn}}\n  v: {{use: "hf:{name}", weights: a}}\n'
    (tmp_path / "stages.yaml").write_text(stages)
    with pytest.raises(RequestError, match=r":5: stages\.v\.use: no model .* on Hugging Face: it is no name; write OWNER/NAME"):
        load_config(tmp_path / "stages.yaml")
