"""Where faces may be: P-Net over an image pyramid, in whole pictures or only around places where a face is expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from extractors.contract import Float32, Float64, Int64
from extractors.face.candidates import Candidates, joined, square, suppress
from extractors.face.networks import Network

if TYPE_CHECKING:
    from torch import Tensor

    from extractors.face.summed import SummedAreas

# Zhang et al., arXiv 1604.02878, with the threshold, the scale factor and the overlaps of facenet-pytorch 2.5.3.
THRESHOLD = 0.6
SCALE_FACTOR = 0.709
OVERLAP_IN_LEVEL, OVERLAP = 0.5, 0.7
CELL_PX, STRIDE_PX = 12, 2
# An expected face is looked for in the levels whose cells have its size, by these factors (on four clips the cell that became the face
# had 0.5 to 1.6 times the size of the square that O-Net saw), with the cells' middles up to REACH face sizes from its own.
CELL_TO_FACE = (0.45, 1.8)
REACH = 0.45
PATCH_STEP_PX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """K parts of scaled pictures, all of height x width pixels. picture, level: (K,) int64; corner, scaled_px: (K, 2) int64 y, x."""

    height: int
    width: int
    picture: Int64
    level: Int64
    corner: Int64
    scaled_px: Int64

    def seen(self, height: int, width: int) -> Int64:
        """(K, 4) x1 y1 x2 y2: the pixels of the unscaled pictures, of height x width, that the patches show."""
        whole, last = np.array([height, width]), self.corner + np.array([self.height, self.width])
        return np.concatenate([(self.corner * whole // self.scaled_px)[:, ::-1], -(-last * whole // self.scaled_px)[:, ::-1]], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """network: P-Net. min_face_px: the size of a cell in the first level."""

    network: Network
    min_face_px: int

    def scales(self, height: int, width: int) -> Float64:
        """(L,) the largest first, none where the picture is smaller than min_face_px. In the reference's own order of float
        operations, because a level more or less moves boxes."""
        scale = CELL_PX / self.min_face_px
        side_px = min(height, width) * scale
        scales = []
        while side_px >= CELL_PX:
            scales.append(scale)
            scale, side_px = scale * SCALE_FACTOR, side_px * SCALE_FACTOR
        return np.array(scales)

    def everywhere(self, areas: SummedAreas) -> Candidates:
        """All candidates of all pictures: squares, with P-Net's score."""
        import torch

        picture = torch.arange(len(areas), device=areas.table.device)
        found, moves = [_nobody(areas)], [areas.table.new_zeros((0, 4), dtype=torch.float32)]
        for scale in self.scales(areas.height, areas.width).tolist():
            height, width = _scaled_px(areas.height, areas.width, scale)
            whole_px, corner = picture.new_tensor([[height, width]]), picture.new_zeros((1, 2))
            pixels = areas.patches(picture, whole_px, corner, height, width)
            level, level_moves, _ = self._cells(
                pixels, torch.full((len(areas),), scale, device=picture.device), picture, corner.expand(len(areas), 2)
            )
            kept = suppress(level, OVERLAP_IN_LEVEL)
            found.append(level[kept])
            moves.append(level_moves[kept])
        return _settled(joined(found), torch.cat(moves))

    def plan(self, height: int, width: int, picture: Int64, expected: Float32) -> list[Patches]:
        """Which patches to look at for faces that are expected at (R, 4) squares of (R,) pictures."""
        return _patches(self.scales(height, width), height, width, picture, expected)

    def around(self, areas: SummedAreas, plan: Sequence[Patches]) -> Candidates:
        """Candidates in the patches: there they are the ones that `everywhere` has."""
        import torch

        device = areas.table.device
        scales = self.scales(areas.height, areas.width)
        found, moves = [_nobody(areas)], [areas.table.new_zeros((0, 4), dtype=torch.float32)]
        group = [areas.table.new_zeros(0, dtype=torch.int64)]
        for some in plan:
            picture, level, corner, whole_px = (
                torch.from_numpy(part).to(device) for part in (some.picture, some.level, some.corner, some.scaled_px)
            )
            pixels = areas.patches(picture, whole_px, corner, some.height, some.width)
            scale = torch.from_numpy(scales.astype(np.float32)).to(device)[level]
            cells, cell_moves, patch = self._cells(pixels, scale, picture, corner)
            found.append(cells)
            moves.append(cell_moves)
            group.append(picture[patch] * len(scales) + level[patch])
        everyone = joined(found)
        kept = suppress(everyone, OVERLAP_IN_LEVEL, torch.cat(group))
        return _settled(everyone[kept], torch.cat(moves)[kept])

    def _cells(self, pixels: Tensor, scale: Tensor, picture: Tensor, corner: Tensor) -> tuple[Candidates, Tensor, Tensor]:
        """P-Net's cells over the threshold as boxes in source pixels, how it would move them, and from which of the K inputs each is.

        pixels: (K, 3, h, w); scale: (K,) float32; picture: (K,); corner: (K, 2) where the pixels begin in the level.
        """
        moves, prob = self.network(pixels)
        prob = prob[:, 1]
        where = (prob >= THRESHOLD).nonzero()
        k, y, x = where.unbind(dim=1)
        first_px = where[:, 1:] * STRIDE_PX + corner[k]
        edges = first_px.flip(1).float().repeat(1, 2) + scale.new_tensor([1, 1, CELL_PX, CELL_PX])
        boxes = (edges / scale[k, None]).floor()
        return Candidates(picture=picture[k], boxes=boxes, score=prob[k, y, x]), moves[k, :, y, x], k


