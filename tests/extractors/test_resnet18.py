"""ResNet-18 against torchvision's and timm's, with and without the file's classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.visual import resnet18
from extractors.visual.resnet18 import ResNet18

Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("resnet18")


@pytest.fixture(scope="module")
def tensors(known: Any) -> Tensors:
    return dict(known.tensors)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., ResNet18]:
    """made(content, **params): the extractor with a file of that content."""
    import torch

    def build(content: Any, precision: str = "float32", **params: Any) -> ResNet18:
        torch.save(content, tmp_path / "net.pth")
        return ResNet18(ResNet18.Params(**params), Runtime(weights=tmp_path / "net.pth", precision=precision))

    return build


@pytest.mark.parametrize("output", ["features", "logits"])
def test_equals_the_reference(output: Any, known: Any, tensors: Tensors, made: Callable[..., ResNet18]) -> None:
    extractor = made(tensors, output=output)
    values = extractor.embed(known.crops)
    assert values.dtype == np.float32
    assert extractor.dim == values.shape[1] == (8 if output == "logits" else 512)
    assert extractor.embed(known.crops[:0]).shape == (0, extractor.dim)
    assert known.error(values, output) < known.limit


def test_timms_network_is_the_same_one(known: Any, tensors: Tensors, made: Callable[..., ResNet18]) -> None:
    timm = pytest.importorskip("timm")
    import torch

    network = timm.create_model("resnet18", pretrained=False, num_classes=8)
    assert network.state_dict().keys() == tensors.keys()
    network.load_state_dict(tensors)
    extractor = made(network.state_dict(), output="logits")
    pixels = resnet18.normalised(known.crops, resnet18.IMAGENET_MEAN, resnet18.IMAGENET_STD)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(pixels)).numpy()
    assert np.abs(extractor.embed(known.crops) - expected).max() / expected.std() < known.limit


def without_fc(state: Tensors) -> Tensors:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def prefixed(prefix: str, state: Tensors) -> Tensors:
    return {prefix + key: value for key, value in state.items()}


def head(name: str, classes: int) -> Tensors:
    import torch

    return {f"{name}.weight": torch.ones(classes, 512), f"{name}.bias": torch.ones(classes)}


LAYOUTS: dict[str, Callable[[Tensors], Any]] = {
    "DataParallel's": lambda state: prefixed("module.", state),
    "MS-Celeb's": lambda state: {"iter": 1, "state_dict": without_fc(state) | head("fc", 1000), "optimizer": {"param_groups": []}},
    "no classifier": without_fc,
    "ten scores": lambda state: without_fc(state) | head("fc", 10),
    "another head": lambda state: without_fc(state) | head("classifier.1", 8),
    "head beside": lambda state: prefixed("backbone.", without_fc(state)) | head("head", 2),
    "head fc beside": lambda state: {"model": prefixed("module.", prefixed("backbone.", without_fc(state)) | head("fc", 7))},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference(layout: str, known: Any, tensors: Tensors, made: Callable[..., ResNet18]) -> None:
    assert known.error(made(LAYOUTS[layout](tensors)).embed(known.crops), "features") < known.limit


@pytest.mark.parametrize("layout", ["MS-Celeb's", "ten scores", "head fc beside"])
def test_the_file_says_how_many_classes(layout: str, known: Any, tensors: Tensors, made: Callable[..., ResNet18]) -> None:
    extractor = made(LAYOUTS[layout](tensors), output="logits")
    classes = {"MS-Celeb's": 1000, "ten scores": 10, "head fc beside": 7}[layout]
    expected = known.arrays["out_features"].sum(axis=1) + 1  # the head's weights are all 1
    assert extractor.dim == classes
    values = extractor.embed(known.crops)
    np.testing.assert_allclose(values, np.repeat(expected[:, None], classes, axis=1), rtol=1e-5)


def test_mistakes_are_noticed(known: Any, tensors: Tensors, made: Callable[..., ResNet18], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    extractor = made(tensors)
    wrong = {"BGR": extractor.embed(np.ascontiguousarray(known.crops[..., ::-1]))}
    for mistake in ("eps", "last relu", "maximum"):
        other = copy.deepcopy(extractor)
        if mistake == "maximum":
            other._network.avgpool = nn.AdaptiveMaxPool2d(1)
        if mistake == "last relu":
            last = other._network.get_submodule("layer4.1")
            last.forward = lambda x, unit=last: x + unit.bn2(unit.conv2(unit.relu(unit.bn1(unit.conv1(x)))))  # type: ignore[assignment,misc]
        for module in other._network.modules():
            if mistake == "eps" and isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3
        wrong[mistake] = other.embed(known.crops)
    monkeypatch.setattr(resnet18, "IMAGENET_MEAN", (0.5, 0.5, 0.5))
    wrong["mean"] = extractor.embed(known.crops)
    errors = {mistake: known.error(values, "features") for mistake, values in wrong.items()}
    assert {mistake: error for mistake, error in errors.items() if error < 3 * known.limit} == {}


def test_a_crop_is_embedded_alike_in_any_company(known: Any, tensors: Tensors, made: Callable[..., ResNet18]) -> None:
    extractor = made(tensors)
    together, alone = extractor.embed(np.concatenate([known.crops, known.crops[:1]])), extractor.embed(known.crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 1e-5  # other kernels for other batch sizes: rounding only


def test_wrong_files_are_refused(tensors: Tensors, made: Callable[..., ResNet18]) -> None:
    import torch
    from torchvision.models import resnet34

    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: of 120 tensors, \d+ unexpected \(layer1\.2\.conv1\.weight"):
        made(resnet34(weights=None).state_dict())
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: it has no fc\.weight; give a checkpoint that holds the class"):
        made(without_fc(tensors), output="logits")
    with pytest.raises(ExtractorError, match=r"fc\.weight is \(8,\) float, expected a matrix"):
        made(tensors | {"fc.weight": torch.ones(8)}, output="logits")
    with pytest.raises(ExtractorError, match=r"1 of another shape \(fc\.bias \(9,\) float, expected \(8,\) float\)"):
        made(tensors | {"fc.bias": torch.ones(9)}, output="logits")


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^output: expected one of features, logits, got 'softmax'"):
        ResNet18.Params(output="softmax")  # type: ignore[arg-type]
    for output in ("features", "logits"):
        with pytest.raises(ValueError, match="resnet18: expected a weight file, got none"):
            ResNet18(ResNet18.Params(output=output), Runtime())  # type: ignore[arg-type]
