"""Means of areas, from pixels and from sums, against torch's own `area` interpolation: the same numbers, not nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from extractors.contract import Int64, UInt8
from extractors.face.areas import Areas, PixelAreas, SummedAreas, Summer, crop_cells, patch_cells
from extractors.face.kernels import MEAN, SCALE

SIZES = [(60, 90), (61, 37), (24, 24), (13, 5), (1, 30), (48, 49), (7, 201)]


def noise(n: int, height: int, width: int) -> UInt8:
    return np.random.default_rng(n * height + width).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def scaled(image: UInt8, height: int, width: int) -> Any:
    """(3, height, width) float32, as facenet-pytorch scales. Not to 1 x 1: for that torch has a mean of its own, of other rounding."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    return (torch.nn.functional.interpolate(pixels, size=(height, width), mode="area")[0] - MEAN) * SCALE


def means(areas: Areas, picture: Sequence[int], cells: torch.Tensor, height: int, width: int) -> torch.Tensor:
    found = areas.means(torch.tensor(picture), cells, height, width)
    if isinstance(areas, SummedAreas):  # a GPU's way of doing the same
        assert torch.equal(areas.gathered(torch.tensor(picture), cells, height, width), found)
    return found


def patches(
    areas: Areas, size: tuple[int, int], picture: Sequence[int], scaled_px: Any, corner: Any, height: int, width: int
) -> torch.Tensor:
    return means(areas, picture, torch.from_numpy(patch_cells(*size, np.array(scaled_px), np.array(corner))), height, width)


