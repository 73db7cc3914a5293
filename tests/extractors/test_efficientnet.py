"""EfficientNet-B0 and -B2 against timm's `tf_` ones, from files as EmotiEffLib publishes them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from extractors.contract import ExtractorError, Runtime
from extractors.networks import forward, place
from extractors.visual.crops import IMAGENET_MEAN, IMAGENET_STD, normalised
from extractors.visual.efficientnet import EMOTIONS, EfficientNetB0, EfficientNetB2

State = dict[str, torch.Tensor]
CLASSES = {"enet_b0": EfficientNetB0, "enet_b2": EfficientNetB2}
# What timm 0.4 called its modules.
OLD_NAMES = {
    b"ctimm.layers.adaptive_avgmax_pool\n": b"ctimm.models.layers.adaptive_avgmax_pool\n",
    b"ctimm.layers.conv2d_same\n": b"ctimm.models.layers.conv2d_same\n",
    b"ctimm.layers.norm_act\nBatchNormAct2d\n": b"ctorch.nn.modules.batchnorm\nBatchNorm2d\n",
    b"ctimm.models._efficientnet_blocks\n": b"ctimm.models.efficientnet_blocks\n",
}


@pytest.fixture(scope="module")
def b0(reference: Callable[[str], Any]) -> Any:
    return reference("enet_b0")


@pytest.fixture(scope="module")
def b2(reference: Callable[[str], Any]) -> Any:
    return reference("enet_b2")


@pytest.fixture(scope="module", params=CLASSES)
def known(request: pytest.FixtureRequest, reference: Callable[[str], Any]) -> Any:
    return reference(request.param)


def of_sequential(state: State) -> State:
    return {key.replace("classifier.", "classifier.0."): value for key, value in state.items()}


def whole(state: State, *, sequential: bool) -> nn.Module:
    """The network itself, as EmotiEffLib's training makes and pickles it."""
    network = timm.create_model("tf_efficientnet_b0", num_classes=8)
    if sequential:
        network.classifier = nn.Sequential(nn.Linear(1280, 8))
        state = of_sequential(state)
    network.load_state_dict(state)
    return network


def aged(path: Path) -> None:
    """Give the classes in a pickle the names that they had in timm 0.4."""
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    for name in records:
        if name.endswith("data.pkl"):
            for new, old in OLD_NAMES.items():
                assert new in records[name]
                records[name] = records[name].replace(new, old)
    with zipfile.ZipFile(path, "w") as file:
        for name, record in records.items():
            file.writestr(name, record)


def made(known: Any, path: Path, content: object, **params: Any) -> Any:
    torch.save(content, path)
    extractor = CLASSES[known.name]
    return extractor(extractor.Params(**params), Runtime(weights=path))


def test_equals_the_reference(known: Any, tmp_path: Path) -> None:
    features = made(known, tmp_path / "net.pt", known.tensors).embed(known.crops)
    assert features.dtype == np.float32
    assert known.error(features, "features") < known.limit
    logits = made(known, tmp_path / "net.pt", known.tensors, output="logits")
    assert (logits.dim, logits.columns) == (8, EMOTIONS)
    assert known.error(logits.embed(known.crops), "logits") < known.limit


def test_mistakes_are_noticed(b2: Any, tmp_path: Path) -> None:
    right = made(b2, tmp_path / "net.pt", b2.tensors)
    assert b2.error(right.embed(b2.crops[..., ::-1]), "features") > b2.limit, "blue first"
    halves = forward(right._network, normalised(b2.crops, (0.5,) * 3, (0.5,) * 3), Runtime())
    assert b2.error(halves, "features") > b2.limit, "other statistics"
    for module in right._network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
    assert b2.error(right.embed(b2.crops), "features") > b2.limit, "another epsilon"


def test_the_look_alike_takes_the_same_tensors_and_is_another_function(known: Any) -> None:
    plain = timm.create_model(CLASSES[known.name].name, num_classes=8)
    plain.load_state_dict(known.tensors, strict=True)
    plain.classifier = nn.Identity()
    values = forward(place(plain, Runtime()), normalised(known.crops, IMAGENET_MEAN, IMAGENET_STD), Runtime())
    assert known.error(values, "features") > 100 * known.limit


@pytest.mark.parametrize("output", ["features", "logits"])
@pytest.mark.parametrize("layout", ["sequential", "wrapped", "pickled", "pickled by timm 0.4", "pickled with one layer"])
def test_every_published_layout_loads(b0: Any, tmp_path: Path, layout: str, output: str) -> None:
    path = tmp_path / "enet_b0_8_best_vgaf.pt"
    content: object = of_sequential(b0.tensors)
    if layout == "wrapped":
        content = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in b0.tensors.items()}}
    elif layout.startswith("pickled"):
        content = whole(b0.tensors, sequential=layout != "pickled with one layer")
    torch.save(content, path)
    if layout == "pickled by timm 0.4":
        aged(path)
    extractor = EfficientNetB0(EfficientNetB0.Params(output=output), Runtime(weights=path))
    assert b0.error(extractor.embed(b0.crops), output) < b0.limit


