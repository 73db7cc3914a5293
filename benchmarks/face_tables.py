"""What was measured of faces, and how it is printed: Markdown tables in which "-" stands for what there was nothing to tell from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from face_cost import Cost
from face_quality import Quality
from face_reference import ReferenceCost

TIMED = ("tracked", "exact")
BUSY_CORES = 0.15


@dataclass(slots=True, kw_only=True)
class Measured:
    """One clip. ours: per timed stage one cost per repeat; decoding_s and reference: one per repeat.

    others_cores: how many cores had other work during the repeats, None where the system does not tell.
    """

    name: str
    size: str
    n_frames: int
    ours: dict[str, list[Cost]] = field(default_factory=lambda: {stage: [] for stage in TIMED})
    decoding_s: list[float] = field(default_factory=list)
    reference: list[ReferenceCost] = field(default_factory=list)
    others_cores: float | None = None
    quality: Quality | None = None

    @property
    def best(self) -> ReferenceCost:
        """The reference's fastest of each part. Whatever makes a repeat slower is other work."""
        parts = ("decode_s", "single_s", "batched_s", "crop_s")
        return ReferenceCost(**{part: min(getattr(cost, part) for cost in self.reference) for part in parts})

    def ratio(self, stage: str) -> tuple[float, float, float]:
        """The reference's time to ours: of the fastest, and the least and greatest of all repeats, each of which had both."""
        each = [theirs.total_s / cost.wall_s for theirs, cost in zip(self.reference, self.ours[stage], strict=True)]
        return self.best.total_s / min(cost.wall_s for cost in self.ours[stage]), min(each), max(each)


def speed_table(clips: Sequence[Measured]) -> str:
    head = ["clip", "size", "frames", *(f"{stage}: frames/s (ms, CPU ms)" for stage in TIMED), "decoding alone: ms"]
    head += ["facenet-pytorch: decode + detect + crop = ms", "(batch 1, 8)", *(f"ratio, {stage}" for stage in TIMED), "others, cores"]
    return _table(head, [_speed(clip) for clip in clips])


def _speed(clip: Measured) -> list[str]:
    theirs, busy = clip.best, clip.others_cores is not None and clip.others_cores > BUSY_CORES
    parts = f"{_ms(theirs.decode_s)} + {_ms(theirs.detect_s)} + {_ms(theirs.crop_s)} = {_ms(theirs.total_s)}"
    ratios = ["{:.1f}{} ({:.1f} to {:.1f})".format(ratio, "*" * busy, *span) for ratio, *span in map(clip.ratio, TIMED)]
    ours, batches = [_ours(clip.ours[stage]) for stage in TIMED], f"{_ms(theirs.single_s)}, {_ms(theirs.batched_s)}"
    others = _number(clip.others_cores, "{:.2f}")
    return [clip.name, clip.size, str(clip.n_frames), *ours, _ms(min(clip.decoding_s)), parts, batches, *ratios, others]


def _ours(costs: Sequence[Cost]) -> str:
    wall_s, cpu_s = min(cost.wall_s for cost in costs), [cost.cpu_s for cost in costs if cost.cpu_s is not None]
    return f"{1 / wall_s:.0f} ({_ms(wall_s)}, {_ms(min(cpu_s)) if cpu_s else '-'})"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def quality_table(clips: Sequence[Measured]) -> str:
    head = ["clip", "faces of exact", "recall", "recall in kept tracks", "IoU", "IoU, 5th percentile", "landmarks, eye distances"]
    head += ["frames with a false face", "ids, exact (kept)", "ids, tracked (kept)", "switches"]
    return _table(head, [[clip.name, *_quality(clip.quality)] for clip in clips if clip.quality is not None])


def _quality(found: Quality) -> list[str]:
    shares = [_number(value, "{:.4f}") for value in (found.recall, found.recall_kept)]
    places = [_number(value, "{:.3f}") for value in (found.iou_mean, found.iou_p5, found.landmark_error)]
    ids = ["{} ({})".format(*both) for both in (found.ids_exact, found.ids_tracked)]
    return [str(found.n_faces), *shares, *places, _number(found.false_share, "{:.2%}"), *ids, _number(found.switches, "{}")]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
