"""Hard cuts: found where two shots meet, and nowhere within one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from extractors.contract import UInt8
from extractors.face.cuts import Cuts


def shots(images: Iterable[UInt8]) -> list[int]:
    cuts = Cuts()
    return [cuts.shot(image) for image in images]


def decoded(path: Path, n: int | None = None) -> list[UInt8]:
    """The first n frames, all where n is None, each made small: a thumbnail is all that is compared."""
    import av

    images: list[UInt8] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            images.append(np.asarray(frame.to_ndarray(format="rgb24", width=160, height=90), np.uint8))
            if len(images) == n:
                break
    return images


def plain(grey: int, height: int = 48, width: int = 64) -> UInt8:
    return np.full((height, width, 3), grey, np.uint8)


@pytest.mark.parametrize("name", ["crying_640", "single_face", "speech_512", "crowd_1080p", "no_face"])
def test_there_is_no_cut_within_a_shot(media: Path, name: str) -> None:
    assert set(shots(decoded(media / f"{name}.mp4"))) == {0}


def test_where_one_clip_follows_another_there_is_a_cut(media: Path) -> None:
    """Every clip after every other, and only there."""
    clips = [decoded(media / f"{name}.mp4", 12) for name in ("single_face", "crying_640", "speech_512", "crowd_1080p", "far_face_480")]
    for i, before in enumerate(clips):
        for j, after in enumerate(clips):
            if i != j:
                assert shots([*before, *after]) == [0] * 12 + [1] * 12, (i, j)


def test_a_change_of_size_is_a_cut_whatever_it_shows() -> None:
    assert shots([plain(90), plain(90), plain(90, 96, 128), plain(90, 96, 128), plain(90)]) == [0, 0, 1, 1, 2]


def test_a_flash_counts_as_two() -> None:
    assert shots([plain(60)] * 5 + [plain(250)] + [plain(60)] * 5) == [0] * 5 + [1] + [2] * 5


def test_a_fade_is_no_cut() -> None:
    """Over half a second: every pixel changes by 20 a frame."""
    assert set(shots(plain(grey) for grey in range(0, 250, 20))) == {0}


def test_a_shaken_picture_may_change_more_before_it_is_a_cut() -> None:
    """By 15 a frame, then by 30, twice as much, without a cut; the same change of 30 is one in a picture that stood still."""
    shaken = [plain(100 + 15 * (i % 2)) for i in range(20)] + [plain(100 + 30 * (i % 2)) for i in range(10)]
    assert set(shots(shaken)) == {0}
    assert shots([*shaken, plain(240), plain(240)])[-3:] == [0, 1, 1]
    assert shots([plain(100)] * 20 + [plain(130)]) == [0] * 20 + [1]


def test_the_first_picture_and_none() -> None:
    assert shots([]) == []
    assert shots([plain(255, 1, 1)]) == [0]


def test_black_into_a_picture_and_back() -> None:
    """What was usual before a cut does not count after it: two cuts a frame apart are both found."""
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert shots([plain(0), plain(0), noise, 255 - plain(0), plain(0)]) == [0, 0, 1, 2, 3]
