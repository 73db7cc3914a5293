"""The IR-50 of the ABAW systems of sucv and RJCMA: 512 numbers of unit length from a small picture of a face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from extractors.contract import Float32, Kind, Runtime, UInt8
from extractors.networks import forward, loaded, place
from extractors.visual.crops import check_crops, normalised
from extractors.weights import HEADS, Layout, beside

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT_PX = 40  # of the crop's 48: its centre is what the network sees
STAGES = ((64, 3, 1), (128, 4, 2), (256, 14, 2), (512, 3, 2))  # channels, residual units, stride of the first of them
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ir50Params:
    """None: the definition is fixed."""


class Ir50:
    """IR-50 with a first stage that keeps the picture's size, on the central 40 of 48 pixels. The embedding has length 1.

    It is not insightface's IResNet-50: another residual unit, other strides, other names (see `iresnet50`).

    Source: Deng et al., "ArcFace: additive angular margin loss for deep face recognition", CVPR 2019; input and output as in
    Zhang et al., "Continuous emotion recognition using visual-audio-linguistic information", CVPRW 2022.
    """

    name: ClassVar[str] = "ir50"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = Ir50Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "res50_ir_0.887.pth, linked in the ReadMe of https://github.com/sucv/ABAW3"
    licence: ClassVar[str] = "unstated (the file is published without terms)"
    layout: ClassVar[Layout] = Layout(converted=beside(*HEADS), dropped=HEADS)
    dim = 512
    size_px = 48
    resample = "pil_bicubic"  # Pillow's default, with which the published preprocessing makes 48 of 112 pixels
    batch = 64

    @staticmethod
    def reads(params: Ir50Params) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @staticmethod
    def network(params: Ir50Params) -> nn.Module:
        return build()

    def __init__(self, params: Ir50Params, runtime: Runtime) -> None:
        self._network, self._runtime = place(loaded(self, params, runtime), runtime), runtime

    def embed(self, crops: UInt8) -> Float32:
        """(N, 48, 48, 3) uint8 RGB -> (N, 512) float32 of length 1. Of the central 40 x 40 pixels, each as (x / 255 - 0.5) / 0.5."""
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        inside = slice((self.size_px - INPUT_PX) // 2, (self.size_px + INPUT_PX) // 2)
        values = forward(self._network, normalised(crops[:, inside, inside], HALF, HALF), self._runtime)
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def build() -> nn.Module:
    """The network, untrained, up to before its output is scaled to unit length, with the published names for its tensors."""
    from torch import nn

    units: list[nn.Module] = []
    before = 64
    for width, count, stride in STAGES:
        units += [_unit(before, width, stride), *(_unit(width, width, 1) for _ in range(count - 1))]
        before = width

    class Ir(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
            self.body = nn.Sequential(*units)
            side = INPUT_PX // 8
            embedding: Any = (nn.Linear(512 * side * side, 512), nn.BatchNorm1d(512))
            self.output_layer = nn.Sequential(nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), *embedding)

        def forward(self, x: Tensor) -> Tensor:
            embedding: Tensor = self.output_layer(self.body(self.input_layer(x)))
            return embedding

    return Ir()


def _unit(before: int, width: int, stride: int) -> nn.Module:
    """A residual unit: normalise, convolve, PReLU, convolve with the stride, normalise; and the way around it, which only takes every
    `stride`-th pixel where the channels stay as many."""
    from torch import nn

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            around = (nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.shortcut_layer = nn.MaxPool2d(1, stride) if before == width else nn.Sequential(*around)
            self.res_layer = nn.Sequential(
                nn.BatchNorm2d(before),
                nn.Conv2d(before, width, 3, padding=1, bias=False),
                nn.PReLU(width),
                nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
            )

        def forward(self, x: Tensor) -> Tensor:
            total: Tensor = self.res_layer(x) + self.shortcut_layer(x)
            return total

    return Unit()
