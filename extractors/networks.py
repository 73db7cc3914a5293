"""Placing a network on its device in its precision, and running one batch through it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.contract import Float32, FloatArray, Runtime
from extractors.protocols import WeightedExtractor
from extractors.weights import load_strict

if TYPE_CHECKING:
    from torch import nn


def loaded(extractor: WeightedExtractor, params: Any, runtime: Runtime) -> Any:
    """The extractor's network with the tensors of the runtime's weight file. Raises ExtractorError where they do not fit."""
    return filled(extractor, lambda: extractor.network(params), runtime)


def filled(extractor: WeightedExtractor, make: Callable[[], nn.Module], runtime: Runtime) -> Any:
    """As `loaded`, for a network whose shape depends on more than the parameters."""
    import torch

    weights = weight_file(extractor, runtime)
    with torch.device("meta"):
        network = make()
    load_strict(network, weights, extractor.layout)
    return network


def weight_file(extractor: WeightedExtractor, runtime: Runtime) -> Path:
    if runtime.weights is None:
        raise ValueError(f"{extractor.name}: expected a weight file, got none")
    return runtime.weights


def place(network: nn.Module, runtime: Runtime) -> nn.Module:
    """The network ready to infer: on the runtime's device, its floating tensors in the runtime's precision, in eval mode."""
    import torch

    dtype: torch.dtype = getattr(torch, runtime.precision)
    return network.eval().requires_grad_(False).to(runtime.device, dtype)


def forward(network: nn.Module, batch: FloatArray, runtime: Runtime) -> Float32:
    """One batch through a placed network. batch: (N, ...) floating; returns (N, D) float32 whatever the precision.

    On a GPU, convolutions in float32 are really done in float32: torch's default for them is TF32, with 10 bits of mantissa,
    and then "float32" in a key would not say what the values are.
    """
    import torch

    dtype: torch.dtype = getattr(torch, runtime.precision)
    on_gpu = torch.device(runtime.device).type == "cuda"
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if on_gpu and dtype == torch.float32 else nullcontext()
    with torch.inference_mode(), exact:
        inputs = torch.from_numpy(np.ascontiguousarray(batch)).to(runtime.device, dtype)
        output: Float32 = network(inputs).float().cpu().numpy()
    return output
