"""How near the faces of `mode: tracked` come to those of `mode: exact`, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from extractors.contract import Bool, Detections, Float32, Float64, Int64
from extractors.face.tracking import cheapest_first

SURE = 0.9
SAME_IOU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """All of one clip; None stands for what cannot be told because there is nothing to tell it from.

    n_faces: of exact, with a score over SURE. recall: the share of these that tracked has too; recall_kept: the same of those in tracks
    of min_track_s and more. iou_*, landmark_error: of those it has; the error is the mean distance of five landmarks in eye distances.
    false_share: of all frames, with a face that exact does not have at any score. ids_*: tracks, and tracks of min_track_s and more.
    switches: how often the faces of one track of exact pass from one track of tracked to another.
    """

    n_faces: int
    recall: float | None
    recall_kept: float | None
    iou_mean: float | None
    iou_p5: float | None
    landmark_error: float | None
    false_share: float | None
    ids_exact: tuple[int, int]
    ids_tracked: tuple[int, int]
    switches: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """Per face of A the face of B that it is, -1 for none, and their IoU, NaN for none. Both (A,)."""

    number: Int64
    iou: Float64


def compare(*, exact: Detections, every: Detections, tracked: Detections, frame: Int64, shown_s: Float64, min_track_s: float) -> Quality:
    """every: exact at any score. frame: (F,) int64 ascending, all that were looked at; shown_s: (F,) float64 for how long each is shown."""
    kept_tracks = long_tracks(exact, frame, shown_s, min_track_s)
    sure, ours = _only(exact, exact.prob > SURE), _only(tracked, tracked.prob > SURE)
    match = _match(sure, ours)
    there = match.number >= 0
    false = _match(ours, every).number < 0
    return Quality(
        n_faces=len(sure.frame),
        recall=_mean(there),
        recall_kept=_mean(there[np.isin(sure.track, kept_tracks)]),
        iou_mean=_mean(match.iou[there]),
        iou_p5=float(np.percentile(match.iou[there], 5)) if there.any() else None,
        landmark_error=_mean(_landmark_error(sure.landmarks[there], ours.landmarks[match.number[there]])),
        false_share=len(np.unique(ours.frame[false])) / len(frame) if len(frame) else None,
        ids_exact=(len(np.unique(exact.track)), len(kept_tracks)),
        ids_tracked=(len(np.unique(tracked.track)), len(long_tracks(tracked, frame, shown_s, min_track_s))),
        switches=_switches(sure.track[there], ours.track[match.number[there]]) if there.any() else None,
    )


def shown_s(times_s: Float64) -> Float64:
    """(F,) times -> how long each frame is shown, as tracks are measured: the last one for the median, a single one for a second."""
    intervals = np.diff(times_s)
    return np.append(intervals, np.median(intervals) if len(intervals) else 1.0)


def long_tracks(found: Detections, frame: Int64, shown_s: Float64, min_track_s: float) -> Int64:
    """The ids of tracks whose face is seen for min_track_s or more in all."""
    ids, of_face = np.unique(found.track, return_inverse=True)
    seen_s = np.bincount(of_face, weights=shown_s[np.searchsorted(frame, found.frame)], minlength=len(ids))
    return np.asarray(ids[seen_s >= min_track_s - 1e-9], dtype=np.int64)


def _only(found: Detections, which: Bool) -> Detections:
    parts = {name: getattr(found, name)[which] for name in ("frame", "track", "boxes", "landmarks", "prob")}
    return Detections(**parts, shots=found.shots)


def _match(a: Detections, b: Detections) -> _Match:
    """Frame by frame one-to-one, the largest overlap first, where it is over SAME_IOU."""
    number, iou = np.full(len(a.frame), -1, dtype=np.int64), np.full(len(a.frame), np.nan)
    for in_a, in_b in _frames(a.frame, b.frame):
        overlap = _iou(a.boxes[in_a], b.boxes[in_b])
        for i, j in cheapest_first(np.where(overlap > SAME_IOU, -overlap, np.inf)):
            number[in_a.start + i], iou[in_a.start + i] = in_b.start + j, overlap[i, j]
    return _Match(number=number, iou=iou)


def _frames(a: Int64, b: Int64) -> Iterator[tuple[slice, slice]]:
    """Where the faces of each frame that has any lie in two ascending arrays of frame numbers."""
    for frame in np.intersect1d(a, b):
        yield slice(*np.searchsorted(a, [frame, frame + 1]).tolist()), slice(*np.searchsorted(b, [frame, frame + 1]).tolist())


def _iou(a: Float32, b: Float32) -> Float64:
    """Boxes (A, 4), (B, 4) -> (A, B) intersection over union."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2, dtype=np.float64)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64) for boxes in (a, b))
    return np.asarray(shared / (area_a[:, None] + area_b[None] - shared))


def _landmark_error(truth: Float32, ours: Float32) -> Float64:
    """(K, 5, 2) each -> (K,) the mean distance of the five, in distances between the true eyes."""
    eyes = np.linalg.norm(truth[:, 1] - truth[:, 0], axis=1)
    return np.asarray(np.linalg.norm(truth - ours, axis=2).mean(axis=1) / eyes, dtype=np.float64)


def _switches(truth: Int64, ours: Int64) -> int:
    """Ids of the same faces by two trackers, in order of time. Gaps do not count, changes on the way across them do."""
    return sum(one != other for track in np.unique(truth) for one, other in pairwise(ours[truth == track].tolist()))


def _mean(values: Float64 | Bool) -> float | None:
    return float(np.mean(values)) if len(values) else None
