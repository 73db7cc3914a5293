"""The pyramid's parts: however a scaled picture is cut up, its cells are the same."""

from __future__ import annotations

import numpy as np
import pytest

from extractors.face import pyramid
from extractors.face.areas import PixelAreas
from extractors.face.networks import load_networks
from extractors.face.pyramid import Patches, Pyramid


def one(height: int, width: int) -> Patches:
    number, pair = np.zeros(1, np.int64), np.zeros((1, 2), np.int64)
    return Patches(height=height, width=width, picture=number, level=number, corner=pair, scaled_px=pair)


@pytest.mark.parametrize("width", [12, 577, 656, 794, 903, 1002, 1008, 2304, 4200])
def test_bands_cover_the_picture_and_share_what_a_cell_needs(width: int) -> None:
    """Phones' portrait pictures too, of which the last band once had no rows left."""
    for height in range(12, 4400, 1 if 600 < width < 1100 else 7):
        bands = list(one(height, width).bands(1 << 16))
        rows = [(int(band.corner[0, 0]), band.height) for band in bands]
        assert rows[0][0] == 0
        assert sum(rows[-1]) == height
        assert all(first % pyramid.STRIDE_PX == 0 and n >= pyramid.CELL_PX - 1 for first, n in rows)  # the last cell may see one row less
        assert [first + n - 10 for first, n in rows[:-1]] == [first for first, _ in rows[1:]]
        assert max(n for _, n in rows) <= max((1 << 16) // width, pyramid.MIN_BAND_PX) + 1


@pytest.mark.parametrize("side_px", [203, 204, 205, 206])
def test_bands_have_the_cells_of_the_whole(side_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell that could be a face, its place and its score to the bit: noise has hundreds, at the edges too."""
    image = np.random.default_rng(side_px).integers(0, 256, (side_px, 311, 3)).astype(np.uint8)
    finder = Pyramid(network=load_networks("cpu", "float32").pnet, min_face_px=12)
    plan = finder.everything(side_px, 311, 1)
    monkeypatch.setattr(pyramid, "THRESHOLD", 0.01)
    found = []
    for n_pixels, min_px in ((1 << 30, 64), (1, 64), (1, 14)):
        monkeypatch.setattr(pyramid, "MIN_BAND_PX", min_px)
        monkeypatch.setattr(pyramid, "PIXELS_OF_ONE", {"cpu": n_pixels})
        found.append(finder.candidates(PixelAreas([image]), plan, side_px, 311))
    assert len(found[0]) > 100
    for other in found[1:]:
        np.testing.assert_array_equal(other.boxes, found[0].boxes)
        np.testing.assert_array_equal(other.score, found[0].score)
