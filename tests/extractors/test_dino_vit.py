"""DINO's vision transformers against Hugging Face's and timm's, from files under all of their names."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from extractors.contract import ExtractorError, Runtime
from extractors.networks import forward
from extractors.visual.crops import normalised
from extractors.visual.dino_vit import SHAPES, DinoVit, timm_named

State = dict[str, torch.Tensor]
CONFIG = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536, "patch_size": 16}


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("dino_vits16")


@pytest.fixture(scope="module")
def folder(known: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that transformers saves, with the pooler that Hugging Face's model has at random."""
    path = tmp_path_factory.mktemp("weights") / "dino-vits16"
    torch.save(known.tensors, path.with_suffix(".bin"))
    config = ViTConfig(**CONFIG, layer_norm_eps=1e-12)
    model, told = ViTModel.from_pretrained(None, config=config, state_dict=known.tensors, output_loading_info=True)
    assert {key.split(".")[0] for key in told["missing_keys"]} == {"pooler"}
    model.save_pretrained(path)
    return path


def official(known: Any) -> State:
    """DINO's own names, which are timm's: by the fixture's table, not by ours."""
    state: State = {}
    for published, described in known.facts["aliases"]["published_huggingface_to_timm_or_official"]:
        if "{query,key,value}" not in published:
            pattern, own = re.escape(published).replace("N", r"(\d+)"), described.replace("N", r"\1")
            state |= {re.sub(f"^{pattern}", own, key): value for key, value in known.tensors.items() if re.match(pattern, key)}
    for i in range(12):
        for leaf in ("weight", "bias"):
            parts = [known.tensors[f"encoder.layer.{i}.attention.attention.{part}.{leaf}"] for part in ("query", "key", "value")]
            state[f"blocks.{i}.attn.qkv.{leaf}"] = torch.cat(parts)
    return state


def in_memory(known: Any) -> State:
    """The names that transformers 5 has."""
    with torch.device("meta"):
        names = ViTModel(ViTConfig(**CONFIG), add_pooling_layer=False).state_dict()
    rules = known.facts["aliases"]["transformers_5_in_memory_to_published (regex, replacement)"]
    published = {}
    for name in names:
        old = name
        for pattern, replacement in rules:
            old = re.sub(pattern, replacement, old)
        published[name] = old
    return {name: known.tensors[old] for name, old in published.items()}


def made(path: Path, content: object, **params: Any) -> DinoVit:
    torch.save(content, path)
    return DinoVit(DinoVit.Params(**params), Runtime(weights=path))


def test_equals_both_references(known: Any, tmp_path: Path) -> None:
    values = made(tmp_path / "pytorch_model.bin", known.tensors).embed(known.crops)
    assert values.dtype == np.float32
    assert known.error(values, "cls") < known.limit
    assert known.error(values, "cls_timm") < known.limit


