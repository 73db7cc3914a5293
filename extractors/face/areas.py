"""Pictures as the networks see them: parts of scaled pictures, and scaled crops, each pixel the mean of an area of the picture.

What is made is told in *cells*, (K, 2, 4) int64: along y, then x, `origin, side, n, number`. Of n equal cells over `side` pixels that
begin at `origin`, the result shows those from `number` on, and each is the mean of all pixels that it touches. That is torch's `area`
interpolation, as in facenet-pytorch. All sums are whole numbers and exact, and so the means are the very float32 numbers of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from extractors.contract import Int64, UInt8
from extractors.face import kernels

if TYPE_CHECKING:
    from torch import Tensor

# As `map`: applies a function to every item, on several threads perhaps.
Share = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
# Parts of more pixels than this, on average, are worth being summed by several threads.
SHARED_PIXELS = 1 << 14


class Areas(Protocol):
    """N pictures, or parts of them. limits: (N, 4) int64 x1 y1 x2 y2, half-open, of what is there."""

    @property
    def limits(self) -> Tensor: ...

    def means(self, picture: Tensor, cells: Tensor, height: int, width: int) -> Tensor:
        """(K, 3, height, width) float32 from -1 to 1: of pictures (K,) int64 the cells (K, 2, 4) int64, inside the limits."""
        ...


def patch_cells(height: int, width: int, scaled_px: Int64, corner: Int64) -> Int64:
    """Parts of pictures of height x width that are scaled, whole, to (K, 2) scaled_px; the parts begin at (K, 2) row and column there."""
    side = np.broadcast_to(np.array([height, width]), scaled_px.shape)
    return np.stack([np.zeros_like(scaled_px), side, scaled_px, corner], axis=2)


def crop_cells(edges: Tensor, size_px: int) -> Tensor:
    """Crops (K, 4) int64 x1 y1 x2 y2, half-open, not empty, scaled to size_px x size_px."""
    import torch

    origin = edges[:, :2].flip(1)
    side = edges[:, 2:].flip(1) - origin
    return torch.stack([origin, side, torch.full_like(side, size_px), torch.zeros_like(side)], dim=2)


class PixelAreas:
    """Straight from the pixels, on a processor: nothing is made ready, but each area costs what it has of pixels."""

    def __init__(self, images: Sequence[UInt8] | UInt8) -> None:
        """images: (H, W, 3) uint8, of one size. None is copied that lies in memory row after row."""
        import torch

        height, width, _ = images[0].shape
        self._rows = [np.require(image, requirements=["C", "W"]).reshape(height, -1) for image in images]
        self.limits = torch.tensor([[0, 0, width, height]]).expand(len(images), 4)

    def means(self, picture: Tensor, cells: Tensor, height: int, width: int) -> Tensor:
        import torch

        out, numbers, rest = np.empty((len(picture), 3, height, width), np.float32), picture.numpy(), cells.numpy()
        for number in set(numbers.tolist()):
            kernels.from_pixels()(self._rows[number], number, numbers, rest, out)
        return torch.from_numpy(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedAreas:
    """From tables of sums: an area costs the same, however large it is.

    table: (S, 3) int32, row after row, part after part: the sum of the part's pixels above and left of each point (Crow, SIGGRAPH 1984).
    Point (y, x) of picture n is at first[n] + y stride[n] + x. Sums that pass 2^31 wrap around, and differences of them are right all the
    same, as long as no area that is asked for has over 2^31 / 255 pixels.
    """

    table: Tensor
    first: Tensor
    stride: Tensor
    limits: Tensor

    def means(self, picture: Tensor, cells: Tensor, height: int, width: int) -> Tensor:
        import torch

        if self.table.device.type != "cpu":
            return self.gathered(picture, cells, height, width)
        out = np.empty((len(picture), 3, height, width), np.float32)
        kernels.from_sums()(*(part.numpy() for part in (self.table, self.first, self.stride, picture, cells)), out)
        return torch.from_numpy(out)

    def gathered(self, picture: Tensor, cells: Tensor, height: int, width: int) -> Tensor:
        """`means` in tensors, for a GPU."""
        (y0, y1), (x0, x1) = (_edges(cells[:, axis], n) for axis, n in enumerate((height, width)))
        first, stride = self.first[picture, None], self.stride[picture, None]
        above, below = ((first + y * stride).int()[:, :, None] for y in (y0, y1))  # half the bytes of int64, and no table is so long
        left, right = (x.int()[:, None] for x in (x0, x1))

        def up_to(rows: Tensor, columns: Tensor) -> Tensor:
            return self.table.index_select(0, (rows + columns).view(-1))

        sums = up_to(below, right).sub_(up_to(above, right)).sub_(up_to(below, left)).add_(up_to(above, left))
        means = sums.view(len(picture), height, width, 3).float()
        means = means.div_((y1 - y0)[:, :, None, None]).div_((x1 - x0)[:, None, :, None])
        return means.sub_(kernels.MEAN).mul_(kernels.SCALE).permute(0, 3, 1, 2)


def _edges(cells: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(K, 4) -> (K, n) first and last edge of n cells along one axis."""
    import torch

    origin, side, of, number = (part[:, None] for part in cells.unbind(dim=1))
    number = number + torch.arange(n, device=cells.device)
    return origin + (number * side).div(of, rounding_mode="floor"), origin + ((number + 1) * side + of - 1).div(of, rounding_mode="floor")


class Summer:
    """Makes tables on one device, in memory that it keeps: fresh memory costs more than the sums. A table holds until the next is made."""

    def __init__(self, device: str, share: Share = map) -> None:
        import torch

        self._device, self._share, self._on_cpu = device, share, torch.device(device).type == "cpu"
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
        return SummedAreas(table=table, first=first, stride=stride, limits=limits)

    def _sums(self, images: Sequence[UInt8] | UInt8, parts: Int64, of: Int64, start: Int64) -> Tensor:
        import cv2
        import torch

        n = int(start[-1])
        if len(self._memory) < n * 3:
            self._memory = np.empty(n * 3, np.int32)
        table = self._memory[: n * 3].reshape(n, 3)
        edges, bounds = parts.tolist(), start.tolist()

        def summed(k: int) -> None:
            x1, y1, x2, y2 = edges[k]
            cv2.integral(images[of[k]][y1:y2, x1:x2], table[bounds[k] : bounds[k + 1]].reshape(y2 - y1 + 1, x2 - x1 + 1, 3))

        for _ in (self._share if n > len(parts) * SHARED_PIXELS else map)(summed, range(len(parts))):
            pass
        return torch.from_numpy(table)

    def _sums_on_gpu(self, images: Sequence[UInt8] | UInt8) -> Tensor:
        """The pixels go through pinned memory."""
        import torch

        pixels = torch.from_numpy(np.stack(list(images))).pin_memory().to(self._device, non_blocking=True)
        n, height, width, _ = pixels.shape
        table = torch.zeros((n, height + 1, width + 1, 3), dtype=torch.int32, device=self._device)
        table[:, 1:, 1:] = pixels.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        return table.view(-1, 3)
