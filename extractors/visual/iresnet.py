"""The ArcFace networks of 18, 34, 50 and 100 layers: 512 numbers that say who is seen (or, with other weights, which expression)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from extractors.contract import Float32, Kind, Runtime, UInt8
from extractors.networks import forward, loaded, place
from extractors.visual.crops import check_crops
from extractors.weights import HEADS, Layout, beside

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)  # channels of the four stages
Blocks = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class IResNetParams:
    """None: the definition is fixed."""


class _IResNet:
    """An IResNet in the layout of insightface's arcface_torch checkpoints. The embedding is raw: not of unit length.

    Of a network that was fine-tuned with a classifier behind it, whatever that is called, the classifier is left out.

    Source: Deng et al., "ArcFace: additive angular margin loss for deep face recognition", CVPR 2019, section 3.1, after
    Han et al., "Deep pyramidal residual networks", CVPR 2017 (the residual unit).
    """

    name: ClassVar[str]
    blocks: ClassVar[Blocks]  # residual units per stage
    version: ClassVar[int] = 2
    Params: ClassVar[type] = IResNetParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "the model zoo of https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch"
    licence: ClassVar[str] = "non-commercial research (insightface's trained models)"
    dim = 512
    size_px = 112
    batch = 64

    # The embedding's own layer is called fc, and so may a classifier be that stands beside the network.
    layout: ClassVar[Layout] = Layout(converted=beside(*HEADS, "fc."), dropped=HEADS)

    @staticmethod
    def reads(params: IResNetParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @classmethod
    def network(cls, params: IResNetParams) -> nn.Module:
        return build(cls.blocks)

    def __init__(self, params: IResNetParams, runtime: Runtime) -> None:
        self._network, self._runtime = place(loaded(self, params, runtime), runtime), runtime

    def embed(self, crops: UInt8) -> Float32:
        """(N, 112, 112, 3) uint8 RGB, aligned to the ArcFace template -> (N, 512) float32. Pixels enter as (x - 127.5) / 127.5."""
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        scaled = (crops.astype(np.float32) - 127.5) / 127.5
        return forward(self._network, scaled.transpose(0, 3, 1, 2), self._runtime)


class IResNet18(_IResNet):
    """IResNet-18."""

    name = "iresnet18"
    blocks = (2, 2, 2, 2)


class IResNet34(_IResNet):
    """IResNet-34."""

    name = "iresnet34"
    blocks = (3, 4, 6, 3)


class IResNet50(_IResNet):
    """IResNet-50."""

    name = "iresnet50"
    blocks = (3, 4, 14, 3)


class IResNet100(_IResNet):
    """IResNet-100."""

    name = "iresnet100"
    blocks = (3, 13, 30, 3)


def build(blocks: Blocks) -> nn.Module:
    """The network, untrained, of so many residual units per stage, with insightface's names for its tensors."""
    from torch import nn

    class IResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.prelu = nn.PReLU(64)
            for i, (before, width, units) in enumerate(zip((64, *WIDTHS), WIDTHS, blocks, strict=False)):
                made = [_unit(before, width, 2), *(_unit(width, width, 1) for _ in range(units - 1))]
                self.add_module(f"layer{i + 1}", nn.Sequential(*made))
            self.bn2 = nn.BatchNorm2d(512)
            self.fc = nn.Linear(512 * 7 * 7, 512)
            self.features = nn.BatchNorm1d(512)

        def forward(self, x: Tensor) -> Tensor:
            x = self.prelu(self.bn1(self.conv1(x)))
            for i in range(len(WIDTHS)):
                x = self.get_submodule(f"layer{i + 1}")(x)
            embedding: Tensor = self.features(self.fc(self.bn2(x).flatten(1)))
            return embedding

    return IResNet()


def _unit(before: int, width: int, stride: int) -> nn.Module:
    """A residual unit: normalise, convolve, normalise, PReLU, convolve with the stride, normalise; and the way around it."""
    from torch import nn

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn1 = nn.BatchNorm2d(before)
            self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.prelu = nn.PReLU(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
            self.bn3 = nn.BatchNorm2d(width)
            around = (nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.downsample = nn.Sequential(*around) if stride > 1 or before != width else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            inner = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
            total: Tensor = self.bn3(inner) + self.downsample(x)
            return total

    return Unit()
