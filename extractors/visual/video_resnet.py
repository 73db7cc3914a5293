"""Residual networks with convolutions in time: what is seen in clips of faces, as 512 numbers or as a map of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from extractors.contract import Bool, Clips, Float32, Kind, Runtime, UInt8
from extractors.hub import Source, TorchvisionFile
from extractors.networks import forward, loaded, place
from extractors.visual.clips import Anchor, ClipWindow, check_clips
from extractors.weights import Layout, State

SIZE_PX = 112
CHANNELS = 512
PLACES = 7 * 7  # of the last layer's map, for pictures of 112 pixels
SHRINKS = 8  # the last layer has one step in time for so many pictures
PICTURES_AT_ONCE = 128  # in a batch of clips: some 800 MB of activations on a GPU
PICTURES_IN_PART = 16  # of a batch, on a processor
MEAN = np.array([0.43216, 0.394666, 0.37645], np.float32)  # of Kinetics-400, with the deviation below
DEVIATION = np.array([0.22803, 0.22145, 0.216989], np.float32)
TSAV = "video_model.r2plus1d."
SPLIT_KEY, WHOLE_KEY = "layer1.0.conv1.0.0.weight", "layer1.0.conv1.0.weight"  # convolutions apart in space and time, or in one


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResnetParams:
    """clip_frames, dilation, stride, anchor: see `ClipWindow`. output: the last layer's mean over time and places, or all of it.

    The defaults are those of the published systems: 8 pictures, every fourth, and a clip is labelled by its last picture. 6 is the
    dilation of Kuhnke et al. (FG 2020).
    """

    clip_frames: int = 8
    dilation: int = 4
    stride: int = 1
    anchor: Anchor = "end"
    output: Literal["pooled", "map"] = "pooled"

    def __post_init__(self) -> None:
        _window(self)


def _window(params: VideoResnetParams) -> ClipWindow:
    return ClipWindow(clip_frames=params.clip_frames, dilation=params.dilation, stride=params.stride, anchor=params.anchor)


def _whole(state: State) -> State:
    """Of R3D. Raises ValueError for the tensors of an R(2+1)D network."""
    if any(key.endswith(SPLIT_KEY) for key in state):
        raise ValueError("its convolutions are split in space and time: it is an R(2+1)D network, which r2plus1d18 takes")
    return state


def _split(state: State) -> State:
    """Of R(2+1)D: torchvision's names as they are, or the video part of the two-stream checkpoint, whose first layer also takes a mask
    that is not given: its weights for that are left out. Raises ValueError for the tensors of an R3D network."""
    if any(key.endswith(WHOLE_KEY) for key in state):
        raise ValueError("its convolutions are not split in space and time: it is an R3D network, which r3d18 takes")
    if not any(key.startswith(TSAV) for key in state):
        return state
    own = {key.removeprefix(TSAV): value for key, value in state.items()}
    stem = own.get("stem.0.weight")
    if stem is not None and stem.shape[1:2] == (4,):
        own["stem.0.weight"] = stem[:, :3].contiguous()
    return own


class _VideoResnet:
    """What both networks share. model: torchvision's name of the network; file: of its published weights."""

    version: ClassVar[int] = 2
    Params: ClassVar[type] = VideoResnetParams
    yields: ClassVar[Kind] = Kind.FEATURE
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = True
    name: ClassVar[str]
    model: ClassVar[str]
    file: ClassVar[str]
    origin: ClassVar[str]
    licence: ClassVar[str]
    layout: ClassVar[Layout]
    size_px = SIZE_PX

    @staticmethod
    def reads(params: VideoResnetParams) -> tuple[Kind, ...]:
        return (Kind.FACES,)

    @classmethod
    def hub(cls, params: VideoResnetParams) -> Source:
        return TorchvisionFile(cls.file)

    @classmethod
    def network(cls, params: VideoResnetParams) -> Any:
        from torchvision.models import video

        return _headless(getattr(video, cls.model)(weights=None), params)

    def __init__(self, params: VideoResnetParams, runtime: Runtime) -> None:
        self._network, self._runtime = place(loaded(self, params, runtime), runtime), runtime
        self._window, self.dim, self.batch = _window(params), _dim(params), _batch(params)

    def clips(self, valid: Bool) -> Clips:
        """(T,) which rows of the timeline have a face -> the clips, see `ClipWindow.clips`."""
        return self._window.clips(valid)

    def embed_clips(self, clips: UInt8) -> Float32:
        """(N, clip_frames, 112, 112, 3) uint8 RGB -> (N, dim) float32, see `_embedded`."""
        return _embedded(self._network, clips, self._window.clip_frames, self.dim, self._runtime)


class R3d18(_VideoResnet):
    """R3D-18: residual blocks of 3 x 3 x 3 convolutions, torchvision's network, trained on Kinetics-400.

    Source: Tran et al., "A closer look at spatiotemporal convolutions for action recognition", CVPR 2018, section 3.
    """

    name, model, file = "r3d18", "r3d_18", "r3d_18-b3b3357e.pth"
    origin = "https://download.pytorch.org/models/r3d_18-b3b3357e.pth"
    licence = "BSD-3-Clause (torchvision)"
    layout = Layout(converted=_whole, dropped=("fc.",))


class R2plus1d18(_VideoResnet):
    """R(2+1)D-18: the same with each convolution split into one in space and one in time, torchvision's network, trained on
    Kinetics-400 or, as the video part of the two-stream network of Kuhnke et al., on Aff-Wild2.

    Source: Tran et al., "A closer look at spatiotemporal convolutions for action recognition", CVPR 2018, section 3.5; Kuhnke et
    al., "Two-stream aural-visual affect analysis in the wild", FG 2020, section III.
    """

    name, model, file = "r2plus1d18", "r2plus1d_18", "r2plus1d_18-91a641e6.pth"
    origin = "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth"
    licence = "BSD-3-Clause (torchvision); research only (the two-stream checkpoint)"
    layout = Layout(converted=_split, dropped=("fc.", "audio_model."))


def _dim(params: VideoResnetParams) -> int:
    return CHANNELS if params.output == "pooled" else CHANNELS * -(-params.clip_frames // SHRINKS) * PLACES


def _batch(params: VideoResnetParams) -> int:
    return max(1, PICTURES_AT_ONCE // params.clip_frames)


def _headless(network: Any, params: VideoResnetParams) -> Any:
    """The network without its classifier and, for the map, without the mean: torchvision flattens what comes last."""
    from torch import nn

    network.fc = nn.Identity()
    if params.output == "map":
        network.avgpool = nn.Identity()
    return network


def _embedded(network: Any, clips: UInt8, clip_frames: int, dim: int, runtime: Runtime) -> Float32:
    """(N, clip_frames, 112, 112, 3) uint8 RGB -> (N, dim) float32: the last layer's means, or its values (512, time, 7, 7) in C order.

    Pixels enter as (x / 255 - mean) / deviation of Kinetics-400.
    """
    check_clips(clips, clip_frames, SIZE_PX)
    if not len(clips):
        return np.empty((0, dim), np.float32)
    scaled = (clips.astype(np.float32) / 255 - MEAN) / DEVIATION
    return forward(network, scaled.transpose(0, 4, 1, 2, 3), runtime, part=max(1, PICTURES_IN_PART // clip_frames))
