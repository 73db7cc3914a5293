"""Summed-area tables: the mean colour of any rectangle from four look-ups, so that a crop costs the same at every size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from extractors.contract import Int64, UInt8

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedAreas:
    """Of N pictures, or of parts of them, all of height x width pixels as a whole.

    table: (S, 3) int32, row after row, part after part: the sum of the part's pixels above and left of each point (Crow, SIGGRAPH 1984).
    Point (y, x) of picture n is at first[n] + y stride[n] + x, where limits[n] = x1 y1 x2 y2 says which points there are.
    Sums that pass 2^31 wrap around, and differences of them are right all the same, as long as no rectangle that is asked for has over
    2^31 / 255 pixels.

    Scaling is torch's `area` interpolation, as in facenet-pytorch: cell i of n is the plain mean of the pixels from
    floor(i size / n) to ceil((i + 1) size / n). The sums are exact, and so the means are the same float32 numbers as there.
    """

    table: Tensor
    first: Tensor
    stride: Tensor
    limits: Tensor
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.first)

    def patches(self, picture: Tensor, scaled_px: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
        """(K, 3, height, width) float32 from 0 to 255, channels last: parts of scaled pictures.

        picture: (K,) int64; scaled_px: (K, 2) int64 height and width that the whole picture is scaled to; corner: (K, 2) int64 the part's
        first row and column there.
        """
        import torch

        row, column = (torch.arange(n, device=corner.device) + corner[:, i, None] for i, n in enumerate((height, width)))
        y0, y1 = _cells(self.height, scaled_px[:, :1], row)
        x0, x1 = _cells(self.width, scaled_px[:, 1:], column)
        return self._means(picture, y0, y1, x0, x1)

    def crops(self, picture: Tensor, edges: Tensor, size: int) -> Tensor:
        """(K, 3, size, size) float32 from 0 to 255, channels last: parts of the pictures, each scaled.

        picture: (K,) int64; edges: (K, 4) int64 x1 y1 x2 y2, half-open, inside the limits, not empty.
        """
        import torch

        cell = torch.arange(size, device=edges.device)
        x0, x1 = _cells(edges[:, 2:3] - edges[:, 0:1], size, cell)
        y0, y1 = _cells(edges[:, 3:4] - edges[:, 1:2], size, cell)
        return self._means(picture, y0 + edges[:, 1:2], y1 + edges[:, 1:2], x0 + edges[:, 0:1], x1 + edges[:, 0:1])

    def _means(self, picture: Tensor, y0: Tensor, y1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """picture: (K,); y0, y1: (K, h) and x0, x1: (K, w) edges of cells, half-open."""
        first, stride = self.first[picture, None], self.stride[picture, None]
        above, below = ((first + y * stride).int()[:, :, None] for y in (y0, y1))  # half the bytes of int64, and no table is so long
        left, right = (x.int()[:, None] for x in (x0, x1))

        def up_to(rows: Tensor, columns: Tensor) -> Tensor:
            return self.table.index_select(0, (rows + columns).view(-1))

        sums = up_to(below, right).sub_(up_to(above, right)).sub_(up_to(below, left)).add_(up_to(above, left))
        means = sums.view(len(picture), y0.shape[1], x0.shape[1], 3).float()
        return means.div_((y1 - y0)[:, :, None, None]).div_((x1 - x0)[:, None, :, None]).permute(0, 3, 1, 2)


class Summer:
    """Makes tables on one device, in memory that it keeps: fresh memory costs more than the sums. A table holds until the next is made."""

    def __init__(self, device: str) -> None:
        import torch

        self._device, self._on_cpu = device, torch.device(device).type == "cpu"
        self._memory = np.empty(0, np.int32)

    def __call__(self, images: Sequence[UInt8] | UInt8, parts: Int64 | None = None, of: Int64 | None = None) -> SummedAreas:
        """images: (H, W, 3) uint8, of one size. parts: (N, 4) int64 x1 y1 x2 y2, half-open, n of image of[n]; if not given, all of all."""
        import torch

        height, width, _ = images[0].shape
        whole = np.tile(np.array([[0, 0, width, height]]), (len(images), 1))
        parts, of = (whole, np.arange(len(images))) if parts is None or of is None else (parts, of)
        # On a GPU whole pictures are summed: one copy and two kernels cost less than one for each part.
        held, held_of = (parts, of) if self._on_cpu else (whole, np.arange(len(images)))
        stride = held[:, 2] - held[:, 0] + 1
        start = np.concatenate([[0], np.cumsum((held[:, 3] - held[:, 1] + 1) * stride)])
        first = start[:-1] - held[:, 1] * stride - held[:, 0]
        which = slice(None) if self._on_cpu else of
        table = self._sums(images, held, held_of, start) if self._on_cpu else self._sums_on_gpu(images)
        first, stride, limits = (torch.from_numpy(np.ascontiguousarray(x)).to(self._device) for x in (first[which], stride[which], parts))
        return SummedAreas(table=table, first=first, stride=stride, limits=limits, height=height, width=width)

    def _sums(self, images: Sequence[UInt8] | UInt8, parts: Int64, of: Int64, start: Int64) -> Tensor:
        import cv2
        import torch

        n = int(start[-1])
        if len(self._memory) < n * 3:
            self._memory = np.empty(n * 3, np.int32)
        table = self._memory[: n * 3].reshape(n, 3)
        for (x1, y1, x2, y2), number, begin, end in zip(parts.tolist(), of.tolist(), start[:-1], start[1:], strict=True):
            cv2.integral(images[number][y1:y2, x1:x2], table[begin:end].reshape(y2 - y1 + 1, x2 - x1 + 1, 3))
        return torch.from_numpy(table)

    def _sums_on_gpu(self, images: Sequence[UInt8] | UInt8) -> Tensor:
        """The pixels go through pinned memory."""
        import torch

        pixels = torch.from_numpy(np.stack(list(images))).pin_memory().to(self._device, non_blocking=True)
        n, height, width, _ = pixels.shape
        table = torch.zeros((n, height + 1, width + 1, 3), dtype=torch.int32, device=self._device)
        table[:, 1:, 1:] = pixels.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        return table.view(-1, 3)


def _cells(side: int | Tensor, n: int | Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """First and last edge of cells of n over `side` pixels, by their number."""
    return (number * side).div(n, rounding_mode="floor"), ((number + 1) * side + n - 1).div(n, rounding_mode="floor")