def both(images: Any) -> list[Areas]:
    return [Summer("cpu")(images), PixelAreas(images)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_whole_pictures_at_any_scale(height: int, width: int) -> None:
    images = noise(3, height, width)
    for areas in both(images):
        assert areas.limits.tolist() == [[0, 0, width, height]] * 3
        for to in ((height, width), (height // 2 + 1, width // 3 + 1), (2, 1), (2 * height - 1, width + 3), (47, 11)):
            found = patches(areas, (height, width), [0, 2, 1], [to] * 3, [(0, 0)] * 3, *to)
            assert found.shape == (3, 3, *to)
            for mean, of in zip(found, (0, 2, 1), strict=True):
                assert torch.equal(mean, scaled(images[of], *to))


def test_parts_of_scaled_pictures_are_parts_of_the_whole() -> None:
    """Each patch of its own picture, scale and place, also where only that part of the picture was summed."""
    images = noise(2, 61, 83)
    picture, scaled_px, corner = [0, 1, 1, 0], [(61, 83), (30, 41), (44, 59), (90, 121)], [(40, 60), (2, 0), (10, 40), (33, 100)]
    for areas in both(images):
        found = patches(areas, (61, 83), picture, scaled_px, corner, 12, 16)
        for k, ((high, wide), (y, x)) in enumerate(zip(scaled_px, corner, strict=True)):
            assert torch.equal(found[k], scaled(images[picture[k]], high, wide)[:, y : y + 12, x : x + 16])
    # Rows 5 to 20 of 44 and columns 25 to 40 of 59 show rows 6 to 29 of 61 and columns 35 to 57 of 83, and so on.
    part = Summer("cpu")(images, np.array([[35, 6, 58, 30], [4, 8, 37, 41]]), np.array([0, 1]))
    for number, level, (y, x) in ((0, (44, 59), (5, 25)), (1, (30, 41), (4, 2))):
        some = patches(part, (61, 83), [number], [level], [(y, x)], 16, 16)[0]
        assert torch.equal(some, scaled(images[number], *level)[:, y : y + 16, x : x + 16])


@pytest.mark.parametrize("size", [24, 48])
def test_crops_of_any_size_and_place(size: int) -> None:
    """Down to one pixel (scaled up), up to the whole picture, at its corners."""
    images = noise(2, 121, 77)
    edges = [
        [0, 0, 77, 121],
        [0, 0, 1, 1],
        [76, 120, 77, 121],
        [5, 9, 28, 32],
        [3, 100, 50, 121],
        [10, 10, 10 + size, 10 + size],
        [60, 2, 77, 119],
    ]
    rng = np.random.default_rng(1)
    low = np.stack([rng.integers(0, 76, 60), rng.integers(0, 120, 60)], axis=1)
    high = low + 1 + np.floor(rng.random((60, 2)) * ([77, 121] - low)).astype(np.int64)
    edges += np.concatenate([low, high], axis=1).tolist()
    of = [k % 2 for k in range(len(edges))]
    for areas in both(images):
        found = means(areas, of, crop_cells(torch.tensor(edges), size), size, size)
        assert (found.shape, found.dtype) == ((len(edges), 3, size, size), torch.float32)
        for crop, (x1, y1, x2, y2), number in zip(found, edges, of, strict=True):
            assert torch.equal(crop, scaled(images[number, y1:y2, x1:x2], size, size)), (x1, y1, x2, y2)


def test_parts_hold_what_they_were_cut_from() -> None:
    """Coordinates stay those of the pictures; several parts may be of one picture, of a sequence of arrays that are no one array."""
    images = list(noise(3, 50, 64))
    parts: Int64 = np.array([[10, 5, 40, 45], [0, 0, 64, 50], [63, 49, 64, 50], [20, 20, 31, 29]])
    of: Int64 = np.array([2, 0, 0, 2])
    areas = Summer("cpu")(images, parts, of)
    assert torch.equal(areas.limits, torch.from_numpy(parts))
    found = means(areas, range(4), crop_cells(torch.from_numpy(parts), 24), 24, 24)
    for crop, (x1, y1, x2, y2), number in zip(found, parts, of, strict=True):
        assert torch.equal(crop, scaled(images[number][y1:y2, x1:x2], 24, 24))


def test_a_table_is_made_anew_in_the_same_memory() -> None:
    """First a long one, then a short one: nothing of the first shows."""
    summer = Summer("cpu")
    summer(np.full((4, 90, 90, 3), 255, np.uint8))
    images = noise(2, 40, 31)
    found = patches(summer(images), (40, 31), [0, 1], [(9, 8)] * 2, [(0, 0)] * 2, 9, 8)
    assert torch.equal(found, torch.stack([scaled(image, 9, 8) for image in images]))


def test_pictures_that_are_views() -> None:
    """Mirrored, turned, every second pixel: strides that no copy was made of; and one that may not be written to."""
    image = noise(1, 40, 60)[0]
    fixed = image.copy()
    fixed.setflags(write=False)
    for view in (image[:, ::-1], image[::-1], image[::2, ::2], image.transpose(1, 0, 2), image[:, :, ::-1], fixed):
        for areas in both([view]):
            found = means(areas, [0], crop_cells(torch.tensor([[1, 2, 19, 17]]), 24), 24, 24)
            assert torch.equal(found[0], scaled(np.ascontiguousarray(view[2:17, 1:19]), 24, 24))


def test_sums_that_wrap_around_are_right() -> None:
    """White, 4096 x 2304: the sums of all its pixels pass 2^31, those of a picture of 9.4 million pixels may."""
    image = np.full((2304, 4096, 3), 255, np.uint8)
    image[-300:, -300:] = noise(1, 300, 300)[0]
    assert int(image[..., 0].astype(np.int64).sum()) > 2**31
    areas = Summer("cpu")([image])
    assert int(areas.table.min()) < 0
    edges = [[3796, 2004, 4096, 2304], [3990, 2100, 4095, 2303], [3700, 1900, 4096, 2304], [0, 0, 4096, 2000]]
    found = means(areas, [0] * 4, crop_cells(torch.tensor(edges), 48), 48, 48)
    for crop, (x1, y1, x2, y2) in zip(found, edges, strict=True):
        assert torch.equal(crop, scaled(image[y1:y2, x1:x2], 48, 48))
    level = patches(areas, (2304, 4096), [0], [(692, 1229)], [(0, 0)], 692, 1229)[0]
    assert torch.equal(level, scaled(image, 692, 1229))
