"""Faces that the data set's organisers cropped: pictures by source frame, the same output as a detector's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from extractors.contract import Detections, ExtractorError, Faces, Int64, Kind, RootHolds, Runtime, UInt8
from extractors.face import jpeg


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderParams:
    """size_px: side of the crop that is kept; jpeg_quality: of the crops that must be written anew, 1 to 100."""

    size_px: int = 112
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        jpeg.check_size(self.size_px)
        jpeg.check_quality(self.jpeg_quality)


class Folder:
    """Organiser-provided crops (NAME/00001.jpg shows source frame 0). Reads no video."""

    name: ClassVar[str] = "folder"
    version: ClassVar[int] = 2
    Params: ClassVar[type] = FolderParams
    yields: ClassVar[Kind] = Kind.FACES
    decoder: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = ""
    licence: ClassVar[str] = "that of the data set"
    root_holds: ClassVar[RootHolds] = "pictures"

    def __init__(self, params: FolderParams, runtime: Runtime) -> None:
        self.params = params

    @staticmethod
    def reads(params: FolderParams) -> tuple[Kind, ...]:
        return (Kind.TIMELINE,)

    def read(self, crops: Mapping[int, bytes], frames: Int64) -> Faces:
        """crops: encoded pictures by source frame number from 0; frames: (F,) int64 ascending source frames that are shown.

        A JPEG of the right size is kept byte for byte; any other picture is scaled, its sides each on its own, and written as
        JPEG. Pictures of frames that are not shown are not looked at. Where there is a picture, valid is True and track 0. Boxes,
        landmarks and probabilities are NaN everywhere and `found` is empty: no detector ran, and nobody knows them.

        Raises ExtractorError naming the frame of a picture that cannot be decoded.
        """
        kept = [self._crop(int(frame), crops[int(frame)]) if int(frame) in crops else b"" for frame in frames]
        valid = np.array([bool(crop) for crop in kept], dtype=np.bool_)
        n = len(frames)
        return Faces(
            size_px=self.params.size_px,
            coding="jpeg",
            frame=np.asarray(frames, dtype=np.int64),
            valid=valid,
            boxes=np.full((n, 4), np.nan, dtype=np.float32),
            landmarks=np.full((n, 5, 2), np.nan, dtype=np.float32),
            prob=np.full(n, np.nan, dtype=np.float32),
            track=np.where(valid, 0, -1).astype(np.int64),
            crops=kept,
            found=Detections.none(),
        )

    def _crop(self, frame: int, data: bytes) -> bytes:
        picture = jpeg.decode(data)
        if picture is None:
            raise ExtractorError(
                f"the face picture of frame {frame} (image {frame + 1:05d}) cannot be read",
                why="it is empty" if not data else "it is cut short or not a picture",
                fix="put the right file there, or delete it: a missing picture is a row without a face",
            )
        if jpeg.is_plain(data, self.params.size_px):
            return bytes(data)
        return jpeg.encode(_resized(picture, self.params.size_px), self.params.jpeg_quality)


def _resized(picture: UInt8, size_px: int) -> UInt8:
    """(H, W, 3) -> (size_px, size_px, 3): averaged where a side shrinks, bilinear where both grow."""
    import cv2

    if picture.shape[:2] == (size_px, size_px):
        return picture
    shrinks = max(picture.shape[:2]) > size_px
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (size_px, size_px), interpolation=how), dtype=np.uint8)
