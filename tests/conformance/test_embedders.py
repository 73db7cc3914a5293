"""What every extractor of pictures must do: embed(crops)."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extractors.contract import UInt8

Build = Callable[..., Any]
LARGEST_FLOAT16 = 65504.0  # a store's default type


@pytest.fixture
def pictures(embedder: str, kept: Build, golden: types.ModuleType) -> UInt8:
    """(5, S, S, 3) of the extractor's size: black, white, a face, its mirror image, coarse noise."""
    size_px = kept(embedder).size_px
    flat = np.stack([np.full((size_px, size_px, 3), grey, np.uint8) for grey in (0, 255)])
    return np.concatenate([flat, golden.crops(size_px)])


def test_embeddings_have_their_form_and_range(embedder: str, rows: dict[str, Any], kept: Build, pictures: UInt8) -> None:
    extractor, before = kept(embedder), pictures.copy()
    assert extractor.dim == rows[embedder].dim
    assert all(type(number) is int and number > 0 for number in (extractor.dim, extractor.size_px, extractor.batch))
    for n in (0, 1, len(pictures)):
        values = extractor.embed(pictures[:n])
        assert values.shape == (n, extractor.dim)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert np.abs(values).max(initial=0) <= LARGEST_FLOAT16
    assert len({row.tobytes() for row in values}) == len(pictures), "different pictures, different values"
    np.testing.assert_array_equal(pictures, before)


def test_embeddings_depend_on_their_picture_only(embedder: str, kept: Build, build: Build, pictures: UInt8) -> None:
    """The same call gives the same bits. Another batch size may take other kernels: rounding only, 2e-5 of the deviation.

    The largest seen, of iresnet50's fifty layers: under 1e-5 on an Intel Xeon, 1.05e-5 on an AMD EPYC.
    """
    extractor = kept(embedder)
    values = extractor.embed(pictures)
    np.testing.assert_array_equal(extractor.embed(pictures), values)
    np.testing.assert_array_equal(build(embedder).embed(pictures), values)
    for others in (extractor.embed(pictures[::-1])[::-1], np.concatenate([extractor.embed(one[None]) for one in pictures])):
        np.testing.assert_allclose(others, values, rtol=0, atol=2e-5 * values.std())


def test_every_listed_precision_points_the_same_way(embedder: str, build: Build, kept: Build, pictures: UInt8) -> None:
    """Of the face: convolutions in half precision are slow on a processor."""
    full = kept(embedder).embed(pictures[2:3])
    for precision in kept(embedder).precisions[1:]:
        half = build(embedder, precision=precision).embed(pictures[2:3])
        assert half.dtype == np.float32
        cosine = (half * full).sum(axis=1) / np.linalg.norm(half, axis=1) / np.linalg.norm(full, axis=1)
        assert (cosine > 0.999).all()


def test_pictures_are_brought_to_size_as_its_reference_does(embedder: str, rows: dict[str, Any], kept: Build) -> None:
    """Its own inputs have their size already, so that no other test can tell."""
    assert getattr(kept(embedder), "resample", "area") == rows[embedder].resample


def test_other_pictures_are_refused(embedder: str, kept: Build, pictures: UInt8) -> None:
    size_px = kept(embedder).size_px
    for wrong in (pictures[:, 1:], pictures[0], pictures[..., :1], pictures / np.float32(255)):
        with pytest.raises(ValueError, match=rf"^crops: expected \(N, {size_px}, {size_px}, 3\) uint8, got "):
            kept(embedder).embed(wrong)
