"""IResNet-18, -34, -50 and -100 against insightface's, and every layout in which their files are found."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Runtime
from extractors.registry import load
from extractors.visual.iresnet import IResNet50

# What arcface_torch's iresnet18, 34 and 100 give for the fixture's pictures with weights by its rule: [:, ::128] of the embedding.
OTHERS = {
    "iresnet18": [[0.19898444, 1.9806744, 0.35206634, -1.5037417], [-1.0551763, -1.0485107, 1.3140401, -1.026794]],
    "iresnet34": [[2.1275148, 6.4971066, -1.8474165, -3.3910973], [10.70431, 4.421814, 2.9443254, -3.0446713]],
    "iresnet100": [[2476.836, 1221.9598, -3665.679, -2808.019], [3228.8394, 1568.5258, -4067.196, -4035.4578]],
}
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def known(reference: Callable[[str], Any]) -> Any:
    return reference("iresnet50")


@pytest.fixture(scope="module")
def tensors(known: Any) -> Tensors:
    return dict(known.tensors)


@pytest.fixture(scope="module")
def weights(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The fixture's pseudo-random weights as a checkpoint file."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "r50.pt"
    torch.save(tensors, path)
    yield path
    path.unlink()


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Callable[[Any], Path]]:
    """saved(content): a file of it, which is gone after the test: pytest would keep 170 MB for each."""
    import torch

    def save(content: Any) -> Path:
        torch.save(content, tmp_path / "net.pth")
        return tmp_path / "net.pth"

    yield save
    (tmp_path / "net.pth").unlink(missing_ok=True)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_depths_equal_the_reference(name: str, known: Any, saved: Callable[[Any], Path]) -> None:
    import torch

    with torch.device("meta"):
        own = load(name).network(load(name).Params()).state_dict()
    made = type(known)(known.folder, known.name)
    made.facts["manifest"] = [[key, list(like.shape), str(like.dtype).removeprefix("torch.")] for key, like in own.items()]
    values = load(name)(load(name).Params(), Runtime(weights=saved(made.tensors))).embed(known.crops)
    assert np.abs(values[:, ::128] - OTHERS[name]).max() / values.std() < known.limit


def prefixed(prefix: str, state: Tensors) -> Tensors:
    return {prefix + key: value for key, value in state.items()}


def head(name: str) -> Tensors:
    import torch

    return {f"{name}.weight": torch.ones(8, 512), f"{name}.bias": torch.ones(8)}


LAYOUTS: dict[str, Callable[[Tensors], Any]] = {
    "DataParallel's": lambda state: prefixed("module.", state),
    "as backbone": lambda state: prefixed("backbone.", state),
    "training dump": lambda state: {
        "epoch": 3,
        "global_step": 9,
        "state_dict_backbone": state,
        "state_dict_softmax_fc": {"weight": head("x")["x.weight"]},
        "state_optimizer": {"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    },
    "head inside": lambda state: {"state_dict": prefixed("module.", state | head("classifier"))},
    "head of layers": lambda state: state | prefixed("head.1.", head("linear")) | head("logits"),
    "head beside": lambda state: prefixed("backbone.", state) | head("fc_cls"),
    "head fc beside": lambda state: prefixed("backbone.", state) | head("fc"),
    "both in DataParallel": lambda state: {"model": prefixed("module.", prefixed("backbone.", state) | head("fc") | head("logits"))},
    "DataParallel beside": lambda state: prefixed("backbone.module.", state) | head("classifier"),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_reference(layout: str, known: Any, tensors: Tensors, saved: Callable[[Any], Path]) -> None:
    values = IResNet50(IResNet50.Params(), Runtime(weights=saved(LAYOUTS[layout](tensors)))).embed(known.crops)
    assert known.error(values, "embedding") < known.limit


def test_the_embeddings_own_layer_is_never_taken_for_a_head(tensors: Tensors, saved: Callable[[Any], Path]) -> None:
    state = {key: value for key, value in tensors.items() if not key.startswith("fc.")}
    for content in (state, prefixed("backbone.", state), state | head("fc"), prefixed("backbone.", state) | head("fc")):
        with pytest.raises(ExtractorError, match=r"2 missing \(fc\.weight|1 of another shape|fc\.weight \(8, 512\) float, expected"):
            IResNet50(IResNet50.Params(), Runtime(weights=saved(content)))


def test_mistakes_are_noticed(iresnet50: IResNet50, known: Any) -> None:
    import torch
    from torch import nn

    assert known.error(iresnet50.embed(np.ascontiguousarray(known.crops[..., ::-1])), "embedding") > known.limit
    pixels = torch.from_numpy(known.arrays["input"].astype(np.float32))
    wrong: dict[str, tuple[nn.Module, torch.Tensor]] = {"scale": (copy.deepcopy(iresnet50._network), (pixels - 127.5) / 128)}
    for mistake in ("eps", "stride", "relu"):
        network = copy.deepcopy(iresnet50._network)
        for module in network.modules():
            if mistake == "eps" and isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.eps = 2e-5
            if mistake == "relu" and isinstance(module, nn.PReLU):
                module.weight = nn.Parameter(torch.zeros_like(module.weight))
            if mistake == "stride" and hasattr(module, "downsample"):  # on the first convolution, as in other ResNets
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        wrong[mistake] = (network, (pixels - 127.5) / 127.5)
    with torch.inference_mode():
        errors = {mistake: known.error(network(x).numpy(), "embedding") for mistake, (network, x) in wrong.items()}
    assert {mistake: error for mistake, error in errors.items() if error < 3 * known.limit} == {}


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


def test_the_checkpoint_of_another_network_is_refused(tensors: Tensors, saved: Callable[[Any], Path]) -> None:
    import torch

    state = {key: value for key, value in tensors.items() if key != "layer3.13.conv1.weight"}
    state |= {"other.weight": torch.zeros(8, 512), "fc.weight": torch.zeros(512, 12800)}
    said = r"net\.pth cannot be loaded: .*1 missing \(layer3\.13.*1 unexpected \(other.*fc\.weight \(512, 12800\)"
    with pytest.raises(ExtractorError, match=said):
        IResNet50(IResNet50.Params(), Runtime(weights=saved(state)))


def test_the_checkpoint_of_another_depth_is_refused(weights: Path) -> None:
    for name in ("iresnet18", "iresnet34"):
        with pytest.raises(ExtractorError, match=r"\d+ unexpected \(layer\d"):
            load(name)(load(name).Params(), Runtime(weights=weights))
    with pytest.raises(ExtractorError, match=r"\d+ missing \(layer2\.4"):
        load("iresnet100")(load("iresnet100").Params(), Runtime(weights=weights))


def test_without_a_weight_file_it_is_not_made() -> None:
    with pytest.raises(ValueError, match="iresnet50: expected a weight file, got none"):
        IResNet50(IResNet50.Params(), Runtime())
