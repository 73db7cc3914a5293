"""IResNet-50 against insightface's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.visual.iresnet import IResNet50


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("iresnet50")


@pytest.fixture(scope="module")
def weights(known: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's pseudo-random weights as a checkpoint file."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "r50.pt"
    torch.save(known.tensors, path)
    return path


@pytest.fixture(scope="module")
def crops(known: Any) -> np.ndarray:
    return np.asarray(known.crops)


@pytest.fixture(scope="module")
def iresnet50(weights: Path) -> IResNet50:
    return IResNet50(IResNet50.Params(), Runtime(weights=weights))


def test_equals_the_reference(iresnet50: IResNet50, known: Any) -> None:
    values = iresnet50.embed(known.crops)
    assert values.dtype == np.float32
    assert known.error(values, "embedding") < known.limit


def test_a_crop_is_embedded_alike_in_any_company(iresnet50: IResNet50, crops: np.ndarray) -> None:
    together = iresnet50.embed(np.concatenate([crops, crops[:1]]))
    alone = iresnet50.embed(crops[:1])
    for row in (together[0], together[2]):
        assert np.abs(row - alone[0]).max() / alone.std() < 1e-5  # other kernels for other batch sizes: rounding only


def test_no_crops_give_no_rows(iresnet50: IResNet50) -> None:
    assert iresnet50.embed(np.empty((0, 112, 112, 3), np.uint8)).shape == (0, 512)


def test_half_precision_points_the_same_way(iresnet50: IResNet50, weights: Path, crops: np.ndarray) -> None:
    half = IResNet50(IResNet50.Params(), Runtime(weights=weights, precision="bfloat16")).embed(crops)
    full = iresnet50.embed(crops)
    assert half.dtype == np.float32
    cosine = (half * full).sum(axis=1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)
    assert (cosine > 0.999).all()


def test_the_checkpoint_of_another_network_is_refused(weights: Path, tmp_path: Path) -> None:
    import torch

    state = torch.load(weights, weights_only=True)
    del state["layer3.13.conv1.weight"]
    state["logits.weight"] = torch.zeros(8, 512)
    state["fc.weight"] = torch.zeros(512, 12800)
    torch.save(state, tmp_path / "ir50.pth")
    with pytest.raises(
        ExtractorError, match=r"ir50\.pth cannot be loaded: .*1 missing \(layer3\.13.*1 unexpected \(logits.*fc\.weight \(512, 12800\)"
    ):
        IResNet50(IResNet50.Params(), Runtime(weights=tmp_path / "ir50.pth"))


def test_without_a_weight_file_it_is_not_made() -> None:
    with pytest.raises(ValueError, match="iresnet50: expected a weight file, got none"):
        IResNet50(IResNet50.Params(), Runtime())
