"""EmotiEffLib's EfficientNets, trained on faces and then on AffectNet: 1280 or 1408 numbers, or the expressions themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from extractors.contract import ExtractorError, Float32, Kind, Runtime, UInt8
from extractors.networks import forward, loaded, place
from extractors.protocols import WeightedExtractor
from extractors.registry import require
from extractors.visual.crops import IMAGENET_MEAN, IMAGENET_STD, check_crops, normalised
from extractors.weights import Layout, load_state

if TYPE_CHECKING:
    from torch import nn

require("timm")

ORIGIN = "https://github.com/sb-ai-lab/EmotiEffLib/tree/main/models/affectnet_emotions"
LICENCE = "Apache-2.0 (EmotiEffLib; trained on VGGFace2 and AffectNet)"
EMOTIONS = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
# By the number of a file's outputs, what they are (EmotiEffLib's facial_analysis.py).
OUTPUTS = {7: tuple(name for name in EMOTIONS if name != "Contempt"), 8: EMOTIONS, 10: (*EMOTIONS, "valence", "arousal")}
# The published files are whole modules, pickled by timm 0.4 to 0.9, which called its own modules otherwise.
PICKLED = {
    ("builtins",): ("set",),
    ("timm.models.efficientnet",): ("EfficientNet",),
    ("timm.models._efficientnet_blocks", "timm.models.efficientnet_blocks"): (
        "DepthwiseSeparableConv",
        "InvertedResidual",
        "SqueezeExcite",
    ),
    ("timm.layers", "timm.models.layers"): (
        "adaptive_avgmax_pool.SelectAdaptivePool2d",
        "conv2d_same.Conv2dSame",
        "norm_act.BatchNormAct2d",
    ),
    ("torch.nn.modules",): (
        "activation.SiLU",
        "activation.Sigmoid",
        "batchnorm.BatchNorm2d",
        "container.Sequential",
        "conv.Conv2d",
        "flatten.Flatten",
        "linear.Identity",
        "linear.Linear",
        "pooling.AdaptiveAvgPool2d",
    ),
}
CLASSES = tuple(f"{module}.{name}" for modules, names in PICKLED.items() for module in modules for name in names)
EPS = 1e-3  # of the tf_ variants' batch norms


def _not_tf(module: Any) -> str:
    """Of a pickled network: its tensors alone do not tell the two variants apart."""
    eps = getattr(getattr(module, "bn1", None), "eps", EPS)
    return (
        "" if eps == EPS else f"it is timm's plain EfficientNet (batch norms of eps {eps:g}), not the tf_ variant, which pads otherwise too"
    )


LAYOUT = Layout(classes=CLASSES, unlike=_not_tf, dropped=("classifier.",))


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientNetParams:
    """output: the pooled features, or what the file's classifier makes of them (before any softmax)."""

    output: Literal["features", "logits"] = "features"


class _EfficientNet:
    """What both sizes share. model: timm's name of the network; features: how many are pooled."""

    version: ClassVar[int] = 2
    Params: ClassVar[type] = EfficientNetParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = ORIGIN
    licence: ClassVar[str] = LICENCE
    layout: ClassVar[Layout] = LAYOUT
    name: ClassVar[str]
    model: ClassVar[str]
    features: ClassVar[int]
    size_px: int
    batch = 64
    resample = "pil_bilinear"  # EmotiEffLib's torchvision Resize of a PIL image

    @staticmethod
    def reads(params: EfficientNetParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @classmethod
    def network(cls, params: EfficientNetParams) -> nn.Module:
        return build(cls.model)

    def __init__(self, params: EfficientNetParams, runtime: Runtime) -> None:
        self._network, self._runtime = place(_with_outputs(self, params, runtime), runtime), runtime
        self.columns = _columns(self._network)
        self.dim = len(self.columns) or self.features

    def embed(self, crops: UInt8) -> Float32:
        """(N, size_px, size_px, 3) uint8 RGB -> (N, features) float32, or (N, 7, 8 or 10) logits. Pixels by ImageNet's mean and
        deviation."""
        return _embedded(self, crops, self._network, self._runtime)


class EfficientNetB0(_EfficientNet):
    """EfficientNet-B0 as EmotiEffLib has it: timm's `tf_` variant, which pads as TensorFlow does and has batch norms of eps 1e-3.

    timm's plain `efficientnet_b0` takes the same tensors and computes something else.
    Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, table 1; training as in
    Savchenko, "Facial expression and attributes recognition based on multi-task learning of lightweight neural networks", SISY 2021.
    """

    name, model, features, size_px = "efficientnet_b0", "tf_efficientnet_b0", 1280, 224


class EfficientNetB2(_EfficientNet):
    """EfficientNet-B2 as EmotiEffLib has it: timm's `tf_` variant, as above. 1408 features: "1280 of B2" in a paper means B0."""

    name, model, features, size_px = "efficientnet_b2", "tf_efficientnet_b2", 1408, 260


class _Shaped(Protocol):
    dim: int
    size_px: int


def build(model: str) -> nn.Module:
    """timm's network of that name, untrained, up to the pooled features."""
    import timm

    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
    return network


def _with_outputs(extractor: WeightedExtractor, params: EfficientNetParams, runtime: Runtime) -> Any:
    """The network with its tensors, and for logits with the classifier that the file has."""
    network = loaded(extractor, params, runtime)
    if params.output == "logits" and runtime.weights is not None:
        network.classifier = _classifier(runtime.weights, network.num_features)
    return network


def _classifier(path: Path, features: int) -> nn.Module:
    """The file's `classifier`, or the one layer of its Sequential. Raises ExtractorError unless its outputs are known ones."""
    from torch import nn

    state = load_state(path, classes=CLASSES)
    found = {key: value for key, value in state.items() if key.startswith("classifier.")}
    layer = {key.removeprefix("classifier.").removeprefix("0."): value for key, value in found.items()}
    shapes = {key: tuple(value.shape) for key, value in layer.items()}
    n = len(layer["bias"]) if shapes.get("bias") else 0
    if n not in OUTPUTS or len(found) != 2 or shapes != {"weight": (n, features), "bias": (n,)}:
        got = ", ".join(f"{key} {tuple(value.shape)}" for key, value in found.items()) or "none"
        why = f"for output 'logits' its classifier must be one layer of {features} inputs and 7, 8 or 10 outputs, and it has {got}"
        raise ExtractorError(f"weights {path} cannot be loaded", why=why, fix="give a file of EmotiEffLib, or take output 'features'")
    made = nn.Linear(features, n, device="meta")
    made.load_state_dict(layer, strict=True, assign=True)
    return made


def _columns(network: Any) -> tuple[str, ...]:
    """What the outputs are called; features have no names."""
    return OUTPUTS.get(getattr(network.classifier, "out_features", 0), ())


def _embedded(extractor: _Shaped, crops: UInt8, network: nn.Module, runtime: Runtime) -> Float32:
    check_crops(crops, extractor.size_px)
    if not len(crops):
        return np.empty((0, extractor.dim), np.float32)
    return forward(network, normalised(crops, IMAGENET_MEAN, IMAGENET_STD), runtime)
