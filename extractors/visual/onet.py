"""The embedding that needs no download: MTCNN's third network, on the aligned face."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from extractors.contract import Float32, Kind, Runtime, UInt8
from extractors.threads import crew
from extractors.visual.crops import check_crops

INPUT_PX = 48  # what the network sees
# Pictures go through this many at a time, the last ones with black pictures added. Matrix products are summed in an order that
# depends on their shapes: of one shape always, a row's bits do not depend on how many others it came with.
STEP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ONetParams:
    """Nothing to choose."""


class ONet:
    """256 activations of O-Net (Zhang et al., arXiv 1604.02878, figure 2) after its last hidden layer's PReLU, before its heads.

    They were trained to tell a face, its box and its landmarks: enough for head pose and mouth shape, no match for a network that
    was trained on expressions. Row i depends on picture i only, on a processor to the last bit (see STEP).
    """

    name: ClassVar[str] = "onet"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = ONetParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    on_gpu: ClassVar[bool] = True
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = "facenet-pytorch 2.5.3 (weights in its wheel), github.com/timesler/facenet-pytorch"
    licence: ClassVar[str] = "MIT"

    dim: int = 256
    size_px: int = 112
    batch: int = 64

    def __init__(self, params: ONetParams, runtime: Runtime) -> None:
        import torch
        from facenet_pytorch.models.mtcnn import ONet as Network

        self.params = params
        self._device = torch.device(runtime.device)
        self._threads = runtime.threads if self._device.type == "cpu" else 1
        self._network = Network(pretrained=True).eval().requires_grad_(False).to(self._device)

    @staticmethod
    def reads(params: ONetParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    def embed(self, crops: UInt8) -> Float32:
        """(N, 112, 112, 3) uint8 RGB -> (N, 256) float32. The crop is averaged down to 48 x 48, then (x - 127.5) / 128."""
        check_crops(crops, self.size_px)
        starts = range(0, len(crops), STEP)
        parts = crew(self._threads).map(lambda start: self._forward(crops[start : start + STEP]), starts)
        return np.concatenate([np.zeros((0, self.dim), dtype=np.float32), *parts])

    def _forward(self, crops: UInt8) -> Float32:
        import torch
        from torch.nn.functional import interpolate

        padded = np.zeros((STEP, *crops.shape[1:]), dtype=np.uint8)
        padded[: len(crops)] = crops
        with torch.inference_mode(), _true_float32(self._device):
            pictures = torch.from_numpy(padded).to(self._device).permute(0, 3, 1, 2).float()
            seen = (interpolate(pictures, size=(INPUT_PX, INPUT_PX), mode="area") - 127.5) * 0.0078125
            return np.asarray(_activations(self._network, seen)[: len(crops)].cpu().numpy(), dtype=np.float32)


def _true_float32(device: Any) -> AbstractContextManager[Any]:
    """On a GPU, convolutions in float32 by a fixed algorithm: the default there is TF32, with 10 bits of mantissa."""
    if device.type != "cuda":
        return nullcontext()
    from torch.backends import cudnn

    return cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def _activations(network: Any, x: Any) -> Any:
    """(N, 3, 48, 48) normalised pictures -> (N, 256): the library's forward pass up to where its three heads begin."""
    x = network.pool1(network.prelu1(network.conv1(x)))
    x = network.pool2(network.prelu2(network.conv2(x)))
    x = network.pool3(network.prelu3(network.conv3(x)))
    x = network.prelu4(network.conv4(x))
    x = x.permute(0, 3, 2, 1).flatten(1)  # width, height, channel: the order in which the weights were converted from Caffe
    return network.prelu5(network.dense5(x))
