"""What was seen in a video, face by face, in arrays that grow; and what of it is one person's."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from extractors.contract import Detections, Faces, Float32, Float64, Int64
from extractors.face.crops import CropForm
from extractors.face.detector import Found, Seen
from extractors.face.spool import Spool, SpooledCrops
from extractors.face.tracking import Sightings


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A whole video. frame: (F,) int64 source frame of each row; seen: M faces; landmarks: (M, 5, 2) float32; crop: (M,) int64 number,
    -1 where there is none."""

    frame: Int64
    seen: Sightings
    landmarks: Float32
    crop: Int64

    def detections(self, track: Int64) -> Detections:
        """track: (M,) int64 the id of each face."""
        seen = self.seen
        _, first = np.unique(seen.shot, return_index=True)
        shots = np.column_stack([self.frame[first], seen.picture_px[first]])
        return Detections(frame=self.frame[seen.row], track=track, boxes=seen.boxes, landmarks=self.landmarks, prob=seen.prob, shots=shots)

    @classmethod
    def of(cls, found: Detections, frame: Int64, times_s: Float64) -> Logged:
        """That of which `found` was made, without crops. frame, times_s: (F,) the frames that were looked at.

        Raises ValueError where `found` is of other frames.
        """
        if len(frame) and not (len(found.shots) and found.shots[0, 0] == frame[0] and np.isin(found.frame, frame).all()):
            raise ValueError("found: expected shots and faces of the frames given, got others")
        if found.track.max(initial=-1) >= len(found.track):
            raise ValueError(f"found.track: expected ids below {len(found.track)}, got {found.track.max()}")
        shot = np.searchsorted(found.shots[:, 0], frame, side="right") - 1
        seen = Sightings(
            row=np.searchsorted(frame, found.frame).astype(np.int64),
            boxes=found.boxes,
            prob=found.prob,
            times_s=times_s,
            picture_px=found.shots[shot, 1:],
            shot=shot.astype(np.int64),
        )
        return cls(frame=frame, seen=seen, landmarks=found.landmarks, crop=np.full(len(found.frame), -1, np.int64))


class FaceLog:
    """60 bytes per face and 48 per frame, however long the video is."""

    def __init__(self) -> None:
        self._frame, self._shot, self._n_faces, self._picture_px = array("q"), array("q"), array("q"), array("q")
        self._time_s = array("d")
        self._boxes, self._prob, self._landmarks = array("f"), array("f"), array("f")

    def add(self, seen: Seen, kept: Found) -> None:
        """kept: those of the frame's faces that count."""
        self._frame.append(seen.frame)
        self._shot.append(seen.shot)
        self._time_s.append(seen.time_s)
        self._n_faces.append(len(kept.prob))
        self._picture_px.extend((seen.image.shape[1], seen.image.shape[0]))
        for column, values in ((self._boxes, kept.boxes), (self._prob, kept.prob), (self._landmarks, kept.landmarks)):
            column.frombytes(np.asarray(values, dtype=np.float32).tobytes())

    def read(self, crops: Spool) -> Logged:
        """crops: one of each face that was added, in order. A face whose crop is b"" does not count after all."""
        crop = np.flatnonzero(crops.sizes())
        row = np.repeat(np.arange(len(self._n_faces)), np.array(self._n_faces, dtype=np.int64))
        seen = Sightings(
            row=row[crop].astype(np.int64),
            boxes=np.array(self._boxes, dtype=np.float32).reshape(-1, 4)[crop],
            prob=np.array(self._prob, dtype=np.float32)[crop],
            times_s=np.array(self._time_s, dtype=np.float64),
            picture_px=np.array(self._picture_px, dtype=np.int64).reshape(-1, 2),
            shot=np.array(self._shot, dtype=np.int64),
        )
        landmarks = np.array(self._landmarks, dtype=np.float32).reshape(-1, 5, 2)[crop]
        return Logged(frame=np.array(self._frame, dtype=np.int64), seen=seen, landmarks=landmarks, crop=crop.astype(np.int64))


def pick(form: CropForm, logged: Logged, everyone: Detections, number: Int64, crops: Spool) -> Faces:
    """number: (F,) which face of everyone's each frame keeps, -1 for none."""
    return Faces(
        size_px=form.size_px,
        coding=form.coding,
        frame=logged.frame,
        valid=number >= 0,
        boxes=_where(everyone.boxes, number),
        landmarks=_where(everyone.landmarks, number),
        prob=_where(everyone.prob, number),
        track=np.append(everyone.track, -1)[number],
        crops=SpooledCrops(crops, np.append(logged.crop, -1)[number]),
        found=everyone,
    )


def _where(values: Float32, number: Int64) -> Float32:
    """(M, ...) values by number, (F,) -> (F, ...), NaN where the number is -1."""
    nowhere = np.full((1, *values.shape[1:]), np.nan, dtype=np.float32)
    return np.asarray(np.concatenate([values, nowhere])[number], dtype=np.float32)
