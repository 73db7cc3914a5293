"""What facenet-pytorch's MTCNN takes for a frame, as its users run it: decode, detect, crop and save."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Int64, UInt8

BATCH = 8
CROP_PX = 112


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCost:
    """Seconds per frame. decode_s: over the whole video; the others over the frames that were looked at."""

    decode_s: float
    single_s: float
    batched_s: float
    crop_s: float

    @property
    def detect_s(self) -> float:
        return min(self.single_s, self.batched_s)

    @property
    def total_s(self) -> float:
        return self.decode_s + self.detect_s + self.crop_s


class Reference:
    """One MTCNN for all clips. torch has a thread per core while it works, and as many as before afterwards."""

    def __init__(self, *, min_face_px: int, device: str) -> None:
        from facenet_pytorch import MTCNN

        self.device, self.n_threads = device, n_cores()
        self.mtcnn = MTCNN(keep_all=True, min_face_size=min_face_px, image_size=CROP_PX, post_process=False, device=device).eval()

    def measure(self, clip: Path, wanted: Int64) -> ReferenceCost:
        """wanted: ascending numbers of the frames to look at. All are decoded."""
        with self._threads(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # facenet-pytorch makes arrays of lists of unequal length, with a warning each time
            images, decode_s = decode(clip, wanted)
            batches = [np.stack(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
            single_s, boxes = self._detect(images)
            batched_s, _ = self._detect(batches)
            crop_s = self._crop_and_save(images, boxes)
        n = len(images)
        return ReferenceCost(decode_s=decode_s, single_s=single_s / n, batched_s=batched_s / n, crop_s=crop_s / n)

    @contextlib.contextmanager
    def _threads(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _detect(self, inputs: list[Any]) -> tuple[float, list[Any]]:
        """Seconds in all, and the boxes of each input. What comes back lies on the host, so a GPU has finished."""
        started = time.perf_counter()
        boxes = [self.mtcnn.detect(one)[0] for one in inputs]
        return time.perf_counter() - started, boxes

    def _crop_and_save(self, images: list[UInt8], boxes: list[Any]) -> float:
        with tempfile.TemporaryDirectory(prefix="affectpipe-faces-") as folder:
            started = time.perf_counter()
            for number, (image, found) in enumerate(zip(images, boxes, strict=True)):
                if found is not None:
                    self.mtcnn.extract(image, found, save_path=f"{folder}/{number}.jpg")
            return time.perf_counter() - started


def n_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode(clip: Path, wanted: Int64) -> tuple[list[UInt8], float]:
    """The wanted frames, (H, W, 3) uint8 RGB, and the seconds that each frame of the video took, with all of them converted."""
    import av

    from pipeline.decoder import choose

    kept, numbers, n = [], set(wanted.tolist()), 0
    started = time.perf_counter()
    with av.open(str(clip)) as container:
        stream = choose(container.streams.video)
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            image = frame.to_ndarray(format="rgb24")
            if n in numbers:
                kept.append(image)
            n += 1
    return kept, (time.perf_counter() - started) / n
