"""Finding faces in single pictures: MTCNN with facenet-pytorch's networks and weights."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from extractors.contract import Float32, UInt8

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


class Detector(Protocol):
    def detect(self, images: UInt8) -> list[Found]:
        """(N, H, W, 3) uint8 RGB -> what each picture shows. What is found in one picture does not depend on the others."""
        ...


class LibraryCascade:
    """facenet-pytorch 2.5.3's own MTCNN, as it is: thresholds 0.6, 0.7, 0.7 and scale factor 0.709 (Zhang et al., arXiv 1604.02878).

    Pictures go through one by one. The library can take them together, but then moves each picture's boxes apart by an offset
    that depends on all of them before it suppresses overlaps in float32, so a face near a threshold could depend on its
    neighbours; on a processor it is not faster either (timesler/facenet-pytorch#77).
    """

    def __init__(self, *, min_face_px: int, device: str) -> None:
        import torch
        from facenet_pytorch import MTCNN

        self._mtcnn = MTCNN(keep_all=True, min_face_size=min_face_px, device=torch.device(device)).eval()
        self._min_face_px = min_face_px
        self._on_gpu = torch.device(device).type == "cuda"

    def detect(self, images: UInt8) -> list[Found]:
        with self._exact():
            return [self._detect(image) for image in images]

    def _exact(self) -> contextlib.AbstractContextManager[Any]:
        """Convolutions in true float32 and by a fixed algorithm on a GPU too, where the default is TF32."""
        if not self._on_gpu:
            return contextlib.nullcontext()
        from torch.backends import cudnn

        return cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)

    def _detect(self, image: UInt8) -> Found:
        # The pyramid of so small a picture has no level, and the library fails on an empty one instead of finding nothing.
        # This is its own float arithmetic: h = min_face_px may fall on either side of 12.
        if min(image.shape[:2]) * (12.0 / self._min_face_px) < 12:
            return _nothing()
        boxes, prob, landmarks = self._mtcnn.detect(image, landmarks=True)
        if boxes is None:  # with prob [None]: that is how the library says that it found nothing
            return _nothing()
        return Found(boxes=_float32(boxes), prob=_float32(prob), landmarks=_float32(landmarks))


def _float32(values: Any) -> Float32:
    return np.array(values, dtype=np.float32)  # the library gives arrays of Python objects


def _nothing() -> Found:
    return Found(
        boxes=np.zeros((0, 4), dtype=np.float32), prob=np.zeros(0, dtype=np.float32), landmarks=np.zeros((0, 5, 2), dtype=np.float32)
    )
