"""RegNetY against torchvision's, also from files that timm wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.regnet import _filter_fn as timm_named
from torch import nn
from torchvision import models

from extractors.contract import ExtractorError, Runtime
from extractors.networks import forward
from extractors.visual.crops import normalised
from extractors.visual.regnet_y import DIMS, RegNetY, torchvision_named

SIZES = {"regnet_y_400mf": "400mf", "regnet_y_1_6gf": "1_6gf"}


@pytest.fixture(scope="module", params=SIZES)
def known(request: pytest.FixtureRequest, reference: Callable[[str], Any]) -> Any:
    return reference(request.param)


@pytest.fixture(scope="module")
def small(reference: Callable[[str], Any]) -> Any:
    return reference("regnet_y_400mf")


def made(path: Path, content: object, **params: Any) -> RegNetY:
    torch.save(content, path)
    return RegNetY(RegNetY.Params(**params), Runtime(weights=path))


def test_equals_the_reference(known: Any, tmp_path: Path) -> None:
    values = made(tmp_path / "net.pth", known.tensors, size=SIZES[known.name]).embed(known.crops)
    assert values.dtype == np.float32
    assert known.error(values, "features") < known.limit


def test_mistakes_are_noticed(small: Any, tmp_path: Path) -> None:
    right = made(tmp_path / "net.pth", small.tensors)
    assert small.error(right.embed(small.crops[..., ::-1]), "features") > small.limit, "blue first"
    halves = forward(right._network, normalised(small.crops, (0.5,) * 3, (0.5,) * 3), Runtime())
    assert small.error(halves, "features") > small.limit, "other statistics"
    for module in right._network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    assert small.error(right.embed(small.crops), "features") > small.limit, "another epsilon"


def test_wrapped_and_without_a_classifier_it_loads_too(small: Any, tmp_path: Path) -> None:
    headless = {key: value for key, value in small.tensors.items() if not key.startswith("fc.")}
    tuned = small.tensors | {"fc.weight": torch.zeros(12, 440), "fc.bias": torch.zeros(12)}
    wrapped = {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in small.tensors.items()}}
    for content in (headless, tuned, wrapped):
        assert small.error(made(tmp_path / "net.pth", content).embed(small.crops), "features") < small.limit


def test_a_file_of_timms_gives_the_same_bits(known: Any, tmp_path: Path) -> None:
    size = SIZES[known.name]
    theirs = timm_named(known.tensors)
    assert not set(theirs) & set(known.tensors)
    assert torchvision_named(theirs).keys() == known.tensors.keys()
    timm.create_model({"400mf": "regnety_004", "1_6gf": "regnety_016"}[size]).load_state_dict(theirs, strict=True)
    ours = made(tmp_path / "net.pth", known.tensors, size=size).embed(known.crops)
    np.testing.assert_array_equal(made(tmp_path / "timm.pth", theirs, size=size).embed(known.crops), ours)


@pytest.mark.parametrize(
    ("size", "name"), [("400mf", "regnety_004"), ("800mf", "regnety_008_tv"), ("1_6gf", "regnety_016"), ("3_2gf", "regnety_032")]
)
def test_every_size_has_its_dimension_and_its_twin_in_timm(size: Any, name: str) -> None:
    with torch.device("meta"):
        network, twin = RegNetY.network(RegNetY.Params(size=size)), timm.create_model(name, num_classes=0)
        assert network.eval()(torch.empty(1, 3, 112, 112)).shape == (1, DIMS[size])
    renamed = torchvision_named(dict(twin.state_dict()))
    own = network.state_dict()
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in own.items()}


def test_timms_own_800mf_is_refused_with_the_reason(tmp_path: Path) -> None:
    other = timm.create_model("regnety_008").state_dict()
    why = r"net\.pth cannot be loaded: it is timm's regnety_008, of 768 features; torchvision's 800mf has 784 .*regnety_008_tv"
    with pytest.raises(ExtractorError, match=why):
        made(tmp_path / "net.pth", other, size="800mf")


def test_a_file_of_another_size_is_refused(small: Any, tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: of \d+ tensors, .*missing .*of another shape"):
        made(tmp_path / "net.pth", small.tensors, size="1_6gf")
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: .*missing .*unexpected"):
        made(tmp_path / "net.pth", models.resnet18(weights=None).state_dict())


def test_pictures_of_both_sizes(small: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^input_px: expected 112 or 224, got 160"):
        RegNetY.Params(input_px=160)
    large = made(tmp_path / "net.pth", small.tensors, input_px=224)
    assert large.size_px == 224
    assert large.embed(small.crops.repeat(2, axis=1).repeat(2, axis=2)).shape == (2, 440)
    assert large.embed(np.empty((0, 224, 224, 3), np.uint8)).shape == (0, 440)
    with pytest.raises(ValueError, match=r"^crops: expected \(N, 224, 224, 3\) uint8, got \(2, 112"):
        large.embed(small.crops)


def test_a_crop_is_embedded_alike_in_any_company(small: Any, tmp_path: Path) -> None:
    extractor = made(tmp_path / "net.pth", small.tensors)
    together = extractor.embed(np.concatenate([small.crops, small.crops[:1]]))
    alone = extractor.embed(small.crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 1e-5  # other kernels for other batch sizes: rounding only