def _scaled_px(height: int, width: int, scale: float) -> tuple[int, int]:
    return int(height * scale + 1), int(width * scale + 1)


def _settled(found: Candidates, moves: Tensor) -> Candidates:
    """Without overlaps between levels, moved as P-Net says and made square."""
    kept = suppress(found, OVERLAP)
    found, moves = found[kept], moves[kept]
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).repeat(1, 2)
    return Candidates(picture=found.picture, boxes=square(found.boxes + moves * sides), score=found.score)


def _nobody(areas: SummedAreas) -> Candidates:
    import torch

    empty = areas.table.new_zeros(0, dtype=torch.float32)
    return Candidates(picture=empty.long(), boxes=empty.view(0, 4), score=empty)


def _patches(scales: Float64, height: int, width: int, picture: Int64, expected: Float32) -> list[Patches]:
    """The patches to look at, those of one shape together: squares, in few sizes, cut off where the level is."""
    ratio = CELL_PX / scales[None] / (expected[:, 2] - expected[:, 0])[:, None]
    face, level = np.nonzero((ratio >= CELL_TO_FACE[0]) & (ratio <= CELL_TO_FACE[1]))
    wanted_px = CELL_PX * (1 + 2 * REACH / ratio[face, level, None])
    side_px = (np.ceil(wanted_px / PATCH_STEP_PX) * PATCH_STEP_PX).astype(np.int64)
    whole_px = np.array([_scaled_px(height, width, scale) for scale in scales.tolist()], dtype=np.int64).reshape(-1, 2)[level]
    middle = ((expected[face, :2] + expected[face, 2:]) / 2)[:, ::-1] * scales[level, None]
    # At the level's end the last cell may see less than a whole window (the pooling rounds up), so a patch ends there too.
    corner = np.clip(np.floor(middle - side_px / 2), 0, np.maximum(whole_px - side_px + 1, 0)).astype(np.int64) // STRIDE_PX * STRIDE_PX
    shape = np.minimum(side_px, whole_px - corner)
    patches = []
    for high, wide in np.unique(shape, axis=0).tolist():
        same = (shape == (high, wide)).all(axis=1)
        about = {"picture": picture[face[same]], "level": level[same].astype(np.int64), "corner": corner[same], "scaled_px": whole_px[same]}
        patches.append(Patches(height=high, width=wide, **about))
    return patches
