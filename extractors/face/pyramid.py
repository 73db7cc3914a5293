"""Where faces may be: P-Net over an image pyramid, in whole pictures or only around places where a face is expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from extractors.contract import Float32, Float64, Int64
from extractors.face.areas import Areas, Share, patch_cells
from extractors.face.candidates import Candidates, square, suppress
from extractors.face.networks import Network

if TYPE_CHECKING:
    from torch import Tensor

# Zhang et al., arXiv 1604.02878, with the threshold, the scale factor and the overlaps of facenet-pytorch 2.5.3.
THRESHOLD = 0.6
SCALE_FACTOR = 0.709
OVERLAP_IN_LEVEL, OVERLAP = 0.5, 0.7
CELL_PX, STRIDE_PX = 12, 2
# An expected face is looked for in the levels whose cells have its size, by these factors (on four clips the cell that became the face
# had 0.5 to 1.6 times the size of the square that O-Net saw), with the cells' middles up to REACH face sizes from its own.
CELL_TO_FACE = (0.4, 1.8)
REACH = 0.4
PATCH_STEP_PX = 12
# Scaled pixels that P-Net sees at once: of small patches so many as are worth a turn, and of a large one the rows that it may have, but
# not so few that most of them are there twice. On a processor they fit its caches, and can be shared among threads.
PIXELS_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 24}
PIXELS_OF_ONE = {"cpu": 1 << 16, "cuda": 1 << 24}
MIN_BAND_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """K parts of scaled pictures, all of height x width pixels. picture, level: (K,) int64; corner, scaled_px: (K, 2) int64 y, x."""

    height: int
    width: int
    picture: Int64
    level: Int64
    corner: Int64
    scaled_px: Int64

    def __len__(self) -> int:
        return len(self.picture)

    def seen(self, height: int, width: int) -> Int64:
        """(K, 4) x1 y1 x2 y2: the pixels of the unscaled pictures, of height x width, that the patches show."""
        whole, last = np.array([height, width]), self.corner + np.array([self.height, self.width])
        return np.concatenate([(self.corner * whole // self.scaled_px)[:, ::-1], -(-last * whole // self.scaled_px)[:, ::-1]], axis=1)

    def split(self, n_pixels: int) -> Iterator[Patches]:
        """In parts of so many pixels at most, or of one patch where that has more, and of a power of two of patches but the last."""
        step = 1 << (max(n_pixels // (self.height * self.width), 1).bit_length() - 1)
        for start in range(0, len(self), step):
            yield self[np.arange(start, min(start + step, len(self)))]

    def bands(self, n_pixels: int) -> Iterator[Patches]:
        """Cut across, where they have more than so many pixels each, into parts that together have the very cells of the whole."""
        n_rows = max(n_pixels // self.width, MIN_BAND_PX)
        twice = CELL_PX - STRIDE_PX
        n_bands = max(-(-(self.height - twice) // (n_rows - twice)), 1)
        step = max(-(-(self.height - twice) // (n_bands * STRIDE_PX)), 1) * STRIDE_PX
        for first in range(0, max(self.height - twice, 1), step):
            height = min(step + twice, self.height - first)
            yield replace(self, height=height, corner=self.corner + np.array([first, 0]))

    def __getitem__(self, which: Int64) -> Patches:
        return replace(
            self, picture=self.picture[which], level=self.level[which], corner=self.corner[which], scaled_px=self.scaled_px[which]
        )

    def cells(self, device: Any, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Of pictures of height x width what `Areas.means` takes: (K,) picture and (K, 2, 4) cells."""
        import torch

        cells = patch_cells(height, width, self.scaled_px, self.corner)
        return torch.from_numpy(self.picture).to(device), torch.from_numpy(cells).to(device)

    def filled(self) -> Patches:
        """With the last patch repeated up to a power of two: a compiled network has to prepare for every number that it meets."""
        return self[np.minimum(np.arange(1 << (len(self) - 1).bit_length()), len(self) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """network: P-Net. min_face_px: the size of a cell in the first level. share: how patches are shared among threads."""

    network: Network
    min_face_px: int
    share: Share = map

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

    def everything(self, height: int, width: int, n: int) -> list[Patches]:
        """All levels of n pictures, whole."""
        picture = np.arange(n)
        plan = []
        for level, scale in enumerate(self.scales(height, width).tolist()):
            whole_px = _scaled_px(height, width, scale)
            scaled_px = np.tile(np.array([whole_px]), (n, 1))
            about = {"picture": picture, "level": np.full(n, level), "corner": np.zeros_like(scaled_px), "scaled_px": scaled_px}
            plan.append(Patches(height=whole_px[0], width=whole_px[1], **about))
        return plan

    def around(self, height: int, width: int, picture: Int64, expected: Float32) -> list[Patches]:
        """Patches for faces that are expected at (R, 4) squares of (R,) pictures."""
        return _patches(self.scales(height, width), height, width, picture, expected)

    def candidates(self, areas: Areas, plan: Sequence[Patches], height: int, width: int) -> Candidates:
        """What P-Net makes of the patches of pictures of height x width: squares, with its score.

        Where a patch shows all that a cell sees, the cell is what it is in the whole level.
        """
        import torch

        device = areas.limits.device
        bands = [band for patches in plan for band in patches.bands(PIXELS_OF_ONE[device.type])]
        parts = [part for band in bands for part in band.split(PIXELS_AT_ONCE[device.type])]
        if not parts:
            return _nobody(device)

        def over(part: Patches, picture: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """The cells over the threshold: (C, 3) int64 patch, row and column; (C,) score; (C, 4) how their boxes would be moved."""
            moves, prob = self.network(areas.means(picture, cells, part.height, part.width))
            score = prob[: len(part), 1]
            where = (score >= THRESHOLD).nonzero()
            k, y, x = where.unbind(dim=1)
            return where, score[k, y, x], moves[k, :, y, x]

        asked = [(part, *part.filled().cells(device, height, width)) for part in parts]
        cells = list(self.share(lambda one: over(*one), asked))
        where, score, moves = (torch.cat([found[i] for found in cells]) for i in range(3))
        first = np.repeat(np.cumsum([0, *map(len, parts[:-1])]), [len(found[0]) for found in cells])
        patch = torch.from_numpy(first).to(device) + where[:, 0]
        picture, level, corner = (
            torch.from_numpy(np.concatenate([getattr(part, name) for part in parts])).to(device)[patch]
            for name in ("picture", "level", "corner")
        )
        scales = self.scales(height, width)
        scale = torch.from_numpy(scales.astype(np.float32)).to(device)[level]
        first_px = where[:, 1:] * STRIDE_PX + corner
        edges = first_px.flip(1).float().repeat(1, 2) + scale.new_tensor([1, 1, CELL_PX, CELL_PX])
        everyone = Candidates(picture=picture, boxes=(edges / scale[:, None]).floor(), score=score)
        kept = suppress(everyone, OVERLAP_IN_LEVEL, picture * len(scales) + level)
        return _settled(everyone[kept], moves[kept])


def _scaled_px(height: int, width: int, scale: float) -> tuple[int, int]:
    return int(height * scale + 1), int(width * scale + 1)


def _settled(found: Candidates, moves: Tensor) -> Candidates:
    """Without overlaps between levels, moved as P-Net says and made square."""
    kept = suppress(found, OVERLAP)
    found, moves = found[kept], moves[kept]
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).repeat(1, 2)
    return Candidates(picture=found.picture, boxes=square(found.boxes + moves * sides), score=found.score)


def _nobody(device: Any) -> Candidates:
    import torch

    empty = torch.zeros(0, device=device)
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
    plan = []
    for high, wide in np.unique(shape, axis=0).tolist():
        same = (shape == (high, wide)).all(axis=1)
        about = {"picture": picture[face[same]], "level": level[same].astype(np.int64), "corner": corner[same], "scaled_px": whole_px[same]}
        plan.append(Patches(height=high, width=wide, **about))
    return plan
