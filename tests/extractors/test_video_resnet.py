"""R3D-18 and R(2+1)D-18 against torchvision's and the two-stream network's, from files as they are published."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import ExtractorError, Float32, Runtime, UInt8
from extractors.visual import video_resnet
from extractors.visual.video_resnet import R2plus1d18, R3d18

EXTRACTORS: dict[str, Any] = {"r3d_18": R3d18, "r2plus1d_18": R2plus1d18, "tsav": R2plus1d18}
INPUT = {"r3d_18": "input", "r2plus1d_18": "input", "tsav": "clip"}
# What the published files hold beside the network's own state.
WRAPPED: dict[str, Callable[[Any], Any]] = {
    "r3d_18": lambda state: state,
    "r2plus1d_18": lambda state: state,
    "tsav": lambda state: {"epoch": 7, "state_dict": state, "best": 0.5},
}


@dataclass
class Known:
    """A fixture and its weights as a file in the published layout."""

    name: str
    reference: Any
    path: Path

    @property
    def clips(self) -> UInt8:
        """(2, 8, 112, 112, 3)."""
        return np.ascontiguousarray(self.reference.arrays[INPUT[self.name]].transpose(0, 2, 3, 4, 1))

    def extractor(self, **params: Any) -> Any:
        made = EXTRACTORS[self.name]
        return made(made.Params(**params), Runtime(weights=self.path))

    def values(self, **params: Any) -> Float32:
        return np.asarray(self.extractor(**params).embed_clips(self.clips))

    def map_errors(self, values: Float32) -> list[float]:
        """Of the map, for every part of it that the fixture has."""
        channels = values.reshape(len(values), 512, -1)[:, ::16]
        if self.name != "tsav":
            return [self.reference.error(channels.reshape(len(values), 32, 1, 7, 7), "layer4_32ch")]
        ends = ((values[:, :512], "video_flat_head"), (values[:, -512:], "video_flat_tail"))
        return [self.reference.error(part, name) for part, name in ((channels, "video_32ch"), *ends)]


@pytest.fixture(scope="module")
def made(reference: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Known]:
    folder, known = tmp_path_factory.mktemp("weights"), {}

    def make(name: str) -> Known:
        import torch

        if name not in known:
            known[name] = Known(name, reference(name), folder / f"{name}.pth")
            torch.save(WRAPPED[name](known[name].reference.tensors), known[name].path)
        return known[name]

    return make


@pytest.fixture(params=EXTRACTORS)
def known(request: pytest.FixtureRequest, made: Callable[[str], Known]) -> Known:
    return made(request.param)


def test_the_map_equals_the_reference(known: Known) -> None:
    extractor = known.extractor(output="map")
    values = extractor.embed_clips(known.clips)
    assert extractor.dim == 25088
    assert values.shape == (2, 25088)
    assert values.dtype == np.float32
    assert max(known.map_errors(values)) < known.reference.limit


def test_pooled_is_the_mean_of_the_map(known: Known) -> None:
    pooled, whole = known.values(), known.values(output="map")
    np.testing.assert_allclose(pooled, whole.reshape(2, 512, 49).mean(axis=2), rtol=0, atol=1e-5 * pooled.std())
    if known.name != "tsav":
        assert known.reference.error(pooled, "features") < known.reference.limit


@pytest.mark.parametrize("mistake", ["BGR", "backwards", "ImageNet's mean", "mask channel", "other order of the map", "no last ReLU"])
def test_a_mistake_is_noticed(mistake: str, known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    extractor, clips = known.extractor(output="map"), known.clips
    if mistake == "BGR":
        clips = clips[..., ::-1]
    elif mistake == "backwards":
        clips = clips[:, ::-1]
    elif mistake == "ImageNet's mean":
        monkeypatch.setattr(video_resnet, "MEAN", np.array([0.485, 0.456, 0.406], np.float32))
    elif mistake == "mask channel":
        state = known.reference.state
        stem = next(value for key, value in state.items() if key.endswith("stem.0.weight"))
        with torch.no_grad():
            extractor._network.stem[0].weight.copy_(torch.from_numpy(np.ascontiguousarray(stem[:, [*range(1, stem.shape[1]), 0][:3]])))
    elif mistake == "no last ReLU":
        last = extractor._network.layer4[1]
        last.forward = lambda x: last.conv2(last.conv1(x)) + x
    values = extractor.embed_clips(clips)
    if mistake == "other order of the map":
        values = values.reshape(2, 512, 49).transpose(0, 2, 1).reshape(2, -1)
    assert max(known.map_errors(values)) > 5 * known.reference.limit


@pytest.mark.parametrize("n_frames", [1, 7, 9, 16, 17])
def test_clips_of_another_length_have_a_map_of_the_length_they_say(n_frames: int, made: Callable[[str], Known]) -> None:
    extractor = made("r2plus1d_18").extractor(clip_frames=n_frames, output="map")
    values = extractor.embed_clips(np.zeros((1, n_frames, 112, 112, 3), np.uint8))
    assert values.shape == (1, extractor.dim) == (1, 512 * -(-n_frames // 8) * 49)


def test_without_a_classifier_or_under_a_prefix_it_is_the_same_file(made: Callable[[str], Known], tmp_path: Path) -> None:
    import torch

    known = made("r3d_18")
    bare = {key: value for key, value in known.reference.tensors.items() if not key.startswith("fc.")}
    torch.save({"model_state_dict": {f"module.{key}": value for key, value in bare.items()}}, tmp_path / "r3d.pth")
    values = R3d18(R3d18.Params(), Runtime(weights=tmp_path / "r3d.pth")).embed_clips(known.clips)
    np.testing.assert_array_equal(values, known.values())


def test_a_two_stream_file_of_parallel_training_is_the_same(made: Callable[[str], Known], tmp_path: Path) -> None:
    import torch

    known = made("tsav")
    torch.save({"state_dict": {f"module.{key}": value for key, value in known.reference.tensors.items()}}, tmp_path / "tsav.pth.tar")
    values = R2plus1d18(R2plus1d18.Params(), Runtime(weights=tmp_path / "tsav.pth.tar")).embed_clips(known.clips)
    np.testing.assert_array_equal(values, known.values())


def refusal(extractor: Any, path: Path) -> str:
    with pytest.raises(ExtractorError, match=f"{re.escape(path.name)} cannot be loaded") as caught:
        extractor(extractor.Params(), Runtime(weights=path))
    return str(caught.value)


def test_the_file_of_another_network_is_refused(made: Callable[[str], Known], tmp_path: Path) -> None:
    import torch
    from torchvision.models.video import mc3_18

    assert "it is an R3D network, which r3d18 takes" in refusal(R2plus1d18, made("r3d_18").path)
    for name in ("r2plus1d_18", "tsav"):
        assert "it is an R(2+1)D network, which r2plus1d18 takes" in refusal(R3d18, made(name).path)
    torch.save(mc3_18(weights=None).state_dict(), tmp_path / "mc3.pth")
    assert "layer2.0.conv1.0.weight (128, 64, 1, 3, 3) float, expected (128, 64, 3, 3, 3) float" in refusal(R3d18, tmp_path / "mc3.pth")
    state = made("r2plus1d_18").reference.tensors
    state["stem.0.weight"] = torch.zeros(45, 4, 1, 7, 7)  # a fourth channel is the two-stream network's only
    state["layer4.2.conv1.0.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "four.pth")
    said = refusal(R2plus1d18, tmp_path / "four.pth")
    assert "1 unexpected (layer4.2.conv1.0.0.weight), 1 of another shape (stem.0.weight (45, 4, 1, 7, 7)" in said


@pytest.mark.parametrize("field", ["clip_frames", "dilation", "stride"])
@pytest.mark.parametrize("value", [0, -1, 100_000])
def test_parameters_out_of_range_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected a whole number from 1 to .*, got {value}$"):
        R3d18.Params(**{field: value})
