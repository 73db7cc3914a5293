"""What finding faces gives: the records and the Protocol between detectors and whoever follows faces over time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from extractors.contract import Float32, Frames, UInt8

# The first network sees 12 x 12 pixels, so this is the smallest face that an unscaled picture can show it.
MIN_FACE_PX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Faces of one picture, the largest first. boxes: (K, 4) float32 x1 y1 x2 y2; prob: (K,) float32; landmarks: (K, 5, 2) float32."""

    boxes: Float32
    prob: Float32
    landmarks: Float32

    def __post_init__(self) -> None:
        k = len(self.prob)
        shapes = (self.boxes.shape, self.prob.shape, self.landmarks.shape)
        if shapes != ((k, 4), (k,), (k, 5, 2)):
            raise ValueError(f"Found: expected {k} faces in every array, got {shapes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One frame and the faces in it. image: (H, W, 3) uint8 RGB; frame: its source number; shot: raised by one at every hard cut."""

    image: UInt8
    time_s: float
    frame: int
    found: Found
    shot: int


class Finder(Protocol):
    def find(self, batches: Iterable[Frames]) -> Iterator[Seen]:
        """Every frame of every batch with its faces, in order. How the frames are batched changes nothing."""
        ...


def nothing() -> Found:
    return Found(boxes=np.zeros((0, 4), np.float32), prob=np.zeros(0, np.float32), landmarks=np.zeros((0, 5, 2), np.float32))
