"""`timm:MODEL`: the pooled features of any image encoder that timm has, with that model's own preprocessing."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from extractors.contract import ExtractorError, Float32, Kind, Runtime, UInt8
from extractors.hub import Source, TimmFile
from extractors.networks import forward, place
from extractors.visual.crops import check_crops
from extractors.weights import FOLDER_TENSORS, Layout, load_strict

if TYPE_CHECKING:
    from torch import nn

Colour = tuple[float, float, float]
RESAMPLE = {"bilinear": "pil_bilinear", "bicubic": "pil_bicubic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimmModelParams:
    """How a picture is prepared. Each model's own values are its defaults, so that they are in the key whatever timm says later.

    size_px: what the network sees. crop_pct: it is the middle of a picture of size_px / crop_pct, rounded down. interpolation: with which
    that picture is made, as Pillow does. mean, std: of pixels from 0 to 1, subtracted and divided by.
    """

    size_px: int
    crop_pct: float
    interpolation: Literal["bilinear", "bicubic"]
    mean: Colour
    std: Colour
    fixed_px: ClassVar[int | None] = None  # the one size that the model can see

    def __post_init__(self) -> None:
        if self.fixed_px not in (None, self.size_px):
            raise ValueError(f"size_px: expected {self.fixed_px}, the only size of this model, got {self.size_px}")
        if not 16 <= self.size_px <= 2048:
            raise ValueError(f"size_px: expected 16 to 2048, got {self.size_px}")
        if not 0.25 <= self.crop_pct <= 1:
            raise ValueError(f"crop_pct: expected 0.25 to 1, got {self.crop_pct}")
        if self.interpolation not in RESAMPLE:
            raise ValueError(f"interpolation: expected {' or '.join(RESAMPLE)}, got {self.interpolation!r}")
        if not (len(self.mean) == 3 and all(0 <= value <= 1 for value in self.mean)):
            raise ValueError(f"mean: expected three numbers from 0 to 1, got {self.mean}")
        if not (len(self.std) == 3 and all(0 < value <= 1 for value in self.std)):
            raise ValueError(f"std: expected three numbers above 0, up to 1, got {self.std}")


@functools.cache
def timm_model(model: str) -> type:
    """The extractor class of one of timm's models, ARCHITECTURE or ARCHITECTURE.TAG (a tag names published weights).

    Raises ExtractorError where timm is not installed or has no such model, and for a model that sees no square colour pictures.
    """
    config = _config(model)
    sources = (
        TimmFile(config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else FOLDER_TENSORS) if config.hf_hub_id else None
    )
    classifiers = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())

    class TimmModel(_TimmModel):
        name: ClassVar[str] = f"timm:{model}"
        Params: ClassVar[type] = _params(model)
        origin: ClassVar[str] = (
            f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else "training it: timm publishes no weights"
        )
        licence: ClassVar[str] = f"{config.license} (timm)" if config.license else "that of the weights (timm names none)"
        layout: ClassVar[Layout] = Layout(dropped=tuple(f"{name}." for name in classifiers))

        @staticmethod
        def network(params: TimmModelParams) -> nn.Module:
            import timm

            made: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
            return made

        @staticmethod
        def hub(params: TimmModelParams) -> Source | None:
            return sources

    TimmModel.__doc__ = f"timm's {model} without its classifier."
    return TimmModel


class _TimmModel:
    """What the classes of all models share. Source: Wightman, "PyTorch image models", https://github.com/huggingface/pytorch-image-models."""

    version: ClassVar[int] = 2
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    name: ClassVar[str]
    layout: ClassVar[Layout]
    network: ClassVar[Any]
    batch = 64

    @staticmethod
    def reads(params: TimmModelParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    def __init__(self, params: TimmModelParams, runtime: Runtime) -> None:
        if runtime.weights is None:
            raise ValueError(f"{self.name}: expected a weight file, got none")
        # Not on the meta device: some models have buffers that no weight file holds, and these would stay without values.
        network = self.network(params)
        load_strict(network, runtime.weights, self.layout)
        # timm's name for the width of what comes before the classifier; num_features is less where layers follow the pooling
        self.dim = int(getattr(network, "head_hidden_size", None) or network.num_features)
        self.size_px = math.floor(params.size_px / params.crop_pct)
        self.resample = RESAMPLE[params.interpolation]
        self._mean: Float32 = np.asarray(params.mean, np.float32)
        self._std: Float32 = np.asarray(params.std, np.float32)
        self._network, self._runtime, self._inner_px = place(network, runtime), runtime, params.size_px

    def embed(self, crops: UInt8) -> Float32:
        """(N, size_px, size_px, 3) uint8 RGB -> (N, dim) float32: what the model's classifier would see."""
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        size = self._inner_px
        edge = round((self.size_px - size) / 2)
        inner = crops[:, edge : edge + size, edge : edge + size].astype(np.float32) / np.float32(255)
        scaled: Float32 = (inner - self._mean) / self._std
        values = forward(self._network, scaled.transpose(0, 3, 1, 2), self._runtime)
        if values.shape != (len(crops), self.dim):
            why = f"it gives {values.shape} for {len(crops)} pictures, expected ({len(crops)}, {self.dim})"
            raise ExtractorError(f"{self.name} cannot be used", why=why, fix="take a model with one pooled vector per picture")
        return values


@functools.cache
def _params(model: str) -> Any:
    """TimmModelParams with the model's own values as defaults."""
    config = _config(model)
    hints: dict[str, Any] = {
        "size_px": int,
        "crop_pct": float,
        "interpolation": Literal["bilinear", "bicubic"],
        "mean": Colour,
        "std": Colour,
    }
    defaults = {
        "size_px": int(config.input_size[1]),
        "crop_pct": float(config.crop_pct),
        "interpolation": config.interpolation,
        "mean": tuple(map(float, config.mean)),
        "std": tuple(map(float, config.std)),
    }
    space = {
        "fixed_px": defaults["size_px"] if config.fixed_input_size else None,
        "__module__": __name__,
        "__reduce__": functools.partialmethod(_reduced, model),
    }
    fields = [(name, hints[name], value) for name, value in defaults.items()]
    return dataclasses.make_dataclass("TimmModelParams", fields, bases=(TimmModelParams,), namespace=space, frozen=True, kw_only=True)


def _reduced(params: Any, model: str) -> tuple[Any, ...]:
    """How pickle takes the parameters to another process: their class is made there again."""
    return _restored, (model, {field.name: getattr(params, field.name) for field in dataclasses.fields(params)})


def _restored(model: str, values: dict[str, Any]) -> Any:
    return _params(model)(**values)


def _config(model: str) -> Any:
    """timm's record of the model: where its weights are and how pictures are prepared for it."""
    what = f"no model {model!r} in timm"
    try:
        import timm
    except ImportError as error:
        raise ExtractorError(f"timm:{model} cannot be made", why=str(error), fix="pip install 'affectpipe[hub]'") from error
    if not timm.is_model(model):
        from difflib import get_close_matches

        near = get_close_matches(model.partition(".")[0], timm.list_models(), n=3)
        raise ExtractorError(what, why=f"version {timm.__version__} has none", fix=f"did you mean {' or '.join(near)}?" if near else LIST)
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        known = timm.list_models(f"{model.partition('.')[0]}.*", pretrained=True)
        raise ExtractorError(what, why=str(error), fix=f"known: {', '.join(known)}" if known else "leave the tag out") from error
    if config is None:
        raise ExtractorError(what, why="timm says nothing of its preprocessing", fix=LIST)
    channels, height, width = config.input_size
    if channels != 3 or height != width or config.interpolation not in RESAMPLE:
        why = f"it sees pictures of {config.input_size}, resized with {config.interpolation}"
        raise ExtractorError(f"timm:{model} cannot be used", why=why, fix="take a model of square colour pictures, bilinear or bicubic")
    return config


LIST = "see timm.list_models()"
