"""Which rows of a timeline make a clip: the windows of every extractor that sees several pictures at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from extractors.contract import Bool, Clips, Int64, UInt8

Anchor = Literal["end", "centre"]
MAX_FRAMES = 64
MAX_DILATION = 64
MAX_STRIDE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWindow:
    """clip_frames: pictures of a clip, 1 to 64. dilation: rows of the timeline from one to the next, 1 to 64. stride: rows from one
    clip to the next, 1 to 10,000. anchor: whether a clip ends at its own row or has it in the middle.

    Raises ValueError for others, beginning with the field's name.
    """

    clip_frames: int
    dilation: int
    stride: int
    anchor: Anchor

    def __post_init__(self) -> None:
        for field, most in (("clip_frames", MAX_FRAMES), ("dilation", MAX_DILATION), ("stride", MAX_STRIDE)):
            value = getattr(self, field)
            if not 1 <= value <= most:
                raise ValueError(f"{field}: expected a whole number from 1 to {most}, got {value}")

    def clips(self, valid: Bool) -> Clips:
        """(T,) which rows have a face -> a clip for the rows 0, stride, 2 stride, ...; valid where its own row has a face.

        anchor "end": the clip of row t sees t - (clip_frames - 1) dilation, ..., t - dilation, t, and so looks back only. "centre":
        it sees as far ahead as back (one row further ahead where the two cannot be equal); where clip_frames is even, row t
        itself lies between two of its pictures.
        Rows before the first one repeat the first, rows after the last one the last. A row without a face is replaced by the
        nearest earlier row with one, however long before, else by the nearest later one.
        """
        at = np.arange(0, len(valid), self.stride, dtype=np.int64)
        steps = np.arange(self.clip_frames, dtype=np.int64) * self.dilation
        before = steps[-1] if self.anchor == "end" else steps[-1] // 2
        rows = np.clip(at[:, None] + steps - before, 0, max(0, len(valid) - 1))
        return Clips(rows=_shown(valid)[rows], at=at, valid=valid[at])


def _shown(valid: Bool) -> Int64:
    """(T,) per row the row whose face stands for it: itself, the nearest earlier one with a face, else the nearest later one."""
    faces: Int64 = np.flatnonzero(valid)
    if not len(faces):
        return np.arange(len(valid), dtype=np.int64)
    earlier = np.searchsorted(faces, np.arange(len(valid)), side="right") - 1
    return np.asarray(faces[np.maximum(earlier, 0)], np.int64)


def check_clips(clips: UInt8, clip_frames: int, size_px: int) -> None:
    """Raises ValueError unless clips are (N, clip_frames, size_px, size_px, 3) uint8."""
    if clips.shape[1:] != (clip_frames, size_px, size_px, 3) or clips.dtype != np.uint8:
        raise ValueError(f"clips: expected (N, {clip_frames}, {size_px}, {size_px}, 3) uint8, got {clips.shape} {clips.dtype}")
