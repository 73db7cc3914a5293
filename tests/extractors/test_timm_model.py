"""`timm:MODEL` against timm's own model and transform."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Kind, Runtime
from extractors.hub import TimmFile
from extractors.registry import DOORS, load
from pipeline.code_digest import code_digest
from pipeline.config import load as load_config
from pipeline.errors import RequestError
from pipeline.keys import canonical, params_part

# Of every kind of head: none but a pooling, a class token, a normalisation after the pooling, a layer after it. The last sees the middle
# 224 of 235 pixels: 5.5 on a side are cut off, which torchvision rounds to the even 6.
MODELS = ("test_resnet.r160_in1k", "test_vit", "test_convnext.r160_in1k", "mobilenetv3_small_050.lamb_in1k", "resnet18.a1_in1k")
LIMIT = 1e-5  # of the deviation: the same kernels on the same numbers
STAGES = "version: 1\nstages:\n  timeline: {use: timeline}\n  faces: {use: mtcnn}\n"


def checkpoint(model: str, folder: Path) -> tuple[Any, Path]:
    """timm's model with its classifier, and its state as a file."""
    import timm
    import torch

    torch.manual_seed(1)
    network = timm.create_model(model).eval()
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.add_(0.1 * torch.rand_like(value))  # normalisations that do something
    path = folder / "model.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    return network, path


def make(model: str, weights: Path, **params: Any) -> Any:
    extractor = load(f"timm:{model}")
    return extractor(extractor.Params(**params), Runtime(weights=weights))


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((height // 8, width // 8, 1), np.uint8)).astype(np.uint8)


@pytest.mark.parametrize("model", MODELS)
def test_equals_timm_with_its_own_transform(model: str, tmp_path: Path) -> None:
    """From a picture of another size on: resized as `resample` says, the rest is the extractor's."""
    import timm
    import torch
    from PIL import Image

    network, path = checkpoint(model, tmp_path)
    extractor = make(model, path)
    photo = Image.fromarray(picture(320, 320))
    filters = {"pil_bilinear": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}
    crop = np.asarray(photo.resize((extractor.size_px, extractor.size_px), filters[extractor.resample]))
    values = extractor.embed(np.stack([crop, crop[:, ::-1]]))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    network.reset_classifier(0)
    with torch.inference_mode():
        expected = network(transform(photo)[None]).numpy()
    assert values.shape == (2, extractor.dim) == (2, expected.shape[1])
    assert values.dtype == np.float32
    assert np.abs(values[0] - expected[0]).max() / expected.std() < LIMIT
    swapped = extractor.embed(np.ascontiguousarray(crop[None, ..., ::-1]))
    assert np.abs(swapped - expected).max() / expected.std() > 100 * LIMIT


@pytest.mark.parametrize(
    ("wrong", "value"),
    [("mean", (0.485, 0.456, 0.406)), ("std", (0.25, 0.25, 0.25)), ("crop_pct", 1.0), ("size_px", 168)],
)
def test_every_parameter_of_the_preprocessing_counts(wrong: str, value: Any, tmp_path: Path) -> None:
    _, path = checkpoint("test_resnet", tmp_path)
    own, other = make("test_resnet", path), make("test_resnet", path, **{wrong: value})
    crop = picture(176, 176)
    values = [one.embed(crop[None, : one.size_px, : one.size_px]) for one in (own, other)]
    assert np.abs(values[0] - values[1]).max() / values[0].std() > 100 * LIMIT


def test_its_own_values_are_the_defaults_and_in_the_key() -> None:
    extractor = load("timm:vit_small_patch16_224.dino")
    assert canonical(params_part(extractor.Params())) == (
        '{"crop_pct":0.9,"interpolation":"bicubic","mean":[0.485,0.456,0.406],"size_px":224,"std":[0.229,0.224,0.225]}'
    )
    assert (extractor.name, extractor.yields, extractor.needs_weights) == ("timm:vit_small_patch16_224.dino", Kind.FEATURE, True)
    assert (extractor.licence, extractor.origin) == ("apache-2.0 (timm)", "https://huggingface.co/timm/vit_small_patch16_224.dino")
    assert extractor.hub(extractor.Params()) == TimmFile("timm/vit_small_patch16_224.dino")
    assert load("timm:vit_small_patch16_224.dino") is extractor
    assert pickle.loads(pickle.dumps(extractor.Params(crop_pct=1.0))) == extractor.Params(crop_pct=1.0)
    assert len(code_digest("timm:vit_small_patch16_224.dino")) == 64


def test_a_model_without_published_weights_cannot_fetch_them(tmp_path: Path) -> None:
    extractor = load("timm:test_maxvit")
    assert extractor.hub(extractor.Params()) is None
    with pytest.raises(RequestError, match=r":5: stages\.v\.weights: timm:test_maxvit cannot fetch its weights: nothing is published"):
        _stage(tmp_path, f'use: "timm:test_maxvit", weights: hub, revision: "{"a" * 40}"')


def _stage(folder: Path, node: str) -> Any:
    (folder / "stages.yaml").write_text(f"{STAGES}  v: {{{node}}}\n")
    return load_config(folder / "stages.yaml").stage("v")


def test_a_stages_file_names_it_and_changes_its_preprocessing(tmp_path: Path) -> None:
    stage = _stage(tmp_path, 'use: "timm:test_resnet.r160_in1k", weights: a.pth, crop_pct: 1, mean: [0, 0.5, 1]')
    assert (stage.params.crop_pct, stage.params.mean, stage.params.size_px) == (1.0, (0.0, 0.5, 1.0), 160)
    assert stage.inputs == ("faces",)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("timm:resnet5O", r"no model 'resnet5O' in timm: version .* has none; did you mean resnet50"),
        ("timm:resnet50.nope", r"no model 'resnet50\.nope' in timm: Invalid pretrained tag.*; known: resnet50\.a1_in1k, "),
        ("timm:", r"no model '' in timm"),
        ("timm:../../x", r"no model '\.\./\.\./x' in timm"),
        ("timm:hf-hub:me/model", r"no model 'hf-hub:me/model' in timm"),
        ("timm:local-dir:/tmp", r"no model 'local-dir:/tmp' in timm"),
    ],
)
def test_an_unknown_model_is_named_with_those_near(use: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"stages\.yaml:5: stages\.v\.use: {said}"):
        _stage(tmp_path, f'use: "{use}", weights: a.pth')


