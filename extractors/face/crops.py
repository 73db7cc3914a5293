"""Faces cut out of pictures and coded, on threads of their own: whoever finds the faces does not wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np

from extractors.contract import Bool, Coding, Float32, Float64, UInt8
from extractors.face import alignment, jpeg
from extractors.face.spool import Spool

# Warping and coding let go of Python's lock, so they run beside the detector; a second thread is for crops of many or large faces.
THREADS = 2
# Pictures that a thread is handed together, and those that may wait for their crops before `add` waits too. Faces come in bursts: a
# detector that works on many pictures at once gives all of them at once.
TOGETHER = 8
WAITING = 512
WAITING_BYTES = 32 << 20

Picture = tuple[UInt8, Float32, Float32]  # (H, W, 3), and of its K faces the boxes (K, 4) and landmarks (K, 5, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropForm:
    """What a crop is: size_px x size_px pixels, where they lie (`alignment.similarity`, or `alignment.square`), and how it is kept."""

    size_px: int
    template: Literal["arcface", "box"] = "arcface"
    margin: float = 0.0
    coding: Coding = "jpeg"
    jpeg_quality: int = 95

    def matrices(self, boxes: Float32, landmarks: Float32) -> tuple[Float64, Bool]:
        """boxes: (K, 4); landmarks: (K, 5, 2) -> (K, 2, 3) from picture to crop, and (K,) bool: which faces can be cut out, in either
        way, so that who is a face does not depend on the template."""
        squared, has_box = alignment.square(boxes, self.size_px, self.margin)
        aligned, has_landmarks = alignment.similarity(landmarks, self.size_px)
        return squared if self.template == "box" else aligned, has_box & has_landmarks

    def cut(self, pictures: Sequence[Picture]) -> list[bytes]:
        """One crop per face, picture by picture: a JPEG file, or the RGB bytes row by row; b"" where a face cannot be cut out."""
        matrices, usable = self.matrices(np.concatenate([boxes for _, boxes, _ in pictures]), np.concatenate([at for _, _, at in pictures]))
        images = [image for image, boxes, _ in pictures for _ in boxes]
        return [self._crop(*one) if can else b"" for *one, can in zip(images, matrices, usable.tolist(), strict=True)]

    def _crop(self, image: UInt8, matrix: Float64) -> bytes:
        crop = alignment.warp(image, matrix, self.size_px)
        return crop.tobytes() if self.coding == "raw" else jpeg.encode(crop, self.jpeg_quality)


class Cutter:
    """Cuts faces out of the pictures it is given and keeps the crops in a spool, in order. Leaving its block ends the threads."""

    def __init__(self, form: CropForm, threads: int = THREADS) -> None:
        """threads: as many as it may use, of which it has use for two."""
        self._form = form
        self._spool = Spool()
        self._threads = ThreadPoolExecutor(min(threads, THREADS), thread_name_prefix="crops")
        self._gathered: list[Picture] = []
        self._waiting: deque[tuple[int, int, Future[list[bytes]]]] = deque()  # pictures, their bytes, and their crops to be
        self._n_waiting, self._n_bytes = 0, 0  # gathered ones included
        self._gathered_bytes = 0

    def __enter__(self) -> Self:
        import cv2

        self._n_threads_of_cv2 = cv2.getNumThreads()
        cv2.setNumThreads(1)  # its own threads wait in a busy loop: a warp took twice the processor time, and was hardly sooner done
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import cv2

        self._threads.shutdown(cancel_futures=True)
        cv2.setNumThreads(self._n_threads_of_cv2)

    def add(self, image: UInt8, boxes: Float32, landmarks: Float32) -> None:
        """image: (H, W, 3) uint8 RGB, which nobody may change afterwards; boxes: (K, 4); landmarks: (K, 5, 2).

        Waits where too much waits already. Raises what went wrong with the crops of an earlier picture.
        """
        if len(boxes):
            self._gathered.append((image, boxes, landmarks))
            self._gathered_bytes += image.nbytes
            self._n_waiting, self._n_bytes = self._n_waiting + 1, self._n_bytes + image.nbytes
        if not len(boxes) or len(self._gathered) >= TOGETHER or self._n_bytes > WAITING_BYTES:
            self._hand_out()
        while self._waiting and (self._waiting[0][2].done() or self._n_waiting > WAITING or self._n_bytes > WAITING_BYTES):
            self._keep()

    def finish(self) -> Spool:
        """One crop per face, numbered in the order in which the faces were given; b"" where one cannot be cut out."""
        self._hand_out()
        while self._waiting:
            self._keep()
        return self._spool

    def _hand_out(self) -> None:
        if self._gathered:  # nothing else holds on to the pictures, so they are let go of as soon as they are cut
            self._waiting.append((len(self._gathered), self._gathered_bytes, self._threads.submit(self._form.cut, self._gathered)))
            self._gathered, self._gathered_bytes = [], 0

    def _keep(self) -> None:
        n_pictures, n_bytes, cutting = self._waiting.popleft()
        for crop in cutting.result():
            self._spool.append(crop)
        self._n_waiting, self._n_bytes = self._n_waiting - n_pictures, self._n_bytes - n_bytes