def test_outputs_are_called_by_their_number(b0: Any, tmp_path: Path) -> None:
    rows = {7: [0, *range(2, 8)], 10: [*range(8), 0, 1]}
    expected = b0.arrays["out_logits"]
    for n, chosen in rows.items():
        state = b0.tensors | {key: b0.tensors[key][chosen] for key in ("classifier.weight", "classifier.bias")}
        extractor = made(b0, tmp_path / "net.pt", state, output="logits")
        assert extractor.dim == n
        assert extractor.columns == ((*EMOTIONS, "valence", "arousal") if n == 10 else tuple(EMOTIONS[i] for i in chosen))
        np.testing.assert_allclose(extractor.embed(b0.crops), expected[:, chosen], atol=b0.limit * expected.std())


def test_logits_need_a_classifier_that_is_known(b0: Any, tmp_path: Path) -> None:
    state = b0.tensors
    said = r"its classifier must be one layer of 1280 inputs and 7, 8 or 10 outputs, and it has "
    wider = state | {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    deeper = state | {"classifier.3.weight": torch.zeros(8, 8), "classifier.3.bias": torch.zeros(8)}
    headless = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    for content, has in ((wider, r"classifier\.weight \(1000, 1280\)"), (deeper, r".*classifier\.3\.bias \(8,\)"), (headless, "none")):
        with pytest.raises(ExtractorError, match=rf"net\.pt cannot be loaded: .*{said}{has}.*; give a file of EmotiEffLib"):
            made(b0, tmp_path / "net.pt", content, output="logits")
        assert b0.error(made(b0, tmp_path / "net.pt", content).embed(b0.crops), "features") < b0.limit


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.made,)


@pytest.mark.parametrize("output", ["features", "logits"])
def test_a_pickle_with_any_other_class_is_refused_and_nothing_runs(b0: Any, tmp_path: Path, output: str) -> None:
    network = whole(b0.tensors, sequential=True)
    network.extra = Payload(tmp_path / "executed")
    with pytest.raises(ExtractorError, match=r"net\.pt cannot be loaded: .*would have to be executed.*state_dict"):
        made(b0, tmp_path / "net.pt", network, output=output)
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "net.pt", weights_only=False)  # that the payload is a real one
    assert (tmp_path / "executed").exists()
    network.extra = nn.Bilinear(1, 1, 1)
    with pytest.raises(ExtractorError, match=r"net\.pt cannot be loaded: .*executed \(.* torch\.nn\.modules\.linear\.Bilinear "):
        made(b0, tmp_path / "net.pt", network, output=output)


def test_the_checkpoint_of_another_network_is_refused(b0: Any, b2: Any, tmp_path: Path) -> None:
    with pytest.raises(ExtractorError, match=r"net\.pt cannot be loaded: of 506 tensors, 148 missing .* of another shape"):
        made(b2, tmp_path / "net.pt", b0.tensors)
    state = b0.tensors
    del state["blocks.0.0.se.conv_reduce.weight"]
    with pytest.raises(ExtractorError, match=r"1 missing \(blocks\.0\.0\.se\.conv_reduce\.weight\)"):
        made(b0, tmp_path / "net.pt", state)


def test_a_crop_is_embedded_alike_in_any_company(known: Any, tmp_path: Path) -> None:
    extractor = made(known, tmp_path / "net.pt", known.tensors)
    together = extractor.embed(np.concatenate([known.crops, known.crops[:1]]))
    alone = extractor.embed(known.crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 2e-5  # other kernels for other batch sizes: rounding only


def test_no_crops_give_no_rows(b0: Any, tmp_path: Path) -> None:
    assert made(b0, tmp_path / "net.pt", b0.tensors).embed(np.empty((0, 224, 224, 3), np.uint8)).shape == (0, 1280)


def test_half_precision_points_the_same_way(b0: Any, tmp_path: Path) -> None:
    made(b0, tmp_path / "net.pt", b0.tensors)
    half = EfficientNetB0(EfficientNetB0.Params(output="logits"), Runtime(weights=tmp_path / "net.pt", precision="bfloat16"))
    got, expected = half.embed(b0.crops), b0.arrays["out_logits"]
    assert got.dtype == np.float32
    assert ((got * expected).sum(axis=1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1) > 0.99).all()


def test_a_pickled_look_alike_is_refused(known: Any, tmp_path: Path) -> None:
    """Whole modules say which variant they are; a bare state dict of the plain one cannot be told apart."""
    path = tmp_path / "plain.pt"
    torch.save(timm.create_model(CLASSES[known.name].name, num_classes=8), path)
    with pytest.raises(
        ExtractorError, match=r"plain\.pt cannot be loaded: it is timm's plain EfficientNet \(batch norms of eps 1e-05\), not the tf_"
    ):
        CLASSES[known.name](CLASSES[known.name].Params(), Runtime(weights=path))