def test_a_model_of_other_pictures_is_refused() -> None:
    with pytest.raises(ExtractorError, match=r"timm:\S+ cannot be used: it sees pictures of \(3, \d+, \d+\).*; take a model of square"):
        load(f"timm:{_oblong()}")


def _oblong() -> str:
    import timm

    shapes = ((name, timm.get_pretrained_cfg(name).input_size) for name in timm.list_pretrained())
    return next(name for name, (_, height, width) in shapes if height != width)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size_px", 8, "size_px: expected 16 to 2048, got 8"),
        ("crop_pct", 1.1, "crop_pct: expected 0.25 to 1, got 1.1"),
        ("interpolation", "nearest", "interpolation: expected bilinear or bicubic, got 'nearest'"),
        ("mean", (0.5, 0.5, 127.0), "mean: expected three numbers from 0 to 1"),
        ("std", (0.5, 0.0, 0.5), "std: expected three numbers above 0, up to 1"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        load("timm:test_resnet").Params(**{name: value})
    with pytest.raises(ValueError, match=r"^size_px: expected 160, the only size of this model, got 224"):
        load("timm:test_vit").Params(size_px=224)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    _, path = checkpoint("test_convnext", tmp_path)
    with pytest.raises(ExtractorError, match=r"model\.pth cannot be loaded: of \d+ tensors, .* missing .* unexpected .*a ResNet network"):
        make("test_resnet", path)
    with pytest.raises(ValueError, match="timm:test_resnet: expected a weight file, got none"):
        load("timm:test_resnet")(load("timm:test_resnet").Params(), Runtime())


def test_a_row_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    _, path = checkpoint("test_vit", tmp_path)
    extractor = make("test_vit", path)
    crops = np.random.default_rng(0).integers(0, 256, (3, 168, 168, 3), dtype=np.uint8)
    together = extractor.embed(crops)
    alone = np.concatenate([extractor.embed(crop[None]) for crop in crops])
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-5 * together.std())
    assert extractor.embed(crops[:0]).shape == (0, extractor.dim)


def test_every_door_has_its_own_word() -> None:
    assert set(DOORS) == {"timm", "hf", "hf_audio"}
    assert all(":" in entry.target and entry.extra == "hub" for entry in DOORS.values())
