"""RegNetY, trained on ImageNet: 440 to 1512 numbers of what a picture shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from extractors.contract import Float32, Kind, Runtime, UInt8
from extractors.hub import Source, TorchvisionFile
from extractors.networks import forward, loaded, place
from extractors.visual.crops import IMAGENET_MEAN, IMAGENET_STD, check_crops, normalised
from extractors.weights import Layout, State

if TYPE_CHECKING:
    from torch import nn

DIMS = {"400mf": 440, "800mf": 784, "1_6gf": 888, "3_2gf": 1512}
INPUTS_PX = (112, 224)
# timm's names for the parts of a unit, and torchvision's.
PARTS = {
    "conv1.conv": "f.a.0",
    "conv1.bn": "f.a.1",
    "conv2.conv": "f.b.0",
    "conv2.bn": "f.b.1",
    "se.fc1": "f.se.fc1",
    "se.fc2": "f.se.fc2",
    "conv3.conv": "f.c.0",
    "conv3.bn": "f.c.1",
    "downsample.conv": "proj.0",
    "downsample.bn": "proj.1",
}
STEM = {"stem.conv": "stem.0", "stem.bn": "stem.1", "head.fc": "fc"}
UNIT = re.compile(r"s(\d+)\.b(\d+)\.(\w+\.\w+)")
PYCLS_008 = ("trunk_output.block4.block4-0.f.c.1.weight", 768)  # a tensor of which only timm's regnety_008 has so many


def torchvision_named(state: State) -> State:
    """timm's names as torchvision's, which stay. Raises ValueError for the network that is 800mf in timm's name only."""
    renamed = {}
    for key, value in state.items():
        part, _, leaf = key.rpartition(".")
        if (unit := UNIT.fullmatch(part)) and unit[3] in PARTS:
            stage, number = unit[1], int(unit[2]) - 1
            key = f"trunk_output.block{stage}.block{stage}-{number}.{PARTS[unit[3]]}.{leaf}"
        elif part in STEM:
            key = f"{STEM[part]}.{leaf}"
        renamed[key] = value
    name, width = PYCLS_008
    if name in renamed and renamed[name].shape == (width,):
        raise ValueError("it is timm's regnety_008, of 768 features; torchvision's 800mf has 784 and is timm's regnety_008_tv")
    return renamed


# The digests in the names of torchvision's first ImageNet weights, those of the published affect systems' time.
IMAGENET_V1 = {"400mf": "c65dace8", "800mf": "1b27b58c", "1_6gf": "b11a554e", "3_2gf": "b5a9779c"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegNetYParams:
    """size: by the multiplications for a picture of 224 x 224. input_px: 112, as the ABAW systems have it, or ImageNet's 224."""

    size: Literal["400mf", "800mf", "1_6gf", "3_2gf"] = "400mf"
    input_px: int = 112

    def __post_init__(self) -> None:
        if self.input_px not in INPUTS_PX:
            raise ValueError(f"input_px: expected 112 or 224, got {self.input_px}")


class RegNetY:
    """torchvision's RegNetY, what its classifier is given: the last map's mean.

    Source: Radosavovic et al., "Designing network design spaces", CVPR 2020, section 4; on faces as in Nguyen et al., "An ensemble
    approach for facial behavior analysis in-the-wild video", CVPRW 2022, section 3.1.
    """

    name: ClassVar[str] = "regnet_y"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = RegNetYParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "https://download.pytorch.org/models/regnet_y_400mf-c65dace8.pth, and torchvision's other RegNetY weights"
    licence: ClassVar[str] = "BSD-3-Clause (torchvision; trained on ImageNet)"
    layout: ClassVar[Layout] = Layout(converted=torchvision_named, dropped=("fc.",))
    batch = 64
    resample = "pil_bilinear"  # as torchvision's transform for these weights: bilinear, with antialiasing

    @staticmethod
    def reads(params: RegNetYParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @staticmethod
    def hub(params: RegNetYParams) -> Source:
        return TorchvisionFile(f"regnet_y_{params.size}-{IMAGENET_V1[params.size]}.pth")

    @staticmethod
    def network(params: RegNetYParams) -> nn.Module:
        import torch
        from torchvision import models

        with torch.device("cpu"):  # its widths are computed with tensors, which hold nothing on the "meta" device
            network: Any = getattr(models, f"regnet_y_{params.size}")(weights=None)
        network.fc = torch.nn.Identity()
        placed: nn.Module = network.to(torch.get_default_device())
        return placed

    def __init__(self, params: RegNetYParams, runtime: Runtime) -> None:
        self._network, self._runtime = place(loaded(self, params, runtime), runtime), runtime
        self.dim, self.size_px = DIMS[params.size], params.input_px

    def embed(self, crops: UInt8) -> Float32:
        """(N, input_px, input_px, 3) uint8 RGB -> (N, dim) float32. Pixels by ImageNet's mean and deviation."""
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        return forward(self._network, normalised(crops, IMAGENET_MEAN, IMAGENET_STD), self._runtime)
