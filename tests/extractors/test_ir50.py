"""IR-50 against sucv's, on the fixture's 40 pixels inside 48."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.visual.ir50 import Ir50

Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("sucv_ir50")


@pytest.fixture(scope="module")
def tensors(known: Any) -> Tensors:
    return dict(known.tensors)


@pytest.fixture(scope="module")
def crops(known: Any) -> np.ndarray:
    """The fixture's pictures in a frame of 4 pixels, of which nothing may be seen."""
    return np.pad(known.crops, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=77)


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Callable[[Any], Path]]:
    """saved(content): a file of it, which is gone after the test: pytest would keep 150 MB for each."""
    import torch

    def save(content: Any) -> Path:
        torch.save(content, tmp_path / "net.pth")
        return tmp_path / "net.pth"

    yield save
    (tmp_path / "net.pth").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def ir50(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Ir50:
    """From a file as it is published: the network as `backbone`, its classifier as `logits`."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "res50_ir_0.887.pth"
    torch.save(tensors, path)
    extractor = Ir50(Ir50.Params(), Runtime(weights=path))
    path.unlink()
    return extractor


def test_equals_the_reference(ir50: Ir50, known: Any, crops: np.ndarray) -> None:
    values = ir50.embed(crops)
    assert values.dtype == np.float32
    assert known.error(values, "embedding") < known.limit
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, rtol=0, atol=1e-6)


def inner(state: Tensors) -> Tensors:
    return {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}


LAYOUTS: dict[str, Callable[[Tensors], Any]] = {
    "without the classifier": lambda state: {key: value for key, value in state.items() if not key.startswith("logits.")},
    "the network alone": inner,
    "its classifier inside": lambda state: inner(state) | {key: value for key, value in state.items() if key.startswith("logits.")},
    "DataParallel's": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference(
    layout: str, known: Any, crops: np.ndarray, tensors: Tensors, saved: Callable[[Any], Path]
) -> None:
    values = Ir50(Ir50.Params(), Runtime(weights=saved(LAYOUTS[layout](tensors)))).embed(crops)
    assert known.error(values, "embedding") < known.limit


def test_mistakes_are_noticed(ir50: Ir50, known: Any, crops: np.ndarray) -> None:
    import torch
    from torch import nn

    wrong = {"BGR": ir50.embed(np.ascontiguousarray(crops[..., ::-1])), "off the centre": ir50.embed(np.roll(crops, 1, axis=1))}
    for mistake in ("eps", "first stride", "relu", "order"):
        network = copy.deepcopy(ir50)
        for module in network._network.modules():
            if mistake == "eps" and isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.eps = 1e-3
            if mistake == "relu" and isinstance(module, nn.PReLU):
                module.weight = nn.Parameter(torch.zeros_like(module.weight))
            if mistake == "first stride" and hasattr(module, "res_layer"):  # on the unit's first convolution
                module.res_layer[1].stride, module.res_layer[3].stride = module.res_layer[3].stride, module.res_layer[1].stride
            if mistake == "order" and isinstance(module, nn.Flatten):
                module.forward = lambda x: x.permute(0, 2, 3, 1).flatten(1)  # type: ignore[method-assign]
        wrong[mistake] = network.embed(crops)
    errors = {mistake: known.error(values, "embedding") for mistake, values in wrong.items()}
    assert {mistake: error for mistake, error in errors.items() if error < 3 * known.limit} == {}


def test_a_crop_is_embedded_alike_in_any_company(ir50: Ir50, crops: np.ndarray) -> None:
    together, alone = ir50.embed(np.concatenate([crops, crops[:1]])), ir50.embed(crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 1e-5  # other kernels for other batch sizes: rounding only
    assert ir50.embed(crops[:0]).shape == (0, 512)


def test_half_precision_points_the_same_way(ir50: Ir50, crops: np.ndarray, tensors: Tensors, saved: Callable[[Any], Path]) -> None:
    half = Ir50(Ir50.Params(), Runtime(weights=saved(tensors), precision="float16")).embed(crops)
    assert half.dtype == np.float32
    assert ((half * ir50.embed(crops)).sum(axis=1) > 0.999).all()


def test_the_same_network_for_larger_pictures_is_refused(tensors: Tensors, saved: Callable[[Any], Path]) -> None:
    import torch

    larger = tensors | {"backbone.output_layer.3.weight": torch.zeros(512, 25088)}
    said = r"1 of another shape \(output_layer\.3\.weight \(512, 25088\) float, expected \(512, 12800\)"
    with pytest.raises(ExtractorError, match=said):
        Ir50(Ir50.Params(), Runtime(weights=saved(larger)))


def test_insightfaces_network_is_refused(tensors: Tensors, saved: Callable[[Any], Path]) -> None:
    other = {"conv1.weight": tensors["backbone.input_layer.0.weight"], "layer1.0.bn1.bias": tensors["backbone.input_layer.1.bias"]}
    with pytest.raises(ExtractorError, match=r"missing \(input_layer\.0\.weight, .*2 unexpected \(conv1\.weight, layer1\.0\.bn1\.bias\)"):
        Ir50(Ir50.Params(), Runtime(weights=saved(other)))
