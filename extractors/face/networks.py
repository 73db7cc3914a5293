"""P-, R- and O-Net with facenet-pytorch's weights, ready to run: compiled by OpenVINO on a processor, torch's own modules elsewhere.

The three are so small that on a processor torch spends most of its time between layers: OpenVINO runs them 1.5 to 2.5 times as fast,
and equals them within 2e-6 (docs/decisions/010-our-own-cascade.md).
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# (K, 3, h, w) float32 from -1 to 1 -> how boxes move, landmarks (O-Net only) and (K, 2, ...) probabilities, float32. Threads may share it.
Network = Callable[["Tensor"], "tuple[Tensor, ...]"]

# Of each network: copies, and numbers in the largest inputs that they saw. What a copy takes grows with these.
COPIES = 24
INPUT_VALUES = 1 << 20
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    pnet: Network
    rnet: Network
    onet: Network


def load_networks(device: str, precision: str) -> Networks:
    """The weights are those in facenet-pytorch's wheel."""
    import torch
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    if torch.device(device).type == "cpu" and precision == "float32":
        return Networks(pnet=_compiled(PNet(), None), rnet=_compiled(RNet(), 24), onet=_compiled(ONet(), 48))
    dtype = getattr(torch, precision)

    def placed(network: Any) -> Network:
        network = network.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)
        return lambda pixels: tuple(out.float() for out in network(pixels.to(dtype, memory_format=torch.channels_last)))

    return Networks(pnet=placed(PNet()), rnet=placed(RNet()), onet=placed(ONet()))


def _compiled(network: Any, side_px: int | None) -> Network:
    """side_px: of what it is given, None for any."""
    import torch

    openvino = _openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        # By default each process binds its threads to the first cores: two workers would share one and leave another idle.
        "ENABLE_CPU_PINNING": False,
    }
    core = _core()
    exported = core.compile_model(_graph(network, side_px or -1), "CPU", settings).export_model()
    requests = _Requests(lambda: core.import_model(exported, "CPU", settings).create_infer_request())

    def run(pixels: Tensor) -> tuple[Tensor, ...]:
        with requests.lent(tuple(pixels.shape)) as request:
            request.set_input_tensor(openvino.Tensor(pixels.numpy(), shared_memory=True))
            return tuple(torch.from_numpy(out) for out in request.infer().values())

    return run


@dataclass(slots=True, eq=False)
class _Copy:
    """A compiled copy of a network. shape: of the input that it saw last; values: of the largest, which decides what it takes."""

    request: Any
    shape: tuple[int, ...] = ()
    values: int = 0


class _Requests:
    """Compiled copies of one network, each for one caller at a time: if there is one, the copy that saw an input of this shape last.

    To see another shape takes a copy longer than a small network does. make: another copy, 5 ms.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._idle: list[_Copy] = []  # whose last use is the longest ago is the first

    @contextlib.contextmanager
    def lent(self, shape: tuple[int, ...]) -> Iterator[Any]:
        copy = self._taken(shape) or _Copy(self._make())
        try:
            yield copy.request
        finally:
            copy.shape, copy.values = shape, max(copy.values, math.prod(shape))
            with self._lock:
                self._idle.append(copy)

    def _taken(self, shape: tuple[int, ...]) -> _Copy | None:
        """Where no copy knows the shape, and no other is to be made, one that does not grow by it."""
        values = math.prod(shape)
        with self._lock:
            known = [copy for copy in self._idle if copy.shape == shape][-1:]
            room = len(self._idle) < COPIES and sum(copy.values for copy in self._idle) + values <= INPUT_VALUES
            if not self._idle or (room and not known):
                return None
            taken = next(iter(known + [copy for copy in self._idle if copy.values >= values] + self._idle))
            self._idle.remove(taken)
            return taken


def _core() -> Any:
    """OpenVINO's, one for the process and never ended. Each gives the thread that makes it a stack to hear signals on (SigAltStackSetup
    in its CPU plugin), and ends by taking that away, from under a thread that still uses it: the next signal that Python listens to, that
    a child has ended, say, would be written over whatever lies there by then."""
    with _one_at_a_time:
        return _new_core()


@cache
def _new_core() -> Any:
    return _openvino().Core()


def _openvino() -> Any:
    """OpenVINO, without its telemetry: importing it would tell Google Analytics so, from whatever machine this is."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # None forbids an import, and OpenVINO then does without
    import openvino

    return openvino


def _graph(network: Any, side_px: int) -> Any:
    """The module's layers as an OpenVINO model. What is after the trunk has a `_` in its name: softmax4_1 reads dense4_1, and so on."""
    import numpy as np
    from openvino import Model, opset13

    trunk = pixels = opset13.parameter([-1, 3, side_px, side_px], np.float32)
    heads: dict[str, Any] = {}
    for name, layer in network.named_children():
        if "_" not in name:
            trunk = _layer(layer, trunk)
        elif name.startswith("softmax"):
            heads["prob"] = opset13.softmax(heads["prob"], axis=1)
        else:
            heads[{"1": "prob", "2": "moves", "3": "points"}[name[-1]]] = _layer(layer, trunk)
    return Model([heads[name] for name in ("moves", "points", "prob") if name in heads], [pixels])


def _layer(layer: Any, x: Any) -> Any:
    import numpy as np
    from openvino import opset13
    from torch import nn

    values: dict[str, Any] = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    if isinstance(layer, nn.Conv2d):
        out = opset13.convolution(x, values["weight"], [1, 1], [0, 0], [0, 0], [1, 1])
        return opset13.add(out, values["bias"][None, :, None, None])
    if isinstance(layer, nn.PReLU):
        return opset13.prelu(x, values["weight"])
    if isinstance(layer, nn.MaxPool2d):
        stride, size = [layer.stride] * 2, [layer.kernel_size] * 2
        return opset13.max_pool(x, stride, [1, 1], [0, 0], [0, 0], size, rounding_type="ceil").output(0)
    if isinstance(layer, nn.Linear):
        if len(x.get_output_partial_shape(0)) == 4:  # width before height before channels, as the weights were trained
            x = opset13.reshape(opset13.transpose(x, np.array([0, 3, 2, 1])), np.array([0, -1]), special_zero=True)
        return opset13.add(opset13.matmul(x, values["weight"], False, True), values["bias"])
    raise TypeError(f"{type(layer).__name__}: not a layer of MTCNN")
