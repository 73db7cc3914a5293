"""The contract between extractors and whoever runs them: the records that they exchange. The methods are in `protocols`.

Every time is in seconds on the *video's clock*: 0 is the presentation time of the first decoded frame.
Every interval is half-open. Every array that a record holds is checked once, when the record is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

Person = Literal["main", "left", "right"]
Coding = Literal["jpeg", "raw"]
Resample = Literal["area", "pil_bilinear", "pil_bicubic"]
RootHolds = Literal["pictures", "tables"]
PRECISIONS = ("float32", "bfloat16", "float16")


class Kind(StrEnum):
    """What a stage yields, and so what another may read."""

    TIMELINE = "timeline"
    FACES = "faces"
    WAVEFORM = "waveform"
    FEATURE = "feature"


class ExtractorError(Exception):
    """An expected failure inside an extractor: what went wrong, why, and what the user can do."""

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(f"{what}: {why}; {fix}")
        self.what, self.why, self.fix = what, why, fix


def _require(holds: bool, record: str, expected: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{record}: expected {expected}, got {got}")


def _is_sorted(times_s: Float64) -> bool:
    return bool(np.all(np.diff(times_s) >= 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Decoded frames of one size, in presentation order.

    images: (N, H, W, 3) uint8 RGB, rotated upright. times_s: (N,) float64. index: (N,) int64 source frame numbers from 0.
    """

    images: UInt8
    times_s: Float64
    index: Int64

    def __post_init__(self) -> None:
        n = len(self.images)
        _require(self.images.ndim == 4 and self.images.shape[3] == 3, "Frames.images", "(N, H, W, 3)", self.images.shape)
        _require(self.images.dtype == np.uint8, "Frames.images", "uint8", self.images.dtype)
        _require(self.times_s.shape == (n,) == self.index.shape, "Frames", f"{n} times and numbers", self.times_s.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A timeline: per row the presentation time and the source frame shown. times_s: (T,) float64, frame: (T,) int64."""

    times_s: Float64
    frame: Int64

    def __post_init__(self) -> None:
        _require(self.times_s.shape == self.frame.shape, "Rows", f"{self.times_s.shape} frames", self.frame.shape)
        _require(_is_sorted(self.times_s), "Rows.times_s", "non-decreasing times", "a step back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """Mono sound on the video's clock: sample i is at i / rate_hz seconds.

    samples: (S,) float32 in [-1, 1], zero where the source has no sound.
    valid: (ceil(S / (rate_hz / 100)),) bool, one per 10 ms block: False where the source has no sound (a late start, a gap).
    """

    samples: Float32
    rate_hz: int
    valid: Bool

    def __post_init__(self) -> None:
        _require(self.samples.ndim == 1 and self.samples.dtype == np.float32, "Waveform.samples", "(S,) float32", self.samples.shape)
        _require(self.rate_hz > 0 and self.rate_hz % 100 == 0, "Waveform.rate_hz", "a positive multiple of 100", self.rate_hz)
        blocks = -(-len(self.samples) // (self.rate_hz // 100))
        _require(self.valid.shape == (blocks,), "Waveform.valid", f"({blocks},)", self.valid.shape)

    def covers(self, start_s: FloatArray, stop_s: FloatArray) -> Bool:
        """(T,) bool: the source has sound in every 10 ms block that the window [start_s, stop_s) touches."""
        first = np.floor(np.asarray(start_s) * 100 + 1e-6).astype(np.int64)
        last = np.ceil(np.asarray(stop_s) * 100 - 1e-6).astype(np.int64)
        sounding = np.concatenate([[0], np.cumsum(self.valid)])
        inside = (first >= 0) & (last <= len(self.valid)) & (last > first)
        low, high = np.clip(first, 0, len(self.valid)), np.clip(last, 0, len(self.valid))
        return np.asarray(inside & (sounding[high] - sounding[low] == last - first), dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A feature over time. values: (T, D); times_s: (T,) float64 window centres; valid: (T,) bool; columns: D names or none.

    Where valid is False the values are NaN: a missing value never looks like a measured one.
    """

    values: FloatArray
    times_s: Float64
    valid: Bool
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.values.ndim == 2, "Track.values", "(T, D)", self.values.shape)
        n, d = self.values.shape
        _require(self.times_s.shape == (n,), "Track.times_s", f"({n},)", self.times_s.shape)
        _require(self.valid.shape == (n,) and self.valid.dtype == np.bool_, "Track.valid", f"({n},) bool", self.valid.shape)
        _require(_is_sorted(self.times_s), "Track.times_s", "non-decreasing times", "a step back")
        _require(len(self.columns) in (0, d), "Track.columns", f"{d} names", len(self.columns))
        _require(bool(np.isfinite(self.values[self.valid]).all()), "Track.values", "finite values where valid", "NaN or inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Which rows of the timeline each of R output rows sees.

    rows: (R, clip_frames) int64 rows of the timeline, in the order in which the network sees them. at: (R,) int64 the row whose time
    the output row has, ascending. valid: (R,) bool; where it is False, the clip is not computed.
    """

    rows: Int64
    at: Int64
    valid: Bool

    def __post_init__(self) -> None:
        r = len(self.at)
        _require(self.rows.ndim == 2 and len(self.rows) == r, "Clips.rows", f"({r}, clip_frames)", self.rows.shape)
        _require(self.valid.shape == (r,) and self.valid.dtype == np.bool_, "Clips.valid", f"({r},) bool", self.valid.shape)
        _require(bool(np.all(np.diff(self.at) > 0)), "Clips.at", "ascending rows", "a step back")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Every face followed through a video, M of them in all, ordered by frame.

    frame: (M,) int64 source frame; track: (M,) int64 id; boxes: (M, 4) float32 x1 y1 x2 y2 in source pixels;
    landmarks: (M, 5, 2) float32; prob: (M,) float32. shots: (S, 3) int64, of each shot the source frame with which it begins, and the
    width and height of its pictures.
    """

    frame: Int64
    track: Int64
    boxes: Float32
    landmarks: Float32
    prob: Float32
    shots: Int64

    def __post_init__(self) -> None:
        m = len(self.frame)
        shapes = (self.track.shape, self.boxes.shape, self.landmarks.shape, self.prob.shape, self.shots.shape[1:])
        _require(shapes == ((m,), (m, 4), (m, 5, 2), (m,), (3,)), "Detections", f"{m} faces in every array, and (S, 3) shots", shapes)
        _require(bool((np.diff(self.frame) >= 0).all()), "Detections.frame", "ascending frames", "a step back")
        _require(bool((self.track >= 0).all()), "Detections.track", "ids from 0 on", self.track)
        finite = all(np.isfinite(values).all() for values in (self.boxes, self.landmarks, self.prob))
        _require(finite, "Detections", "finite boxes, landmarks and probabilities", "NaN or inf")
        ordered = (np.diff(self.shots[:, 0]) > 0).all() and (self.shots[:, 1:] > 0).all()
        _require(bool(ordered), "Detections.shots", "shots one after the other, of pictures with a size", "others")

    @classmethod
    def none(cls) -> Detections:
        """Of a video in which nobody is found, or nobody was looked for."""
        number, boxes, landmarks = np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32)
        shots = np.zeros((0, 3), np.int64)
        return cls(frame=number, track=number, boxes=boxes, landmarks=landmarks, prob=boxes[:, 0], shots=shots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """One person's face, per distinct source frame that was shown (F of them, ascending).

    frame: (F,) int64 source frame; valid: (F,) bool; boxes: (F, 4) float32 x1 y1 x2 y2 in source pixels, half-open;
    landmarks: (F, 5, 2) float32 (eye, eye, nose, mouth corner, mouth corner; picture-left first); prob: (F,) float32;
    track: (F,) int64 id, -1 where there is none. NaN where not valid.
    crops: F pictures of size_px x size_px, b"" where there is none; coding: each is a JPEG file, or its size_px x size_px x 3 RGB bytes.
    found: every face of every person, so that a choice can be seen and changed.
    """

    size_px: int
    coding: Coding
    frame: Int64
    valid: Bool
    boxes: Float32
    landmarks: Float32
    prob: Float32
    track: Int64
    crops: Sequence[bytes]
    found: Detections

    def __post_init__(self) -> None:
        f = len(self.frame)
        shapes = (self.valid.shape, self.boxes.shape, self.landmarks.shape, self.prob.shape, self.track.shape, (len(self.crops),))
        _require(shapes == ((f,), (f, 4), (f, 5, 2), (f,), (f,), (f,)), "Faces", f"{f} rows in every array", shapes)
        lengths = np.fromiter(map(len, self.crops), np.int64, f)
        _require(bool(np.array_equal(lengths > 0, self.valid)), "Faces.crops", "a crop where valid, and nowhere else", "a mismatch")
        if self.coding == "raw":
            whole = self.size_px * self.size_px * 3
            _require(bool((lengths[self.valid] == whole).all()), "Faces.crops", f"{whole} bytes each", np.unique(lengths[self.valid]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Where and how an extractor computes. Of these only precision and the weights' digest are part of a key.

    threads: how many it may use on a processor. They decide no bit of what it gives.
    """

    device: str = "cpu"
    precision: str = "float32"
    weights: Path | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        _require(self.threads >= 1, "Runtime.threads", "1 or more", self.threads)
