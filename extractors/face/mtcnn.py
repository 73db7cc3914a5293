"""Faces of a video: found with MTCNN, followed over time, cropped, and kept for each person asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from extractors.contract import Detections, Faces, Float32, Frames, Int64, Kind, Person, Runtime, UInt8
from extractors.face import alignment, jpeg
from extractors.face.detector import MIN_FACE_PX, Detector, Found, LibraryCascade
from extractors.face.persons import choose, find_people
from extractors.face.spool import Spool, SpooledCrops
from extractors.face.tracking import Sightings, associate


@dataclass(frozen=True, slots=True, kw_only=True)
class MtcnnParams:
    """min_face_px: the smallest face looked for; it sets the detector's pyramid and so moves every box by some pixels.
    size_px: side of the aligned crop. jpeg_quality: 1 to 100.
    min_prob: faces below are not faces. min_track_s: a track that is seen for less, in all, is nobody's.
    person: whose face is kept; "auto" takes it from the trial's name.

    The defaults of min_prob and min_track_s were set on nine clips: 0.9 keeps every face of a turned, crying head (0.95 loses 2 of
    472) but also five frames of a cartoon and five of a far-off scene; these make tracks of at most
    three frames, 0.1 s, and a limit of 0.2 s leaves none.
    """

    min_face_px: int = 40
    size_px: int = 112
    min_prob: float = 0.9
    person: Literal["auto", "main", "left", "right"] = "auto"
    jpeg_quality: int = 95
    min_track_s: float = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.min_face_px, bool) or not isinstance(self.min_face_px, int) or self.min_face_px < MIN_FACE_PX:
            raise ValueError(f"min_face_px: expected a whole number of pixels, {MIN_FACE_PX} or more, got {self.min_face_px!r}")
        jpeg.check_size(self.size_px)
        if not 0 <= self.min_prob <= 1:
            raise ValueError(f"min_prob: expected a probability from 0 to 1, got {self.min_prob!r}")
        if self.person not in ("auto", "main", "left", "right"):
            raise ValueError(f"person: expected auto, main, left or right, got {self.person!r}")
        jpeg.check_quality(self.jpeg_quality)
        if not 0 <= self.min_track_s < float("inf"):
            raise ValueError(f"min_track_s: expected seconds, 0 or more, got {self.min_track_s!r}")


class Mtcnn:
    """One pass over the frames: every face is cropped where it is seen, and who it belongs to is decided at the end."""

    name: ClassVar[str] = "mtcnn"
    version: ClassVar[int] = 1
    Params: ClassVar[type] = MtcnnParams
    yields: ClassVar[Kind] = Kind.FACES
    decoder: ClassVar[str | None] = "pyav"
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = "facenet-pytorch 2.5.3 (weights in its wheel), github.com/timesler/facenet-pytorch"
    licence: ClassVar[str] = "MIT"

    def __init__(self, params: MtcnnParams, runtime: Runtime, *, detector: Detector | None = None) -> None:
        """detector: finds faces instead of facenet-pytorch's cascade, with its boxes, probabilities and order of landmarks."""
        self.params = params
        self.detector = detector or LibraryCascade(min_face_px=params.min_face_px, device=runtime.device)

    @staticmethod
    def reads(params: MtcnnParams) -> tuple[Kind, ...]:
        return (Kind.TIMELINE,)

    def follow(self, batches: Iterable[Frames], persons: Sequence[Person]) -> Mapping[Person, Faces]:
        """Faces per person over all frames of all batches, which may differ in size.

        Memory grows by some tens of bytes per frame and face: crops wait in a temporary file, from which Faces.jpeg reads.
        `found` holds every face of min_prob and more, those of too short tracks too.
        """
        log = _Log(self.params)
        for frames in batches:
            for i, found in enumerate(self.detector.detect(frames.images)):
                log.add(frames.images[i], float(frames.times_s[i]), int(frames.index[i]), found)
        return log.faces(persons)


class _Log:
    """What was seen so far: small records per frame and face, and the crops in a spool, one per face."""

    def __init__(self, params: MtcnnParams) -> None:
        self._params = params
        self._frame: list[int] = []
        self._time_s: list[float] = []
        self._picture_px: list[tuple[int, int]] = []
        self._found: list[Found] = []
        self._crops = Spool()

    def add(self, image: UInt8, time_s: float, frame: int, found: Found) -> None:
        matrices, usable = alignment.similarity(found.landmarks, self._params.size_px)
        keep = np.flatnonzero(usable & (found.prob >= self._params.min_prob) & np.isfinite(found.boxes).all(axis=1))
        for i in keep:
            crop = alignment.warp(image, matrices[i], self._params.size_px)
            self._crops.append(jpeg.encode(crop, self._params.jpeg_quality))
        self._frame.append(frame)
        self._time_s.append(time_s)
        self._picture_px.append((image.shape[1], image.shape[0]))
        self._found.append(Found(boxes=found.boxes[keep], prob=found.prob[keep], landmarks=found.landmarks[keep]))

    def faces(self, persons: Sequence[Person]) -> dict[Person, Faces]:
        seen = self._sightings()
        track = associate(seen)
        landmarks = np.concatenate([np.zeros((0, 5, 2), dtype=np.float32), *(found.landmarks for found in self._found)])
        frame = np.array(self._frame, dtype=np.int64)
        everyone = Detections(frame=frame[seen.row], track=track, boxes=seen.boxes, landmarks=landmarks, prob=seen.prob)
        people = find_people(seen, track, min_track_s=self._params.min_track_s)
        return {person: self._pick(frame, everyone, choose(people, person)) for person in persons}

    def _sightings(self) -> Sightings:
        return Sightings(
            row=np.repeat(np.arange(len(self._found)), [len(found.prob) for found in self._found]).astype(np.int64),
            boxes=np.concatenate([np.zeros((0, 4), dtype=np.float32), *(found.boxes for found in self._found)]),
            prob=np.concatenate([np.zeros(0, dtype=np.float32), *(found.prob for found in self._found)]),
            times_s=np.array(self._time_s, dtype=np.float64),
            picture_px=np.array(self._picture_px, dtype=np.int64).reshape(-1, 2),
        )

    def _pick(self, frame: Int64, everyone: Detections, number: Int64) -> Faces:
        """number: (F,) which face of everyone's each frame keeps, -1 for none."""
        return Faces(
            size_px=self._params.size_px,
            frame=frame,
            valid=number >= 0,
            boxes=_where(everyone.boxes, number),
            landmarks=_where(everyone.landmarks, number),
            prob=_where(everyone.prob, number),
            track=np.append(everyone.track, -1)[number],
            jpeg=SpooledCrops(self._crops, number),
            found=everyone,
        )


def _where(values: Float32, number: Int64) -> Float32:
    """(M, ...) values by number, (F,) -> (F, ...), NaN where the number is -1."""
    nowhere = np.full((1, *values.shape[1:]), np.nan, dtype=np.float32)
    return np.asarray(np.concatenate([values, nowhere])[number], dtype=np.float32)
