"""DAN against its authors' code, in all that can be taken out of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.visual import dan
from extractors.visual.dan import Dan

Tensors = dict[str, Any]
DIMS = {"head_sum": 512, "head_logsoftmax": 2048, "head_raw": 2048, "backbone_gap": 512, "logits": 8}


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("dan")


@pytest.fixture(scope="module")
def tensors(known: Any) -> Tensors:
    return dict(known.tensors)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Dan]:
    """made(content, **params): the extractor with a file of that content."""
    import torch

    def build(content: Any, **params: Any) -> Dan:
        torch.save(content, tmp_path / "net.pth")
        extractor = Dan(Dan.Params(**params), Runtime(weights=tmp_path / "net.pth"))
        (tmp_path / "net.pth").unlink()
        return extractor

    return build


def error(known: Any, values: np.ndarray, feature: str) -> float:
    return float(known.error(values.reshape(known.arrays[f"out_{feature}"].shape), feature))


@pytest.mark.parametrize("feature", DIMS)
def test_equals_the_reference(feature: str, known: Any, tensors: Tensors, made: Callable[..., Dan]) -> None:
    """From a file as it is published: state, counter and optimiser."""
    extractor = made({"iter": 5, "model_state_dict": tensors, "optimizer_state_dict": {"state": {}, "param_groups": []}}, feature=feature)
    values = extractor.embed(known.crops)
    assert values.dtype == np.float32
    assert values.shape == (2, DIMS[feature])
    assert extractor.dim == DIMS[feature]
    assert extractor.embed(known.crops[:0]).shape == (0, DIMS[feature])
    assert error(known, values, feature) < known.limit


def head(classes: int) -> Tensors:
    import torch

    ones = {f"bn.{name}": torch.ones(classes) for name in ("weight", "running_var")}
    zeros = {f"bn.{name}": torch.zeros(classes) for name in ("bias", "running_mean")}
    fc = {"fc.weight": torch.full((classes, 512), 1e-2), "fc.bias": torch.zeros(classes)}
    return fc | ones | zeros | {"bn.num_batches_tracked": torch.zeros((), dtype=torch.int64)}


def without_head(state: Tensors) -> Tensors:
    return {key: value for key, value in state.items() if not key.startswith(("fc.", "bn."))}


LAYOUTS: dict[str, Callable[[Tensors], Any]] = {
    "bare": lambda state: state,
    "RAF-DB's or AffectNet-7's": lambda state: {"iter": 21, "model_state_dict": without_head(state) | head(7)},
    "DataParallel's": lambda state: {"model_state_dict": {f"module.{key}": value for key, value in state.items()}},
    "no classifier": without_head,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference(layout: str, known: Any, tensors: Tensors, made: Callable[..., Dan]) -> None:
    assert error(known, made(LAYOUTS[layout](tensors)).embed(known.crops), "head_sum") < known.limit


def test_the_file_says_how_many_classes(known: Any, tensors: Tensors, made: Callable[..., Dan]) -> None:
    extractor = made(LAYOUTS["RAF-DB's or AffectNet-7's"](tensors), feature="logits")
    expected = known.arrays["out_head_sum"].sum(axis=1) * 1e-2 / np.sqrt(1 + 1e-5)
    assert extractor.dim == 7
    values = extractor.embed(known.crops)
    np.testing.assert_allclose(values, np.repeat(expected[:, None], 7, axis=1), rtol=1e-5)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = x - x.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def test_mistakes_are_noticed(known: Any, tensors: Tensors, made: Callable[..., Dan], monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = made(tensors)
    raw = made(tensors, feature="head_raw").embed(known.crops).reshape(2, 4, 512)
    assert error(known, log_softmax(raw, 1).sum(axis=1), "head_sum") < known.limit  # so that the following differ in what they say
    wrong = {
        "axis": log_softmax(raw, 2).sum(axis=1),
        "no softmax": raw.sum(axis=1),
        "BGR": extractor.embed(np.ascontiguousarray(known.crops[..., ::-1])),
    }
    for mistake in ("eps", "1x3 for 3x1"):
        other = copy.deepcopy(extractor)
        for module in other._network.modules():
            if mistake == "eps" and hasattr(module, "running_var"):
                module.eps = 1e-3
            if mistake == "1x3 for 3x1" and hasattr(module, "conv_1x3"):
                module.conv_1x3, module.conv_3x1 = module.conv_3x1, module.conv_1x3
                module.conv_1x3[0].weight.data = module.conv_1x3[0].weight.data.transpose(2, 3)
                module.conv_1x3[0].padding, module.conv_3x1[0].padding = (0, 1), (1, 0)
                module.conv_3x1[0].weight.data = module.conv_3x1[0].weight.data.transpose(2, 3)
        wrong[mistake] = other.embed(known.crops)
    monkeypatch.setattr(dan, "IMAGENET_MEAN", (0.5, 0.5, 0.5))
    wrong["mean"] = extractor.embed(known.crops)
    errors = {mistake: error(known, values, "head_sum") for mistake, values in wrong.items()}
    assert {mistake: error for mistake, error in errors.items() if error < 3 * known.limit} == {}
    interleaved = raw.transpose(0, 2, 1).reshape(2, 4, 512)
    assert error(known, interleaved, "head_raw") > 3 * known.limit


def test_a_crop_is_embedded_alike_in_any_company(known: Any, tensors: Tensors, made: Callable[..., Dan]) -> None:
    extractor = made(tensors)
    together, alone = extractor.embed(np.concatenate([known.crops, known.crops[:1]])), extractor.embed(known.crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 1e-5  # other kernels for other batch sizes: rounding only


def test_wrong_files_are_refused(tensors: Tensors, made: Callable[..., Dan]) -> None:
    two_heads = {key: value for key, value in tensors.items() if not key.startswith(("cat_head2.", "cat_head3."))}
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: .*\d+ missing \(cat_head2\.sa\.conv1x1\.0\.weight"):
        made(two_heads)
    with pytest.raises(ExtractorError, match=r"net\.pth cannot be loaded: .*\d+ unexpected \(cat_head4\.sa\.conv1x1"):
        made(tensors | {f"cat_head4.{key.partition('.')[2]}": value for key, value in tensors.items() if key.startswith("cat_head0.")})
    with pytest.raises(ExtractorError, match=r"it has no fc\.weight; give a checkpoint that holds the classifier too"):
        made(without_head(tensors), feature="logits")


def test_parameters_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^feature: expected one of head_sum, .*, logits, got 'heads'"):
        Dan.Params(feature="heads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dan: expected a weight file, got none"):
        Dan(Dan.Params(feature="logits"), Runtime())