def test_mistakes_are_noticed(known: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    right = made(path, known.tensors)
    assert known.error(right.embed(known.crops[..., ::-1]), "cls") > known.limit, "blue first"
    assert known.error(made(path, known.tensors, normalisation="half").embed(known.crops), "cls") > 1000 * known.limit
    names = {"query": "key", "key": "query"}
    swapped = {re.sub(r"\b(query|key)\b", lambda found: names[found[1]], key): value for key, value in known.tensors.items()}
    assert known.error(made(path, swapped).embed(known.crops), "cls") > known.limit, "keys for queries"
    for block in right._network.get_submodule("blocks"):
        block.mlp.act = nn.GELU(approximate="tanh")
    assert known.error(right.embed(known.crops), "cls") > known.limit, "another GELU"


def test_every_published_layout_loads(known: Any, tmp_path: Path) -> None:
    theirs = official(known)
    timm.create_model("vit_small_patch16_224.dino", pretrained=False, num_classes=0).load_state_dict(theirs, strict=True)
    heads = {"head.mlp.0.weight": torch.zeros(2048, 384), "head.last_layer.weight_g": torch.ones(65536, 1)}
    beside = {f"backbone.{key}": value for key, value in theirs.items()} | heads
    parallel = {f"module.{key}": value for key, value in beside.items()}
    options = argparse.Namespace(arch="vit_small", local_crops_scale=(0.05, 0.4))
    trained = {"student": parallel, "optimizer": {"state": {}}, "epoch": 100, "args": options, "dino_loss": {"center": torch.zeros(1)}}
    layouts = {
        "official": theirs,
        "in memory": in_memory(known),
        "teacher": {**trained, "teacher": beside},
        "teacher in parallel": {**trained, "teacher": parallel},
        "classifier": {f"vit.{key}": value for key, value in known.tensors.items()} | {"classifier.weight": torch.zeros(8, 384)},
    }
    for name, content in layouts.items():
        values = made(tmp_path / "net.pth", content).embed(known.crops)
        assert known.error(values, "cls") < known.limit, name


def test_a_saved_models_folder_loads(known: Any, folder: Path, tmp_path: Path) -> None:
    extractor = DinoVit(DinoVit.Params(), Runtime(weights=folder))
    assert known.error(extractor.embed(known.crops), "cls") < known.limit
    assert extractor.warnings == []
    older = tmp_path / "older"
    older.mkdir()
    (older / "config.json").write_text(json.dumps(CONFIG))
    torch.save(known.tensors, older / "pytorch_model.bin")
    assert known.error(DinoVit(DinoVit.Params(), Runtime(weights=older)).embed(known.crops), "cls") < known.limit


def test_a_preprocessor_that_disagrees_is_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dino"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).symlink_to(folder / name)
    half, imagenet = DinoVit.Params(normalisation="half"), DinoVit.Params()
    said = copy / "preprocessor_config.json"
    said.write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}))
    assert DinoVit(half, Runtime(weights=copy)).warnings == []
    (warning,) = DinoVit(imagenet, Runtime(weights=copy)).warnings
    assert warning.startswith("dino: its preprocessor_config.json has image_mean [0.5, 0.5, 0.5] and image_std [0.5, 0.5, 0.5], but")
    assert "normalisation 'imagenet' is [0.485, 0.456, 0.406]" in warning
    said.write_text(json.dumps({"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}))
    assert DinoVit(imagenet, Runtime(weights=copy)).warnings == []
    assert len(DinoVit(half, Runtime(weights=copy)).warnings) == 1


def test_a_folder_of_another_size_is_refused_by_its_config(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"dino-vits16 cannot be loaded: its config\.json has patch_size 16, expected 8 for size 's8'"):
        DinoVit(DinoVit.Params(size="s8"), Runtime(weights=folder))
    with pytest.raises(ExtractorError, match=r"hidden_size 384, expected 768; num_attention_heads 6, expected 12 for size 'b16'"):
        DinoVit(DinoVit.Params(size="b16"), Runtime(weights=folder))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "num_attention_heads": 12, "hidden_act": "gelu_new"}))
    with pytest.raises(ExtractorError, match=r"num_attention_heads 12, expected 6; hidden_act 'gelu_new', expected 'gelu'"):
        DinoVit(DinoVit.Params(), Runtime(weights=tmp_path))


@pytest.mark.parametrize(("size", "tokens"), [("s16", 197), ("s8", 785), ("b16", 197), ("b8", 785)])
def test_every_size_has_its_form(size: Any, tokens: int) -> None:
    with torch.device("meta"):
        network = DinoVit.network(DinoVit.Params(size=size))
    shape = SHAPES[size]
    form: dict[str, Any] = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert form["pos_embed"] == (1, tokens, shape.hidden_size)
    assert form["patch_embed.proj.weight"] == (shape.hidden_size, 3, shape.patch_size, shape.patch_size)
    block: Any = network.get_submodule("blocks.11")
    assert block.attn.num_heads == shape.num_attention_heads


def test_a_file_of_another_size_is_refused(known: Any, tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: of 150 tensors, 2 of another shape \(pos_embed .*patch_embed"):
        made(tmp_path / "net.pth", known.tensors, size="s8")
    state = known.tensors
    del state["encoder.layer.3.attention.attention.value.bias"]
    why = r"of an attention's query, key and value, blocks\.3\.attn\.value\.bias is missing"
    with pytest.raises(ExtractorError, match=rf"net\.pth cannot be loaded: {why}"):
        made(tmp_path / "net.pth", state)
    assert timm_named({"other.weight": torch.zeros(1)}).keys() == {"other.weight"}


def test_a_crop_is_embedded_alike_in_any_company(known: Any, tmp_path: Path) -> None:
    extractor = made(tmp_path / "net.pth", known.tensors)
    together = extractor.embed(np.concatenate([known.crops, known.crops[:1]]))
    alone = extractor.embed(known.crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 1e-5  # other kernels for other batch sizes: rounding only
    assert extractor.embed(known.crops[:0]).shape == (0, 384)


def test_pixels_enter_as_said(known: Any, tmp_path: Path) -> None:
    extractor = made(tmp_path / "net.pth", known.tensors, normalisation="half")
    values = forward(extractor._network, normalised(known.crops, (0.5,) * 3, (0.5,) * 3), Runtime())
    np.testing.assert_array_equal(extractor.embed(known.crops), values)
