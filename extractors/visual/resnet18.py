"""ResNet-18: 512 numbers of a face by a network that was trained on expressions, or its own scores of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from extractors.contract import Float32, Kind, Runtime, UInt8
from extractors.hub import Source, TorchvisionFile
from extractors.networks import filled, forward, place, weight_file
from extractors.visual.crops import IMAGENET_MEAN, IMAGENET_STD, check_crops, normalised
from extractors.weights import HEADS, Layout, beside, rows_of

if TYPE_CHECKING:
    from torch import nn

Output = Literal["features", "logits"]
CLASSES = 8  # of AffectNet: what the network has where no file says otherwise
OWN_HEADS = ("fc.", *HEADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet18Params:
    """output: the 512 means over the last feature map, or what the file's own classifier `fc` makes of them: a score per class,
    before any softmax."""

    output: Output = "features"

    def __post_init__(self) -> None:
        if self.output not in get_args(Output):
            raise ValueError(f"output: expected one of {', '.join(get_args(Output))}, got {self.output!r}")


class ResNet18:
    """torchvision's ResNet-18, whose names timm's files and those of most repositories have too.

    Its classifier may have any number of classes: with "logits" `dim` is what the file has, with "features" it is left out, whatever
    it is called.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016, table 1.
    """

    name: ClassVar[str] = "resnet18"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = ResNet18Params
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "your own training on AffectNet, or any file of torchvision's or timm's resnet18; none is published for affect"
    licence: ClassVar[str] = "that of the weights and of what they were trained on"
    layout: ClassVar[Layout] = Layout(converted=beside(*OWN_HEADS), dropped=OWN_HEADS)
    dim = 512
    size_px = 224
    resample = "pil_bilinear"  # torchvision's Resize of a PIL image
    batch = 64

    @staticmethod
    def reads(params: ResNet18Params) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @staticmethod
    def hub(params: ResNet18Params) -> Source:
        return TorchvisionFile("resnet18-f37072fd.pth")

    @staticmethod
    def network(params: ResNet18Params) -> nn.Module:
        return build(CLASSES if params.output == "logits" else None)

    def __init__(self, params: ResNet18Params, runtime: Runtime) -> None:
        classes = rows_of(weight_file(self, runtime), "fc.weight", self.layout) if params.output == "logits" else None
        self.dim = classes or self.dim
        self._network, self._runtime = place(filled(self, lambda: build(classes), runtime), runtime), runtime

    def embed(self, crops: UInt8) -> Float32:
        """(N, 224, 224, 3) uint8 RGB -> (N, 512) float32, or (N, classes). Pixels enter with ImageNet's mean and deviation."""
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        return forward(self._network, normalised(crops, IMAGENET_MEAN, IMAGENET_STD), self._runtime)


def build(classes: int | None) -> nn.Module:
    """The network, untrained, with a classifier of so many classes or none."""
    from torch import nn
    from torchvision.models import resnet18

    network: nn.Module = resnet18(weights=None, num_classes=classes or 1)
    if classes is None:
        network.fc = nn.Identity()
    return network
