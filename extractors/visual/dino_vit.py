"""DINO's vision transformers: 384 or 768 numbers, learnt from pictures without labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from extractors.contract import ExtractorError, Float32, Kind, Runtime, UInt8
from extractors.hub import SavedModel, Source
from extractors.networks import forward, loaded, place
from extractors.registry import require
from extractors.visual.crops import IMAGENET_MEAN, IMAGENET_STD, check_crops, normalised
from extractors.weights import Layout, State, facts

if TYPE_CHECKING:
    from torch import nn

require("timm")

HALF = (0.5, 0.5, 0.5)
STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "half": (HALF, HALF)}
# Beginnings of names, Hugging Face's published ones and those that transformers 5 has in memory, and timm's, which are DINO's own.
NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (r"layers\.(\d+)\.attention\.q_proj\.", r"blocks.\1.attn.query."),
    (r"layers\.(\d+)\.attention\.k_proj\.", r"blocks.\1.attn.key."),
    (r"layers\.(\d+)\.attention\.v_proj\.", r"blocks.\1.attn.value."),
    (r"(?:encoder\.layer\.(\d+)\.attention\.output\.dense|layers\.(\d+)\.attention\.o_proj)\.", r"blocks.\1\2.attn.proj."),
    (r"(?:encoder\.layer\.(\d+)\.intermediate\.dense|layers\.(\d+)\.mlp\.fc1)\.", r"blocks.\1\2.mlp.fc1."),
    (r"(?:encoder\.layer\.(\d+)\.output\.dense|layers\.(\d+)\.mlp\.fc2)\.", r"blocks.\1\2.mlp.fc2."),
    (r"layernorm\.", "norm."),
)
QUERY = re.compile(r"(blocks\.\d+\.attn\.)query\.(weight|bias)")
WITHIN = ("backbone.", "vit.")  # before the network's own names where heads stand beside it
HEADS = ("head.", "pooler.", "classifier.", "fc.")


@dataclass(frozen=True, slots=True)
class Shape:
    """What Hugging Face's config.json calls these."""

    hidden_size: int
    num_attention_heads: int
    patch_size: int
    hidden_act: str = "gelu"


SHAPES = {"s16": Shape(384, 6, 16), "s8": Shape(384, 6, 8), "b16": Shape(768, 12, 16), "b8": Shape(768, 12, 8)}


def timm_named(state: State) -> State:
    """Tensors under Hugging Face's, DINO's or timm's names -> under timm's, without what stands beside the network."""
    import torch

    within = next((prefix for prefix in WITHIN if any(key.startswith(prefix) for key in state)), "")
    renamed = {_timm_name(key.removeprefix(within)): value for key, value in state.items()}
    for key in list(renamed):
        if not (query := QUERY.fullmatch(key)):
            continue
        parts = [f"{query[1]}{part}.{query[2]}" for part in ("query", "key", "value")]
        if lacking := [part for part in parts if part not in renamed]:
            raise ValueError(f"of an attention's query, key and value, {', '.join(lacking)} is missing")
        renamed[f"{query[1]}qkv.{query[2]}"] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _timm_name(key: str) -> str:
    for published, own in NAMES:
        if match := re.match(published, key):
            return match.expand(own) + key[match.end() :]
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoVitParams:
    """size: small or base, by patches of 16 or 8 pixels. normalisation: pixels by ImageNet's mean and deviation, as DINO was trained, or
    (x - 0.5) / 0.5, as the first preprocessor_config.json beside Hugging Face's copy has it."""

    size: Literal["s16", "s8", "b16", "b8"] = "s16"
    normalisation: Literal["imagenet", "half"] = "imagenet"


class DinoVit:
    """The class token after the final layer norm of a vision transformer, as timm has it (layer norm eps 1e-6, GELU by erf).

    warnings: of a saved model's folder, that its preprocessor normalises otherwise than asked.
    Source: Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021, section 3.
    """

    name: ClassVar[str] = "dino_vit"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = DinoVitParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    origin: ClassVar[str] = "https://github.com/facebookresearch/dino or https://huggingface.co/facebook/dino-vits16 (vits8, vitb16, vitb8)"
    licence: ClassVar[str] = "Apache-2.0"
    # argparse.Namespace: the options of the training run, in DINO's full checkpoints.
    layout: ClassVar[Layout] = Layout(classes=("argparse.Namespace",), converted=timm_named, dropped=HEADS)
    size_px = 224
    batch = 64
    resample = "pil_bicubic"  # as in DINO's own evaluation and in timm; Hugging Face's processor takes bilinear

    @staticmethod
    def reads(params: DinoVitParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @staticmethod
    def hub(params: DinoVitParams) -> Source:
        return SavedModel(f"facebook/dino-vit{params.size}")

    @staticmethod
    def network(params: DinoVitParams) -> nn.Module:
        import timm

        kind = {"s": "small", "b": "base"}[params.size[0]]
        network: nn.Module = timm.create_model(f"vit_{kind}_patch{params.size[1:]}_224", pretrained=False, num_classes=0)
        return network

    def __init__(self, params: DinoVitParams, runtime: Runtime) -> None:
        self.warnings: list[str] = []
        if runtime.weights is not None and runtime.weights.is_dir():
            _check_config(runtime.weights, params)
            self.warnings += _disagreements(runtime.weights, params)
        self._network, self._runtime, self._params = place(loaded(self, params, runtime), runtime), runtime, params
        self.dim = SHAPES[params.size].hidden_size

    def embed(self, crops: UInt8) -> Float32:
        """(N, 224, 224, 3) uint8 RGB -> (N, 384 or 768) float32."""
        check_crops(crops, self.size_px)
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        mean, std = STATISTICS[self._params.normalisation]
        return forward(self._network, normalised(crops, mean, std), self._runtime)


def _check_config(folder: Path, params: DinoVitParams) -> None:
    """Raises ExtractorError unless the folder's config.json is of this size. The number of heads shows in no tensor."""
    expected, config = SHAPES[params.size], facts(folder, "config.json")
    known = {name: getattr(expected, name) for name in Shape.__slots__ if name in config}
    if unlike := [f"{name} {config[name]!r}, expected {value!r}" for name, value in known.items() if config[name] != value]:
        why = f"its config.json has {'; '.join(unlike)} for size {params.size!r}"
        raise ExtractorError(f"weights {folder} cannot be loaded", why=why, fix="give another size, or the folder of a DINO ViT")


def _disagreements(folder: Path, params: DinoVitParams) -> list[str]:
    said: Any = facts(folder, "preprocessor_config.json")
    theirs = (said.get("image_mean"), said.get("image_std"))
    ours = tuple(list(values) for values in STATISTICS[params.normalisation])
    if None in theirs or theirs == ours:
        return []
    text = f"image_mean {theirs[0]} and image_std {theirs[1]}, but normalisation {params.normalisation!r} is {ours[0]} and {ours[1]}"
    return [f"{folder.name}: its preprocessor_config.json has {text}"]
