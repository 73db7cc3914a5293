"""Boxes on a batch of pictures, as tensors: what the networks of a cascade hand on to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """K boxes. picture: (K,) int64, which of the batch; boxes: (K, 4) float32 x1 y1 x2 y2 in its pixels; score: (K,) float32."""

    picture: Tensor
    boxes: Tensor
    score: Tensor

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, which: Tensor) -> Candidates:
        return Candidates(picture=self.picture[which], boxes=self.boxes[which], score=self.score[which])


def square(boxes: Tensor) -> Tensor:
    """(K, 4): each box widened or heightened about its centre to a square."""
    import torch

    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(dim=1, keepdim=True).values
    corner = boxes[:, :2] + sides * 0.5 - longest * 0.5
    return torch.cat([corner, corner + longest], dim=1)


def moved(boxes: Tensor, by: Tensor) -> Tensor:
    """(K, 4): each edge moved by a share of the box's side, which counts its last pixel too, as the networks were trained."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + by * sides.repeat(1, 2)


def edges_inside(boxes: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """The part of each box within its limits, (K, 4) int64 x1 y1 x2 y2, half-open, as is the result; and (K,) bool, whether there is one.

    Boxes count pixels from 1, so that x1 = 1 is the first pixel's left edge (facenet-pytorch's `pad`).
    """
    import torch

    whole = boxes.trunc().long()
    low, high = (whole[:, :2] - 1).maximum(limits[:, :2]), whole[:, 2:].minimum(limits[:, 2:])
    return torch.cat([low, high], dim=1), (high > low).all(dim=1)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """(A, 4), (B, 4) -> (A, B) intersection over union."""
    shared, area_a, area_b = _shared(a, b, 0), _area(a, 0), _area(b, 0)
    return shared / (area_a[:, None] + area_b[None] - shared).clamp(min=1e-9)


def suppress(found: Candidates, threshold: float, group: Tensor | None = None) -> Tensor:
    """Numbers of the candidates to keep, the best first: none overlaps a better one of its group by more than the threshold.

    group: (K,) int64, the picture where none is given. Groups are moved apart in float64, in which that loses nothing; in float32 a
    picture's faces would depend on how many pictures are in the batch.
    """
    from torchvision.ops import nms

    if not len(found):
        return found.picture
    boxes = found.boxes.double()
    apart = (found.picture if group is None else group) * (boxes.max() - boxes.min() + 1)
    kept: Tensor = nms(boxes + apart[:, None], found.score.double(), threshold)
    return kept


def suppress_inside(found: Candidates, threshold: float) -> Tensor:
    """As `suppress`, but overlap is the share of the smaller box: a face inside another is not one.

    The greedy rule (who is suppressed suppresses nobody) is the only fixed point of one matrix step, which is repeated until nothing
    changes: as many times as the longest chain of overlapping boxes, two or three.
    """
    import torch

    order = found.score.argsort(descending=True, stable=True)
    boxes, picture = found.boxes[order], found.picture[order]
    area = _area(boxes, 1)
    share = _shared(boxes, boxes, 1) / torch.minimum(area[:, None], area[None])
    beats = ((share > threshold) & (picture[:, None] == picture[None])).triu(diagonal=1)
    kept = torch.ones(len(order), dtype=torch.bool, device=order.device)
    while True:
        again = ~(beats & kept[:, None]).any(dim=0)
        if torch.equal(again, kept):
            return order[kept]
        kept = again


def _shared(a: Tensor, b: Tensor, last_px: int) -> Tensor:
    import torch

    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low + last_px).clamp(min=0).prod(dim=2)


def _area(boxes: Tensor, last_px: int) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2] + last_px).prod(dim=1)
