"""Placing a network on its device in its precision, and running one batch through it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.contract import Float32, FloatArray, Runtime
from extractors.layers import divided
from extractors.protocols import WeightedExtractor
from extractors.threads import crew, one_torch_thread
from extractors.weights import load_strict

if TYPE_CHECKING:
    from torch import nn

# Rows of a batch that go through a network at once on a processor: enough to use it well, and few enough for its caches and for a
# batch of 64 to keep eight threads busy.
PART = 8


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


def forward(network: nn.Module, batch: FloatArray, runtime: Runtime, *, part: int = PART) -> Float32:
    """One batch through a placed network. batch: (N, ...) floating; returns (N, D) float32 whatever the precision.

    On a processor so many rows at a time as `part` says go through it, each part in one thread, and as many parts at once as the runtime
    has threads: so neither their number nor the batch's decides a bit (docs/decisions/016-threads-decide-no-bit.md).

    On a GPU, the whole batch, and convolutions in float32 are really done in float32: torch's default for them is TF32, with 10 bits of
    mantissa, and then "float32" in a key would not say what the values are.
    """
    if not on_processor(runtime):
        with _true_float32(runtime):
            return _through(network, batch, runtime)
    parts = [batch[start : start + part] for start in range(0, max(len(batch), 1), part)]
    return np.concatenate(crew(runtime.threads).map(lambda some: _through(network, some, runtime), parts))


def forward_whole(network: nn.Module, batch: FloatArray, runtime: Runtime) -> Float32:
    """As `forward`, for a batch of one long sequence: on a processor its layers are divided among the threads, in parts of fixed size."""
    if not on_processor(runtime):
        return forward(network, batch, runtime)
    with one_torch_thread(), divided(crew(runtime.threads).map):
        return _through(network, batch, runtime)


def on_processor(runtime: Runtime) -> bool:
    import torch

    return torch.device(runtime.device).type == "cpu"


def _through(network: nn.Module, batch: FloatArray, runtime: Runtime) -> Float32:
    import torch

    with torch.inference_mode():
        # A copy, in memory of torch's own: where an array of NumPy's begins differs from run to run, and may decide which kernel is taken.
        inputs = torch.from_numpy(np.ascontiguousarray(batch)).to(runtime.device, getattr(torch, runtime.precision), copy=True)
        output: Float32 = network(inputs).float().cpu().numpy()
    return output


def _true_float32(runtime: Runtime) -> AbstractContextManager[Any]:
    from torch.backends import cudnn

    return cudnn.flags(enabled=True, allow_tf32=False) if runtime.precision == "float32" else nullcontext()
