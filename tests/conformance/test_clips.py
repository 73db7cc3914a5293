"""What every extractor of clips must do: clips(valid) and embed_clips(clips), with its defaults and with other parameters."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from extractors.contract import UInt8

Build = Callable[..., Any]
Clipper = tuple[str, dict[str, Any]]  # an extractor's name and its parameters
LARGEST_FLOAT16 = 65504.0  # a store's default type


@pytest.fixture
def extractor(kept: Build, clipper: Clipper) -> Any:
    return kept(clipper[0], **clipper[1])


@pytest.fixture
def films(extractor: Any, golden: types.ModuleType) -> UInt8:
    """(4, clip_frames, size_px, size_px, 3): black, then three in which a face, its mirror image and coarse noise take turns."""
    moving = golden.clips(extractor)
    return np.concatenate([np.zeros_like(moving[:1]), moving])


def test_clips_are_of_the_rows_there_are(extractor: Any) -> None:
    for valid in (np.zeros(0), np.zeros(1), np.ones(1), np.zeros(50), np.ones(50), np.arange(50) % 7 == 3, np.arange(50) > 40):
        given = np.asarray(valid, np.bool_)
        before = given.copy()
        clips, again = extractor.clips(given), extractor.clips(given)
        assert clips.rows.dtype == clips.at.dtype == np.int64
        assert all(np.array_equal(getattr(clips, name), getattr(again, name)) for name in ("rows", "at", "valid"))
        assert ((clips.at >= 0) & (clips.at < len(given))).all()
        assert ((clips.rows >= 0) & (clips.rows < len(given))).all()
        assert given[clips.rows[clips.valid]].all(), "a clip shows faces only"
        assert (np.diff(clips.rows, axis=1)[clips.valid] >= 0).all(), "in the order of time"
        assert not (clips.valid & ~given[clips.at]).any(), "the mask travels along"
        assert clips.valid.any() == given[clips.at].any()
        np.testing.assert_array_equal(given, before)


def test_values_have_their_form_and_range(clipper: Clipper, extractor: Any, rows: dict[str, Any], films: UInt8) -> None:
    assert clipper[1] or extractor.dim == rows[clipper[0]].dim
    assert all(type(number) is int and number > 0 for number in (extractor.dim, extractor.size_px, extractor.batch))
    before = films.copy()
    for n in (0, 1, len(films)):
        values = extractor.embed_clips(films[:n])
        assert values.shape == (n, extractor.dim)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert np.abs(values).max(initial=0) <= LARGEST_FLOAT16
    assert len({row.tobytes() for row in values}) == len(films), "different clips, different values"
    np.testing.assert_array_equal(films, before)


def test_values_depend_on_their_clip_only(clipper: Clipper, extractor: Any, build: Build, films: UInt8) -> None:
    """The same call gives the same bits. Another batch size may take other kernels: rounding only, 2e-5 of the deviation."""
    values = extractor.embed_clips(films)
    np.testing.assert_array_equal(extractor.embed_clips(films), values)
    np.testing.assert_array_equal(build(clipper[0], **clipper[1]).embed_clips(films), values)
    for others in (extractor.embed_clips(films[::-1])[::-1], np.concatenate([extractor.embed_clips(one[None]) for one in films])):
        np.testing.assert_allclose(others, values, rtol=0, atol=2e-5 * values.std())


def test_values_depend_on_the_order_of_pictures(extractor: Any, films: UInt8) -> None:
    values, backwards = extractor.embed_clips(films[1:2]), extractor.embed_clips(films[1:2, ::-1])
    assert np.abs(values - backwards).max() > 1e-3 * values.std()


@pytest.mark.slow
def test_every_listed_precision_points_the_same_way(clip_name: str, kept: Build, build: Build, golden: types.ModuleType) -> None:
    """One clip of two pictures: convolutions in half precision are slow on a processor."""
    extractor = kept(clip_name, clip_frames=2)
    clip = golden.clips(extractor)[:1]
    full = extractor.embed_clips(clip)
    for precision in extractor.precisions[1:]:
        half = build(clip_name, precision=precision, clip_frames=2).embed_clips(clip)
        assert half.dtype == np.float32
        assert (half * full).sum() / np.linalg.norm(half) / np.linalg.norm(full) > 0.999


def test_other_clips_are_refused(extractor: Any, films: UInt8) -> None:
    for wrong in (films[:, 1:], films[0], films[..., :1], films[:, :, 1:], films / np.float32(255)):
        with pytest.raises(ValueError, match=r"^clips: expected \(N, \d+, \d+, \d+, 3\) uint8, got "):
            extractor.embed_clips(wrong)
