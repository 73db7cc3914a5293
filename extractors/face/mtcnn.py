"""Faces of a video: found with MTCNN, followed over time, cropped, and kept for each person asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from extractors.contract import Coding, Detections, Faces, Float64, Frames, Int64, Kind, Person, Runtime
from extractors.face import jpeg
from extractors.face.cascade import Cascade, EveryFrame
from extractors.face.crops import CropForm, Cutter
from extractors.face.detector import MIN_FACE_PX, Finder, Found
from extractors.face.log import FaceLog, Logged, pick
from extractors.face.persons import choose, find_people, follow_track
from extractors.face.propagation import Propagation
from extractors.face.tracking import Sightings, associate

MAX_MARGIN = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MtcnnParams:
    """min_face_px: the smallest face looked for; it sets the detector's pyramid and so moves every box by some pixels.
    mode: "exact" searches every whole picture. "tracked" searches a whole picture every redetect_s seconds while there are faces, every
    search_s while there are none (0: every picture), at cuts and where a face is lost, and else looks only where faces are
    expected. Neither time counts in "exact".
    min_prob: faces below are not faces. min_track_s: a track that is seen for less, in all, is nobody's.

    person: whose face is kept; "auto" takes it from the trial's name. "main" is whoever is most prominent: summed over the seconds in
    which a face is seen, its share of the picture's area x its probability x how central it is (1 in the picture's middle, falling
    evenly to 1/2 in its corners). So size counts as much as time, and a face in the middle as much as one of up to twice its area
    at the edge. Tracks are one person when they follow each other near in place and size. "left" and "right": see
    `persons.choose`. track: overrides all this, for a stages file that is run on one video: the track of this id, as stored.

    size_px: side of the crop. template: "arcface" turns and scales it so that eyes, nose and mouth lie as in ArcFace's crops; "box"
    cuts the square about the middle of the box, as long as its longer side, with `margin` of that side more on each end.
    coding: "jpeg", or "raw" RGB bytes, about eight times as large. jpeg_quality: 1 to 100; it does not count in "raw".

    The defaults of min_prob and min_track_s were set on nine clips: 0.9 keeps every face of a turned, crying head (0.95 loses 2 of
    472) but also five frames of a cartoon and five of a far-off scene; these make tracks of at most
    three frames, 0.1 s, and a limit of 0.2 s leaves none.
    """

    min_face_px: int = 40
    mode: Literal["tracked", "exact"] = "tracked"
    redetect_s: float = 1.0
    search_s: float = 0.2
    min_prob: float = 0.9
    min_track_s: float = 0.2
    person: Literal["auto", "main", "left", "right"] = "auto"
    track: int | None = None
    size_px: int = 112
    template: Literal["arcface", "box"] = "arcface"
    margin: float = 0.0
    coding: Coding = "jpeg"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        self._check_search()
        self._check_choice()
        self._check_crop()

    def _check_search(self) -> None:
        if isinstance(self.min_face_px, bool) or not isinstance(self.min_face_px, int) or self.min_face_px < MIN_FACE_PX:
            raise ValueError(f"min_face_px: expected a whole number of pixels, {MIN_FACE_PX} or more, got {self.min_face_px!r}")
        _one_of("mode", self.mode, ("tracked", "exact"))
        if not 0 < self.redetect_s < math.inf:
            raise ValueError(f"redetect_s: expected seconds, more than 0, got {self.redetect_s!r}")
        if not 0 <= self.search_s < math.inf:
            raise ValueError(f"search_s: expected seconds, 0 or more, got {self.search_s!r}")
        if not 0 <= self.min_prob <= 1:
            raise ValueError(f"min_prob: expected a probability from 0 to 1, got {self.min_prob!r}")

    def _check_choice(self) -> None:
        if not 0 <= self.min_track_s < math.inf:
            raise ValueError(f"min_track_s: expected seconds, 0 or more, got {self.min_track_s!r}")
        _one_of("person", self.person, ("auto", "main", "left", "right"))
        if self.track is not None and (isinstance(self.track, bool) or not isinstance(self.track, int) or self.track < 0):
            raise ValueError(f"track: expected the id of a track, 0 or more, or null, got {self.track!r}")

    def _check_crop(self) -> None:
        jpeg.check_size(self.size_px)
        _one_of("template", self.template, ("arcface", "box"))
        if not 0 <= self.margin <= MAX_MARGIN:
            raise ValueError(f"margin: expected a share of the box's longer side, 0 to {MAX_MARGIN:g}, got {self.margin!r}")
        if self.margin and self.template != "box":
            raise ValueError(f"margin: only 'template: box' has one; the template {self.template} is placed by landmarks, not by the box")
        _one_of("coding", self.coding, ("jpeg", "raw"))
        jpeg.check_quality(self.jpeg_quality)

    def crop_form(self) -> CropForm:
        return CropForm(
            size_px=self.size_px, template=self.template, margin=self.margin, coding=self.coding, jpeg_quality=self.jpeg_quality
        )


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name}: expected {', '.join(known[:-1])} or {known[-1]}, got {value!r}")


class Mtcnn:
    """One pass over the frames: every face is cropped where it is seen, and who it belongs to is decided at the end."""

    name: ClassVar[str] = "mtcnn"
    version: ClassVar[int] = 5
    Params: ClassVar[type] = MtcnnParams
    yields: ClassVar[Kind] = Kind.FACES
    decoder: ClassVar[str | None] = "pyav"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "float16")
    needs_weights: ClassVar[bool] = False
    origin: ClassVar[str] = "facenet-pytorch 2.5.3 (weights in its wheel), github.com/timesler/facenet-pytorch"
    licence: ClassVar[str] = "MIT"
    choices: ClassVar[tuple[str, ...]] = ("min_track_s", "person", "track", "size_px", "template", "margin", "coding", "jpeg_quality")

    def __init__(self, params: MtcnnParams, runtime: Runtime, *, finder: Finder | None = None) -> None:
        """finder: finds faces instead of facenet-pytorch's networks, with their boxes, probabilities and order of landmarks."""
        self.params, self.threads = params, runtime.threads
        self.finder = finder or _finder(params, runtime)

    @staticmethod
    def reads(params: MtcnnParams) -> tuple[Kind, ...]:
        return (Kind.TIMELINE,)

    def follow(self, batches: Iterable[Frames], persons: Sequence[Person]) -> Mapping[Person, Faces]:
        """Faces per person over all frames of all batches, which may differ in size.

        Memory grows by some tens of bytes per face and frame: crops wait in a temporary file, from which Faces.crops reads.
        `found` holds every face of min_prob and more, those of too short tracks too.

        Raises ExtractorError where params.track is none of the video's tracks, and an OSError of the temporary file.
        """
        log, form = FaceLog(), self.params.crop_form()
        with Cutter(form, self.threads) as cutter:
            for seen in self.finder.find(batches):
                kept = _sure(seen.found, self.params.min_prob)
                cutter.add(seen.image, kept.boxes, kept.landmarks)
                log.add(seen, kept)
            crops = cutter.finish()
        logged = log.read(crops)
        found = logged.detections(associate(logged.seen))
        chosen = self._chosen(logged.seen, found.track, persons)
        return {person: pick(form, logged, found, number, crops) for person, number in chosen.items()}

    def choose(
        self, found: Detections, frame: Int64, times_s: Float64, pictures: Callable[[Int64], Iterable[Frames]], persons: Sequence[Person]
    ) -> Mapping[Person, Faces]:
        """`follow` without detecting: only the frames that show a chosen face are decoded, and only its crops are made.

        Raises ExtractorError and OSError as `follow` does.
        """
        logged, form = Logged.of(found, frame, times_s), self.params.crop_form()
        chosen = self._chosen(logged.seen, found.track, persons)
        cut = np.unique(np.concatenate([number[number >= 0] for number in chosen.values()]))
        with Cutter(form, self.threads) as cutter:
            for frames in pictures(np.unique(found.frame[cut])) if len(cut) else ():
                for image, shown in zip(frames.images, frames.index.tolist(), strict=True):
                    mine = cut[slice(*np.searchsorted(found.frame[cut], [shown, shown + 1]))]
                    cutter.add(image, found.boxes[mine], found.landmarks[mine])
            crops = cutter.finish()
        logged.crop[cut] = np.arange(len(cut))
        return {person: pick(form, logged, found, number, crops) for person, number in chosen.items()}

    def _chosen(self, seen: Sightings, track: Int64, persons: Sequence[Person]) -> dict[Person, Int64]:
        """Per person (F,) the number of the face that is kept in each row, -1 for none."""
        if self.params.track is not None:
            return dict.fromkeys(persons, follow_track(seen, track, self.params.track))
        people = find_people(seen, track, min_track_s=self.params.min_track_s)
        return {person: choose(people, person) for person in persons}


def _finder(params: MtcnnParams, runtime: Runtime) -> Finder:
    cascade = Cascade(min_face_px=params.min_face_px, device=runtime.device, precision=runtime.precision, threads=runtime.threads)
    if params.mode == "exact":
        return EveryFrame(cascade)
    return Propagation(cascade, redetect_s=params.redetect_s, search_s=params.search_s)


def _sure(found: Found, min_prob: float) -> Found:
    which = found.prob >= min_prob
    if which.all():
        return found
    return Found(boxes=found.boxes[which], prob=found.prob[which], landmarks=found.landmarks[which])
