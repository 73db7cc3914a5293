"""DAN, "distract your attention": what four attention heads, or the network before them, see of a face's expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from extractors.contract import Float32, Kind, Runtime, UInt8
from extractors.networks import filled, forward, place, weight_file
from extractors.visual.crops import IMAGENET_MEAN, IMAGENET_STD, check_crops, normalised
from extractors.weights import Layout, rows_of

if TYPE_CHECKING:
    from torch import Tensor, nn

Feature = Literal["head_sum", "head_logsoftmax", "head_raw", "backbone_gap", "logits"]
CHANNELS, HEADS = 512, 4
CLASSES = 8  # of AffectNet: what the network has where no file says otherwise
PER_HEAD = ("head_logsoftmax", "head_raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class DanParams:
    """feature: what is taken out of the network.

    "head_raw": each head's 512 channels, one head after the other. "head_logsoftmax": their log-softmax over the four heads, channel by
    channel. "head_sum": the sum of that over the heads, which is what the classifier sees. "backbone_gap": the means over the feature
    map in front of the heads, which DAN itself never takes. "logits": the classifier's scores.
    """

    feature: Feature = "head_sum"

    def __post_init__(self) -> None:
        if self.feature not in get_args(Feature):
            raise ValueError(f"feature: expected one of {', '.join(get_args(Feature))}, got {self.feature!r}")


class Dan:
    """DAN with four heads, trained on RAF-DB (7 classes) or AffectNet (7 or 8); with "logits" `dim` is the number of classes.

    Source: Wen et al., "Distract your attention: multi-head cross attention network for facial expression recognition",
    arXiv 2109.07270, section 3.
    """

    name: ClassVar[str] = "dan"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = DanParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")  # float16 would have to hold sums over 512 channels times another
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "the checkpoints linked in the README of https://github.com/yaoing/DAN"
    licence: ClassVar[str] = "MIT code; weights trained on RAF-DB or AffectNet (non-commercial research)"
    layout: ClassVar[Layout] = Layout(dropped=("fc.", "bn."))
    dim = CHANNELS
    size_px = 224
    resample = "pil_bilinear"  # torchvision's Resize of a PIL image, as in its code
    batch = 64

    @staticmethod
    def reads(params: DanParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @staticmethod
    def network(params: DanParams) -> nn.Module:
        return build(params.feature, CLASSES)

    def __init__(self, params: DanParams, runtime: Runtime) -> None:
        if params.feature == "logits":
            self.dim = rows_of(weight_file(self, runtime), "fc.weight", self.layout)
        elif params.feature in PER_HEAD:
            self.dim = HEADS * CHANNELS
        self._network = place(filled(self, lambda: build(params.feature, self.dim), runtime), runtime)
        self._runtime = runtime

    def embed(self, crops: UInt8) -> Float32:
        """(N, 224, 224, 3) uint8 RGB -> (N, dim) float32. Pixels enter with ImageNet's mean and deviation.

        dim is 512; 2048 (the heads one after the other) for "head_raw" and "head_logsoftmax"; the number of classes for "logits".
        """
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        return forward(self._network, normalised(crops, IMAGENET_MEAN, IMAGENET_STD), self._runtime)


def build(feature: Feature, classes: int) -> nn.Module:
    """The network up to the feature, untrained, with the published names for its tensors. The classifier is there for "logits" only."""
    from torch import nn
    from torchvision.models import resnet18

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*list(resnet18(weights=None).children())[:-2])
            for i in range(HEADS):
                self.add_module(f"cat_head{i}", _head())
            if feature == "logits":
                self.fc, self.bn = nn.Linear(CHANNELS, classes), nn.BatchNorm1d(classes)

        def forward(self, x: Tensor) -> Tensor:
            """(N, 3, 224, 224) -> (N, dim)."""
            import torch

            x = self.features(x)
            if feature == "backbone_gap":
                return x.mean(dim=(2, 3))
            heads = torch.stack([self.get_submodule(f"cat_head{i}")(x) for i in range(HEADS)], dim=1)
            if feature != "head_raw":
                heads = heads.log_softmax(dim=1)
            if feature in PER_HEAD:
                return heads.flatten(1)
            seen = heads.sum(dim=1)
            return self.bn(self.fc(seen)) if feature == "logits" else seen

    return Network()


def _head() -> nn.Module:
    """Where to look, then which channels: (N, 512, 7, 7) -> (N, 512)."""
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sa = _places()
            gate = (nn.Linear(CHANNELS, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CHANNELS), nn.Sigmoid())
            self.ca = nn.ModuleDict({"attention": nn.Sequential(*gate)})

        def forward(self, x: Tensor) -> Tensor:
            pooled = (x * self.sa(x)).mean(dim=(2, 3))
            gated: Tensor = pooled * self.ca["attention"](pooled)
            return gated

    return Head()


def _places() -> nn.Module:
    """The map by which a head weighs places, the same for all channels: (N, 512, 7, 7) -> (N, 1, 7, 7)."""
    from torch import nn

    def convolution(before: int, after: int, height: int, width: int) -> nn.Module:
        padding = (height // 2, width // 2)
        return nn.Sequential(nn.Conv2d(before, after, (height, width), padding=padding), nn.BatchNorm2d(after))

    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1x1 = convolution(CHANNELS, CHANNELS // 2, 1, 1)
            self.conv_3x3 = convolution(CHANNELS // 2, CHANNELS, 3, 3)
            self.conv_1x3 = convolution(CHANNELS // 2, CHANNELS, 1, 3)
            self.conv_3x1 = convolution(CHANNELS // 2, CHANNELS, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv1x1(x)
            y = self.conv_3x3(y) + self.conv_1x3(y) + self.conv_3x1(y)
            places: Tensor = y.relu().sum(dim=1, keepdim=True)
            return places

    return Places()
